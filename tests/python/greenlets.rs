//! Greenlets: calls that wait in the middle of one another, on one thread.

use anyhow::{Result, ensure};
use tracer_tests::python::{Interpreter, SCIKIT_LEARN};
use tracer_tests::python_run::PythonRun;
use tracer_tests::suite::{Case, Need, case_of};

/// An interpreter whose frames are on the heap, with greenlets.
const ON_THE_HEAP: Interpreter = Interpreter::Environment("plain-3.10");

/// The tests.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for interpreter in SCIKIT_LEARN.into_iter().chain([ON_THE_HEAP]) {
        for mode in ["watch", "frames", "chain"] {
            let name = format!("calls_in_greenlets_{mode}_{}", interpreter.label());
            let needs = vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
            cases.push(case_of(name, needs, move || greenlets(interpreter, mode)));
        }
    }
    cases
}

fn greenlets(interpreter: Interpreter, mode: &str) -> Result<()> {
    let arguments: &[&str] = if mode == "chain" { &["20", "through-c"] } else { &["20"] };
    let run = PythonRun::of(interpreter, "python_greenlets", arguments)
        .map("targets/python_greenlets/map.yaml")
        .tracer_arguments(&["--python", mode]);
    if interpreter == ON_THE_HEAP {
        // Calls that wait are let go there; but none has failed that has not.
        let traced = run.traced()?;
        traced.trace.check_whole()?;
        let waited = traced.trace.spans.0.iter().filter(|row| row.is_error());
        ensure!(waited.clone().all(|row| row.text("error.type") == Some("ValueError")), "{}", traced.trace.summary.0);
        let failed: u64 =
            traced.truth.spans.iter().filter(|(kind, _)| kind.error.is_some()).map(|(_, count)| count).sum();
        ensure!(waited.count() as u64 <= failed, "more have failed than {failed}: {}", traced.trace.summary.0);
        return Ok(());
    }
    let traced = run.exact()?;
    // What a greenlet calls last is not seen to end where it passes nothing after it: two calls in each of five, in each of two
    // batches.
    let may_be_open = if mode == "chain" { 2 * 5 * 2 } else { 0 };
    let (open, others): (Vec<_>, Vec<_>) =
        traced.trace.spans.0.iter().partition(|row| row.ending() == "still_open" && !row.is_error());
    ensure!(open.len() <= may_be_open, "{} calls have no end: {}", open.len(), traced.trace.summary.0);
    for row in others {
        let expected = if row.text("error.type").is_some() { "unwound" } else { "returned" };
        ensure!(row.ending() == expected && row.is_error() == (expected == "unwound"), "{:?}", row.span);
    }
    Ok(())
}
