//! The traced process does what it does without a tracer, however it ends and however the tracer ends.

use std::process::Command;

use crate::resources::Resources;
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tracer_tests::process::{Running, poll, run as run_to_its_end};
use tracer_tests::python::{Interpreter, MODES, all};
use tracer_tests::python_run::PythonRun;
use tracer_tests::suite::{Case, Need, case_of, do_meet, report};
use tracer_tests::targets::Target;
use tracer_tests::tracer::Attached;
use tracer_tests::workspace;

/// Debug registers of an x86-64 processor.
const DEBUG_REGISTERS: u64 = 4;

type Test = fn(Interpreter) -> Result<()>;

/// What is tested, on each version.
const TESTS: &[(&str, Test)] = &[
    ("signals_forks_and_every_end", every_way),
    ("killed_tracer_leaves_nothing", killed_tracer),
    ("coming_and_going_while_busy", coming_and_going),
    ("debug_registers_of_others", held_registers),
];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let mut cases = Vec::new();
    for (name, test) in TESTS {
        for interpreter in all() {
            let name = format!("{name}_{}", interpreter.label());
            cases.push(case_of(name, needs(interpreter), move || test(interpreter)));
        }
    }
    let oldest = Interpreter::Environment("plain-3.8");
    cases.push(case_of("debug_registers_of_a_debugger".to_owned(), needs(oldest), move || debugged(oldest)));
    cases
        .push(case_of("killed_target_leaves_nothing".to_owned(), needs(oldest), move || killed_target(oldest)).alone());
    cases
}

fn run(interpreter: Interpreter, what: &str, count: u32) -> PythonRun {
    PythonRun::of(interpreter, "python_plain", &[what, &count.to_string()]).map("targets/python_plain/map.yaml")
}

/// The modes in which one of several is tried on this version.
fn modes(number: usize, interpreter: Interpreter) -> impl Iterator<Item = &'static str> {
    let version = all().iter().position(|other| *other == interpreter).unwrap_or_default();
    let modes = MODES.into_iter().enumerate().filter(move |(place, _)| do_meet(number, version, *place));
    modes.map(|(_, mode)| mode)
}

fn every_way(interpreter: Interpreter) -> Result<()> {
    let ways = [("signals", 1000), ("fork", 5), ("exec", 20), ("exit", 20), ("uncaught", 20), ("overflow", 3)];
    for (number, (what, count)) in ways.into_iter().enumerate() {
        let run = run(interpreter, what, count);
        let mut alone = run.start()?;
        work(&mut alone)?;
        let alone = alone.finish()?;
        for mode in modes(number, interpreter) {
            let run = run.clone().tracer_arguments(&["--python", mode]);
            let mut target = run.start()?;
            let attached = run.attach(&target)?;
            work(&mut target)?;
            let traced = target.finish()?;
            // The target's death ends the tracer.
            let trace = attached.finish()?;
            ensure!(traced == alone, "{what}, {mode}: traced: {traced:?}\nalone: {alone:?}");
            trace.check_books().with_context(|| format!("{what}, {mode}"))?;
        }
    }
    Ok(())
}

/// A batch; one that ends the process is as good as any other.
fn work(target: &mut Target) -> Result<()> {
    let Err(error) = target.batch() else { return Ok(()) };
    poll("the end of the process", || Ok(target.running.has_ended()?.then_some(()))).map_err(|_| error)
}

/// Debug registers that the tracer had at its end.
fn slots(attached: Attached) -> Result<u64> {
    let trace = attached.stop()?;
    let slots = trace.summary.python().first().and_then(|python| python.get("slots")?.as_u64());
    slots.with_context(|| format!("no slots in {}", trace.summary.0))
}

fn killed_tracer(interpreter: Interpreter) -> Result<()> {
    for mode in modes(0, interpreter) {
        let run = run(interpreter, "threads", 2000).batches(1).tracer_arguments(&["--python", mode]);
        let mut target = run.start()?;
        let attached = run.attach(&target)?;
        target.begin_batch()?;
        attached.wait_for_span()?;
        attached.running.signal(Signal::KILL)?;
        ensure!(attached.running.finish()?.signal == Some(9), "the tracer was not killed");
        target.running.wait_output("ready")?;
        // Nobody else has a watchpoint on it.
        let again = self::run(interpreter, "threads", 2000).attach(&target)?;
        ensure!(slots(again)? == DEBUG_REGISTERS, "{mode}: a debug register is still in use");
        let (finished, alone) = (target.finish()?, run.alone()?);
        ensure!(finished == alone, "{mode}: {finished:?}\nalone: {alone:?}");
    }
    Ok(())
}

/// The kernel forgets the probes of a process that is gone, where another one still runs the same file, too.
fn killed_target(interpreter: Interpreter) -> Result<()> {
    let run = run(interpreter, "chain", 100).tracer_arguments(&["--python", "frames"]);
    let mut other = run.start()?;
    // Whoever has had a probe is looked at each time that one is taken away.
    let attached = run.attach(&other)?;
    other.batch()?;
    attached.stop()?.check_whole()?;
    let before = probes_left_behind()?;
    for _ in 0..10 {
        let target = run.start()?;
        let attached = run.attach(&target)?;
        target.running.signal(Signal::KILL)?;
        ensure!(target.finish()?.signal == Some(9), "the target was not killed");
        attached.finish()?.check_books()?;
    }
    let after = probes_left_behind()?;
    ensure!(after <= before, "the kernel could not take {} probes away", after - before);
    ensure!(other.finish()?.code == Some(0), "the other process ended badly");
    Ok(())
}

/// Probes that the kernel says it has left behind (`uprobe_unregister`, kernel/events/uprobes.c, Linux 6.18).
fn probes_left_behind() -> Result<usize> {
    let log = run_to_its_end(Command::new("dmesg"))?;
    ensure!(log.code == Some(0), "{log:?}");
    Ok(log.output.matches("failed to unregister, leaking uprobe").count())
}

/// Times that a tracer comes and goes; `ML_TRACER_CYCLES` sets another number.
const CYCLES: u32 = 10;

fn coming_and_going(interpreter: Interpreter) -> Result<()> {
    let cycles = match std::env::var("ML_TRACER_CYCLES") {
        Ok(number) => number.parse().context("ML_TRACER_CYCLES is no number")?,
        Err(_) => CYCLES,
    };
    let run = run(interpreter, "threads", 10_000);
    let mut target = run.start()?;
    let mut before = None;
    let mut spans = 0;
    for cycle in 0..cycles {
        // Predicts while the tracer comes, and while it goes.
        target.begin_batch()?;
        let attached = run.attach(&target)?;
        target.begin_batch()?;
        attached.wait_for_span()?;
        let trace = attached.stop().with_context(|| format!("cycle {cycle}"))?;
        ensure!(trace.summary.lost() == 0, "cycle {cycle}: {}", trace.finished.errors);
        trace.check_books().with_context(|| format!("cycle {cycle}"))?;
        for _ in 0..2 {
            target.running.wait_output("ready")?;
        }
        spans += trace.summary.spans();
        // What the first cycles have brought into memory stays.
        if cycle == cycles / 2 {
            before = Some(Resources::of(target.pid())?);
        }
    }
    let (before, after) = (before.context("no cycle")?, Resources::of(target.pid())?);
    report(&format!("{cycles} cycles on {}: {spans} spans, {before:?}, then {after:?}", interpreter.label()));
    before.is_much_like(after)?;
    ensure!(target.finish()?.code == Some(0), "the target ended badly");
    Ok(())
}

fn held_registers(interpreter: Interpreter) -> Result<()> {
    let run = run(interpreter, "chain", 100);
    let mut target = run.start()?;
    for held in [1, 3, 4] {
        let mut command = Command::new("python3");
        command
            .arg(workspace::tests("targets/debug_registers/hold.py"))
            .args([target.pid().to_string(), held.to_string()]);
        let mut holder = Running::start(command)?;
        holder.wait_output("ready")?;
        let attached = run.attach(&target)?;
        target.batch()?;
        let trace = attached.stop()?;
        holder.finish()?;
        trace.check_books()?;
        let python = trace.summary.python().first().context("no interpreter")?.clone();
        ensure!(python["slots"] == DEBUG_REGISTERS - held, "{held} held: {python}");
        ensure!(python["slots_held_by"].as_array().is_some_and(|holders| !holders.is_empty()), "{held} held: {python}");
        let left_out = python["not_watched"].as_array().context("no list")?.len() as u64;
        ensure!(left_out == held, "{held} held: {python}");
        ensure!(trace.finished.errors.contains("debug register"), "{held} held: {}", trace.finished.errors);
    }
    target.finish().map(drop)
}

/// Of a debugger it is known that it is one. It holds them until the target ends: the kernel keeps what ptrace(2) has set.
/// In a virtual machine nothing is watched beside a debugger, and it is said who keeps the guard away.
fn debugged(interpreter: Interpreter) -> Result<()> {
    let run = run(interpreter, "chain", 100);
    let mut target = run.start()?;
    let mut command = Command::new("python3");
    command.arg(workspace::tests("targets/debug_registers/hold.py")).args([
        target.pid().to_string(),
        "2".to_owned(),
        "--ptrace".to_owned(),
    ]);
    let mut holder = Running::start(command)?;
    holder.wait_output("ready")?;
    let who = format!("(process {})", holder.pid());
    let attached = run.attach(&target)?;
    target.batch()?;
    let trace = attached.stop()?;
    let ended = holder.finish()?;
    ensure!(ended.code == Some(0), "{ended:?}");
    trace.check_books()?;
    let python = trace.summary.python().first().context("no interpreter")?.clone();
    ensure!(trace.finished.errors.contains(&who), "{}", trace.finished.errors);
    if Need::VirtualMachine.missing().is_none() {
        // A debugger and a guard cannot be there at the same time.
        ensure!(python["slots"] == 0, "{python}");
        ensure!(python["watched"].as_array().is_some_and(Vec::is_empty), "{python}");
        ensure!(python["not_watched"].as_array().is_some_and(|methods| !methods.is_empty()), "{python}");
        ensure!(trace.finished.errors.contains("--python frames"), "{}", trace.finished.errors);
    } else {
        ensure!(python["slots"] == DEBUG_REGISTERS - 2, "{python}");
        let told = python["slots_held_by"].as_array().into_iter().flatten().filter_map(|holder| holder.as_str());
        ensure!(told.clone().any(|holder| holder.contains(&who)), "{who} is not among {:?}", told.collect::<Vec<_>>());
    }
    target.finish().map(drop)
}
