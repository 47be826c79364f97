//! Libraries and shapes of code that nobody wrote for the tracer.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tracer_tests::suite::{Case, Need, case, report};
use tracer_tests::targets::{Target, build};
use tracer_tests::tracer::{NEST_ALL, Trace, Tracer, ml_tracer};
use tracer_tests::workspace;

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel];
    const MODELS: &[Need] = &[Need::Program, Need::Kernel, Need::Models];
    vec![
        case("c_library_arguments_and_errors", NEEDS, c_library),
        case("c_functions_of_generated_models", NEEDS, c_functions),
        case("libraries_of_others_want_a_map", NEEDS, libraries_of_others),
        case("smartcore_in_rust", NEEDS, smartcore),
        case("odd_shapes_are_exact_or_refused", NEEDS, odd_shapes),
        case("module_loaded_before_attach", NEEDS, module_loaded_before),
        case("module_loaded_after_attach", NEEDS, module_loaded_after),
        case("two_processes_at_once", NEEDS, two_processes),
        case("xgboost_attaches_fast_and_small", MODELS, xgboost),
        case("lightgbm_predicts", MODELS, lightgbm),
    ]
}

fn c_library() -> Result<()> {
    let mut target = Target::start("c_library", &["--requests", "50"])?;
    let map = workspace::tests("targets/c_library/map.yaml");
    let attached = Tracer::attach(target.pid())?.map_file(&map)?.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    ensure!(trace.spans.count("Model.predict") == 50, "{:?}", trace.summary);
    let mut rows: Vec<_> = trace.spans.named("Model.predict").collect();
    rows.sort_by_key(|row| row.span.start_time_unix_nano);
    for (request, row) in (0i64..).zip(rows) {
        let fails = request % 5 == 4;
        ensure!(row.integer("ml.rows") == Some(1 + request % 16), "request {request}: {row:?}");
        ensure!(row.integer("ml.columns") == Some(if fails { 3 } else { 4 }), "request {request}: {row:?}");
        ensure!(row.is_error() == fails && row.ending() == "returned", "request {request}: {row:?}");
        ensure!(row.text("error.type").is_some() == fails, "request {request}: {row:?}");
    }
    Ok(())
}

/// No map is needed for functions of C with a model's name.
fn c_functions() -> Result<()> {
    let mut target = Target::start("c_functions", &["--requests", "50"])?;
    let attached = Tracer::attach(target.pid())?.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    ensure!(trace.spans.0.len() == 100, "{:?}", trace.summary);
    for name in ["score", "predict"] {
        ensure!(trace.spans.count(name) == 50, "{} of {name}", trace.spans.count(name));
    }
    Ok(())
}

/// What a package brings has functions of the same names: they are listed, and traced when a map names the library.
fn libraries_of_others() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let package = folder.path().join("site-packages/model");
    fs::create_dir_all(&package)?;
    let library = package.join("libplugin.so");
    fs::copy(build("libplugin.so")?, &library)?;
    let plugin = library.to_string_lossy().into_owned();
    let mut target = Target::start("cpp_dlopen", &["--plugin", &plugin, "--rounds", "1", "--keep"])?;
    target.batch()?;
    let pid = target.pid().to_string();
    let refused = ml_tracer(["attach", "--pid", &pid, "--duration", "1s"])?;
    ensure!(refused.code == Some(5) && refused.errors.contains("nothing to trace"), "{refused:?}");
    let listed = ml_tracer(["symbols", "--pid", &pid])?;
    let reason = format!(
        "{plugin}: it is in a library of an installed package that no map names; a map with `module: FILE` traces it"
    );
    ensure!(listed.output.contains(&reason) && listed.output.contains("    Model.predict\n"), "{listed:?}");
    // A file that is named is asked for.
    let named = ml_tracer(["symbols", &plugin])?;
    ensure!(named.code == Some(0) && named.output.contains("  Model.predict  entry"), "{named:?}");
    let map = "schema: ml-tracer/v1\nlibrary: plugin\nlanguage: cpp\nmodule: libplugin.so\nmethods: [predict]\n";
    let attached = Tracer::attach(target.pid())?.map(map)?.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    ensure!(trace.spans.count("Model.predict") == 20, "{:?}", trace.summary);
    Ok(())
}

fn smartcore() -> Result<()> {
    for build in ["rust_smartcore", "rust_smartcore_v0"] {
        let mut target = Target::start(build, &["30"])?;
        let attached = Tracer::attach(target.pid())?.start()?;
        target.batch()?;
        let trace = attached.stop()?;
        target.finish()?;
        trace.check_whole()?;
        for name in ["StandardScaler.transform", "LogisticRegression.predict", "RandomForestClassifier.predict"] {
            ensure!(trace.spans.count(name) == 30, "{build}: {} of {name}", trace.spans.count(name));
        }
    }
    Ok(())
}

/// Calls of each shape for 40 values, 0 to 39, as the machine code makes them; these must all be traced.
const TRACED_SHAPES: &[(&str, usize)] = &[
    ("ManyReturns", 40),
    ("RepeatedReturn", 40),
    ("ReturnWithCount", 40),
    ("TailJump", 40),
    ("ConditionalTail", 40),
    ("PaddedEntry", 40),
    ("Next", 40),
    ("SiblingCall", 40),
    ("JumpTable", 40),
    ("ColdPart", 40),
    ("LargeFrame", 40),
    // Called directly, by TailJump and OnlyJump, and by ConditionalTail for odd values.
    ("Target", 40 + 40 + 40 + 20),
];

/// Shapes that may be refused, with a reason. If traced, each has this many calls. The last two jump to their own
/// beginning, three and five less each time: a pass is a call that ends in a tail call.
const HARD_SHAPES: &[(&str, usize)] =
    &[("OnlyJump", 40), ("VirtualTail", 40), ("NeverReturns", 40), ("LoopToEntry", passes(3)), ("SelfTail", passes(5))];

const fn passes(step: usize) -> usize {
    let mut value = 0;
    let mut sum = 0;
    while value < 40 {
        sum += value / step + 1;
        value += 1;
    }
    sum
}

/// Every number that these return is called an error. Who jumps to another function has returned none: that one may.
const RETURNED_VALUES: &[(&str, usize)] = &[("SiblingCall", 14), ("TailJump", 0)];

/// That, to stand before [`NEST_ALL`].
const ERRORS: &str = "schema: ml-tracer/v1\nlibrary: test-errors\nlanguage: cpp\nfunctions:\n\
    - {symbol: _ZN6shapes11SiblingCall7predictEl, span: SiblingCall.predict, error: {when: return != 0}}\n\
    - {symbol: _ZN6shapes8TailJump7predictEl, span: TailJump.predict, error: {when: return != 0}}\n---\n";

fn odd_shapes() -> Result<()> {
    for build in ["cpp_tail_calls", "cpp_tail_calls_marked"] {
        let mut target = Target::start(build, &["--requests", "40"])?;
        let listed = ml_tracer(["symbols", "--json", "--pid", &target.pid().to_string()])?;
        let listed: Value = serde_json::from_str(&listed.output).with_context(|| format!("{listed:?}"))?;
        let refused = listed.get("skipped").and_then(Value::as_array).context("no list of refused functions")?;
        let attached = Tracer::attach(target.pid())?.map(&format!("{ERRORS}{NEST_ALL}"))?.start()?;
        target.batch()?;
        let trace = attached.stop()?;
        target.finish()?;
        trace.check_whole()?;
        for (class, calls) in TRACED_SHAPES {
            let seen = trace.spans.count(&format!("{class}.predict"));
            ensure!(seen == *calls, "{build}: {seen} spans of {class}, {calls} calls");
        }
        for (class, calls) in HARD_SHAPES {
            let text = |function: &Value, key: &str| function.get(key).and_then(Value::as_str).map(str::to_owned);
            let reason = refused.iter().find(|function| text(function, "class").as_deref() == Some(*class));
            let seen = trace.spans.count(&format!("{class}.predict"));
            match reason.and_then(|function| text(function, "why")) {
                Some(why) => ensure!(seen == 0 && !why.is_empty(), "{build}: {class} is refused and has spans"),
                None => ensure!(seen == *calls, "{build}: {seen} spans of {class}, {calls} calls"),
            }
        }
        let unwound = trace.spans.ended("unwound");
        let thrown = trace.spans.count("NeverReturns.predict");
        ensure!(unwound == thrown, "{build}: {unwound} unwound, {thrown} threw");
        for (class, errors) in RETURNED_VALUES {
            let told = trace.spans.named(&format!("{class}.predict")).filter(|row| row.is_error()).count();
            ensure!(
                told == *errors,
                "{build}: {told} errors of {class}, {errors} calls that were seen to return a number"
            );
        }
    }
    Ok(())
}

fn start_with_plugin(arguments: &[&str]) -> Result<Target> {
    let plugin = build("libplugin.so")?;
    let mut all = vec!["--plugin", plugin.to_str().context("the path is text")?, "--keep", "--rounds", "1"];
    all.extend(arguments);
    Target::start("cpp_dlopen", &all)
}

fn module_loaded_before() -> Result<()> {
    let mut target = start_with_plugin(&[])?;
    target.batch()?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    ensure!(trace.spans.count("Model.predict") == 20, "{:?}", trace.summary);
    Ok(())
}

/// The tracer notices a new module within a moment; batches go on until it has.
fn module_loaded_after() -> Result<()> {
    let mut target = start_with_plugin(&[])?;
    let attached = Tracer::attach(target.pid())?.map(&format!("{NEST_ALL}---\n{}", sleeping_rule()))?.start()?;
    let text = fs::read_to_string(format!("/proc/{}/maps", target.pid()))?;
    ensure!(!text.contains("libplugin.so"), "the module is there already");
    let file = attached.file("spans.jsonl");
    tracer_tests::process::poll("a span of the new module", || {
        target.batch()?;
        Ok(fs::read_to_string(&file)?.contains("Model.predict").then_some(()))
    })?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()
}

/// A function that `cpp_dlopen` has from the start, so that there is something to trace.
fn sleeping_rule() -> &'static str {
    "schema: ml-tracer/v1\nlibrary: test-c\nlanguage: c\nfunctions:\n  - symbol: main\n"
}

fn two_processes() -> Result<()> {
    let mut first = Target::start("cpp_threads", &["--threads", "1", "--requests", "30"])?;
    let mut second = Target::start("cpp_threads", &["--threads", "1", "--requests", "70"])?;
    let mut unrelated = Target::start("cpp_threads", &["--threads", "1", "--requests", "10"])?;
    let attached =
        Tracer::attach(first.pid())?.arguments(["--pid", &second.pid().to_string()]).map(NEST_ALL)?.start()?;
    for target in [&mut first, &mut second, &mut unrelated] {
        target.batch()?;
    }
    let trace = attached.stop()?;
    trace.check_whole()?;
    for (target, requests) in [(&first, 30), (&second, 70), (&unrelated, 0)] {
        let pid = target.pid().to_string();
        let seen = trace.spans.0.iter().filter(|row| row.resource("process.pid").as_deref() == Some(&pid)).count();
        ensure!(seen == requests * 3, "process {pid}: {seen} spans, {requests} requests");
    }
    for target in [first, second, unrelated] {
        target.finish()?;
    }
    Ok(())
}

/// Kibibytes of a line of /proc/PID/status.
fn memory_of(pid: u32, line: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let found = status.lines().find_map(|text| text.strip_prefix(line)).context("no such line in the status")?;
    Ok(found.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?)
}

fn trace_python(name: &str, requests: u32) -> Result<(Trace, u64)> {
    let mut target = Target::start_python(name, requests)?;
    let attached = Tracer::attach(target.pid())?.start()?;
    target.batch()?;
    let resident = memory_of(attached.running.pid(), "VmRSS")?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    Ok((trace, resident))
}

fn xgboost() -> Result<()> {
    let (trace, resident) = trace_python("python_xgboost", 100)?;
    let attach_ms = trace.summary.attach_ms();
    report(&format!(
        "xgboost: {} functions in {attach_ms:.0} ms, tracer's resident memory {:.1} MiB",
        trace.summary.functions(),
        resident as f64 / 1024.0
    ));
    ensure!(trace.spans.count("Booster.predict") == 100, "{} predictions", trace.spans.count("Booster.predict"));
    let nested = trace.spans.tree_lines().iter().filter(|line| line.starts_with("Booster.predict(")).count();
    ensure!(nested == 100, "{nested} predictions with the library's own calls inside");
    ensure!(attach_ms < 3000.0, "attached in {attach_ms} ms");
    ensure!(resident < 40 * 1024, "{resident} KiB of memory");
    Ok(())
}

fn lightgbm() -> Result<()> {
    let (trace, _) = trace_python("python_lightgbm", 100)?;
    ensure!(trace.spans.count("Booster.predict") == 100, "{} predictions", trace.spans.count("Booster.predict"));
    for row in trace.spans.named("Booster.predict") {
        ensure!(row.integer("ml.rows") == Some(16) && row.integer("ml.columns") == Some(6), "{row:?}");
    }
    Ok(())
}
