//! The program that is traced: built once, copied for each configuration, asked to make calls and to time them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::{provision, workspace};

/// Where everything lies and runs.
pub struct Place {
    /// For what is built and written.
    pub folder: PathBuf,
    /// The tracer.
    pub tracer: PathBuf,
    /// The symbol map of the target.
    pub map: PathBuf,
    /// Processor of the target.
    pub target_processor: usize,
    /// Processor of whatever traces it.
    pub tracer_processor: usize,
    program: PathBuf,
}

impl Place {
    /// Builds the target.
    ///
    /// # Errors
    /// When it does not compile, or there is one processor only.
    pub fn prepare(folder: PathBuf) -> Result<Self> {
        let processors = std::thread::available_parallelism().context("cannot count the processors")?.get();
        ensure!(processors >= 2, "two processors are needed: one for the target, one for what traces it");
        let root = workspace::root();
        let sources = root.join("tests/targets/bench_calls");
        let program = folder.join("bench_calls");
        let mut compiler = Command::new("c++");
        compiler.args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-fcf-protection=none"]);
        for file in ["main.cpp", "model.cpp", "functions.S"] {
            compiler.arg(sources.join(file));
        }
        provision::run("compiling the program to trace", compiler.arg("-o").arg(&program))?;
        Ok(Self {
            tracer: root.join("target/release/ml-tracer"),
            map: sources.join("map.yaml"),
            target_processor: processors - 1,
            tracer_processor: 0,
            folder,
            program,
        })
    }

    /// A file of the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A copy of the target, so that probes of one configuration are none in another: the kernel keeps them by file.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy_of_target(&self, name: &str) -> Result<PathBuf> {
        let copy = self.file(&format!("bench_calls_{name}"));
        // Not into a file that may still be mapped.
        let _ = fs::remove_file(&copy);
        fs::copy(&self.program, &copy).with_context(|| format!("cannot copy to {}", copy.display()))?;
        Ok(copy)
    }
}

/// A command that runs on these processors only.
pub fn pinned(processors: &[usize], program: &Path) -> Command {
    let list: Vec<String> = processors.iter().map(ToString::to_string).collect();
    let mut command = Command::new("taskset");
    command.arg("--cpu-list").arg(list.join(",")).arg(program);
    command
}

/// The running target.
pub struct Target {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Target {
    /// Starts it on its processor.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(place: &Place, program: &Path) -> Result<Self> {
        let mut command = pinned(&[place.target_processor], program);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start the target")?;
        let mut process = Process(child);
        let input = process.0.stdin.take().context("the target's input is a pipe")?;
        let output = process.0.stdout.take().context("the target's output is a pipe")?;
        let mut target = Self { process, input, output: BufReader::new(output) };
        let line = target.line()?;
        ensure!(line == "ready", "the target said `{line}`");
        Ok(target)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Has it make calls and gives the nanoseconds that each took.
    ///
    /// # Errors
    /// When it has ended or does not know the kind.
    pub fn calls(&mut self, kind: &str, count: u32) -> Result<f64> {
        self.ask(&format!("{kind} {count}"))
    }

    /// Has it make calls at a steady rate and gives how many a second it made.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pace(&mut self, rate: u32, seconds: u32) -> Result<f64> {
        self.ask(&format!("pace {rate} {seconds}"))
    }

    fn ask(&mut self, question: &str) -> Result<f64> {
        writeln!(self.input, "{question}").context("the target has ended")?;
        let figure: f64 = self.line()?.parse().context("the target did not answer with a number")?;
        ensure!(figure > 0.0, "the target does not know `{question}`");
        Ok(figure)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("the target cannot be read")?;
        ensure!(!line.is_empty(), "the target has ended");
        Ok(line.trim().to_owned())
    }
}
