//! Threads that switch stacks: no call gets one of another stack for its parent, and none is said to have failed because
//! its stack was left.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result, ensure};
use tracer_tests::spans::{SpanRow, Spans};
use tracer_tests::suite::{Case, Need, case};
use tracer_tests::targets::Target;
use tracer_tests::tracer::{NEST_ALL, Trace, Tracer};

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel];
    vec![
        case("fibers_get_no_wrong_parent", NEEDS, fibers),
        case("fibers_of_a_forked_child_get_no_wrong_parent", NEEDS, fibers_of_child),
        case("exceptions_inside_fibers", NEEDS, exceptions),
        case("abandoned_fibers_are_open", NEEDS, abandoned),
        case("signal_handlers_between_fibers", NEEDS, handlers),
    ]
}

/// What is called on fibers and in signal handlers; the rest is called on the threads' own stacks.
const ELSEWHERE: [&str; 4] = ["Model.predict", "Scaler.transform", "Failing.predict", "Handler.predict"];

/// Calls of each function that the program itself counted, and the trace.
fn trace_fibers(arguments: &[&str]) -> Result<(Trace, BTreeMap<String, usize>)> {
    let folder = tempfile::tempdir()?;
    let counts = folder.path().join("counts");
    let mut all = vec!["--counts", counts.to_str().unwrap_or_default()];
    all.extend(arguments);
    let mut target = Target::start("cpp_fibers", &all)?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.arguments(["--follow"]).start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    let counted = std::fs::read_to_string(&counts)?
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, count)| Ok((name.to_owned(), count.parse()?)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    for (name, count) in &counted {
        ensure!(trace.spans.count(name) == *count, "{arguments:?}: {count} calls of {name}, {:?}", trace.summary);
    }
    check_parents(&trace.spans).with_context(|| format!("{arguments:?}"))?;
    ensure!(trace.spans.ended("unwound") == 0, "{arguments:?}: a call has failed");
    Ok((trace, counted))
}

/// Each call on another stack is a root that says so; on the threads' own stacks all is as ever.
fn check_parents(spans: &Spans) -> Result<()> {
    let names: HashMap<&[u8], &str> =
        spans.0.iter().map(|row| (row.span.span_id.as_slice(), row.span.name.as_str())).collect();
    let parent_of = |row: &SpanRow| names.get(row.span.parent_span_id.as_slice()).copied();
    for row in &spans.0 {
        let (name, parent) = (row.span.name.as_str(), parent_of(row));
        let is_elsewhere = ELSEWHERE.contains(&name);
        let expected = if name == "Server.transform" { Some("Server.predict") } else { None };
        ensure!(parent == expected, "{name} has the parent {parent:?}");
        let marked = row.boolean("ml.parent_observed") == Some(false);
        ensure!(marked == is_elsewhere, "{name}: ml.parent_observed is {:?}", row.boolean("ml.parent_observed"));
    }
    Ok(())
}

fn all_returned(trace: &Trace, arguments: &[&str]) -> Result<()> {
    ensure!(trace.spans.ended("returned") == trace.spans.0.len(), "{arguments:?}: not all returned");
    ensure!(trace.summary.open() == 0, "{arguments:?}: {:?}", trace.summary);
    Ok(())
}

fn fibers() -> Result<()> {
    for arguments in [
        ["--memory", "heap", "--threads", "1"].as_slice(),
        &["--memory", "mapped", "--threads", "1"],
        &["--memory", "heap", "--threads", "3"],
        &["--memory", "mapped", "--threads", "3"],
        &["--memory", "heap", "--threads", "3", "--given"],
    ] {
        let (trace, counted) = trace_fibers(arguments)?;
        ensure!(counted.get("Model.predict") == Some(&160), "{counted:?}");
        all_returned(&trace, arguments)?;
    }
    Ok(())
}

/// The first thread of such a child runs on the stack of the thread that has forked.
fn fibers_of_child() -> Result<()> {
    let arguments = ["--memory", "mapped", "--threads", "2", "--forked"];
    let (trace, _) = trace_fibers(&arguments)?;
    all_returned(&trace, &arguments)
}

/// A call that an exception has left is known to be over when another begins at its place. That it has failed is not
/// known.
fn exceptions() -> Result<()> {
    for threads in ["1", "2"] {
        let (trace, counted) = trace_fibers(&["--mode", "throw", "--threads", threads])?;
        let left = trace.spans.named("Failing.predict").filter(|row| row.ending() == "still_open").count();
        ensure!(Some(&left) == counted.get("Failing.predict"), "{left} calls without an end, {counted:?}");
        ensure!(trace.spans.ended("returned") + left == trace.spans.0.len(), "not all others returned");
        // The last one of each fiber has nothing after it.
        ensure!(trace.summary.open() == 8, "{:?}", trace.summary);
    }
    Ok(())
}

fn abandoned() -> Result<()> {
    let (trace, _) = trace_fibers(&["--mode", "abandon", "--threads", "2"])?;
    ensure!(trace.summary.open() == 16 && trace.spans.ended("still_open") == 16, "{:?}", trace.summary);
    ensure!(trace.spans.ended("returned") + 16 == trace.spans.0.len(), "not all others returned");
    Ok(())
}

fn handlers() -> Result<()> {
    let arguments = ["--mode", "signal", "--threads", "2"];
    let (trace, counted) = trace_fibers(&arguments)?;
    ensure!(counted.get("Handler.predict").is_some_and(|calls| *calls > 160), "{counted:?}");
    all_returned(&trace, &arguments)
}
