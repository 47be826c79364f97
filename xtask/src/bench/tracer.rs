//! A running ml-tracer, from `attached` to its summary.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{ChildStderr, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::target::{Place, pinned};
use crate::process::Process;

/// The tracer with live probes.
pub struct Tracer {
    /// The process.
    pub process: Process,
    /// Milliseconds from its start until all probes were live, as it says itself.
    pub attach_ms: f64,
    /// Functions probed.
    pub functions: u64,
    errors: BufReader<ChildStderr>,
    summary: PathBuf,
}

impl Tracer {
    /// Attaches to a process, running on these processors; spans go to a file of the place.
    ///
    /// # Errors
    /// When it ends before all probes are live, with what it said.
    pub fn attach(place: &Place, processors: &[usize], pid: u32, name: &str, more: &[String]) -> Result<Self> {
        let summary = place.file(&format!("{name}.summary.json"));
        let mut command = pinned(processors, &place.tracer);
        command
            .args(["attach", "--python=watch", &format!("--pid={pid}")])
            .arg(format!("--export=jsonl={}", place.file(&format!("{name}.jsonl")).display()))
            .arg(format!("--summary={}", summary.display()))
            .args(more);
        let (process, mut errors) = start(&mut command)?;
        let line = wait_for_line(&mut errors, "ml-tracer: attached ")?;
        let figures: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [functions, attach_ms] = figures[..] else { bail!("`{line}` has no two figures") };
        Ok(Self { process, attach_ms, functions: functions as u64, errors, summary })
    }

    /// Has it end and reads its summary.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn finish(mut self) -> Result<Value> {
        self.process.signal("INT")?;
        let mut said = String::new();
        self.errors.read_to_string(&mut said)?;
        self.process.wait("ml-tracer").with_context(|| said)?;
        let text = fs::read_to_string(&self.summary).context("the tracer has left no summary")?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// Starts a command with its errors in a pipe.
///
/// # Errors
/// When it does not start.
pub fn start(command: &mut Command) -> Result<(Process, BufReader<ChildStderr>)> {
    let child = command.stderr(Stdio::piped()).spawn().with_context(|| format!("cannot start {command:?}"))?;
    let mut process = Process(child);
    let errors = process.0.stderr.take().context("the standard error is a pipe")?;
    Ok((process, BufReader::new(errors)))
}

/// Reads lines until one contains `text`.
///
/// # Errors
/// When they end before, with what was said.
pub fn wait_for_line(lines: &mut impl BufRead, text: &str) -> Result<String> {
    let mut said = String::new();
    loop {
        let begin = said.len();
        if lines.read_line(&mut said)? == 0 {
            bail!("no `{text}`, but: {said}(`ml-tracer doctor` says what this machine lacks)");
        }
        if said[begin..].contains(text) {
            return Ok(said[begin..].trim().to_owned());
        }
    }
}
