//! Looks at processes that hold more than can be looked at: they end in time, cost little memory, say what they left out, and
//! can be ended.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tracer_tests::process::Running;
use tracer_tests::python::{Interpreter, SYSTEM, Truth};
use tracer_tests::python_run::PythonRun;
use tracer_tests::suite::{Case, Need, case_of, is_full};
use tracer_tests::workspace;

use crate::resources::Resources;

/// What the process holds, how many of them, and whether a look leaves some of it out.
const HEAPS: &[(&str, &str, bool)] = &[
    ("wide", "1000000", true),
    ("cyclic", "1", false),
    ("words", "300000", true),
    ("deep", "100000", false),
    ("objects", "300000", true),
    ("classes", "2000", false),
];

/// A tracer is attached after so long at most.
const MOST_FOR_ATTACHING: f64 = 5_000.0;

/// What a tracer may hold, kilobytes: half of it is what it holds at any process.
const MOST_MEMORY: u64 = 80_000;

/// A tracer ends so soon after Ctrl-C. It takes some ten milliseconds on a machine that does nothing else.
const SOON: Duration = Duration::from_secs(1);

/// The tests.
pub fn cases() -> Vec<Case> {
    const OLDER: Interpreter = Interpreter::Environment("plain-3.10");
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let mut cases = Vec::new();
    for interpreter in [OLDER, SYSTEM, Interpreter::Environment("sklearn-3.13")] {
        let name = format!("looks_at_what_has_no_end_{}", interpreter.label());
        cases.push(case_of(name, needs(interpreter), move || looks(interpreter)));
    }
    cases.push(case_of("a_look_is_ended_by_a_signal".to_owned(), needs(SYSTEM), || ended(SYSTEM)));
    cases
}

fn run(interpreter: Interpreter, what: &str, count: &str) -> PythonRun {
    PythonRun::of(interpreter, "python_heaps", &[what, count]).map("targets/python_plain/map.yaml")
}

/// The chain is traced with the names of its steps whatever else there is.
fn looks(interpreter: Interpreter) -> Result<()> {
    for (what, count, is_cut) in HEAPS {
        let run = run(interpreter, what, count);
        let mut target = run.start()?;
        let attached = run.attach(&target)?;
        target.batch()?;
        target.batch()?;
        let memory = Resources::of(attached.running.pid())?;
        let signalled = Instant::now();
        let trace = attached.stop()?;
        let took = signalled.elapsed();
        let truth = Truth::of(&target.finish()?)?;
        trace.check_whole()?;
        truth.check(&trace.spans)?;
        let summary = &trace.summary;
        ensure!(summary.attach_ms() < MOST_FOR_ATTACHING, "{what}: attached after {} ms", summary.attach_ms());
        ensure!(memory.resident_kilobytes < MOST_MEMORY, "{what}: {memory:?}");
        ensure!(took < SOON * 2, "{what}: ended {took:?} after the signal");
        let is_told = trace.finished.errors.contains("  not looked at: ");
        ensure!(is_told == *is_cut, "{what}: {}", trace.finished.errors);
    }
    Ok(())
}

/// Whatever the tracer is at: it looks at the process for the first time, or again.
fn ended(interpreter: Interpreter) -> Result<()> {
    let run = run(interpreter, "objects", "2000000");
    let target = run.start()?;
    let waits: &[u64] = if is_full() { &[0, 50, 100, 200, 400, 800, 1_500, 3_000] } else { &[50, 300, 1_500] };
    for wait in waits {
        let mut command = Command::new(workspace::ml_tracer());
        command.args(["attach", "--export", "jsonl=/dev/null", "--pid", &target.pid().to_string(), "--map"]);
        command.arg(workspace::tests("targets/python_plain/map.yaml"));
        let mut tracer = Running::start(command)?;
        sleep(Duration::from_millis(*wait));
        let signalled = Instant::now();
        // Until it listens, a signal ends it as it ends any program.
        if tracer.has_ended()? {
            continue;
        }
        // Not SIGINT: whatever a shell has started in the background ignores it until it listens to it.
        tracer.signal(Signal::TERM)?;
        let finished = tracer.finish()?;
        let took = signalled.elapsed();
        ensure!(took < SOON * 2, "{wait} ms: ended {took:?} after the signal: {finished:?}");
        ensure!(finished.code == Some(0) || finished.signal == Some(15), "{wait} ms: {finished:?}");
    }
    let finished = target.finish()?;
    ensure!(finished.code == Some(0), "{finished:?}");
    Ok(())
}
