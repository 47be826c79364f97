//! Who is to be traced: where the processes come from, and what becomes of them.

use std::time::Instant;

use crate::model::{FileNumber, ProcessEvent, ProcessId, Target, TargetChange};

/// A selection of processes that changes with time.
pub trait TargetSource: Send {
    /// Those to begin with, each with the one that has forked it if it was not named itself: parents before their children.
    /// Asked once.
    fn first(&mut self) -> Vec<(Option<ProcessId>, Target)>;

    /// Whether more may come.
    fn follows(&self) -> bool;

    /// From now on the kernel tells ([`Self::take_note_of`]) which processes fork: they need not be looked for, but now and
    /// then, because what it tells may be lost.
    fn forks_are_told(&mut self);

    /// The kernel has told that something has happened to a process.
    fn take_note_of(&mut self, event: &ProcessEvent);

    /// When [`Self::changes`] is to be asked for next, unless the kernel tells something before.
    fn next_look(&self) -> Instant;

    /// What has changed since this was asked last, as far as it is time to look. A process that ended is told once and
    /// forgotten.
    fn changes(&mut self) -> Vec<TargetChange>;

    /// Has a file told anew at the next look at a process, as if it had just been mapped.
    fn forget(&mut self, process: ProcessId, file: FileNumber);

    /// Whether a process may have been forked that is not told yet.
    fn is_expecting(&self) -> bool;

    /// Whether no process is left, and none is to come.
    fn is_over(&self) -> bool;

    /// Processes that there was no room for.
    fn left_out(&self) -> u64;
}
