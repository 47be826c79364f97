//! Models that come and go: loaded after attach, replaced all the time, or alive for one call only.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::time::Duration;

use crate::resources::Resources;
use anyhow::{Context, Result, bail, ensure};
use tracer_tests::python::{Interpreter, SCIKIT_LEARN, all};
use tracer_tests::python_run::PythonRun;
use tracer_tests::spans::{SpanRow, Spans};
use tracer_tests::suite::{Case, Need, case_of, do_meet};
use tracer_tests::tracer::{Trace, Tracer};

type Test = fn(Interpreter) -> Result<()>;

/// The tests. Of two that differ in what comes each version has one, and both in a full run.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let plain: [(&str, Test); 2] =
        [("models_that_are_replaced", replaced), ("models_that_live_for_one_call", for_one_call)];
    let scikit_learn: [(&str, Test); 2] =
        [("models_loaded_after_attach", loaded_late), ("programs_begun_under_the_tracer", begun_here)];
    let mut cases = Vec::new();
    for (tests, versions) in [(plain, all().as_slice()), (scikit_learn, &SCIKIT_LEARN)] {
        for (number, (name, test)) in tests.into_iter().enumerate() {
            for (_, interpreter) in versions.iter().enumerate().filter(|(version, _)| do_meet(number, *version, 0)) {
                let (name, interpreter) = (format!("{name}_{}", interpreter.label()), *interpreter);
                cases.push(case_of(name, needs(interpreter), move || test(interpreter)));
            }
        }
    }
    cases
}

/// Predictions in a batch of about two seconds.
const PREDICTIONS: usize = 600;

/// Batches in which the tracer finds out what is called, and those that it must see whole. It gives each code that may be called a
/// turn of a second, and on a busy machine it has taken up to five.
const WARM_UP: usize = 3;
const BATCHES: usize = 3;

fn replaced(interpreter: Interpreter) -> Result<()> {
    come_and_go(interpreter, "unpickled")
}

fn for_one_call(interpreter: Interpreter) -> Result<()> {
    come_and_go(interpreter, "request")
}

/// Once the tracer has found what is called, every prediction has its spans, whatever object makes it; and the tracer holds
/// no more after many looks at a process whose objects are replaced all the time.
fn come_and_go(interpreter: Interpreter, what: &str) -> Result<()> {
    let run = PythonRun::of(interpreter, "python_plain", &[what, &PREDICTIONS.to_string()])
        .map("targets/python_plain/map.yaml");
    let mut target = run.start()?;
    let attached = run.attach(&target)?;
    for _ in 0..WARM_UP {
        target.batch()?;
    }
    let before = Resources::lasting(attached.running.pid())?;
    for _ in 0..BATCHES {
        target.batch()?;
    }
    let after = Resources::lasting(attached.running.pid())?;
    let trace = attached.stop()?;
    let finished = target.finish()?;
    ensure!(finished.code == Some(0), "{finished:?}");
    trace.check_whole()?;
    before.is_much_like(after)?;
    whole_trees(&trace, BATCHES * PREDICTIONS).with_context(|| format!("{}", trace.summary.0))?;
    for watched in ["Chain.predict", "Scale.transform"] {
        ensure!(trace.summary.watched().contains(watched), "{watched} is not told: {}", trace.summary.0);
    }
    Ok(())
}

/// The last predictions are whole, and no step has the name of another.
fn whole_trees(trace: &Trace, count: usize) -> Result<()> {
    for (root, children) in last_trees(&trace.spans, count)? {
        let names: Vec<&str> = children.iter().map(|row| row.span.name.as_str()).collect();
        let order = match (root.span.name.as_str(), names.as_slice()) {
            ("Chain.predict", ["Scale.transform", "Scale.transform", "Tree.predict"]) => ["first", "second", "last"],
            ("Chain.predict", ["Scale.transform", "Scale.transform", "Above.predict"]) => ["second", "first", "last"],
            (root, names) => bail!("{root} with {names:?}"),
        };
        for (child, right) in children.iter().zip(order) {
            let told = child.text("ml.step");
            ensure!(told.is_none_or(|told| told == right), "{told:?} instead of {right} in {names:?}");
        }
    }
    Ok(())
}

/// The last roots, so many, each with the spans right inside it, in the order of their start.
fn last_trees(spans: &Spans, count: usize) -> Result<Vec<(&SpanRow, Vec<&SpanRow>)>> {
    let mut rows: Vec<&SpanRow> = spans.0.iter().collect();
    rows.sort_by_key(|row| row.span.start_time_unix_nano);
    let mut inside: HashMap<&[u8], Vec<&SpanRow>> = HashMap::new();
    for row in rows {
        inside.entry(&row.span.parent_span_id).or_default().push(row);
    }
    let roots = inside.get([].as_slice()).map(Vec::as_slice).unwrap_or_default();
    let first = roots.len().checked_sub(count).with_context(|| format!("{} predictions are seen", roots.len()))?;
    let tree = |root: &&'_ SpanRow| inside.get(root.span.span_id.as_slice()).cloned().unwrap_or_default();
    Ok(roots.iter().skip(first).map(|root| (*root, tree(root))).collect())
}

/// What a process imports and loads some seconds after attach is found and then seen whole, with the names of its steps.
fn loaded_late(interpreter: Interpreter) -> Result<()> {
    const PREDICTIONS: usize = 50;
    let run = PythonRun::of(interpreter, "python_late", &[&PREDICTIONS.to_string()]);
    let mut target = run.start()?;
    let attached = run.attach(&target)?;
    std::thread::sleep(Duration::from_secs(3));
    // The first batch trains; of the next two the tracer learns what is called.
    for _ in 0..3 {
        target.batch()?;
        std::thread::sleep(Duration::from_secs(2));
    }
    target.batch()?;
    target.batch()?;
    let trace = attached.stop()?;
    let finished = target.finish()?;
    ensure!(finished.code == Some(0), "{finished:?}");
    // A shared wrapper is watched as soon as it is there: calls of classes that are imported after that look are counted as
    // lost, because it is not known whose they are.
    trace.check_books()?;
    trace.spans.check()?;
    whole_pipelines(&trace, 2 * PREDICTIONS)
}

/// A program that the tracer has begun is watched from its first object on, or soon after, and then what was before is told.
fn begun_here(interpreter: Interpreter) -> Result<()> {
    let command = interpreter.command("targets/python_late/target.py")?;
    let arguments = [OsStr::new("0"), OsStr::new("6")];
    let words: Vec<&OsStr> = [command.get_program()].into_iter().chain(command.get_args()).chain(arguments).collect();
    let mut tracer = Tracer::run()?;
    for (name, value) in command.get_envs() {
        let value = value.and_then(OsStr::to_str).unwrap_or_default();
        tracer = tracer.variable(&name.to_string_lossy(), value);
    }
    let trace = tracer.finish_with(&words)?;
    ensure!(trace.finished.code == Some(0), "{:?}", trace.finished);
    trace.check_books()?;
    whole_pipelines(&trace, 100)?;
    let python = trace.summary.python().first().context("no interpreter")?;
    let after = python["seen_after_ms"].as_u64();
    // Debian's CPython 3.14 is compiled so that objects are made in several places.
    ensure!(after.is_none() || interpreter == Interpreter::Sid, "{python}");
    let told =
        after.map_or("not watched before".to_owned(), |after| format!("not watched before {after} ms after its start"));
    ensure!(trace.finished.errors.contains(&told) == after.is_some(), "{}", trace.finished.errors);
    Ok(())
}

fn whole_pipelines(trace: &Trace, count: usize) -> Result<()> {
    for (root, children) in last_trees(&trace.spans, count)? {
        let children: Vec<_> = children.iter().map(|row| (row.span.name.as_str(), row.text("ml.step"))).collect();
        let expected = [
            ("StandardScaler.transform", Some("scaler")),
            ("PolynomialFeatures.transform", Some("poly")),
            ("LogisticRegression.predict", Some("clf")),
        ];
        let is_whole = root.span.name == "Pipeline.predict" && children == expected;
        ensure!(is_whole, "{} with {children:?}: {}", root.span.name, trace.summary.0);
    }
    Ok(())
}
