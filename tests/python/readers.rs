//! Whoever reads the code of a method takes references to it as its calls do, and is not a call; and no call has failed
//! without its exception.

use anyhow::{Result, ensure};
use tracer_tests::python::{Interpreter, MODES, all};
use tracer_tests::python_run::{PythonRun, PythonTrace};
use tracer_tests::suite::{Case, Need, case_of, do_meet};

type Test = fn(Interpreter, &'static str) -> Result<()>;

/// What is tested, on each version and in both modes: which of them meet is said by [`do_meet`].
const TESTS: &[(&str, Test)] = &[
    ("readers_of_code_are_no_calls", |interpreter, mode| returned(interpreter, mode, "outside", "2")),
    ("readers_inside_calls_are_no_calls", |interpreter, mode| returned(interpreter, mode, "inside", "1")),
    ("readers_under_tracing_are_no_calls", |interpreter, mode| returned(interpreter, mode, "tracing", "10")),
    ("calls_at_every_depth_of_the_stack", |interpreter, mode| returned(interpreter, mode, "deep", "800")),
    ("calls_in_what_a_call_leaves_behind", leaving),
    ("every_call_fails_and_is_formatted", failing),
    ("calls_that_are_folded_fail", folded),
    ("exceptions_that_are_caught_inside", caught),
];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let mut cases = Vec::new();
    for (number, (name, test)) in TESTS.iter().enumerate() {
        for (version, interpreter) in all().into_iter().enumerate() {
            for (_, mode) in MODES.into_iter().enumerate().filter(|(place, _)| do_meet(number, version, *place)) {
                let name = format!("{name}_{mode}_{}", interpreter.label());
                cases.push(case_of(name, needs(interpreter), move || test(interpreter, mode)));
            }
        }
    }
    cases
}

fn run(interpreter: Interpreter, mode: &str, what: &str, count: &str) -> PythonRun {
    PythonRun::of(interpreter, "python_readers", &[what, count])
        .map("targets/python_readers/map.yaml")
        .tracer_arguments(&["--python", mode])
}

fn none_failed(traced: &PythonTrace) -> Result<()> {
    let failed = traced.trace.spans.0.iter().find(|row| row.is_error() || row.ending() == "unwound");
    ensure!(failed.is_none(), "a call has failed: {failed:?}");
    Ok(())
}

fn returned(interpreter: Interpreter, mode: &str, what: &str, count: &str) -> Result<()> {
    let traced = run(interpreter, mode, what, count).exact()?;
    none_failed(&traced)?;
    let spans = &traced.trace.spans;
    ensure!(
        spans.ended("returned") == spans.0.len(),
        "{} have returned: {}",
        spans.ended("returned"),
        traced.trace.summary.0
    );
    Ok(())
}

/// What a step leaves behind predicts when the step's frame is cleared: it is part of the step, which does not look into it.
/// Where frames are on the heap, the step is not known to be there any more; in frames mode it has returned by then.
fn leaving(interpreter: Interpreter, mode: &str) -> Result<()> {
    if mode == "frames" || ["3.8", "3.9", "3.10"].contains(&interpreter.label()) {
        let traced = run(interpreter, mode, "leaving", "20").traced()?;
        traced.trace.check_whole()?;
        return none_failed(&traced);
    }
    returned(interpreter, mode, "leaving", "20")
}

fn failing(interpreter: Interpreter, mode: &str) -> Result<()> {
    let traced = run(interpreter, mode, "failing", "40").exact()?;
    let spans = &traced.trace.spans;
    ensure!(
        spans.ended("unwound") == spans.0.len(),
        "{} have failed: {}",
        spans.ended("unwound"),
        traced.trace.summary.0
    );
    Ok(())
}

fn folded(interpreter: Interpreter, mode: &str) -> Result<()> {
    let traced = run(interpreter, mode, "folded", "20").exact()?;
    ensure!(traced.trace.summary.folded() == 2 * 20 * 3, "{} calls folded", traced.trace.summary.folded());
    none_failed(&traced)
}

/// Where a traceback keeps the frame of a call that returns, CPython 3.11 and before does not show its end.
fn caught(interpreter: Interpreter, mode: &str) -> Result<()> {
    let traced = run(interpreter, mode, "caught", "40").exact()?;
    none_failed(&traced)
}
