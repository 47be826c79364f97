//! Calls that do not simply return: exceptions, jumps, ended threads, open calls, lost records.

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tracer_tests::process::poll;
use tracer_tests::spans::{SpanRow, Spans};
use tracer_tests::suite::{Case, Need, case};
use tracer_tests::targets::Target;
use tracer_tests::tracer::{NEST_ALL, Trace, Tracer};

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel];
    vec![
        case("exception_ends_spans_as_unwound", NEEDS, exception),
        case("caught_exception_ends_only_what_it_left", NEEDS, caught_exception),
        case("exception_thrown_again", NEEDS, exception_thrown_again),
        case("exception_inside_noexcept", NEEDS, exception_inside_noexcept),
        case("longjmp_ends_spans_as_unwound", NEEDS, longjmp),
        case("ended_threads_end_their_spans", NEEDS, ended_threads),
        case("open_calls_are_told_at_detach", NEEDS, open_calls),
        case("calls_from_before_attach_are_no_spans", NEEDS, calls_from_before),
        case("death_of_the_target_ends_its_spans", NEEDS, death_of_target),
        case("another_program_begun_by_a_thread_loses_nothing", NEEDS, executed_by_thread),
        case("full_ring_is_counted", NEEDS, full_ring),
        case("signal_handlers_nest", NEEDS, signal_handlers),
        case("signal_handler_on_another_stack", NEEDS, signal_handler_elsewhere),
    ]
}

/// Values 0 to 20: the odd ten leave without a return, and the last returns, so that all is noticed.
const REQUESTS: &str = "21";

fn trace_exceptions(mode: &str) -> Result<Trace> {
    let mut target = Target::start("cpp_exceptions", &["--mode", mode, "--requests", REQUESTS])?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    ensure!(trace.summary.open() == 0, "calls still open: {:?}", trace.summary);
    Ok(trace)
}

/// How many spans of a name returned and how many were unwound; no other ending is allowed.
fn endings(spans: &Spans, name: &str) -> Result<(usize, usize)> {
    let unwound: Vec<&SpanRow> = spans.named(name).filter(|row| row.ending() == "unwound").collect();
    let returned = spans.named(name).filter(|row| row.ending() == "returned").count();
    ensure!(returned + unwound.len() == spans.count(name), "other endings of {name}");
    ensure!(unwound.iter().all(|row| row.is_error()), "an unwound {name} has no error status");
    ensure!(spans.named(name).filter(|row| row.is_error()).count() == unwound.len(), "a returned {name} is an error");
    Ok((returned, unwound.len()))
}

fn expect(spans: &Spans, expected: &[(&str, usize, usize)]) -> Result<()> {
    for (name, returned, unwound) in expected {
        let seen = endings(spans, name)?;
        ensure!(seen == (*returned, *unwound), "{name}: {seen:?} returned and unwound");
    }
    Ok(())
}

const THREE_FRAMES: &str = "Outer.predict(Middle.predict(Inner.predict))";

fn all_trees_are(trace: &Trace, tree: &str) -> Result<()> {
    let lines = trace.spans.tree_lines();
    ensure!(lines.len() == 21 && lines.iter().all(|line| line == tree), "{lines:?}");
    Ok(())
}

fn exception() -> Result<()> {
    let trace = trace_exceptions("throw")?;
    all_trees_are(&trace, THREE_FRAMES)?;
    expect(&trace.spans, &[("Outer.predict", 11, 10), ("Middle.predict", 11, 10), ("Inner.predict", 11, 10)])
}

fn caught_exception() -> Result<()> {
    let trace = trace_exceptions("middle")?;
    all_trees_are(&trace, THREE_FRAMES)?;
    expect(&trace.spans, &[("Outer.predict", 21, 0), ("Middle.predict", 21, 0), ("Inner.predict", 11, 10)])
}

fn exception_thrown_again() -> Result<()> {
    let trace = trace_exceptions("rethrow")?;
    all_trees_are(&trace, THREE_FRAMES)?;
    expect(&trace.spans, &[("Outer.predict", 11, 10), ("Middle.predict", 11, 10), ("Inner.predict", 11, 10)])
}

fn exception_inside_noexcept() -> Result<()> {
    let trace = trace_exceptions("guarded")?;
    all_trees_are(&trace, "Guarded.predict(Middle.predict(Inner.predict))")?;
    expect(&trace.spans, &[("Guarded.predict", 21, 0), ("Middle.predict", 11, 10), ("Inner.predict", 11, 10)])
}

fn longjmp() -> Result<()> {
    let trace = trace_exceptions("jump")?;
    all_trees_are(&trace, "Plain.predict(Plain.predict_proba)")?;
    expect(&trace.spans, &[("Plain.predict", 11, 10), ("Plain.predict_proba", 11, 10)])
}

fn ended_threads() -> Result<()> {
    let trace = trace_exceptions("exit-thread")?;
    all_trees_are(&trace, THREE_FRAMES)?;
    expect(&trace.spans, &[("Outer.predict", 11, 10), ("Inner.predict", 11, 10)])?;
    // A cancelled thread may end before it has called anything.
    let trace = trace_exceptions("cancel")?;
    let (returned, _) = endings(&trace.spans, "Outer.predict")?;
    ensure!(returned == 11, "{returned} threads returned");
    Ok(())
}

fn open_calls() -> Result<()> {
    let mut target = Target::start("cpp_open_call", &["--requests", "1"])?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.begin_batch()?;
    target.running.wait_output("inside")?;
    let trace = attached.stop()?;
    let finished = target.finish()?;
    ensure!(finished.code == Some(0) && finished.output.contains("request 0: 1"), "{finished:?}");
    trace.check_whole()?;
    ensure!(trace.summary.open() == 2 && trace.summary.spans() == 0, "{:?}", trace.summary);
    ensure!(trace.spans.tree_lines() == ["Server.predict(Waiting.predict)"], "{:?}", trace.spans.tree_lines());
    ensure!(trace.spans.ended("still_open") == 2, "{:?}", trace.spans);
    Ok(())
}

fn calls_from_before() -> Result<()> {
    let mut target = Target::start("cpp_open_call", &["--requests", "1"])?;
    target.begin_batch()?;
    target.running.wait_output("inside")?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.running.send_line("go on")?;
    target.running.wait_output("ready")?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    ensure!(trace.summary.entries() == 0 && trace.spans.0.is_empty(), "{:?}", trace.summary);
    Ok(())
}

fn death_of_target() -> Result<()> {
    let mut target = Target::start("cpp_open_call", &["--requests", "2"])?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.begin_batch()?;
    target.running.wait_output("inside")?;
    target.running.send_line("go on")?;
    target.running.wait_output("inside")?;
    target.running.signal(Signal::KILL)?;
    target.finish()?;
    let trace = attached.finish()?;
    trace.check_whole()?;
    ensure!(trace.spans.ended("returned") == 2, "{:?}", trace.spans);
    ensure!(trace.spans.0.len() == 4 && trace.summary.open() == 0, "{:?}", trace.summary);
    Ok(())
}

/// The thread that executes another program has the number of the first one from then on; its calls are still its own.
fn executed_by_thread() -> Result<()> {
    let mut target = Target::start("cpp_fork", &["--mode", "exec-thread", "--requests", "20"])?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.begin_batch()?;
    let finished = target.finish()?;
    ensure!(finished.code == Some(4), "{finished:?}");
    let trace = attached.finish()?;
    trace.check_whole()?;
    let spans = &trace.spans;
    let (calls, ended) = (spans.count("Forking.predict"), spans.named("Forking.predict").filter(|row| row.is_error()));
    ensure!((calls, ended.count()) == (20, 1), "{:?}", spans.tree_lines());
    ensure!(spans.0.iter().all(|row| row.integer("ml.lost_before").is_none()), "a loss is told: {:?}", spans.0);
    let threads: std::collections::BTreeSet<_> =
        spans.named("Forking.predict").map(|row| row.integer("thread.id")).collect();
    ensure!(threads.len() == 1, "{threads:?}");
    Ok(())
}

/// A stopped tracer empties no ring: what finds no room is lost, and said to be.
fn full_ring() -> Result<()> {
    let mut target = Target::start("cpp_threads", &["--threads", "1", "--requests", "20000"])?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    attached.running.signal(Signal::STOP)?;
    let stopped = format!("/proc/{}/stat", attached.running.pid());
    poll("the tracer to stop", || Ok(std::fs::read_to_string(&stopped)?.contains(") T ").then_some(())))?;
    target.batch()?;
    attached.running.signal(Signal::CONT)?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_books()?;
    trace.spans.check()?;
    let summary = &trace.summary;
    ensure!(summary.entries() == 60_000, "{summary:?}");
    ensure!(summary.lost() > 10_000 && summary.spans() > 10_000, "{summary:?}");
    ensure!(trace.finished.errors.contains("lost"), "{}", trace.finished.errors);
    Ok(())
}

/// Calls of each model that the program itself counted.
fn trace_signals(mode: &str) -> Result<(Trace, Vec<(String, usize)>)> {
    let folder = tempfile::tempdir()?;
    let counts = folder.path().join("counts");
    let mut target = Target::start("cpp_signals", &["--mode", mode, "--counts", counts.to_str().unwrap_or_default()])?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    let counted = std::fs::read_to_string(&counts)?
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, count)| Ok((name.to_owned(), count.parse()?)))
        .collect::<Result<Vec<_>>>()?;
    Ok((trace, counted))
}

fn signal_handlers() -> Result<()> {
    let trace = trace_returning_signals("plain")?;
    let nested = trace.spans.tree_lines().iter().filter(|line| line.contains("(Handler.predict")).count();
    ensure!(nested > 0, "no handler ran inside a call");
    Ok(())
}

/// What a handler on a stack of its own has interrupted goes on afterwards, wherever that stack lies; and nothing tells what
/// is around the handler's calls.
fn signal_handler_elsewhere() -> Result<()> {
    for mode in ["alternate", "above"] {
        let trace = trace_returning_signals(mode)?;
        let lines = trace.spans.tree_lines();
        ensure!(lines.iter().all(|line| !line.contains('(')), "{mode}: {lines:?}");
        let marked = trace.spans.0.iter().filter(|row| row.boolean("ml.parent_observed") == Some(false));
        ensure!(marked.count() == trace.spans.count("Handler.predict"), "{mode}: other calls have no known parent");
    }
    Ok(())
}

/// All calls are seen, and all return.
fn trace_returning_signals(mode: &str) -> Result<Trace> {
    let (trace, counted) = trace_signals(mode)?;
    trace.check_whole()?;
    for (name, count) in counted {
        ensure!(count > 0, "{mode}: no call of {name}");
        ensure!(trace.spans.count(&name) == count, "{mode}: {count} calls of {name}, {:?}", trace.summary);
    }
    ensure!(trace.spans.ended("returned") == trace.spans.0.len(), "{mode}: not all returned");
    Ok(trace)
}
