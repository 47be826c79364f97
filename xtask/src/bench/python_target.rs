//! A Python process with scikit-learn and OpenTelemetry's SDK: asked to do work and to time it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, ensure};

use super::target::{Place, pinned};
use crate::process::Process;
use crate::workspace;

/// The running process.
pub struct PythonTarget {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Address of the code of the method that `calls` calls.
    pub code: u64,
}

impl PythonTarget {
    /// Starts it on its processor.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(place: &Place, python: &Path) -> Result<Self> {
        let mut command = pinned(&[place.target_processor], python);
        command.arg(workspace::root().join("tests/targets/python_span_cost/target.py"));
        // Sets and dictionaries are laid out alike in every process.
        command.env("PYTHONHASHSEED", "0").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process(command.spawn().context("cannot start python")?);
        let input = process.0.stdin.take().context("the target's input is a pipe")?;
        let output = process.0.stdout.take().context("the target's output is a pipe")?;
        let mut target = Self { process, input, output: BufReader::new(output), code: 0 };
        let line = target.line()?;
        target.code = line.strip_prefix("ready ").and_then(|address| address.parse().ok()).context(line)?;
        Ok(target)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Has it do so much work, without waiting.
    ///
    /// # Errors
    /// When it has ended.
    pub fn begin(&mut self, work: &str, count: u32) -> Result<()> {
        writeln!(self.input, "{work} {count}").context("the target has ended")
    }

    /// Waits for work and gives the nanoseconds that each unit of it took.
    ///
    /// # Errors
    /// When it has ended or does not know the work.
    pub fn end(&mut self) -> Result<f64> {
        let line = self.line()?;
        let figures: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [count, nanoseconds] = figures[..] else { anyhow::bail!("the target said `{line}`") };
        Ok(nanoseconds / count)
    }

    /// Has it do so much work and gives the nanoseconds that each unit of it took.
    ///
    /// # Errors
    /// When it has ended or does not know the work.
    pub fn work(&mut self, work: &str, count: u32) -> Result<f64> {
        self.begin(work, count)?;
        self.end()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("the target cannot be read")?;
        ensure!(!line.is_empty(), "the target has ended");
        Ok(line.trim().to_owned())
    }
}
