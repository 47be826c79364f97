//! A guard as the tracer sees it: posted before the first watchpoint of a process, relieved after the last one.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What a guard says when all threads report to it, or why they do not.
pub(super) const READY: &str = "ready";
pub(super) const REFUSED: &str = "refused: ";

/// What a guard says last: how many signals it has kept back.
pub(super) const KEPT: &str = "kept ";

/// What a guard is told when the watchpoints are gone.
pub(super) const RELEASED: &str = "released";

/// A guard of one process. Dropping it relieves it, as [`Guard::relieve`] does.
#[derive(Debug)]
pub struct Guard {
    process: u32,
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Guard {
    /// Posts a guard: this very program, as a process of its own. It must not stop or end with the tracer, because the
    /// signals of the guarded process go through its hands: a process group of its own keeps the terminal's signals away.
    ///
    /// # Errors
    /// Why the process cannot be guarded: somebody else traces it, or it has ended.
    pub fn post(process: u32) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["guard", "--pid", &process.to_string()]).process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let commands = child.stdin.take();
        let output = child.stdout.take().ok_or_else(|| io::Error::other("its output is no pipe"))?;
        let mut guard = Self { process, child, commands, answers: BufReader::new(output) };
        let answer = guard.answer()?;
        match answer.strip_prefix(REFUSED) {
            _ if answer == READY => Ok(guard),
            Some(reason) => Err(io::Error::other(reason.to_owned())),
            None => Err(io::Error::other("it has ended before it began")),
        }
    }

    /// The process that it guards.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.process
    }

    /// Whether it is still there. It ends with the process; if it has been killed, watchpoints must go at once.
    pub fn is_standing(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Tells it that the watchpoints are gone, waits until it has ended, and gives the number of signals that it has kept
    /// from the process.
    pub fn relieve(&mut self) -> u64 {
        let Some(mut commands) = self.commands.take() else { return 0 };
        // It may have ended already, with its process.
        let _ = writeln!(commands, "{RELEASED}");
        drop(commands);
        let kept = self.answer().ok().and_then(|answer| answer.strip_prefix(KEPT)?.parse().ok());
        let _ = self.child.wait();
        kept.unwrap_or(0)
    }

    fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.relieve();
    }
}
