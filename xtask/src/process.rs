//! A process that a command has started, and waiting for things to happen.

use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::provision;

/// How long anything may take before a command gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that is ended when the command ends, however that is.
pub struct Process(pub Child);

impl Process {
    /// Sends it a signal, by the name that `kill` knows.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, name: &str) -> Result<()> {
        let pid = self.0.id().to_string();
        provision::output_of(Command::new("kill").args([&format!("-{name}"), &pid])).map(drop)
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.signal("TERM")?;
        self.wait_for_end()
    }

    /// Waits for an end in good order.
    ///
    /// # Errors
    /// When it does not end, or ends with a failure.
    pub fn wait(&mut self, what: &str) -> Result<()> {
        self.wait_for_end()?;
        let status = self.0.wait()?;
        ensure!(status.success(), "{what} ended with {status}");
        Ok(())
    }

    fn wait_for_end(&mut self) -> Result<()> {
        poll("the end of a process", || Ok(self.0.try_wait()?.map(drop)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks again until there is an answer.
///
/// # Errors
/// The first error of `ask`, or that time is up.
pub fn poll<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        sleep(Duration::from_millis(20));
    }
    bail!("waited {PATIENCE:?} for {what}")
}
