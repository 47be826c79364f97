//! Notices new modules, other programs, forks and the end of watched processes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::descendants::descendants;
use super::error::TargetError;
use super::forks::Forks;
use super::process::{Glance, glance, look_at};
use super::source::TargetSource;
use crate::model::{FileNumber, Module, ProcessId, ProgramImage, Target, TargetChange};

/// Looks may take this share of the time, those at all processes together: one with hundreds of mapped files is looked at
/// less often.
const PART_OF_TIME: u32 = 50;

/// The same for a process whose address space has changed: it may have mapped what is to be traced.
const PART_OF_TIME_OF_CHANGE: u32 = 20;

/// Longest time from one look to the next, for that reason, at a process that seems to have changed.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A process that was just found has been looked at: the next look at its files, if its program stays the same, comes later.
const YOUNG_PAUSE: Duration = Duration::from_millis(50);

/// A program that has just begun maps its files one by one: what it does not map yet is not taken for gone.
const YOUNG: Duration = Duration::from_secs(1);

/// The processes that were named, and on demand those that they fork. Remembers what each had mapped, and tells what is new.
pub struct Watcher {
    named: Vec<Target>,
    processes: Vec<Watched>,
    /// `None`: children are left alone.
    forks: Option<Forks>,
}

struct Watched {
    process: ProcessId,
    image: ProgramImage,
    /// Files that were told, as they were mapped; those without a mapping are expected, and not seen yet.
    known: HashMap<FileNumber, Module>,
    /// When it was seen to run another program.
    executed: Option<Instant>,
    /// Bytes of address space when its files were looked at last.
    mapped_bytes: u64,
    /// No look before at its files, if its address space has changed.
    due: Instant,
    /// The same if it has not: files of the same size may have taken the place of others.
    due_anyway: Instant,
}

impl Watcher {
    /// Watches these processes, from what they were when they were looked at; with `follow` also those that they have forked
    /// and will fork.
    #[must_use]
    pub fn new(named: Vec<Target>, follow: bool) -> Self {
        Self { named, processes: Vec::new(), forks: follow.then(Forks::new) }
    }
}

impl TargetSource for Watcher {
    fn first(&mut self) -> Vec<(Option<ProcessId>, Target)> {
        let forked = if self.follows() { descendants(&self.named) } else { Vec::new() };
        let named = self.named.drain(..).map(|target| (None, target));
        let first: Vec<_> = named.chain(forked.into_iter().map(|(parent, target)| (Some(parent), target))).collect();
        self.processes.extend(first.iter().map(|(_, target)| Watched::new(target)));
        first
    }

    fn follows(&self) -> bool {
        self.forks.is_some()
    }

    fn changes(&mut self) -> Vec<TargetChange> {
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
        self.processes.retain_mut(|watched| match watched.look_if_due(count) {
            Ok(told) => {
                changes.extend(told);
                true
            }
            Err(Ended) => {
                changes.push(TargetChange::Gone(watched.process));
                false
            }
        });
        changes
    }

    fn forget(&mut self, process: ProcessId, file: FileNumber) {
        for watched in self.processes.iter_mut().filter(|watched| watched.process == process) {
            watched.known.retain(|number, _| number.inode != file.inode);
            watched.due_anyway = watched.due_anyway.min(Instant::now() + LONGEST_PAUSE);
        }
    }

    fn is_over(&self) -> bool {
        self.processes.is_empty() && self.forks.as_ref().is_none_or(|forks| !forks.is_expecting())
    }

    fn left_out(&self) -> u64 {
        self.forks.as_ref().map_or(0, Forks::left_out)
    }
}

struct Ended;

impl Watched {
    fn new(target: &Target) -> Self {
        let now = Instant::now();
        Self {
            process: target.process,
            image: target.image,
            known: target.modules.iter().map(|module| (module.number(), module.clone())).collect(),
            executed: None,
            mapped_bytes: 0,
            due: now,
            due_anyway: now,
        }
    }

    fn look_if_due(&mut self, processes: u32) -> Result<Vec<TargetChange>, Ended> {
        let began = Instant::now();
        let seen = match glance(self.process.pid) {
            Ok(seen) => seen,
            Err(TargetError::NoSuchProcess { .. }) => return Err(Ended),
            // A process that is being set up or torn down; the next look tells.
            Err(_) => return Ok(Vec::new()),
        };
        if seen.process != self.process || seen.has_ended {
            return Err(Ended);
        }
        let runs_another = seen.image != self.image;
        let due = if seen.mapped_bytes == self.mapped_bytes { self.due_anyway } else { self.due };
        if !runs_another && began < due {
            return Ok(Vec::new());
        }
        let change = self.look(&seen);
        let took = began.elapsed() * processes;
        let pause = took * PART_OF_TIME;
        self.due = Instant::now() + LONGEST_PAUSE.min(took * PART_OF_TIME_OF_CHANGE);
        self.due_anyway = Instant::now() + LONGEST_PAUSE.max(pause);
        change
    }

    fn look(&mut self, seen: &Glance) -> Result<Vec<TargetChange>, Ended> {
        let target = match look_at(self.process.pid) {
            Ok(target) => target,
            Err(TargetError::NoSuchProcess { .. } | TargetError::Zombie { .. }) => return Err(Ended),
            Err(_) => return Ok(Vec::new()),
        };
        if target.process != self.process {
            return Err(Ended);
        }
        // In the middle of `execve` code and stack are not yet what they will be: the next look tells.
        let is_settled = || glance(self.process.pid).is_ok_and(|now| now.image == target.image);
        if target.image != self.image && (target.image.code == 0 || !is_settled()) {
            return Ok(Vec::new());
        }
        let runs_another = target.image != self.image;
        if runs_another {
            self.image = target.image;
            self.executed = Some(Instant::now());
        }
        self.mapped_bytes = seen.mapped_bytes;
        let (modules, gone) = self.compare(&target.modules);
        let unmapped = (!gone.is_empty()).then(|| TargetChange::Unmapped { target: target.clone(), modules: gone });
        let mapped = match runs_another {
            true => Some(TargetChange::Executed { target, modules }),
            false => (!modules.is_empty()).then_some(TargetChange::Mapped { target, modules }),
        };
        // What has taken the place of another file comes after it.
        Ok(unmapped.into_iter().chain(mapped).collect())
    }

    /// What is new of what is mapped, and what is not mapped any more. A file that was written to, or another one with its
    /// number, is both.
    fn compare(&mut self, mapped: &[Module]) -> (Vec<Module>, Vec<Module>) {
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for module in mapped {
            let before = self.known.remove(&module.number()).or_else(|| self.take_expected(module));
            match before {
                Some(before) if is_another(&before, module) => {
                    gone.push(before);
                    new.push(module.clone());
                }
                Some(_) => {}
                None => new.push(module.clone()),
            }
        }
        let is_young = self.executed.is_some_and(|executed| executed.elapsed() < YOUNG);
        let mut known: HashMap<_, _> = mapped.iter().map(|module| (module.number(), module.clone())).collect();
        for (number, module) in std::mem::take(&mut self.known) {
            if module.mappings.is_empty() || is_young {
                known.insert(number, module);
            } else {
                gone.push(module);
            }
        }
        self.known = known;
        (new, gone)
    }

    /// Some file systems show one device number to stat(2) and another in /proc/PID/maps: a file that is expected is known
    /// by its path too.
    fn take_expected(&mut self, module: &Module) -> Option<Module> {
        let is_it =
            |known: &Module| known.mappings.is_empty() && (known.inode, &known.path) == (module.inode, &module.path);
        let number = self.known.iter().find(|(_, known)| is_it(known)).map(|(number, _)| *number)?;
        self.known.remove(&number)
    }
}

/// Whether what is mapped now has other content than what was mapped under the same number before. Whoever copies a file may
/// set the time of its last writing; the time of its last change cannot be set, but a new name or owner moves it too, so it
/// counts only where the file was mapped anew.
fn is_another(before: &Module, now: &Module) -> bool {
    let (Some(old), Some(new)) = (before.version, now.version) else { return false };
    let is_mapped_anew = !before.mappings.iter().any(|mapping| now.mappings.contains(mapping));
    (old.size, old.modified) != (new.size, new.modified) || (old.changed != new.changed && is_mapped_anew)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_end_of_a_process_is_told_once() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
        let target = look_at(child.id()).expect("it runs");
        let mut watcher = Watcher::new(vec![target.clone()], false);
        assert_eq!(watcher.first(), [(None, target.clone())]);
        child.kill().expect("our own child");
        child.wait().expect("our own child");
        assert_eq!(watcher.changes(), vec![TargetChange::Gone(target.process)]);
        assert!(watcher.is_over());
        assert!(watcher.changes().is_empty());
    }

    #[test]
    fn another_program_in_the_same_process_is_told_once() {
        let mut child =
            Command::new("sh").args(["-c", "read go; exec sleep 60"]).stdin(std::process::Stdio::piped()).spawn();
        let child = child.as_mut().expect("sh is everywhere");
        let target = look_at(child.id()).expect("it runs");
        let mut watcher = Watcher::new(vec![target.clone()], false);
        assert_eq!(watcher.first(), [(None, target.clone())]);
        watcher.changes();
        drop(child.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut executed = Vec::new();
        while executed.is_empty() && Instant::now() < deadline {
            executed.extend(watcher.changes());
        }
        let is_sleep = |change: &TargetChange| matches!(change, TargetChange::Executed { target, .. } if target.executable.ends_with("sleep"));
        assert!(executed.iter().any(is_sleep), "{executed:?}");
        assert!(!watcher.changes().iter().any(|change| matches!(change, TargetChange::Executed { .. })));
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }

    fn module(start: u64, inode: u64, modified: i64, changed: i64) -> Module {
        let start = crate::model::RemoteAddress(start);
        let end = crate::model::RemoteAddress(start.0 + 0x1000);
        Module {
            path: "/lib/model.so".into(),
            access_path: "/lib/model.so".into(),
            device: (8, 1),
            inode,
            version: Some(crate::model::FileVersion { size: 9, modified: (modified, 0), changed: (changed, 0) }),
            mappings: vec![crate::model::Mapping { start, end, offset: crate::model::FileOffset(0) }],
        }
    }

    fn watched(modules: Vec<Module>) -> Watched {
        let here = look_at(std::process::id()).expect("this process can be looked at");
        Watched::new(&Target { modules, ..here })
    }

    #[test]
    fn files_that_are_mapped_no_more_or_were_replaced_are_told() {
        let first = module(0x1000, 7, 1, 1);
        let mut seen = watched(vec![first.clone()]);
        assert_eq!(seen.compare(std::slice::from_ref(&first)), (vec![], vec![]));
        // Another owner or name: the same content at the same place.
        let renamed = module(0x1000, 7, 1, 2);
        assert_eq!(seen.compare(std::slice::from_ref(&renamed)), (vec![], vec![]));
        // Mapped anew with a time of its own, although its time of writing was set back.
        let copied = module(0x9000, 7, 1, 3);
        assert_eq!(seen.compare(std::slice::from_ref(&copied)), (vec![copied.clone()], vec![renamed]));
        // Overwritten, or a new file with the number of the old one.
        let written = module(0x9000, 7, 4, 4);
        assert_eq!(seen.compare(std::slice::from_ref(&written)), (vec![written.clone()], vec![copied]));
        assert_eq!(seen.compare(&[]), (vec![], vec![written]));
        assert_eq!(seen.compare(&[]), (vec![], vec![]), "told once");
    }

    #[test]
    fn what_a_program_will_map_is_not_gone_before_it_was_there() {
        let expected = Module { mappings: Vec::new(), device: (0, 44), ..module(0, 7, 1, 1) };
        let mut seen = watched(vec![expected]);
        assert_eq!(seen.compare(&[]), (vec![], vec![]));
        let mapped = module(0x1000, 7, 1, 1);
        assert_eq!(seen.compare(std::slice::from_ref(&mapped)), (vec![], vec![]), "known, by another device number");
        seen.executed = Some(Instant::now());
        assert_eq!(seen.compare(&[]), (vec![], vec![]), "it has just begun again");
        seen.executed = None;
        assert_eq!(seen.compare(&[]), (vec![], vec![mapped]));
    }
}
