//! Chain mode in windows: whole trees or none, and no more of a processor than it may take.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tracer_tests::process::Running;
use tracer_tests::python::{CHAIN, Interpreter};
use tracer_tests::spans::SpanRow;
use tracer_tests::suite::{Case, Need, case_of};
use tracer_tests::tracer::{Trace, Tracer};

/// Interpreters with each way to tell what C code enters.
const PYTHONS: [Interpreter; 2] = [Interpreter::Environment("sklearn-3.11"), Interpreter::Environment("sklearn-3.13")];

/// What a tree consists of, besides its root.
const STEPS: [&str; 3] = ["LogisticRegression.predict", "PolynomialFeatures.transform", "SlowScaler.transform"];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let of_time = PYTHONS.map(|interpreter| {
        let name = format!("whole_trees_in_a_share_of_the_time_{}", interpreter.label());
        case_of(name, needs(interpreter), move || share_of_the_time(interpreter))
    });
    let name = "no_more_of_a_processor_than_allowed".to_owned();
    let of_processor = case_of(name, needs(PYTHONS[0]), || share_of_a_processor(PYTHONS[0]));
    of_time.into_iter().chain([of_processor]).collect()
}

fn trace(interpreter: Interpreter, how: &[&str], seconds: u64) -> Result<Trace> {
    let mut target = Running::start(interpreter.command("targets/python_windows/target.py")?)?;
    target.wait_output("ready")?;
    let attached = Tracer::attach(target.pid())?.arguments(["--python", CHAIN]).arguments(how).start()?;
    std::thread::sleep(Duration::from_secs(seconds));
    let trace = attached.stop()?;
    target.close_input();
    ensure!(target.finish()?.code == Some(0), "the target did not end well");
    trace.check_whole()?;
    Ok(trace)
}

/// Every tree has all its parts, those of slow predictions too, which begin in one window and would end in none.
fn check_trees(trace: &Trace) -> Result<Vec<u64>> {
    let mut children: BTreeMap<&[u8], Vec<&str>> = BTreeMap::new();
    for row in &trace.spans.0 {
        children.entry(&row.span.parent_span_id).or_default().push(&row.span.name);
    }
    let mut roots: Vec<&SpanRow> = trace.spans.0.iter().filter(|row| row.span.parent_span_id.is_empty()).collect();
    roots.sort_by_key(|row| row.span.start_time_unix_nano);
    let (first, last) = (roots.first().context("no span")?, roots.last().context("no span")?);
    // The first window begins, and the session ends, at any time.
    let edges = [first, last].map(|row| row.span.start_time_unix_nano / 1_000_000);
    for row in &roots {
        let start = row.span.start_time_unix_nano / 1_000_000;
        let is_at_an_edge = start < edges[0] + 400 || start + 400 > edges[1];
        let mut parts = children.get(row.span.span_id.as_slice()).cloned().unwrap_or_default();
        parts.sort_unstable();
        let is_whole = row.span.name == "Pipeline.predict" && parts == STEPS && row.ending() == "returned";
        ensure!(is_whole || is_at_an_edge, "{} with {parts:?}, {}", row.span.name, row.ending());
    }
    ensure!(
        roots.iter().any(|row| row.span.end_time_unix_nano - row.span.start_time_unix_nano > 120_000_000),
        "no slow prediction is among {}",
        roots.len()
    );
    Ok(roots.iter().map(|row| row.span.start_time_unix_nano / 1_000_000).collect())
}

fn share_of_the_time(interpreter: Interpreter) -> Result<()> {
    let trace = trace(interpreter, &["--duty", "20%"], 10)?;
    let starts = check_trees(&trace)?;
    let pauses = starts.windows(2).filter(|pair| pair[1] - pair[0] > 350).count();
    ensure!(pauses >= 2, "{pauses} pauses between {} predictions", starts.len());
    let percent = &trace.summary.0["python"][0]["seen_percent"];
    ensure!(percent.as_u64().is_some_and(|percent| (15..=25).contains(&percent)), "{percent} of the time");
    ensure!(trace.finished.errors.contains("% of the time: other calls are not counted"), "{}", trace.finished.errors);
    Ok(())
}

fn share_of_a_processor(interpreter: Interpreter) -> Result<()> {
    let trace = trace(interpreter, &["--max-overhead", "1%"], 12)?;
    check_trees(&trace)?;
    ensure!(
        trace.finished.errors.contains("--max-overhead allows 1 %: they are seen in windows"),
        "{}",
        trace.finished.errors
    );
    let percent = &trace.summary.0["python"][0]["seen_percent"];
    ensure!(percent.as_u64().is_some_and(|percent| percent < 60), "{percent} of the time");
    // What takes less than it may is seen all the time.
    let trace = self::trace(interpreter, &["--max-overhead", "90%"], 2)?;
    ensure!(trace.summary.0["python"][0]["seen_percent"].is_null(), "{}", trace.summary.0);
    Ok(())
}
