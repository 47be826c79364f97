//! However the tracer ends.

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tracer_tests::probes::changed_bytes;
use tracer_tests::process::poll;
use tracer_tests::suite::{Case, Need, case};
use tracer_tests::targets::{Target, build};
use tracer_tests::tracer::{NEST_ALL, Tracer};

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel];
    vec![
        case("killed_tracer_leaves_no_probe", NEEDS, killed_tracer),
        case("killed_tracer_with_calls_open", NEEDS, killed_with_calls_open),
        case("detach_leaves_no_probe", NEEDS, detach),
        case("coming_and_going_while_busy", NEEDS, coming_and_going),
        case("two_tracers_on_one_process", NEEDS, two_tracers),
    ]
}

/// Long enough that the tracer comes and goes in the middle.
const BUSY: &[&str] = &["--requests", "20000", "--threads", "2"];

fn output_alone() -> Result<String> {
    let mut alone = Target::start("cpp_pipeline", BUSY)?;
    alone.batch()?;
    Ok(alone.finish()?.output)
}

fn wait_until_clean(pid: u32, file: &std::path::Path) -> Result<()> {
    poll("the last probe to go", || Ok((changed_bytes(pid, file)? == 0).then_some(())))
}

fn killed_tracer() -> Result<()> {
    let program = build("cpp_pipeline")?;
    let mut target = Target::start("cpp_pipeline", BUSY)?;
    ensure!(changed_bytes(target.pid(), &program)? == 0, "the text differs before any probe");
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    ensure!(changed_bytes(target.pid(), &program)? > 0, "no probe is to be seen while attached");
    target.begin_batch()?;
    attached.wait_for_span()?;
    attached.running.signal(Signal::KILL)?;
    let finished = attached.running.finish()?;
    ensure!(finished.signal == Some(9), "{finished:?}");
    wait_until_clean(target.pid(), &program)?;
    target.running.wait_output("ready")?;
    let finished = target.finish()?;
    ensure!(finished.code == Some(0) && finished.output == output_alone()?, "{finished:?}");
    Ok(())
}

fn killed_with_calls_open() -> Result<()> {
    let program = build("cpp_open_call")?;
    let mut target = Target::start("cpp_open_call", &["--requests", "3"])?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.begin_batch()?;
    target.running.wait_output("inside")?;
    attached.running.signal(Signal::KILL)?;
    attached.running.finish()?;
    wait_until_clean(target.pid(), &program)?;
    let finished = target.finish()?;
    ensure!(finished.code == Some(0) && finished.output.contains("request 2: 7"), "{finished:?}");
    Ok(())
}

fn detach() -> Result<()> {
    let program = build("cpp_pipeline")?;
    for signal in [Signal::INT, Signal::TERM] {
        let mut target = Target::start("cpp_pipeline", &["--requests", "50"])?;
        let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
        target.batch()?;
        attached.running.signal(signal)?;
        attached.finish()?.check_whole()?;
        ensure!(changed_bytes(target.pid(), &program)? == 0, "a probe is left after {signal:?}");
        target.batch()?;
        ensure!(target.finish()?.code == Some(0), "the target ended badly");
    }
    Ok(())
}

fn coming_and_going() -> Result<()> {
    let mut target = Target::start("cpp_pipeline", BUSY)?;
    target.begin_batch()?;
    for round in 0..8 {
        let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
        let trace = attached.stop()?;
        trace.check_books().map_err(|error| error.context(format!("round {round}")))?;
        trace.spans.check()?;
    }
    target.running.wait_output("ready")?;
    let finished = target.finish()?;
    ensure!(finished.code == Some(0) && finished.output == output_alone()?, "{finished:?}");
    Ok(())
}

fn two_tracers() -> Result<()> {
    let mut target = Target::start("cpp_pipeline", &["--requests", "100"])?;
    let first = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    let second = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.batch()?;
    let (first, second) = (first.stop()?, second.stop()?);
    target.finish()?;
    first.check_whole()?;
    second.check_whole()?;
    ensure!(first.spans.tree_lines() == second.spans.tree_lines(), "the two saw different calls");
    Ok(())
}
