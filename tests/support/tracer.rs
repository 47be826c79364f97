//! The tracer at work: attach, stop, and what it has to say afterwards.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Finished, Running, poll, run};
use crate::root;
use crate::spans::{SpanRow, Spans};
use crate::workspace;

/// Everything nests.
pub const NEST_ALL: &str = "schema: ml-tracer/v1\nlibrary: test\nlanguage: cpp\n\
    methods: [fit, transform, predict, predict_proba]\nrecurse: all\n";

/// How to start the tracer.
pub struct Tracer {
    folder: TempDir,
    command: Command,
}

/// A tracer whose probes are live.
pub struct Attached {
    /// Its process.
    pub running: Running,
    /// The line that said so.
    pub announcement: String,
    folder: TempDir,
}

/// What a tracer has left behind.
pub struct Trace {
    /// The spans of the jsonl file.
    pub spans: Spans,
    /// The file of `--summary`.
    pub summary: Summary,
    /// How the process ended.
    pub finished: Finished,
    /// The folder with its files.
    pub folder: TempDir,
}

/// The file of `--summary`.
#[derive(Clone, Debug)]
pub struct Summary(pub Value);

/// A run of the program to its end.
///
/// # Errors
/// When it cannot be started or does not end.
pub fn ml_tracer<Argument: AsRef<OsStr>>(arguments: impl IntoIterator<Item = Argument>) -> Result<Finished> {
    let mut command = Command::new(workspace::ml_tracer());
    command.args(arguments);
    run(command)
}

impl Tracer {
    /// `ml-tracer attach --pid PID`, writing spans and summary to a folder of its own.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn attach(pid: u32) -> Result<Self> {
        let mut tracer = Self::with_command("attach")?;
        tracer.command.arg("--pid").arg(pid.to_string());
        Ok(tracer)
    }

    /// `ml-tracer run`; give the command to run with [`Self::finish_with`].
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn run() -> Result<Self> {
        Self::with_command("run")
    }

    fn with_command(name: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(workspace::ml_tracer());
        // Most tests are about one way to see Python calls; one that is named later has the last word.
        command
            .arg(name)
            .args(["--python", "watch"])
            .arg("--export")
            .arg(format!("jsonl={}", folder.path().join("spans.jsonl").display()));
        command.arg("--summary").arg(folder.path().join("summary.json"));
        Ok(Self { folder, command })
    }

    /// Adds a symbol map by its text.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn map(self, yaml: &str) -> Result<Self> {
        let file = self.folder.path().join("map.yaml");
        fs::write(&file, yaml)?;
        self.map_file(&file)
    }

    /// Adds a symbol map.
    ///
    /// # Errors
    /// Never; it is a `Result` to be chained after [`Self::map`].
    pub fn map_file(mut self, file: &Path) -> Result<Self> {
        self.command.arg("--map").arg(file);
        Ok(self)
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<Argument: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = Argument>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Has it started in this folder.
    #[must_use]
    pub fn in_folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Has a shell do this first, in the process that then becomes the tracer.
    #[must_use]
    pub fn after(mut self, shell: &str) -> Self {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("{shell} && exec \"$@\"")).arg("sh");
        command.arg(self.command.get_program()).args(self.command.get_args());
        self.command = command;
        self
    }

    /// Has it done by a program inside a root directory of its own, as [`root::inside`] starts one, which sees of the outside nothing
    /// but the kernel's file systems and the folder of this tracer.
    #[must_use]
    pub fn in_root(mut self, root: &Path, program: &str) -> Self {
        let outside = self.folder.path().to_string_lossy().into_owned();
        let mut command = root::inside(root, self.folder.path());
        command.arg(program);
        command.args(self.command.get_args().map(|word| word.to_string_lossy().replace(&outside, root::FOLDER)));
        self.command = command;
        self
    }

    /// A file of its folder, for exports.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts it and waits until all probes are live.
    ///
    /// # Errors
    /// When it ends before, with what it said.
    pub fn start(self) -> Result<Attached> {
        let mut running = Running::start(self.command)?;
        let announcement = running.wait_errors("ml-tracer: attached ")?;
        Ok(Attached { running, announcement, folder: self.folder })
    }

    /// Runs it to its end: for `run -- COMMAND`, or an attach that ends by itself.
    ///
    /// # Errors
    /// When it does not end, or leaves no summary.
    pub fn finish_with(mut self, command: &[&OsStr]) -> Result<Trace> {
        self.command.arg("--").args(command);
        self.finish()
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// As [`Self::finish_with`].
    pub fn finish(self) -> Result<Trace> {
        let finished = run(self.command)?;
        Trace::read(self.folder, finished)
    }
}

impl Attached {
    /// A file of its folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until it has written a span.
    ///
    /// # Errors
    /// When none comes.
    pub fn wait_for_span(&self) -> Result<()> {
        let spans = self.file("spans.jsonl");
        poll("the first span", || Ok(fs::metadata(&spans).is_ok_and(|file| file.len() > 0).then_some(())))
    }

    /// Has it detach with SIGINT and reads what it has left.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(self) -> Result<Trace> {
        self.running.signal(Signal::INT)?;
        self.finish()
    }

    /// Waits for its end and reads what it has left.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn finish(self) -> Result<Trace> {
        let finished = self.running.finish()?;
        ensure!(finished.code == Some(0), "the tracer ended with {:?}: {}", finished.code, finished.errors);
        Trace::read(self.folder, finished)
    }
}

impl Trace {
    fn read(folder: TempDir, finished: Finished) -> Result<Self> {
        let summary = Summary::read(&folder.path().join("summary.json"))
            .with_context(|| format!("the tracer ended with {:?}: {}", finished.code, finished.errors))?;
        let spans = Spans::read(&folder.path().join("spans.jsonl"))?;
        Ok(Self { spans, summary, finished, folder })
    }

    /// Checks that nothing is lost and everything adds up: the counts add up, the spans are well formed, their
    /// number is the one of the summary, and the last line says the same.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_whole(&self) -> Result<()> {
        ensure!(self.summary.lost() == 0, "{} calls lost: {}", self.summary.lost(), self.finished.errors);
        self.check_books()?;
        self.spans.check()
    }

    /// Checks that everything adds up, losses included.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_books(&self) -> Result<()> {
        let summary = &self.summary;
        ensure!(
            summary.entries() == summary.spans() + summary.folded() + summary.lost() + summary.open(),
            "the counts do not add up: {}",
            summary.0
        );
        let line = format!(
            "ml-tracer: spans={} folded={} lost={} open={}",
            summary.spans(),
            summary.folded(),
            summary.lost(),
            summary.open()
        );
        ensure!(self.finished.errors.contains(&line), "no line `{line}` in: {}", self.finished.errors);
        let is_call = |row: &&SpanRow| row.ending() != "lost" && !row.is_request();
        let written = self.spans.0.iter().filter(is_call).count() as u64;
        let expected = summary.spans() + summary.open();
        ensure!(written == expected, "{written} spans in the file, {expected} in the summary: {}", summary.0);
        Ok(())
    }
}

impl Summary {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is missing or no JSON.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("no summary in {}", file.display()))?;
        Ok(Self(serde_json::from_str(&text)?))
    }

    fn number(&self, key: &str) -> u64 {
        self.0.get(key).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number `{key}` in the summary {}", self.0))
    }

    /// Calls seen to begin.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.number("entries")
    }

    /// Calls that became spans.
    #[must_use]
    pub fn spans(&self) -> u64 {
        self.number("spans")
    }

    /// Calls counted in their caller.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.number("folded")
    }

    /// Calls lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.number("lost")
    }

    /// Calls lost for a reason that has these words.
    #[must_use]
    pub fn lost_because(&self, words: &str) -> u64 {
        let reasons = self.0.get("lost_by_reason").and_then(Value::as_array);
        let reasons = reasons.unwrap_or_else(|| panic!("no reasons in the summary {}", self.0));
        let of_it = reasons.iter().filter(|it| it["reason"].as_str().is_some_and(|reason| reason.contains(words)));
        of_it.filter_map(|it| it["calls"].as_u64()).sum()
    }

    /// Calls still open at the end.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.number("open")
    }

    /// Spans that stand for lost calls, as parents of others.
    #[must_use]
    pub fn placeholders(&self) -> u64 {
        self.number("stand_ins")
    }

    /// Watchpoint hits whose cause was lost, and that were recognised.
    #[must_use]
    pub fn hits_without_cause(&self) -> u64 {
        self.number("hits_without_cause")
    }

    /// Signals that were kept from the process.
    #[must_use]
    pub fn kept_signals(&self) -> u64 {
        self.number("kept_signals")
    }

    /// Probed functions.
    #[must_use]
    pub fn functions(&self) -> u64 {
        self.number("functions")
    }

    /// What of each Python interpreter was traced, and what was not.
    #[must_use]
    pub fn python(&self) -> &[Value] {
        self.0.get("python").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Python methods that were watched, `Class.method`.
    #[must_use]
    pub fn watched(&self) -> BTreeSet<String> {
        let codes = self.python().iter().filter_map(|interpreter| interpreter.get("watched")?.as_array()).flatten();
        let methods = codes.filter_map(|code| code.get("methods")?.as_array()).flatten();
        methods.filter_map(|method| method.as_str().map(str::to_owned)).collect()
    }

    /// Milliseconds from the start of the program until all probes were live.
    #[must_use]
    pub fn attach_ms(&self) -> f64 {
        self.0.get("attach_ms").and_then(Value::as_f64).unwrap_or_else(|| panic!("no attach_ms in {}", self.0))
    }
}
