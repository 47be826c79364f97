//! `cargo xtask test`: everything that must hold, step by step, with the time of each step and one line of figures at the end.
//!
//! # The budget
//!
//! On two processors the whole takes at most 25 minutes where `cargo xtask prepare` has been before, and 30 on a fresh
//! machine. The Python suite has at most 11 of them. No new capability adds more than 4. Who has no time left looks at the
//! slowest tests, which every suite lists at its end, and then, in this order:
//!
//! 1. waits for what is to happen instead of for a time;
//! 2. starts Python targets with scikit-learn by `PythonRun::forked`: forked from an interpreter that has imported it;
//! 3. tries both modes on one process, where a test is not about how a process starts or ends;
//! 4. lets cases, versions of Python and modes meet in pairs (`suite::do_meet`) instead of all with all;
//! 5. lets other tests run beside it, unless it measures (`suite::Case::alone`).
//!
//! `cargo xtask test --full` has no budget: there all meet all, and whatever could harm a traced program is done a hundred times.

use std::io::{BufRead, BufReader};
use std::panic::resume_unwind;
use std::process::Stdio;
use std::slice::Iter;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::setpriority_process;

use crate::kernels::Tested;
use crate::python::{self, Python};
use crate::{build_ebpf, check, chroot, dist, fuzz, kernels, provision};

/// Python environments of the suites beside the one of the models: name below `target/venv`, requirements file,
/// interpreter. Where an interpreter is missing, so is its environment, and the tests that want it are skipped.
const ENVIRONMENTS: [(&str, &str, Python); 10] = [
    ("collector", "collector", Python::Any),
    ("oracle-3.9", "oracle", Python::Version("3.9")),
    ("plain-3.8", "plain", Python::Version("3.8")),
    ("plain-3.10", "plain", Python::Version("3.10")),
    ("sklearn-1.2-3.11", "sklearn-1.2", Python::Version("3.11")),
    ("sklearn-3.11", "sklearn", Python::Version("3.11")),
    ("sklearn-3.12", "sklearn", Python::Version("3.12")),
    ("sklearn-3.13", "sklearn", Python::Version("3.13")),
    ("sklearn-system", "sklearn", Python::System),
    ("libraries-3.12", "libraries", Python::Version("3.12")),
];

/// The one with PyTorch, which only the long run has: Debian's packages for it take 650 MB.
const TORCH: (&str, &str, Python) = ("torch-system", "torch", Python::SystemWithItsPackages);

/// Likewise the one for which llama.cpp is compiled, two minutes of one processor.
const LLAMA: (&str, &str, Python) = ("llama-3.12", "llama", Python::Version("3.12"));

type Step = (&'static str, fn() -> Result<Outcome>);

/// What the suites cannot begin without, side by side: the machine waits for the network while the others compile.
const FIRST: [&[Step]; 3] = [
    &[("prepare the machine", || once(|| prepare(false)))],
    &[("release build", || once(release_build)), ("Linux 6.1 in QEMU", oldest_kernel)],
    &[("build of the suites", || once(suites_build))],
];

/// What needs nothing but the sources. It takes only what the suites leave of the processors: they mostly wait.
const OF_THE_SOURCE: [Step; 4] = [
    ("house rules", || once(check::run)),
    ("BPF object", || once(build_ebpf::check)),
    ("unit tests", || tests(&["--workspace", "--exclude", "tracer-ebpf", "--exclude", "tracer-tests"], &[])),
    ("fuzz targets", || once(|| fuzz::run(&[], FUZZ_SECONDS, fuzz::Profile::Dev))),
];

/// Seconds of each fuzz target: enough to find that one does not work at all. Who looks for more asks for more.
const FUZZ_SECONDS: u32 = 5;

/// What would be released, which the long run tries on other systems.
const DISTRIBUTION: Step = ("distribution", || once(dist::run));

/// With the program and a prepared machine.
const SUITES: Step = ("suites", || suites(&[]));

/// The same with all repetitions, and all cases on all versions of Python in both modes.
const FULL_SUITES: Step = ("suites", || suites(&[FULL]));

/// Tells the suites to run what takes long, too. They read it in `tests/support/suite.rs`.
const FULL: (&str, &str) = ("ML_TRACER_FULL", "1");

/// Prepares the machine and runs every step; a failed step does not keep the next ones from running. `full`: with the long
/// repetitions, and nothing left out.
///
/// # Errors
/// When any step failed.
pub fn run(full: bool) -> Result<()> {
    let started = Instant::now();
    let mut done = side_by_side(&FIRST);
    if full {
        prepare_more();
        done.push(take(&DISTRIBUTION));
    }
    let suites = if full { FULL_SUITES } else { SUITES };
    done.extend(std::thread::scope(|scope| {
        let of_the_source = scope.spawn(|| {
            give_way();
            OF_THE_SOURCE.iter().map(take).collect::<Vec<Done>>()
        });
        let suites = take(&suites);
        let mut done = of_the_source.join().unwrap_or_else(|panic| resume_unwind(panic));
        done.push(suites);
        done
    }));
    eprintln!("\n=== all steps in {:.0} s:", started.elapsed().as_secs_f64());
    let (mut total, mut failed) = (Outcome::default(), Vec::new());
    for Done { name, outcome, took } in done {
        eprintln!("{:8.1} s {name}", took.as_secs_f64());
        if outcome.failed > 0 {
            failed.push(name);
        }
        total.add(outcome);
    }
    // The steps print side by side: whoever reads only the end finds there why it failed.
    print!("{}", total.why);
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn side_by_side(lanes: &[&[Step]]) -> Vec<Done> {
    std::thread::scope(|scope| {
        let lanes: Vec<_> =
            lanes.iter().map(|steps| scope.spawn(|| steps.iter().map(take).collect::<Vec<Done>>())).collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// This thread, and what it starts from now on, runs only where nothing else wants to.
fn give_way() {
    if let Err(error) = setpriority_process(None, LEAST_PRIORITY) {
        eprintln!("==> the steps beside the suites have the same priority as these: {error}");
    }
}

/// `setpriority` counts from -20 to 19, the least.
const LEAST_PRIORITY: i32 = 19;

/// A step that has been taken.
struct Done {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

fn take((name, step): &Step) -> Done {
    eprintln!("\n=== {name}");
    let started = Instant::now();
    let outcome = step().unwrap_or_else(|error| {
        eprintln!("{name}: {error:#}");
        Outcome { failed: 1, why: format!("{name}: {error:#}\n"), ..Outcome::default() }
    });
    let took = started.elapsed();
    let word = if outcome.failed > 0 { "FAILED" } else { "ok" };
    eprintln!("=== {name}: {word} in {:.1} s", took.as_secs_f64());
    Done { name, outcome, took }
}

/// How many tests ended how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// What the failed ones said.
    why: String,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.why += &other.why;
    }

    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; ...`; `None` for any other line.
    fn parse(line: &str) -> Option<Self> {
        let (_, figures) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
        let figure = |name: &str| {
            figures.split("; ").find_map(|part| part.strip_suffix(name)?.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let (passed, failed, skipped) = (figure("passed"), figure("failed"), figure("ignored"));
        Some(Self { passed, failed, skipped, why: String::new() })
    }
}

/// A step that counts as one test.
fn once(step: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    step()?;
    Ok(Outcome { passed: 1, ..Outcome::default() })
}

/// Boots the oldest kernel that is supported.
fn oldest_kernel() -> Result<Outcome> {
    match kernels::test()? {
        Tested::Good => Ok(Outcome { passed: 1, ..Outcome::default() }),
        Tested::NotTried(error) => {
            println!("no kernel can be booted here: {error:#}");
            Ok(Outcome { skipped: 1, ..Outcome::default() })
        }
    }
}

/// Puts onto the machine what the suites need. What only some tests need may be missing in the end; it is said why.
///
/// # Errors
/// When something cannot be set up that has to be there.
pub fn prepare(full: bool) -> Result<()> {
    provision::programs("compiling the programs to trace", &[("cc", "gcc"), ("c++", "g++")])?;
    provision::programs("making test certificates", &[("openssl", "openssl")])?;
    if let Err(error) = provision::programs("running the tracer in a container", &[("crun", "crun")]) {
        eprintln!("==> no container runtime: {error:#}; the tests that want one are skipped");
    }
    for (program, package) in
        [("clang++", "clang"), ("go", "golang-go"), ("llvm-bolt-16", "bolt-16"), ("bpftool", "bpftool")]
    {
        if let Err(error) = provision::programs("programs to trace that only some tests want", &[(program, package)]) {
            eprintln!("==> no {program}: {error:#}; the tests that want it are skipped");
        }
    }
    if full {
        prepare_more();
    }
    // Before all others: Debian sid is filled with its pip.
    let pip = python::models()?.join("bin/python");
    let waiting = Mutex::new(ENVIRONMENTS.iter());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Err(error) = chroot::debian_sid(&python::requirements("sklearn"), &pip) {
                eprintln!("==> no Debian sid: {error:#}; the tests that want CPython 3.14 and 3.15 are skipped");
            }
        });
        // Two at a time: one keeps one processor busy.
        let lanes = [(); 2].map(|()| scope.spawn(|| environments(&waiting)));
        lanes.into_iter().try_for_each(|lane| lane.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// What only the long run wants, where it can be had.
fn prepare_more() {
    if let Err(error) = llama() {
        eprintln!("==> no llama-cpp-python: {error:#}; the tests that want it are skipped");
    }
    if let Err(error) = torch() {
        eprintln!("==> no PyTorch: {error:#}; the tests that want it are skipped");
    }
    if let Err(error) = chroot::debian_11() {
        eprintln!("==> no Debian 11: {error:#}; the tests that want it are skipped");
    }
}

/// Debian's PyTorch, and what is built on it.
fn torch() -> Result<()> {
    provision::system_packages("PyTorch's modules under the tracer", &["python3-torch"])?;
    let (name, file, interpreter) = TORCH;
    python::environment(name, &python::requirements(file), interpreter).map(drop)
}

fn llama() -> Result<()> {
    provision::programs("compiling llama.cpp", &[("c++", "g++")])?;
    let (name, file, interpreter) = LLAMA;
    python::environment(name, &python::requirements(file), interpreter).map(drop)
}

/// Makes one environment after another, until none is left to be made.
fn environments(waiting: &Mutex<Iter<'_, (&str, &str, Python)>>) -> Result<()> {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some((name, file, interpreter)) = next else { return Ok(()) };
        python::environment(name, &python::requirements(file), *interpreter)?;
    }
}

fn release_build() -> Result<()> {
    let mut command = provision::cargo();
    command.args(["build", "--release", "--locked", "--package", "tracer-user"]);
    provision::run("cargo build --release", &mut command)
}

fn suites_build() -> Result<()> {
    let mut command = provision::cargo();
    provision::run("build of the suites", command.args(["test", "--locked", "--no-run", "--package", "tracer-tests"]))
}

fn suites(variables: &[(&str, &str)]) -> Result<Outcome> {
    tests(&["--package", "tracer-tests"], variables)
}

/// Runs `cargo test`, passes its output on, and adds up the figures of all its test programs.
fn tests(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Outcome> {
    let mut command = provision::cargo();
    command.args(["test", "--locked", "--no-fail-fast"]).args(arguments).envs(variables.iter().copied());
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let output = child.stdout.take().context("the output of cargo test is a pipe")?;
    let mut total = Outcome::default();
    let mut is_why = false;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read the output of cargo test")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        let figures = Outcome::parse(&line);
        is_why = figures.is_none() && (is_why || line == "failures:");
        if is_why {
            total.why += &format!("{line}\n");
        }
        total.add(figures.unwrap_or_default());
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    if !status.success() && total.failed == 0 {
        // It did not compile, or a test program died.
        total.failed = 1;
        total.why += &format!("cargo test ended with {status}\n");
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(passed: u64, failed: u64, skipped: u64) -> Outcome {
        Outcome { passed, failed, skipped, why: String::new() }
    }

    #[test]
    fn reads_the_lines_of_both_test_harnesses() {
        let line = "test result: FAILED. 26 passed; 2 failed; 3 ignored; 0 measured; 1 filtered out; finished in 0.03s";
        assert_eq!(Outcome::parse(line), Some(outcome(26, 2, 3)));
        let line = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(Outcome::parse(line), Some(outcome(1, 0, 0)));
        assert_eq!(Outcome::parse("test layers::tests::globs ... ok"), None);
    }

    #[test]
    fn a_step_is_one_test() {
        assert_eq!(once(|| Ok(())).ok(), Some(outcome(1, 0, 0)));
        assert!(once(|| anyhow::bail!("no")).is_err());
    }
}
