//! Watched processes in a virtual machine have a guard: signals that lost causes of watchpoint hits make do not reach
//! them, and all others do.

use std::fs;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tracer_tests::process::poll;
use tracer_tests::python::{Interpreter, SYSTEM, all};
use tracer_tests::python_run::PythonRun;
use tracer_tests::suite::{Case, Need, case_of};
use tracer_tests::targets::Target;

type Test = fn(Interpreter) -> Result<()>;

/// What is tested, on each version.
const TESTS: &[(&str, Test)] = &[
    ("signals_reach_a_guarded_process", signals),
    ("a_guarded_process_ends_as_it_would", fault),
    ("lost_causes_of_hits_are_made_up_for", lost_causes),
];

/// What is tested on one version: it is about the guard and not about Python.
const OF_THE_GUARD: &[(&str, Test)] = &[
    ("a_tracer_that_is_killed_takes_its_guard_along", killed_tracer),
    ("a_tracer_that_is_stopped_holds_up_nobody", stopped_tracer),
    ("without_its_guard_a_process_is_not_watched", killed_guard),
];

/// The tests.
pub fn cases() -> Vec<Case> {
    let mut needs = vec![Need::Program, Need::Kernel, Need::VirtualMachine];
    let mut cases = Vec::new();
    for (tests, versions) in [(TESTS, all().as_slice()), (OF_THE_GUARD, &[SYSTEM][..])] {
        for (name, test) in tests {
            for interpreter in versions.iter().copied() {
                needs.truncate(3);
                needs.push(Need::Python(interpreter));
                cases
                    .push(case_of(format!("{name}_{}", interpreter.label()), needs.clone(), move || test(interpreter)));
            }
        }
    }
    cases
}

fn run(interpreter: Interpreter, what: &str, count: u32) -> PythonRun {
    PythonRun::of(interpreter, "python_traps", &[what, &count.to_string()]).map("targets/python_plain/map.yaml")
}

fn signals(interpreter: Interpreter) -> Result<()> {
    for (what, count) in [("signals", 40), ("stops", 2), ("children", 5), ("own", 50)] {
        let traced = run(interpreter, what, count).exact().context(what)?;
        ensure!(traced.trace.summary.kept_signals() == 0, "{what}: {}", traced.trace.summary.0);
    }
    Ok(())
}

fn fault(interpreter: Interpreter) -> Result<()> {
    let run = run(interpreter, "fault", 20);
    let mut target = run.start()?;
    let attached = run.attach(&target)?;
    target.begin_batch()?;
    let trace = attached.finish()?;
    trace.check_books()?;
    ensure!(trace.summary.spans() == 20, "{}", trace.summary.0);
    let finished = target.finish()?;
    ensure!(finished.signal == Some(11), "{finished:?}");
    Ok(())
}

fn lost_causes(interpreter: Interpreter) -> Result<()> {
    const COUNT: u32 = 100;
    let run = run(interpreter, "lost", COUNT);
    // The kernel's signal is real: nobody else keeps it from the process.
    let mut alone = run.start()?;
    alone.begin_batch()?;
    ensure!(alone.finish()?.signal == Some(5), "a process without a guard has lived");

    let mut target = run.start()?;
    let attached = run.attach(&target)?;
    target.batch()?;
    let trace = attached.stop()?;
    let finished = target.finish()?;
    ensure!(finished.code == Some(0), "{finished:?}");
    trace.check_whole()?;
    let summary = &trace.summary;
    ensure!(summary.spans() == 2 * u64::from(COUNT), "{}", summary.0);
    // Three signals each time; two of them when the count had changed. The host may add some of its own.
    ensure!(summary.kept_signals() >= 3 * u64::from(COUNT), "{}", summary.0);
    ensure!(summary.hits_without_cause() >= 2 * u64::from(COUNT), "{}", summary.0);
    ensure!(trace.finished.errors.contains("lost the cause"), "{}", trace.finished.errors);
    Ok(())
}

/// Process that traces another one with ptrace(2), 0 if none does.
fn tracer_of(target: &Target) -> Result<i32> {
    let status = fs::read_to_string(format!("/proc/{}/status", target.pid()))?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).context("no TracerPid")?;
    Ok(tracer.trim().parse()?)
}

fn wait_until_unguarded(target: &Target) -> Result<()> {
    poll("the guard to leave", || Ok((tracer_of(target)? == 0).then_some(())))
}

fn killed_tracer(interpreter: Interpreter) -> Result<()> {
    let run = run(interpreter, "signals", 20);
    let mut target = run.start()?;
    let attached = run.attach(&target)?;
    ensure!(tracer_of(&target)? != 0, "it has no guard");
    target.begin_batch()?;
    attached.running.signal(Signal::KILL)?;
    attached.running.finish()?;
    target.running.wait_output("ready")?;
    wait_until_unguarded(&target)?;
    target.batch()?;
    let finished = target.finish()?;
    ensure!(finished == run.alone()?, "{finished:?}");
    Ok(())
}

fn stopped_tracer(interpreter: Interpreter) -> Result<()> {
    let run = run(interpreter, "signals", 20);
    let mut target = run.start()?;
    let attached = run.attach(&target)?;
    attached.running.signal(Signal::STOP)?;
    target.batch()?;
    attached.running.signal(Signal::CONT)?;
    target.batch()?;
    attached.stop()?.check_books()?;
    ensure!(tracer_of(&target)? == 0, "the guard has not left");
    let finished = target.finish()?;
    ensure!(finished == run.alone()?, "{finished:?}");
    Ok(())
}

fn killed_guard(interpreter: Interpreter) -> Result<()> {
    let run = run(interpreter, "children", 10);
    let mut target = run.start()?;
    let mut attached = run.attach(&target)?;
    target.batch()?;
    let guard = Pid::from_raw(tracer_of(&target)?).context("it has no guard")?;
    kill_process(guard, Signal::KILL)?;
    attached.running.wait_errors("its guard has been killed")?;
    target.batch()?;
    let trace = attached.stop()?;
    trace.check_books()?;
    let python = trace.summary.python().first().context("no interpreter")?;
    ensure!(python["slots"] == 0, "{python}");
    // What was called before stays told.
    ensure!(trace.summary.spans() > 0 && trace.finished.errors.contains(": covered "), "{}", trace.finished.errors);
    let finished = target.finish()?;
    ensure!(finished == run.alone()?, "{finished:?}");
    Ok(())
}
