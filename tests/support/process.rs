//! A process started by a test: lines in, lines out, signals, and no survivor when the test ends or panics.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::fork_server::Forked;

/// How long anything may take before a test gives up. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running process in a process group of its own. Dropping it ends the group.
pub struct Running {
    name: String,
    process: Process,
    input: Option<Box<dyn Write + Send>>,
    output: Lines,
    errors: Lines,
    finished: bool,
}

/// Who is told of its end.
enum Process {
    Child(Child),
    Forked(Forked),
}

/// How a process ended and what it had said.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished {
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

struct Lines {
    arriving: Receiver<String>,
    seen: String,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a command with all three standard streams piped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let input: Box<dyn Write + Send> = Box::new(child.stdin.take().context("no standard input")?);
        let output = Lines::of(child.stdout.take().context("no standard output")?);
        let errors = Lines::of(child.stderr.take().context("no standard error")?);
        Ok(Self { name, process: Process::Child(child), input: Some(input), output, errors, finished: false })
    }

    /// Takes over a process that leads a group of its own, with the other ends of its standard streams.
    pub(crate) fn forked(
        name: String,
        forked: Forked,
        input: impl Write + Send + 'static,
        output: impl Read + Send + 'static,
        errors: impl Read + Send + 'static,
    ) -> Self {
        Self {
            name,
            process: Process::Forked(forked),
            input: Some(Box::new(input)),
            output: Lines::of(output),
            errors: Lines::of(errors),
            finished: false,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match &self.process {
            Process::Child(child) => child.id(),
            Process::Forked(forked) => forked.pid(),
        }
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    /// When the input is closed.
    pub fn send_line(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().with_context(|| format!("the input of {} is closed", self.name))?;
        writeln!(input, "{line}").and_then(|()| input.flush()).with_context(|| format!("cannot write to {}", self.name))
    }

    /// Ends its standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits for a line of standard output that contains `text` and gives it.
    ///
    /// # Errors
    /// When the output ends or time is up before; the message holds everything said so far.
    pub fn wait_output(&mut self, text: &str) -> Result<String> {
        let found = self.output.wait_for(text);
        found.map_err(|reason| self.describe(text, reason))
    }

    /// Waits for a line of standard error that contains `text` and gives it.
    ///
    /// # Errors
    /// As [`Self::wait_output`].
    pub fn wait_errors(&mut self, text: &str) -> Result<String> {
        let found = self.errors.wait_for(text);
        found.map_err(|reason| self.describe(text, reason))
    }

    fn describe(&mut self, text: &str, reason: &str) -> anyhow::Error {
        self.output.collect();
        self.errors.collect();
        // Its output may have ended a moment before itself.
        sleep(Duration::from_millis(200));
        let status = match self.process.try_wait() {
            Ok(Some(status)) => status.to_string(),
            _ => "still running".to_owned(),
        };
        anyhow!(
            "no line with `{text}` from {} ({reason}, {status}); its output: {} its errors: {}",
            self.name,
            self.output.seen,
            self.errors.seen
        )
    }

    /// Sends a signal to the process alone.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.identity()?, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    /// Closes the input and waits for the end.
    ///
    /// # Errors
    /// When it has not ended in time.
    pub fn finish(mut self) -> Result<Finished> {
        self.close_input();
        let status = {
            let process = &mut self.process;
            poll("the end of the process", || process.try_wait()).map_err(|error| error.context(self.name.clone()))?
        };
        self.finished = true;
        // A forked descendant may still hold the pipes: it is part of the group, and the test is over.
        self.end_group();
        self.output.read_to_end();
        self.errors.read_to_end();
        Ok(Finished {
            code: status.code(),
            signal: status.signal(),
            output: std::mem::take(&mut self.output.seen),
            errors: std::mem::take(&mut self.errors.seen),
        })
    }

    fn identity(&self) -> Result<Pid> {
        i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("a process id is a positive number")
    }

    fn end_group(&self) {
        if let Ok(group) = self.identity() {
            // An empty group is what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.finished {
            self.end_group();
            // A test that fails does so for another reason.
            let _ = self.process.wait();
        }
    }
}

impl Process {
    /// How it has ended, if it has.
    fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        match self {
            Self::Child(child) => Ok(child.try_wait()?),
            Self::Forked(forked) => forked.try_wait(),
        }
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        match self {
            Self::Child(child) => Ok(child.wait()?),
            Self::Forked(forked) => forked.wait(),
        }
    }
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let (sender, arriving) = channel();
        Self { arriving, seen: String::new(), reader: Some(spawn(move || read_lines(stream, &sender))) }
    }

    fn wait_for(&mut self, text: &str) -> Result<String, &'static str> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.arriving.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    if line.contains(text) {
                        return Ok(line.trim_end().to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Err("time is up"),
                Err(RecvTimeoutError::Disconnected) => return Err("it has ended"),
            }
        }
    }

    fn collect(&mut self) {
        self.seen.extend(self.arriving.try_iter());
    }

    fn read_to_end(&mut self) {
        if let Some(reader) = self.reader.take() {
            // A reader that panicked has already reported it.
            let _ = reader.join();
        }
        self.collect();
    }
}

fn read_lines(stream: impl Read, sender: &Sender<String>) {
    let mut stream = BufReader::new(stream);
    let mut bytes = Vec::new();
    while stream.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
        if sender.send(String::from_utf8_lossy(&bytes).into_owned()).is_err() {
            return;
        }
        bytes.clear();
    }
}

/// Asks again until there is an answer.
///
/// # Errors
/// The first error of `ask`, or that time is up.
pub fn poll<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("waited {PATIENCE:?} for {what}");
        }
        sleep(Duration::from_millis(5));
    }
}

/// Runs a command to its end with no input.
///
/// # Errors
/// When it cannot be started or does not end.
pub fn run(command: Command) -> Result<Finished> {
    Running::start(command)?.finish()
}
