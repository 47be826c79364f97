//! One watched process: what it had mapped, and what is new when it is looked at again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::error::TargetError;
use super::process::{Glance, glance, look_at};
use crate::model::{FileNumber, Module, ProcessId, ProgramImage, Target, TargetChange};

/// How often a process is glanced at. The kernel tells of other programs and of ends, though a full ring buffer loses that; of
/// files that are mapped, by dlopen(3) above all, nothing tells.
const GLANCE_EVERY: Duration = Duration::from_millis(100);

/// A followed process, or one that runs another program, maps its libraries for so long: it is glanced at more often, so that
/// few calls are missed. A command that was started for this is glanced at still more often.
const YOUNG_FOR: Duration = Duration::from_secs(20);
const GLANCE_YOUNG_EVERY: Duration = Duration::from_millis(10);
const GLANCE_COMMAND_EVERY: Duration = Duration::from_millis(2);

/// A process of which the kernel has told that it ends or executes another program is glanced at as often as this, until that is
/// seen, and for so long: one whose first thread has ended goes on if it has others.
const GLANCE_TOLD_EVERY: Duration = Duration::from_millis(1);
const TOLD_FOR: Duration = Duration::from_millis(50);

/// Glances may take this share of the time, those at all processes together, and each counts for so long at most: the tracer may
/// have had to wait for a processor.
const PART_OF_TIME_OF_GLANCES: u32 = 20;
const LONGEST_GLANCE: Duration = Duration::from_micros(200);

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

/// A process that is watched.
pub(super) struct Watched {
    process: ProcessId,
    image: ProgramImage,
    /// Files that were told, as they were mapped; those without a mapping are expected, and not seen yet.
    known: HashMap<FileNumber, Module>,
    /// When it was seen to run another program.
    executed: Option<Instant>,
    /// Bytes of address space when its files were looked at last.
    mapped_bytes: u64,
    /// When it is glanced at.
    glance: Instant,
    /// No look before at its files, if its address space has changed.
    due: Instant,
    /// The same if it has not: files of the same size may have taken the place of others.
    due_anyway: Instant,
    /// Since when it may map its libraries, if it came while that was of interest, and how often it is glanced at meanwhile.
    young: Option<(Instant, Duration)>,
    /// When the kernel told that it executes another program or ends, until that is seen.
    told: Option<Instant>,
}

/// It has ended.
pub(super) struct Ended;

impl Watched {
    /// A process as it was when it was looked at a moment ago.
    pub(super) fn new(target: &Target) -> Self {
        let now = Instant::now();
        Self {
            process: target.process,
            image: target.image,
            known: target.modules.iter().map(|module| (module.number(), module.clone())).collect(),
            executed: None,
            mapped_bytes: 0,
            glance: now,
            due: now,
            due_anyway: now,
            young: None,
            told: None,
        }
    }

    /// The same, which was forked a moment ago.
    pub(super) fn forked(target: &Target) -> Self {
        let now = Instant::now();
        Self { due: now + YOUNG_PAUSE, young: Some((now, GLANCE_YOUNG_EVERY)), ..Self::new(target) }
    }

    /// The same, which is a command that has not begun.
    pub(super) fn of_command(self) -> Self {
        Self { young: Some((Instant::now(), GLANCE_COMMAND_EVERY)), ..self }
    }

    /// The process.
    pub(super) fn process(&self) -> ProcessId {
        self.process
    }

    /// When it is to be glanced at.
    pub(super) fn next_glance(&self) -> Instant {
        self.glance
    }

    /// It is glanced at no sooner, unless the kernel tells something.
    #[cfg(test)]
    pub(super) fn glance_at(&mut self, time: Instant) {
        self.glance = time;
    }

    /// The kernel has told that it executes another program, or ends.
    pub(super) fn is_told(&mut self) {
        let now = Instant::now();
        (self.told, self.glance) = (Some(now), now);
    }

    /// Has a file told anew at the next look, as if it had just been mapped.
    pub(super) fn forget(&mut self, file: FileNumber) {
        self.known.retain(|number, _| number.inode != file.inode);
        self.due_anyway = self.due_anyway.min(Instant::now() + LONGEST_PAUSE);
    }

    /// What is new at a glance, and at a look if it is time for one: of so many processes, which share the time. `took`: what
    /// glances take.
    pub(super) fn changes(&mut self, processes: u32, took: &mut Duration) -> Result<Vec<TargetChange>, Ended> {
        let now = Instant::now();
        let changes = self.look_if_due(processes, took);
        let share = LONGEST_PAUSE.min(*took * processes * PART_OF_TIME_OF_GLANCES);
        self.glance = now + self.pause(now, share);
        changes
    }

    /// Time from a glance to the next. `share`: so that all together take no more than their share of the time.
    fn pause(&self, now: Instant, share: Duration) -> Duration {
        let is_within = |since: Instant, time| now.saturating_duration_since(since) < time;
        if self.told.is_some_and(|since| is_within(since, TOLD_FOR)) {
            return GLANCE_TOLD_EVERY;
        }
        let young = self.young.filter(|(since, _)| is_within(*since, YOUNG_FOR));
        young.map_or(GLANCE_EVERY, |(_, every)| every).max(share)
    }

    fn look_if_due(&mut self, processes: u32, took: &mut Duration) -> Result<Vec<TargetChange>, Ended> {
        let began = Instant::now();
        let seen = glance(self.process.pid);
        *took = began.elapsed().min(LONGEST_GLANCE);
        let seen = match seen {
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
            let now = Instant::now();
            self.image = target.image;
            self.executed = Some(now);
            self.told = None;
            let every = self.young.map_or(GLANCE_YOUNG_EVERY, |(_, every)| every);
            self.young = Some((now, every));
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
    use super::*;

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

    #[test]
    fn a_process_whose_first_thread_alone_has_ended_is_glanced_at_often_for_a_while() {
        let mut seen = watched(Vec::new());
        let now = Instant::now();
        assert_eq!(seen.pause(now, Duration::ZERO), GLANCE_EVERY);
        seen.told = Some(now);
        assert_eq!(seen.pause(now, GLANCE_EVERY * 9), GLANCE_TOLD_EVERY);
        assert_eq!(seen.pause(now + TOLD_FOR, GLANCE_EVERY * 2), GLANCE_EVERY * 2, "many share the time");
        seen.young = Some((now, GLANCE_YOUNG_EVERY));
        assert_eq!(seen.pause(now + TOLD_FOR, Duration::ZERO), GLANCE_YOUNG_EVERY);
        assert_eq!(seen.pause(now + YOUNG_FOR, Duration::ZERO), GLANCE_EVERY);
    }
}
