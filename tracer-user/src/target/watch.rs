//! Notices new modules, other programs, forks and the end of watched processes.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::error::TargetError;
use super::forks::Forks;
use super::process::{Glance, glance, look_at};
use crate::model::{Module, ProcessId, ProgramImage, Target, TargetChange};

/// Looks may take this share of the time, those at all processes together: one with hundreds of mapped files is looked at
/// less often.
const PART_OF_TIME: u32 = 50;

/// Longest time from one look to the next, for that reason, at a process that seems to have changed.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A process that was just found has been looked at: the next look at its files, if its program stays the same, comes later.
const YOUNG_PAUSE: Duration = Duration::from_millis(50);

/// Remembers what each process had mapped, and tells what is new.
pub struct Watcher {
    processes: Vec<Watched>,
    /// `None`: children are left alone.
    forks: Option<Forks>,
}

struct Watched {
    process: ProcessId,
    image: ProgramImage,
    known_files: HashSet<(i32, i32, u64)>,
    /// Bytes of address space when its files were looked at last.
    mapped_bytes: u64,
    /// No look before at its files, if its address space has changed.
    due: Instant,
    /// The same if it has not: files of the same size may have taken the place of others.
    due_anyway: Instant,
}

impl Watcher {
    /// Watches these processes, as they are now; with `follow` also those that they fork.
    #[must_use]
    pub fn new(targets: &[Target], follow: bool) -> Self {
        Self { processes: targets.iter().map(Watched::new).collect(), forks: follow.then(Forks::new) }
    }

    /// Whether no process is left to watch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty() && self.forks.as_ref().is_none_or(|forks| !forks.is_expecting())
    }

    /// Forked processes that there was no room for.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.forks.as_ref().map_or(0, Forks::left_out)
    }

    /// Looks again, where it is time, and tells what has changed since the last look. A process that ended is told once and
    /// forgotten.
    pub fn poll(&mut self) -> Vec<TargetChange> {
        let mut changes = Vec::new();
        // A process that has forked may be about to end: its children first.
        if let Some(forks) = &mut self.forks {
            let watched: Vec<ProcessId> = self.processes.iter().map(|watched| watched.process).collect();
            for (parent, target) in forks.look(&watched) {
                self.processes.push(Watched { due: Instant::now() + YOUNG_PAUSE, ..Watched::new(&target) });
                changes.push(TargetChange::Forked { parent, target });
            }
        }
        let count = u32::try_from(self.processes.len()).unwrap_or(u32::MAX);
        self.processes.retain_mut(|watched| match watched.look_if_due(PART_OF_TIME.saturating_mul(count)) {
            Ok(change) => {
                changes.extend(change);
                true
            }
            Err(Ended) => {
                changes.push(TargetChange::Gone(watched.process));
                false
            }
        });
        changes
    }
}

struct Ended;

impl Watched {
    fn new(target: &Target) -> Self {
        let now = Instant::now();
        Self {
            process: target.process,
            image: target.image,
            known_files: target.modules.iter().map(file_of).collect(),
            mapped_bytes: 0,
            due: now,
            due_anyway: now,
        }
    }

    fn look_if_due(&mut self, pause: u32) -> Result<Option<TargetChange>, Ended> {
        let began = Instant::now();
        let seen = match glance(self.process.pid) {
            Ok(seen) => seen,
            Err(TargetError::NoSuchProcess { .. }) => return Err(Ended),
            // A process that is being set up or torn down; the next look tells.
            Err(_) => return Ok(None),
        };
        if seen.process != self.process || seen.has_ended {
            return Err(Ended);
        }
        let runs_another = seen.image != self.image;
        let due = if seen.mapped_bytes == self.mapped_bytes { self.due_anyway } else { self.due };
        if !runs_another && began < due {
            return Ok(None);
        }
        let change = self.look(&seen);
        let pause = began.elapsed() * pause;
        self.due = Instant::now() + LONGEST_PAUSE.min(pause);
        self.due_anyway = Instant::now() + LONGEST_PAUSE.max(pause);
        change
    }

    fn look(&mut self, seen: &Glance) -> Result<Option<TargetChange>, Ended> {
        let target = match look_at(self.process.pid) {
            Ok(target) => target,
            Err(TargetError::NoSuchProcess { .. } | TargetError::Zombie { .. }) => return Err(Ended),
            Err(_) => return Ok(None),
        };
        if target.process != self.process {
            return Err(Ended);
        }
        // In the middle of `execve` code and stack are not yet what they will be: the next look tells.
        let is_settled = || glance(self.process.pid).is_ok_and(|now| now.image == target.image);
        if target.image != self.image && (target.image.code == 0 || !is_settled()) {
            return Ok(None);
        }
        let modules: Vec<_> =
            target.modules.iter().filter(|module| self.known_files.insert(file_of(module))).cloned().collect();
        self.mapped_bytes = seen.mapped_bytes;
        if target.image != self.image {
            self.image = target.image;
            return Ok(Some(TargetChange::Executed { target, modules }));
        }
        Ok((!modules.is_empty()).then_some(TargetChange::Mapped { target, modules }))
    }
}

fn file_of(module: &Module) -> (i32, i32, u64) {
    (module.device.0, module.device.1, module.inode)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_end_of_a_process_is_told_once() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
        let target = look_at(child.id()).expect("it runs");
        let mut watcher = Watcher::new(std::slice::from_ref(&target), false);
        child.kill().expect("our own child");
        child.wait().expect("our own child");
        assert_eq!(watcher.poll(), vec![TargetChange::Gone(target.process)]);
        assert!(watcher.is_empty());
        assert!(watcher.poll().is_empty());
    }

    #[test]
    fn another_program_in_the_same_process_is_told_once() {
        let mut child =
            Command::new("sh").args(["-c", "read go; exec sleep 60"]).stdin(std::process::Stdio::piped()).spawn();
        let child = child.as_mut().expect("sh is everywhere");
        let target = look_at(child.id()).expect("it runs");
        let mut watcher = Watcher::new(std::slice::from_ref(&target), false);
        watcher.poll();
        drop(child.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut executed = Vec::new();
        while executed.is_empty() && Instant::now() < deadline {
            executed.extend(watcher.poll());
        }
        let is_sleep = |change: &TargetChange| matches!(change, TargetChange::Executed { target, .. } if target.executable.ends_with("sleep"));
        assert!(executed.iter().any(is_sleep), "{executed:?}");
        assert!(!watcher.poll().iter().any(|change| matches!(change, TargetChange::Executed { .. })));
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }
}
