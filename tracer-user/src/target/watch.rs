//! Notices new modules, other programs, forks and the end of watched processes.

use std::time::{Duration, Instant};

use super::descendants::descendants;
use super::forks::Forks;
use super::source::TargetSource;
use super::watched::{Ended, Watched};
use crate::model::{FileNumber, ProcessChange, ProcessEvent, ProcessId, Target, TargetChange};

/// Records arrive so long after what they tell of, at most.
const RECORDS_ARE_LATE: Duration = Duration::from_millis(20);

/// How often it is asked for changes where nothing is watched any more.
const NOTHING_TO_LOOK_AT: Duration = Duration::from_secs(1);

/// Processes that have ended are remembered for so long: what they have forked may be told later.
const REMEMBERED_FOR: Duration = Duration::from_secs(1);

/// The processes that were named, and on demand those that they fork. Remembers what each had mapped, and tells what is new.
pub struct Watcher {
    named: Vec<Target>,
    processes: Vec<Watched>,
    /// `None`: children are left alone.
    forks: Option<Forks>,
    /// Whether the kernel tells of forks.
    forks_are_told: bool,
    /// Processes that have ended a moment ago, the last one last.
    gone: Vec<(ProcessId, Instant)>,
    /// What a glance at a process took last.
    glance_took: Duration,
}

impl Watcher {
    /// Watches these processes, from what they were when they were looked at; with `follow` also those that they have forked
    /// and will fork.
    #[must_use]
    pub fn new(named: Vec<Target>, follow: bool) -> Self {
        let processes = named.iter().map(Watched::new).collect();
        let forks = follow.then(Forks::new);
        Self { named, processes, forks, forks_are_told: false, gone: Vec::new(), glance_took: Duration::ZERO }
    }

    /// The same, where the process is a command that has not begun.
    #[must_use]
    pub fn of_command(mut self) -> Self {
        self.processes = self.processes.into_iter().map(Watched::of_command).collect();
        self
    }

    /// Looks for processes that were forked.
    fn look_for_forks(&mut self) -> Vec<TargetChange> {
        let Self { processes, forks: Some(forks), gone, .. } = self else { return Vec::new() };
        let watched: Vec<ProcessId> = processes.iter().map(Watched::process).collect();
        let known = || watched.iter().chain(gone.iter().rev().map(|(process, _)| process));
        let arrived = forks.look(&watched, |pid| known().find(|process| process.pid == pid).copied());
        // What the kernel tells may have been found by a sweep before.
        let arrived = arrived.into_iter().filter(|(_, target)| !watched.contains(&target.process));
        let arrived = arrived.map(|(parent, target)| {
            processes.push(Watched::forked(&target));
            TargetChange::Forked { parent, target }
        });
        arrived.collect()
    }

    /// When no more records can come of what a process has done that has ended last.
    fn records_end(&self) -> Option<Instant> {
        self.gone.last().filter(|_| self.forks_are_told).map(|(_, since)| *since + RECORDS_ARE_LATE)
    }
}

impl TargetSource for Watcher {
    fn first(&mut self) -> Vec<(Option<ProcessId>, Target)> {
        let forked = if self.follows() { descendants(&self.named) } else { Vec::new() };
        self.processes.extend(forked.iter().map(|(_, target)| Watched::new(target)));
        let named = self.named.drain(..).map(|target| (None, target));
        named.chain(forked.into_iter().map(|(parent, target)| (Some(parent), target))).collect()
    }

    fn follows(&self) -> bool {
        self.forks.is_some()
    }

    fn forks_are_told(&mut self) {
        if let Some(forks) = &mut self.forks {
            forks.are_told();
            self.forks_are_told = true;
        }
    }

    fn take_note_of(&mut self, event: &ProcessEvent) {
        let (number, watched) = (event.process, self.processes.len());
        if let Some(forks) = &mut self.forks {
            match event.change {
                ProcessChange::Forked(parent) => forks.forked(number, parent, watched),
                ProcessChange::Executed => forks.executed(number),
                ProcessChange::Ended => forks.ended(number),
                ProcessChange::Stopped => {}
            }
        }
        if matches!(event.change, ProcessChange::Executed | ProcessChange::Ended) {
            self.processes.iter_mut().filter(|watched| watched.process().pid == number).for_each(Watched::is_told);
        }
    }

    fn next_look(&self) -> Instant {
        let forks = self.forks.as_ref().map(Forks::next_look);
        let glances = self.processes.iter().map(Watched::next_glance);
        let now = Instant::now();
        let all = glances.chain(forks).chain(self.records_end().filter(|end| *end > now));
        all.min().unwrap_or_else(|| Instant::now() + NOTHING_TO_LOOK_AT)
    }

    fn changes(&mut self) -> Vec<TargetChange> {
        // A process that has forked may be about to end: its children first.
        let mut changes = self.look_for_forks();
        let now = Instant::now();
        let count = u32::try_from(self.processes.len()).unwrap_or(u32::MAX);
        let Self { processes, gone, glance_took, .. } = self;
        gone.retain(|(_, since)| now.saturating_duration_since(*since) < REMEMBERED_FOR);
        processes.retain_mut(|watched| {
            if now < watched.next_glance() {
                return true;
            }
            match watched.changes(count, glance_took) {
                Ok(told) => {
                    changes.extend(told);
                    true
                }
                Err(Ended) => {
                    gone.push((watched.process(), now));
                    changes.push(TargetChange::Gone(watched.process()));
                    false
                }
            }
        });
        changes
    }

    fn forget(&mut self, process: ProcessId, file: FileNumber) {
        let of_process = self.processes.iter_mut().filter(|watched| watched.process() == process);
        of_process.for_each(|watched| watched.forget(file));
    }

    fn is_expecting(&self) -> bool {
        let is_expecting =
            |forks: &Forks| forks.is_expecting() || self.records_end().is_some_and(|end| Instant::now() < end);
        self.forks.as_ref().is_some_and(is_expecting)
    }

    fn is_over(&self) -> bool {
        self.processes.is_empty() && !self.is_expecting()
    }

    fn left_out(&self) -> u64 {
        self.forks.as_ref().map_or(0, Forks::left_out)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::Command;

    use super::super::process::look_at;
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

    fn event(process: u32, change: ProcessChange) -> ProcessEvent {
        ProcessEvent { process, time: crate::model::MonotonicNs(1), change }
    }

    #[test]
    fn what_the_kernel_tells_of_is_looked_at_at_once() {
        let mut children = [(); 2].map(|()| Command::new("sleep").arg("60").spawn().expect("sleep is everywhere"));
        let targets = children.each_ref().map(|child| look_at(child.id()).expect("it runs"));
        let mut watcher = Watcher::new(targets.to_vec(), false);
        watcher.first();
        watcher.changes();
        let far = Instant::now() + Duration::from_secs(3600);
        watcher.processes.iter_mut().for_each(|watched| watched.glance_at(far));
        for child in &mut children {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
        }
        assert!(watcher.changes().is_empty() && watcher.next_look() == far, "nothing is due");
        watcher.take_note_of(&event(targets[1].process.pid, ProcessChange::Ended));
        assert!(watcher.next_look() <= Instant::now());
        assert_eq!(watcher.changes(), vec![TargetChange::Gone(targets[1].process)]);
    }

    #[test]
    fn a_child_that_is_told_after_the_end_of_its_parent_is_followed() {
        let mut parent = Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
        let target = look_at(parent.id()).expect("it runs");
        let mut watcher = Watcher::new(vec![target.clone()], true);
        watcher.forks_are_told();
        watcher.first();
        parent.kill().expect("our own child");
        parent.wait().expect("our own child");
        assert_eq!(watcher.changes(), vec![TargetChange::Gone(target.process)]);
        // It is no child of the other one in truth; nobody asks.
        watcher.take_note_of(&event(child.id(), ProcessChange::Forked(target.process.pid)));
        assert!(!watcher.is_over());
        std::thread::sleep(RECORDS_ARE_LATE);
        let changes = watcher.changes();
        let [TargetChange::Forked { parent, target: found }] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!((*parent, found.process.pid), (target.process, child.id()));
        // What a sweep has found is not told again.
        watcher.take_note_of(&event(child.id(), ProcessChange::Forked(target.process.pid)));
        std::thread::sleep(RECORDS_ARE_LATE);
        assert!(!watcher.changes().iter().any(|change| matches!(change, TargetChange::Forked { .. })));
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }

    #[test]
    fn another_program_in_the_same_process_is_told_once() {
        let mut child = Command::new("sh")
            .args(["-c", "echo; read go; exec sleep 60"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh is everywhere");
        // It may be in the middle of becoming the shell.
        let mut line = [0];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut line).expect("a line");
        let target = look_at(child.id()).expect("it runs");
        let mut watcher = Watcher::new(vec![target.clone()], false);
        assert_eq!(watcher.first(), [(None, target.clone())]);
        watcher.changes();
        watcher.take_note_of(&event(target.process.pid, ProcessChange::Executed));
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
}
