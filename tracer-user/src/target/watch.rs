//! Notices new modules and the end of watched processes.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::error::TargetError;
use super::process::look_at;
use crate::model::{ProcessId, Target, TargetChange};

/// A look may take this share of the time: a process with hundreds of mapped files is looked at less often.
const PART_OF_TIME: u32 = 50;

/// Longest time from one look to the next, for that reason.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Remembers what each process had mapped, and tells what is new.
pub struct Watcher {
    processes: Vec<Watched>,
}

struct Watched {
    process: ProcessId,
    known_files: HashSet<(i32, i32, u64)>,
    /// No look before.
    due: Instant,
}

impl Watcher {
    /// Watches these processes, as they are now.
    #[must_use]
    pub fn new(targets: &[Target]) -> Self {
        let processes = targets
            .iter()
            .map(|target| Watched {
                process: target.process,
                known_files: target
                    .modules
                    .iter()
                    .map(|module| (module.device.0, module.device.1, module.inode))
                    .collect(),
                due: Instant::now(),
            })
            .collect();
        Self { processes }
    }

    /// Whether a process is left to watch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Looks again, where it is time, and tells what has changed since the last look. A process that ended is told once and
    /// forgotten.
    pub fn poll(&mut self) -> Vec<TargetChange> {
        let mut changes = Vec::new();
        self.processes.retain_mut(|watched| match watched.look_if_due() {
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
    fn look_if_due(&mut self) -> Result<Option<TargetChange>, Ended> {
        let began = Instant::now();
        if began < self.due {
            return Ok(None);
        }
        let change = self.look();
        self.due = Instant::now() + LONGEST_PAUSE.min(began.elapsed() * PART_OF_TIME);
        change
    }

    fn look(&mut self) -> Result<Option<TargetChange>, Ended> {
        let target = match look_at(self.process.pid) {
            Ok(target) => target,
            Err(TargetError::NoSuchProcess { .. } | TargetError::Zombie { .. }) => return Err(Ended),
            // A process that is being set up or torn down; the next look tells.
            Err(_) => return Ok(None),
        };
        if target.process != self.process {
            return Err(Ended);
        }
        let modules: Vec<_> = target
            .modules
            .iter()
            .filter(|module| self.known_files.insert((module.device.0, module.device.1, module.inode)))
            .cloned()
            .collect();
        Ok((!modules.is_empty()).then_some(TargetChange::Mapped { target, modules }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_process_is_told_once() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
        let target = look_at(child.id()).expect("it runs");
        let mut watcher = Watcher::new(std::slice::from_ref(&target));
        child.kill().expect("our own child");
        child.wait().expect("our own child");
        assert_eq!(watcher.poll(), vec![TargetChange::Gone(target.process)]);
        assert!(watcher.is_empty());
        assert!(watcher.poll().is_empty());
    }
}
