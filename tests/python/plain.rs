//! Estimators in nothing but Python, on every version of CPython: whatever may happen to their calls.

use anyhow::{Context as _, Result, ensure};
use tracer_tests::python::{CHAIN, Interpreter, MODES, all};
use tracer_tests::python_run::{PythonRun, PythonTrace};
use tracer_tests::suite::{Case, Need, case_of, do_meet};

/// An interpreter, and the tracer's `--python`.
#[derive(Clone, Copy)]
struct Setting {
    interpreter: Interpreter,
    mode: &'static str,
}

type Test = fn(Setting) -> Result<()>;

/// What is not seen in watch mode and said to be so (docs/cpython-engine.md): while somebody keeps the frame of a call on
/// CPython 3.11 and before, its end is not seen, and then neither is its receiver.
const LIMITS: &[(&str, &[&str])] = &[("references_by_others_are_no_calls", &["3.8", "3.9", "3.10", "3.11"])];

/// What is tested, on each version and in both modes: which of them meet is said by [`do_meet`].
const TESTS: &[(&str, Test)] = &[
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
    ("frames_that_are_kept", kept_frames),
];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let mut cases: Vec<Case> = all()
        .into_iter()
        .map(|interpreter| {
            let name = format!("nothing_is_made_up_chain_{}", interpreter.label());
            case_of(name, needs(interpreter), move || little_to_see(Setting { interpreter, mode: CHAIN }))
        })
        .collect();
    for (number, (name, test)) in TESTS.iter().enumerate() {
        for (version, interpreter) in all().into_iter().enumerate() {
            let is_limit =
                |(limited, versions): &(&str, &[&str])| limited == name && versions.contains(&interpreter.label());
            let is_limited = LIMITS.iter().any(is_limit);
            for (place, mode) in MODES.into_iter().chain([CHAIN]).enumerate() {
                let is_wanted = if is_limited { mode != "watch" } else { do_meet(number, version, place) };
                if !is_wanted {
                    continue;
                }
                let name = format!("{name}_{mode}_{}", interpreter.label());
                cases.push(case_of(name, needs(interpreter), move || test(Setting { interpreter, mode })));
            }
        }
    }
    cases
}

fn run(Setting { interpreter, mode }: Setting, what: &str, count: u32) -> PythonRun {
    let count = count.to_string();
    // In this mode a call is seen only if C code calls Python code inside it.
    let arguments = if mode == CHAIN { vec![what, &count, "through-c"] } else { vec![what, &count] };
    PythonRun::of(interpreter, "python_plain", &arguments)
        .map("targets/python_plain/map.yaml")
        .tracer_arguments(&["--python", mode])
}

/// Every span has returned, and none is an error.
fn all_returned(traced: &PythonTrace) -> Result<()> {
    let spans = &traced.trace.spans;
    ensure!(spans.ended("returned") == spans.0.len(), "{} have returned", spans.ended("returned"));
    ensure!(spans.0.iter().all(|row| !row.is_error()), "a span is an error");
    Ok(())
}

fn predictions(setting: Setting) -> Result<()> {
    all_returned(&run(setting, "chain", 200).exact()?)
}

/// Without C code that calls Python code, chain mode sees few calls from 3.11 on, and none that was not made.
fn little_to_see(setting: Setting) -> Result<()> {
    for (what, count) in
        [("chain", "200"), ("recursion", "30"), ("forest", "50"), ("raise", "90"), ("references", "50")]
    {
        let run = PythonRun::of(setting.interpreter, "python_plain", &[what, count])
            .map("targets/python_plain/map.yaml")
            .tracer_arguments(&["--python", CHAIN]);
        let traced = run.traced().context(what)?;
        traced.trace.check_whole().context(what)?;
        traced.truth.check_at_most(&traced.trace.spans).context(what)?;
    }
    Ok(())
}

fn forms(setting: Setting) -> Result<()> {
    all_returned(&run(setting, "forms", 20).exact()?)
}

fn threads(setting: Setting) -> Result<()> {
    all_returned(&run(setting, "threads", 100).exact()?)
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

fn exception(setting: Setting) -> Result<()> {
    let traced = run(setting, "raise", 90).exact()?;
    endings(&traced)
}

fn kept_exceptions(setting: Setting) -> Result<()> {
    endings(&run(setting, "keep", 90).exact()?)
}

fn midway(setting: Setting) -> Result<()> {
    let traced = run(setting, "midway", 90).exact()?;
    let built_in = traced.trace.spans.0.iter().filter(|row| row.text("error.type") == Some("KeyError")).count();
    ensure!(built_in == 60, "{built_in} spans with a KeyError");
    endings(&traced)
}

fn folding(setting: Setting) -> Result<()> {
    let traced = run(setting, "forest", 50).exact()?;
    // Three trees in each forest; stumps are as if they were not there.
    ensure!(traced.trace.summary.folded() == 2 * 50 * 3, "{} calls folded", traced.trace.summary.folded());
    for row in traced.trace.spans.named("Forest.predict") {
        ensure!(row.integer("ml.folded_calls") == Some(3), "{:?}", row.integer("ml.folded_calls"));
    }
    all_returned(&traced)
}

fn recursion(setting: Setting) -> Result<()> {
    let traced = run(setting, "recursion", 30).exact()?;
    ensure!(traced.trace.summary.folded() == 2 * 30, "{} calls folded", traced.trace.summary.folded());
    all_returned(&traced)
}

fn generators(setting: Setting) -> Result<()> {
    all_returned(&run(setting, "generators", 50).exact()?)
}

/// Where somebody keeps the frame of a call, CPython 3.11 and before does not show its end: it is noticed at the next event
/// of the thread, and said to be not observed. The call around is kept by that frame as well. All others are as ever.
fn kept_frames(setting: Setting) -> Result<()> {
    const COUNT: u32 = 60;
    let traced = run(setting, "clinging", COUNT).traced()?;
    let (spans, summary) = (&traced.trace.spans, &traced.trace.summary);
    traced.trace.check_whole()?;
    let mut truth = traced.truth.clone();
    for (mut kind, count) in std::mem::take(&mut truth.spans) {
        // What was never seen to have a receiver has no step.
        kind.step = kind.step.filter(|step| step != "clinging");
        truth.spans.insert(kind, count);
    }
    truth.check(spans).with_context(|| summary.0.to_string())?;
    let is_limited = setting.mode == "watch" && ["3.8", "3.9", "3.10", "3.11"].contains(&setting.interpreter.label());
    let kept = if is_limited { 2 * COUNT as usize / 3 } else { 0 };
    for name in ["Clinging.transform", "Chain.predict"] {
        let open = spans.named(name).filter(|row| row.ending() == "still_open").count();
        ensure!(open == kept, "{open} of {kept} calls of {name} have an end that was not seen");
    }
    let returned = spans.ended("returned");
    ensure!(returned + 2 * kept == spans.0.len(), "{returned} have returned: {}", summary.0);
    ensure!(spans.0.iter().all(|row| !row.is_error()), "a span is an error");
    Ok(())
}

fn references(setting: Setting) -> Result<()> {
    run(setting, "references", 200).exact().map(drop)
}
