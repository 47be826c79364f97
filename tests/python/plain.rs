//! Estimators in nothing but Python, on every version of CPython: whatever may happen to their calls.

use anyhow::{Result, ensure};
use tracer_tests::python::{ALL, Interpreter};
use tracer_tests::python_run::{PythonRun, PythonTrace};
use tracer_tests::suite::{Case, Need, case_of};

/// What is tested, on each version.
const TESTS: &[(&str, fn(Interpreter) -> Result<()>)] = &[
    ("predictions_are_spans", predictions),
    ("every_form_of_a_call", forms),
    ("threads_that_begin_after_attach", threads),
    ("exception_ends_spans_as_unwound", exception),
    ("exceptions_that_are_kept", kept_exceptions),
    ("exception_caught_midway_and_raised_again", midway),
    ("folded_and_excluded_calls", folding),
    ("calls_on_the_same_object_nest", recursion),
    ("calls_from_within_generators", generators),
    ("references_by_others_are_no_calls", references),
];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let mut cases = Vec::new();
    for (name, test) in TESTS {
        for interpreter in ALL {
            cases.push(case_of(format!("{name}_{}", interpreter.label()), needs(interpreter), move || {
                test(interpreter)
            }));
        }
    }
    cases
}

fn run(interpreter: Interpreter, what: &str, count: u32) -> PythonRun {
    PythonRun::of(interpreter, "python_plain", &[what, &count.to_string()]).map("targets/python_plain/map.yaml")
}

/// Every span has returned, and none is an error.
fn all_returned(traced: &PythonTrace) -> Result<()> {
    let spans = &traced.trace.spans;
    ensure!(spans.ended("returned") == spans.0.len(), "{} have returned", spans.ended("returned"));
    ensure!(spans.0.iter().all(|row| !row.is_error()), "a span is an error");
    Ok(())
}

fn predictions(interpreter: Interpreter) -> Result<()> {
    all_returned(&run(interpreter, "chain", 200).exact()?)
}

fn forms(interpreter: Interpreter) -> Result<()> {
    all_returned(&run(interpreter, "forms", 20).exact()?)
}

fn threads(interpreter: Interpreter) -> Result<()> {
    all_returned(&run(interpreter, "threads", 100).exact()?)
}

/// Spans with an error have been unwound, the others have returned.
fn endings(traced: &PythonTrace) -> Result<()> {
    for row in &traced.trace.spans.0 {
        let expected = if row.text("error.type").is_some() { "unwound" } else { "returned" };
        ensure!(row.ending() == expected, "{} with {:?}: {}", row.span.name, row.text("error.type"), row.ending());
        ensure!(row.is_error() == (expected == "unwound"), "{} with {:?}", row.span.name, row.span.status);
    }
    Ok(())
}

fn exception(interpreter: Interpreter) -> Result<()> {
    let traced = run(interpreter, "raise", 90).exact()?;
    let mut errors = traced.trace.spans.0.iter().filter_map(|row| row.text("error.type"));
    ensure!(errors.all(|name| name == "__main__.BadRow"), "an exception has another name");
    endings(&traced)
}

fn kept_exceptions(interpreter: Interpreter) -> Result<()> {
    endings(&run(interpreter, "keep", 90).exact()?)
}

fn midway(interpreter: Interpreter) -> Result<()> {
    let traced = run(interpreter, "midway", 90).exact()?;
    let built_in = traced.trace.spans.0.iter().filter(|row| row.text("error.type") == Some("KeyError")).count();
    ensure!(built_in == 60, "{built_in} spans with a KeyError");
    endings(&traced)
}

fn folding(interpreter: Interpreter) -> Result<()> {
    let traced = run(interpreter, "forest", 50).exact()?;
    // Three trees in each forest; stumps are as if they were not there.
    ensure!(traced.trace.summary.folded() == 2 * 50 * 3, "{} calls folded", traced.trace.summary.folded());
    for row in traced.trace.spans.named("Forest.predict") {
        ensure!(row.integer("ml.folded_calls") == Some(3), "{:?}", row.integer("ml.folded_calls"));
    }
    all_returned(&traced)
}

fn recursion(interpreter: Interpreter) -> Result<()> {
    let traced = run(interpreter, "recursion", 30).exact()?;
    ensure!(traced.trace.summary.folded() == 2 * 30, "{} calls folded", traced.trace.summary.folded());
    all_returned(&traced)
}

fn generators(interpreter: Interpreter) -> Result<()> {
    all_returned(&run(interpreter, "generators", 50).exact()?)
}

fn references(interpreter: Interpreter) -> Result<()> {
    run(interpreter, "references", 200).exact().map(drop)
}
