//! `cargo xtask soak`: attaches to a busy scikit-learn process and lets go of it thousands of times, and looks at what is
//! left of both afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::Process;
use crate::{provision, python, workspace};

/// Predictions in a batch, spread over the threads.
const PREDICTIONS: &str = "64";
const THREADS: &str = "4";
/// Batches of the same process without a tracer, to compare with.
const UNTRACED_BATCHES: u64 = 1_000;
/// Code objects that the map asks for: all debug registers are in use.
const WATCHED: u64 = 4;
/// The tracer's memory may differ by this much between the first tenth of the cycles and the last, KiB.
const MOST_GROWTH: u64 = 2_048;

/// Attaches `cycles` times within one tracer, then `starts` times with a tracer of its own.
///
/// # Errors
/// When anything is not as it was.
pub fn run(cycles: u32, starts: u32) -> Result<()> {
    let root = workspace::root();
    let mut build = provision::cargo();
    build.args(["build", "--release", "--locked", "--package", "tracer-user"]);
    provision::run("cargo build --release", &mut build)?;
    let tracer = root.join("target/release/ml-tracer");
    let python = python::scikit_learn()?;
    let target = Target::start(&python)?;
    let pid = target.process.0.id();

    let began = Instant::now();
    let figures = many_cycles(&tracer, pid, cycles)?;
    println!("{cycles} cycles in {:.0} s: {figures}", began.elapsed().as_secs_f64());
    let began = Instant::now();
    for start in 1..=starts {
        attach(&tracer, pid, "100ms").with_context(|| format!("start {start} of {starts}"))?;
    }
    println!("{starts} starts in {:.0} s", began.elapsed().as_secs_f64());

    let summary = attach(&tracer, pid, "2s")?;
    let watched = summary.pointer("/python/0/watched").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    ensure!(watched == WATCHED, "only {watched} watchpoints can still be set: {summary}");
    let spans = summary.get("spans").and_then(Value::as_u64).unwrap_or_default();
    ensure!(spans > 0, "nothing is seen any more: {summary}");
    println!("afterwards: {watched} watchpoints, {spans} spans in 2 s");

    // All batches ask the same of the model.
    let traced = target.finish()?;
    let untraced = untraced(&python)?;
    let batches: u64 = traced.values().sum();
    ensure!(untraced.len() == 1, "the model gives {untraced:?} without a tracer");
    ensure!(traced.keys().eq(untraced.keys()), "the model gave {traced:?}, and {untraced:?} without a tracer");
    println!("the model's output in each of {batches} batches is the same as without a tracer");
    Ok(())
}

/// What the model gave in how many batches.
type Outputs = BTreeMap<String, u64>;

/// The last figures of the tracer, with its memory and descriptors.
fn many_cycles(tracer: &Path, pid: u32, cycles: u32) -> Result<String> {
    let map = workspace::root().join("tests/targets/python_span_cost/map.yaml");
    let mut command = Command::new(tracer);
    command.args(["soak", &format!("--pid={pid}"), &format!("--cycles={cycles}")]).arg("--map").arg(map);
    let mut child = Process(command.stdout(Stdio::piped()).spawn().context("cannot start ml-tracer")?);
    let output = child.0.stdout.take().context("the output is a pipe")?;
    let (mut memory, mut descriptors) = (Vec::new(), Vec::new());
    let mut last = Value::Null;
    for line in BufReader::new(output).lines() {
        last = serde_json::from_str(&line?)?;
        let figure = |name: &str| last.get(name).and_then(Value::as_u64);
        ensure!(figure("unbalanced") == Some(0), "the counts do not add up: {last}");
        // After the last line the tracer ends.
        if let (Ok(resident), Ok(open)) = (resident(child.0.id()), open_files(child.0.id())) {
            memory.push(resident);
            descriptors.push(open);
            eprintln!("    {last}, {resident} KiB, {open} descriptors");
        }
        ensure!(figure("cycles") == Some(0) || figure("fewest_watched") == Some(WATCHED), "not all is watched: {last}");
    }
    child.wait("ml-tracer")?;
    // The tracer goes on while it is looked at: the least of several looks is what it has between two cycles.
    let tenth = memory.len() / 10 + 1;
    let least = |figures: &[u64]| {
        let early = figures.iter().skip(1).take(tenth).min().copied();
        early.zip(figures.iter().rev().take(tenth).min().copied()).context("too few cycles to compare")
    };
    let (memory, descriptors) = (least(&memory)?, least(&descriptors)?);
    ensure!(memory.1 <= memory.0 + MOST_GROWTH, "memory has grown from {} to {} KiB", memory.0, memory.1);
    ensure!(
        descriptors.1 <= descriptors.0 + 1,
        "open descriptors have grown from {} to {}",
        descriptors.0,
        descriptors.1
    );
    Ok(format!("{last}; {} KiB at first, {} KiB at the end; {} descriptors", memory.0, memory.1, descriptors.1))
}

/// A whole tracer from start to end; its summary.
fn attach(tracer: &Path, pid: u32, duration: &str) -> Result<Value> {
    let folder = workspace::root().join("target/soak");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let summary = folder.join("summary.json");
    let mut command = Command::new(tracer);
    command.args(["attach", &format!("--pid={pid}"), &format!("--duration={duration}")]);
    command.arg(format!("--export=jsonl={}", folder.join("spans.jsonl").display()));
    command.arg(format!("--summary={}", summary.display()));
    provision::output_of(&mut command)?;
    let summary: Value = serde_json::from_str(&fs::read_to_string(summary)?)?;
    ensure!(summary.get("identity_holds") == Some(&Value::Bool(true)), "the counts do not add up: {summary}");
    Ok(summary)
}

/// The process that predicts all the time.
struct Target {
    process: Process,
    stop: Arc<AtomicBool>,
    driver: JoinHandle<Result<Outputs>>,
}

impl Target {
    fn start(python: &PathBuf) -> Result<Self> {
        let mut process = Process(command(python).spawn().context("cannot start python")?);
        let input = process.0.stdin.take().context("the input is a pipe")?;
        let mut output = BufReader::new(process.0.stdout.take().context("the output is a pipe")?);
        wait_until_ready(&mut output)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let driver = std::thread::spawn(move || drive(input, &mut output, |_| !stopped.load(Ordering::Relaxed)));
        Ok(Self { process, stop, driver })
    }

    /// Lets it end; gives what it says of its output.
    fn finish(mut self) -> Result<Outputs> {
        self.stop.store(true, Ordering::Relaxed);
        let driven = self.driver.join().ok().context("the driver of the target has failed")?;
        self.process.wait("the target")?;
        driven
    }
}

fn command(python: &PathBuf) -> Command {
    let mut command = Command::new(python);
    command.arg(workspace::root().join("tests/targets/python_sklearn_pipeline/target.py"));
    command.args([PREDICTIONS, THREADS]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn untraced(python: &PathBuf) -> Result<Outputs> {
    let mut process = Process(command(python).spawn().context("cannot start python")?);
    let input = process.0.stdin.take().context("the input is a pipe")?;
    let mut output = BufReader::new(process.0.stdout.take().context("the output is a pipe")?);
    wait_until_ready(&mut output)?;
    let outputs = drive(input, &mut output, |made| made < UNTRACED_BATCHES)?;
    process.wait("the target")?;
    Ok(outputs)
}

/// Asks for batches as long as `more` says so of the number that was made.
fn drive(mut input: ChildStdin, output: &mut impl BufRead, more: impl Fn(u64) -> bool) -> Result<Outputs> {
    let mut batches = 0;
    while more(batches) {
        input.write_all(b"go\n").context("the target has ended")?;
        wait_until_ready(output)?;
        batches += 1;
    }
    drop(input);
    let mut said = String::new();
    output.read_line(&mut said)?;
    let mut truth: Value = serde_json::from_str(&said).context("the target's last words")?;
    let outputs: Outputs = serde_json::from_value(truth["outputs"].take()).context("no outputs")?;
    ensure!(outputs.values().sum::<u64>() == batches, "of {batches} batches the target says {outputs:?}");
    Ok(outputs)
}

fn wait_until_ready(output: &mut impl BufRead) -> Result<()> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    ensure!(line == "ready\n", "the target said `{}`", line.trim());
    Ok(())
}

fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.split_whitespace().next().and_then(|value| value.parse().ok()).context("no figure")
}

fn open_files(pid: u32) -> Result<u64> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64)
}
