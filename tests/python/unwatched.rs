//! A container whose steps are more than can be watched: each is seen, or named as one that is not.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use tracer_tests::python::{CHAIN, Interpreter, all};
use tracer_tests::python_run::PythonRun;
use tracer_tests::spans::{SpanRow, Spans};
use tracer_tests::suite::{Case, Need, case_of, do_meet};

/// The steps that have spans where all code is seen.
const STEPS: [&str; 5] = ["clip", "double", "shift", "square", "sum"];

/// The step that the map excludes.
const EXCLUDED: &str = "stump";

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let mut cases = Vec::new();
    for (version, interpreter) in all().into_iter().enumerate() {
        for (place, mode) in ["watch", "frames", CHAIN].into_iter().enumerate() {
            if do_meet(0, version, place) {
                let name = format!("steps_are_seen_or_named_{mode}_{}", interpreter.label());
                cases.push(case_of(name, needs(interpreter), move || steps(interpreter, mode)));
            }
        }
    }
    cases
}

fn steps(interpreter: Interpreter, mode: &str) -> Result<()> {
    let run = PythonRun::of(interpreter, "python_many_steps", &["100"])
        .map("targets/python_many_steps/map.yaml")
        .tracer_arguments(&["--python", mode])
        .batches(3)
        .traced()?;
    run.trace.check_whole()?;
    let spans = &run.trace.spans;
    let calls: Vec<&SpanRow> = spans.named("Chain.predict").collect();
    ensure!(!calls.is_empty(), "no call of the container was seen: {}", run.trace.finished.errors);
    let mut whole = 0;
    for call in calls.iter().filter(|call| call.boolean("ml.children_observed") != Some(false)) {
        let unwatched = call.text("ml.unwatched_steps").context("the excluded step is not named")?;
        let unwatched: BTreeSet<&str> = unwatched.split(", ").collect();
        let seen = seen_in(spans, call);
        let mut expected: BTreeSet<&str> = STEPS.into_iter().collect();
        if mode == "watch" {
            ensure!(seen.is_disjoint(&unwatched), "{seen:?} were seen, and {unwatched:?} not watched");
            let all: BTreeSet<&str> = seen.union(&unwatched).copied().filter(|step| *step != EXCLUDED).collect();
            ensure!(all == expected, "{seen:?} were seen, {unwatched:?} not watched");
            ensure!(seen.len() < STEPS.len(), "more is seen than there are registers: {seen:?}");
        } else {
            ensure!(unwatched == BTreeSet::from([EXCLUDED]), "{unwatched:?} were not watched");
            expected.retain(|step| !seen.contains(step));
            ensure!(expected.is_empty(), "{expected:?} were not seen");
        }
        whole += 1;
    }
    ensure!(whole > 0, "probes came or went during each of {} calls", calls.len());
    Ok(())
}

/// The names of the steps whose calls are inside a call.
fn seen_in<'spans>(spans: &'spans Spans, call: &SpanRow) -> BTreeSet<&'spans str> {
    let inside = spans.0.iter().filter(|row| row.span.parent_span_id == call.span.span_id);
    inside.filter_map(|row| row.text("ml.step")).collect()
}
