//! Runs the tests of a suite; one that cannot run here is reported as ignored, and says why.
#![expect(clippy::print_stderr, reason = "reasons and measurements belong on the terminal")]

use std::fs;
use std::process::ExitCode;

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
    /// A virtual processor: on others the cause of a debug exception does not get lost.
    VirtualMachine,
}

/// One test.
pub struct Case {
    name: String,
    needs: Vec<Need>,
    body: Box<dyn FnOnce() -> Result<()> + Send>,
}

/// A test by its name, needs and body.
#[must_use]
pub fn case(name: &'static str, needs: &'static [Need], body: fn() -> Result<()>) -> Case {
    case_of(name.to_owned(), needs.to_vec(), body)
}

/// The same for one of a series.
#[must_use]
pub fn case_of(name: String, needs: Vec<Need>, body: impl FnOnce() -> Result<()> + Send + 'static) -> Case {
    Case { name, needs, body: Box::new(body) }
}

/// A test of any number of threads at once: two load a small machine well enough.
const THREADS: usize = 2;

/// Runs the suite as the command line wants it; `alone` for tests that measure.
#[must_use]
pub fn main(cases: Vec<Case>, alone: bool) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(if alone { 1 } else { THREADS });
    let listing = arguments.list;
    let trials = cases.into_iter().map(|case| {
        let missing = case.needs.iter().find_map(|need| need.missing());
        if let (Some(reason), false) = (&missing, listing) {
            eprintln!("{} cannot run here: {reason}", case.name);
        }
        let body = case.body;
        Trial::test(case.name, move || body().map_err(|error| format!("{error:#}").into()))
            .with_ignored_flag(missing.is_some())
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Whether what is expensive is repeated as often as is asked for.
#[must_use]
pub fn is_full() -> bool {
    std::env::var_os("ML_TRACER_FULL").is_some_and(|value| value == "1")
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
            Self::VirtualMachine => {
                let is_virtual = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" hypervisor"));
                (!is_virtual).then(|| "the processor is no virtual one".to_owned())
            }
        }
    }
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
