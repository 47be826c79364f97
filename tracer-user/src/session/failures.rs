//! What has gone wrong with processes that are left alone since, while the session goes on without them.

use std::time::{Duration, Instant};

use super::error::SessionError;
use crate::model::ProcessId;
use crate::target::has_ended;

/// How long a process that is said to be ending may take for it.
const ENDING: Duration = Duration::from_millis(20);

/// Whether a process that has no memory any more comes to its end.
pub fn ends_in_a_moment(process: ProcessId) -> bool {
    let asked = Instant::now();
    while asked.elapsed() < ENDING {
        std::thread::sleep(ENDING / 10);
        if has_ended(process) {
            return true;
        }
    }
    false
}

/// What has gone wrong with processes that go on and are left alone.
#[derive(Default)]
pub struct Failures(Vec<Failure>);

/// What has gone wrong with one.
struct Failure {
    process: ProcessId,
    error: SessionError,
    /// Whether it was said.
    is_told: bool,
}

impl Failures {
    /// A process is left alone, for this reason.
    pub fn add(&mut self, process: ProcessId, error: SessionError, is_told: bool) {
        self.0.push(Failure { process, error, is_told });
    }

    /// A process has ended: what had gone wrong with it ends nothing any more.
    pub fn forget(&mut self, process: ProcessId) {
        self.0.retain(|failure| failure.process != process);
    }

    /// Says what has gone wrong with named processes, if the session can go on without them because others are traced.
    ///
    /// # Errors
    /// Nothing is left that could be traced, and this is why.
    pub fn go_on(&mut self, is_any_traced: bool) -> Result<(), SessionError> {
        let last = if self.0.is_empty() || is_any_traced { None } else { Some(self.0.remove(0).error) };
        for Failure { process, error, is_told } in &mut self.0 {
            if !std::mem::replace(is_told, true) {
                tracing::warn!("process {process} is not traced any more: {error}");
            }
        }
        last.map_or(Ok(()), Err)
    }
}
