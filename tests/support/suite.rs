//! Runs the tests of a suite; one that cannot run here is reported as ignored, and says why.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "reasons and measurements belong on the terminal")]

use std::cmp::Reverse;
use std::fs;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};

use crate::python::Interpreter;
use crate::workspace;

/// What a test cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The program itself.
    Program,
    /// Root, BPF and uprobes.
    Kernel,
    /// The Python environment of the models.
    Models,
    /// The Python environment of the collector.
    Collector,
    /// An interpreter with what the Python targets need.
    Python(Interpreter),
    /// A runtime that runs containers.
    Containers,
    /// A program that is found by the search path; if none is, the test cannot run.
    Command(&'static str),
    /// A virtual processor: on others the cause of a debug exception does not get lost.
    VirtualMachine,
}

/// One test.
pub struct Case {
    name: String,
    needs: Vec<Need>,
    alone: bool,
    body: Box<dyn FnOnce() -> Result<()> + Send>,
}

impl Case {
    /// The same, while no other test runs: for tests that measure, or look at what belongs to the whole machine.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }
}

/// A test by its name, needs and body.
#[must_use]
pub fn case(name: &'static str, needs: &'static [Need], body: fn() -> Result<()>) -> Case {
    case_of(name.to_owned(), needs.to_vec(), body)
}

/// The same for one of a series.
#[must_use]
pub fn case_of(name: String, needs: Vec<Need>, body: impl FnOnce() -> Result<()> + Send + 'static) -> Case {
    Case { name, needs, alone: false, body: Box::new(body) }
}

/// Tests at one time: more of them keep two processors busy with verifying programs, and what measures a time measures that.
const THREADS: usize = 2;

/// Held by every test while it runs; one that is to be alone waits for all others, and they for it.
static COMPANY: RwLock<()> = RwLock::new(());

/// How many of the slowest tests are listed at the end.
const LISTED: usize = 20;

/// Runs the suite as the command line wants it.
#[must_use]
pub fn main(cases: Vec<Case>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    let threads = *arguments.test_threads.get_or_insert(THREADS);
    let listing = arguments.list;
    let times = Arc::new(Mutex::new(Vec::new()));
    let trials = cases.into_iter().map(|case| {
        let missing = case.needs.iter().find_map(|need| need.missing());
        if let (Some(reason), false) = (&missing, listing) {
            eprintln!("{} cannot run here: {reason}", case.name);
        }
        let (name, times) = (case.name.clone(), Arc::clone(&times));
        let run = move || {
            let (outcome, took) = timed(case.body, case.alone);
            if threads == 1 {
                // Stands between the name of the test and how it ended.
                print!("{:.1} s, ", took.as_secs_f64());
            } else {
                println!("{:6.1} s {name}", took.as_secs_f64());
            }
            times.lock().unwrap_or_else(PoisonError::into_inner).push((took, name));
            outcome.map_err(|error| format!("{error:#}").into())
        };
        Trial::test(case.name, run).with_ignored_flag(missing.is_some())
    });
    let started = Instant::now();
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let mut times = std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
    times.sort_by_key(|(took, _)| Reverse(*took));
    if times.len() > 1 {
        println!("{} tests in {:.0} s; the slowest:", times.len(), started.elapsed().as_secs_f64());
    }
    for (took, name) in times.iter().take(LISTED).filter(|_| times.len() > 1) {
        println!("{:6.1} s {name}", took.as_secs_f64());
    }
    conclusion.exit_code()
}

/// Runs a test when it may run, and gives how long it took.
fn timed(body: impl FnOnce() -> Result<()>, alone: bool) -> (Result<()>, Duration) {
    // A lock is poisoned by a test that panicked, which says nothing about the others.
    let (_alone, _shared) = if alone {
        (Some(COMPANY.write().unwrap_or_else(PoisonError::into_inner)), None)
    } else {
        (None, Some(COMPANY.read().unwrap_or_else(PoisonError::into_inner)))
    };
    let started = Instant::now();
    let outcome = body();
    (outcome, started.elapsed())
}

/// Whether everything is wanted that is too expensive for every run: `cargo xtask test --full`.
#[must_use]
pub fn is_full() -> bool {
    std::env::var_os("ML_TRACER_FULL").is_some_and(|value| value == "1")
}

/// Whether a case, a version of Python and a mode meet, each by its number in a list. In every run each case meets each
/// version, each case both modes, and each version both modes; all meet all when everything is wanted.
#[must_use]
pub fn do_meet(case: usize, version: usize, mode: usize) -> bool {
    is_full() || is_pair(case, version, mode)
}

fn is_pair(case: usize, version: usize, mode: usize) -> bool {
    (case + version + mode).is_multiple_of(2)
}

/// Prints a measurement.
pub fn report(line: &str) {
    eprintln!("{line}");
}

impl Need {
    /// Why it is not to be had here, if so.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Program => {
                let program = workspace::ml_tracer();
                (!program.is_file())
                    .then(|| format!("{} is missing: run `cargo build --release` or set ML_TRACER", program.display()))
            }
            Self::Kernel => kernel_refusal(),
            Self::Models => environment_missing("models", "bin/python"),
            Self::Collector => environment_missing("collector", "bin/python"),
            Self::Python(interpreter) => interpreter.missing(),
            Self::Containers => {
                (!is_on_path("crun")).then(|| "crun is missing: `cargo xtask prepare` installs it".to_owned())
            }
            Self::Command(name) => (!is_on_path(name)).then(|| format!("there is no {name} here")),
            Self::VirtualMachine => {
                let is_virtual = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" hypervisor"));
                (!is_virtual).then(|| "the processor is no virtual one".to_owned())
            }
        }
    }
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn environment_missing(name: &str, file: &str) -> Option<String> {
    let file = workspace::python_environment(name, file);
    (!file.exists()).then(|| format!("{} is missing: `cargo xtask test` makes it", file.display()))
}

fn kernel_refusal() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("loading BPF programs needs root".to_owned());
    }
    let uprobes = "/sys/bus/event_source/devices/uprobe/type";
    if fs::metadata(uprobes).is_err() {
        return Some(format!("this kernel has no uprobes ({uprobes} is missing)"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_of_case_version_and_mode_meet() {
        const EACH: usize = 4;
        let meet = |first: usize, second: usize, pair: fn(usize, usize, usize) -> bool| {
            (0..EACH).any(|third| pair(first, second, third))
        };
        for first in 0..EACH {
            for second in 0..EACH {
                assert!(meet(first, second, |case, version, mode| mode < 2 && is_pair(case, version, mode)));
                assert!(second >= 2 || meet(first, second, |case, mode, version| is_pair(case, version, mode)));
                assert!(second >= 2 || meet(first, second, |version, mode, case| is_pair(case, version, mode)));
            }
        }
    }
}
