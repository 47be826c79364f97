//! Models that contain models: whole trees where all calls are seen. Where four code objects can be watched the outermost call
//! keeps its watchpoint.

use anyhow::{Result, ensure};
use tracer_tests::process::poll;
use tracer_tests::python::{CHAIN, Interpreter, SCIKIT_LEARN};
use tracer_tests::python_run::PythonRun;
use tracer_tests::spans::{SpanRow, Spans};
use tracer_tests::suite::{Case, Need, case_of, do_meet};
use tracer_tests::tracer::Trace;

/// Spans that are looked at, the last ones.
const LAST: usize = 8;

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let mut cases = Vec::new();
    for (version, interpreter) in SCIKIT_LEARN.into_iter().enumerate() {
        let label = interpreter.label();
        for (place, mode) in ["frames", CHAIN].into_iter().enumerate() {
            if do_meet(0, version, place) {
                let name = format!("models_in_models_{mode}_{label}");
                cases.push(case_of(name, needs(interpreter), move || whole_trees(interpreter, mode)));
            }
        }
        if do_meet(1, version, 0) {
            let name = format!("outermost_calls_stay_watched_{label}");
            cases.push(case_of(name, needs(interpreter), move || outermost(interpreter)));
        }
    }
    cases
}

/// Every kind of container, each call of which has its span at its place, with the name of its step; and one of many models, which
/// is not looked into.
fn whole_trees(interpreter: Interpreter, mode: &str) -> Result<()> {
    for kinds in [&["3"][..], &["3", "many"]] {
        let run = PythonRun::of(interpreter, "python_containers", kinds).forked();
        run.tracer_arguments(&["--python", mode]).exact()?;
    }
    Ok(())
}

/// A classifier over others, whose code is called less often than that of the others and of their steps.
fn outermost(interpreter: Interpreter) -> Result<()> {
    let trace = watched_until(interpreter, "stacking", |spans| {
        let roots = last(spans, |row| row.span.parent_span_id.is_empty());
        roots.len() == LAST && roots.iter().all(|row| row.span.name == "StackingClassifier.predict")
    })?;
    trace.spans.check()
}

/// Has one kind of model predict in watch mode until the spans say what they should.
fn watched_until(interpreter: Interpreter, kind: &str, is_so: impl Fn(&Spans) -> bool) -> Result<Trace> {
    let run = PythonRun::of(interpreter, "python_containers", &["10", kind]).forked();
    let mut target = run.start()?;
    let attached = run.attach(&target)?;
    let file = attached.file("spans.jsonl");
    poll("the spans of what is watched in the end", || {
        target.batch()?;
        // What is being written has no end yet.
        Ok(Spans::read(&file).is_ok_and(|spans| is_so(&spans)).then_some(()))
    })?;
    let trace = attached.stop()?;
    let finished = target.finish()?;
    ensure!(finished.code == Some(0), "{finished:?}");
    trace.check_books()?;
    Ok(trace)
}

/// The spans of a kind that began last.
fn last(spans: &Spans, which: impl Fn(&SpanRow) -> bool) -> Vec<&SpanRow> {
    let mut rows: Vec<&SpanRow> = spans.0.iter().filter(|row| which(row)).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.span.start_time_unix_nano));
    rows.truncate(LAST);
    rows
}
