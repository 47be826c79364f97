//! Functions whose symbols are out of the ordinary: each is traced under its own name, or said not to be.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tracer_tests::suite::{Case, Need, case};
use tracer_tests::targets::{Target, build};
use tracer_tests::tracer::{NEST_ALL, Trace, Tracer, ml_tracer};

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel];
    vec![
        case("odd_symbols_have_their_names", NEEDS, odd_symbols),
        case("the_making_of_a_future_is_no_call", NEEDS, futures),
        case("of_too_many_functions_some_are_traced", NEEDS, too_many),
        case("packed_debugging_information_is_read", NEEDS, packed),
        case("split_debugging_information_is_said", NEEDS, split),
        case("functions_without_section_headers", NEEDS, without_sections),
    ]
}

const OBJECTS: &str = "schema: ml-tracer/v1\nlibrary: test\nlanguage: cpp\nmethods: [predict, predict_proba]\n\
    recurse:\n  Chain: {children: [first, second]}\n";

fn trace(name: &str, arguments: &[&str], map: Option<&str>) -> Result<Trace> {
    let mut target = Target::start(name, arguments)?;
    let mut tracer = Tracer::attach(target.pid())?;
    if let Some(map) = map {
        tracer = tracer.map(map)?;
    }
    let attached = tracer.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    Ok(trace)
}

fn expect(build: &str, trace: &Trace, expected: &[(&str, usize)]) -> Result<()> {
    for (name, calls) in expected {
        let seen = trace.spans.count(name);
        ensure!(seen == *calls, "{build}: {seen} spans of {name}, {calls} calls");
    }
    let all: usize = expected.iter().map(|(_, calls)| calls).sum();
    ensure!(trace.spans.0.len() == all, "{build}: {} spans, {all} expected", trace.spans.0.len());
    Ok(())
}

/// What `symbols` says about a file.
fn listed(name: &str) -> Result<Value> {
    let path = build(name)?;
    let said = ml_tracer(["symbols".as_ref(), "--json".as_ref(), path.as_os_str()])?;
    serde_json::from_str(&said.output).with_context(|| format!("{said:?}"))
}

fn why_not(listing: &Value, path: &str) -> Option<String> {
    let skipped = listing.get("skipped")?.as_array()?;
    let found = skipped.iter().find(|function| function.get("path").and_then(Value::as_str) == Some(path))?;
    found.get("why").and_then(Value::as_str).map(str::to_owned)
}

/// Thunks, folded code, a name that is not ASCII, one of ten thousand bytes, and a coroutine.
fn odd_symbols() -> Result<()> {
    for build in ["cpp_odd_names", "cpp_odd_names_plain"] {
        let trace = trace(build, &["--requests", "40"], Some(NEST_ALL))?;
        expect(
            build,
            &trace,
            &[
                ("Forest.fit", 40),
                ("Forest.predict", 40),
                ("Diamond.predict", 40),
                ("Churn|Fraud.predict", 80),
                ("Schätzer.fit", 40),
                ("Wide.predict", 40),
                ("Scaler.transform", 80),
            ],
        )?;
        let row = trace.spans.named("Churn|Fraud.predict").next().context("there are 80")?;
        let names = [row.text("code.function.name"), row.text("ml.shared_code")];
        ensure!(
            names == [Some("ml::Churn::predict"), Some("ml::Fraud::predict")],
            "{build}: the names of shared code are {names:?}"
        );
        let listing = listed(build)?;
        let why = why_not(&listing, "ml::Later::predict").context("the coroutine is not listed")?;
        ensure!(why.contains("coroutine"), "{build}: {why}");
    }
    Ok(())
}

fn futures() -> Result<()> {
    let calls = [("Scaler.transform", 40), ("Waiting.predict", 10)];
    for (build, later, boxed) in [
        ("rust_async", "ml::Later::predict", "<ml::Boxed as ml::Remote>::predict"),
        ("rust_async_debug", "<ml::Later>::predict", "<ml::Boxed as ml::Remote>::predict"),
    ] {
        expect(build, &trace(build, &["10"], None)?, &calls)?;
        let listing = listed(build)?;
        for path in [later, boxed] {
            let why = why_not(&listing, path).with_context(|| format!("{build}: {path} is not listed"))?;
            ensure!(why.contains("future"), "{build}: {path}: {why}");
        }
    }
    Ok(())
}

fn too_many() -> Result<()> {
    let trace = trace("cpp_many", &["--requests", "40"], Some(NEST_ALL))?;
    expect("cpp_many", &trace, &[("Model10000.predict", 40), ("Scaler.transform", 40)])?;
    let listing = listed("cpp_many")?;
    let count = |key: &str| listing.get(key).and_then(Value::as_array).map_or(0, Vec::len);
    ensure!(count("functions") + count("skipped") == 20_002, "{} and {}", count("functions"), count("skipped"));
    ensure!(trace.summary.functions() as usize == count("functions"), "{:?}", trace.summary);
    let unreadable = listing.get("unreadable").and_then(Value::as_array).context("no list of remarks")?;
    ensure!(
        unreadable.iter().any(|line| line.as_str().is_some_and(|line| line.contains("are left out"))),
        "{unreadable:?}"
    );
    Ok(())
}

/// The same tree with `-gz` as with `-g`: the object of each call is known.
fn packed() -> Result<()> {
    let trace = trace("cpp_by_value_packed", &["--requests", "20"], Some(OBJECTS))?;
    let whole =
        "Chain.predict(Classifier.predict(Classifier.predict_proba),Classifier.predict(Classifier.predict_proba))";
    let lines = trace.spans.tree_lines();
    ensure!(lines.len() == 20 && lines.iter().all(|line| line == whole), "{lines:?}");
    let listing = listed("cpp_by_value_packed")?;
    let unreadable = listing.get("unreadable").and_then(Value::as_array).context("no list of remarks")?;
    ensure!(unreadable.is_empty(), "{unreadable:?}");
    Ok(())
}

fn split() -> Result<()> {
    let trace = trace("cpp_by_value_split", &["--requests", "20"], Some(OBJECTS))?;
    ensure!(trace.finished.errors.contains("-gsplit-dwarf"), "{:?}", trace.finished);
    Ok(())
}

/// As packers leave a program: nothing but what the loader needs.
fn without_sections() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let whole = fs::read(build("libplugin.so")?)?;
    for (name, offset) in [("none", 0), ("beyond", u64::try_from(whole.len())? + 4096)] {
        let mut bytes = whole.clone();
        bytes.get_mut(0x28..0x30).context("an ELF file")?.copy_from_slice(&offset.to_le_bytes());
        let path = folder.path().join(format!("lib{name}.so"));
        fs::write(&path, bytes)?;
        let said = ml_tracer(["symbols".as_ref(), path.as_os_str()])?;
        ensure!(said.code == Some(0) && said.output.contains("Model.predict"), "{name}: {said:?}");
    }
    Ok(())
}
