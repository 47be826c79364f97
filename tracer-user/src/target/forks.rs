//! Notices the processes that watched ones fork: the kernel tells, or the lists of children in /proc do.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use super::descendants::children_of;
use super::error::TargetError;
use super::process::{glance, look_at};
use crate::model::{ProcessId, Target};

/// Processes watched at one time: four times what can be traced, because most of those that a server forks run nothing that
/// is.
const MOST_WATCHED: usize = 4 * tracer_common::limits::MAX_PROCESSES as usize;

/// How often children are looked for where the kernel does not tell of them.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The same where it does. A full ring buffer loses records, and a process may have forked before the kernel was asked to tell:
/// those children are found by this sweep.
const SWEEP_EVERY: Duration = Duration::from_secs(3);

/// Looking for children may take this share of the time.
const PART_OF_TIME: u32 = 50;

/// Longest time from one look for children to the next, whatever happens and whatever does not, where the kernel does not tell.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A child that the kernel has told is looked at after this time, unless it has ended by then, or sooner if it executes another
/// program: most that do either have done it by then, and what they had inherited was not worth a look.
const SETTLING: Duration = Duration::from_millis(5);

/// A child that is there and cannot be looked at is tried again, this often and for so long.
const TRY_EVERY: Duration = Duration::from_millis(2);
const TRY_FOR: Duration = Duration::from_millis(100);

/// Looks for children of watched processes. As long as the kernel has given no new number to any process or thread, there
/// is none, and that costs the reading of one line.
pub(super) struct Forks {
    /// Whether the kernel tells of forks.
    is_told: bool,
    /// Last number that the kernel had given when children were looked for.
    last_number: Option<u32>,
    /// The list of children is read once more after each change: it may have been incomplete.
    is_unsure: bool,
    /// When children were looked for last, and when it was asked last whether to.
    looked: Option<Instant>,
    asked: Option<Instant>,
    took: Duration,
    newcomers: Vec<Newcomer>,
    /// Children that there is no room for.
    left_out: HashSet<u32>,
    left_out_in_all: u64,
}

/// A process that is still to be looked at.
struct Newcomer {
    pid: u32,
    /// Number of the process that has forked it.
    parent: u32,
    /// When it is to be looked at.
    due: Instant,
    /// When it is given up.
    given_up: Instant,
}

impl Newcomer {
    fn new(pid: u32, parent: u32, due: Instant) -> Self {
        Self { pid, parent, due, given_up: due + TRY_FOR }
    }
}

impl Forks {
    pub(super) fn new() -> Self {
        Self {
            is_told: false,
            last_number: None,
            is_unsure: true,
            looked: None,
            asked: None,
            took: Duration::ZERO,
            newcomers: Vec::new(),
            left_out: HashSet::new(),
            left_out_in_all: 0,
        }
    }

    /// From now on the kernel tells of forks. What it has not told of is looked for once more at once.
    pub(super) fn are_told(&mut self) {
        (self.is_told, self.asked, self.is_unsure) = (true, None, true);
    }

    /// Whether a process was seen that is still to be looked at.
    pub(super) fn is_expecting(&self) -> bool {
        !self.newcomers.is_empty()
    }

    /// Processes that there was no room for.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out_in_all
    }

    /// A process of this number was forked, while so many are watched. One that there is no room for is looked for by the next
    /// sweep.
    pub(super) fn forked(&mut self, pid: u32, parent: u32, watched: usize) {
        self.ended(pid);
        if watched + self.newcomers.len() < MOST_WATCHED {
            self.newcomers.push(Newcomer::new(pid, parent, Instant::now() + SETTLING));
        }
    }

    /// A process has executed another program: it will not do so again in a moment.
    pub(super) fn executed(&mut self, pid: u32) {
        let now = Instant::now();
        self.newcomers.iter_mut().filter(|new| new.pid == pid).for_each(|new| new.due = new.due.min(now));
    }

    /// A process has ended.
    pub(super) fn ended(&mut self, pid: u32) {
        self.newcomers.retain(|new| new.pid != pid);
    }

    /// When [`Self::look`] has something to do.
    pub(super) fn next_look(&self) -> Instant {
        let newcomers = self.newcomers.iter().map(|new| new.due);
        newcomers.fold(self.next_search(Instant::now()), Instant::min)
    }

    /// New children of these processes, with the one that has forked each. `of` gives the process that has or had a number.
    pub(super) fn look(
        &mut self,
        watched: &[ProcessId],
        of: impl Fn(u32) -> Option<ProcessId>,
    ) -> Vec<(ProcessId, Target)> {
        let arrived = self.arrived(of);
        if self.is_time() {
            let began = Instant::now();
            let arriving = arrived.iter().map(|(_, target)| target.process);
            self.look_for_newcomers(&watched.iter().copied().chain(arriving).collect::<Vec<_>>());
            self.looked = Some(Instant::now());
            self.took = began.elapsed();
        }
        arrived
    }

    /// Looks at the newcomers for which it is time.
    fn arrived(&mut self, of: impl Fn(u32) -> Option<ProcessId>) -> Vec<(ProcessId, Target)> {
        let now = Instant::now();
        let mut arrived: Vec<(ProcessId, Target)> = Vec::new();
        for new in std::mem::take(&mut self.newcomers) {
            let of_arrived = || arrived.iter().map(|(_, target)| target.process).find(|known| known.pid == new.parent);
            let parent = of(new.parent).or_else(of_arrived);
            let parent_is_expected = || self.newcomers.iter().any(|other| other.pid == new.parent);
            match parent {
                _ if new.due > now => self.newcomers.push(new),
                // A child after the one that has forked it.
                None if parent_is_expected() => self.newcomers.push(Newcomer { due: now + TRY_EVERY, ..new }),
                None => {}
                Some(parent) => match look_at(new.pid) {
                    Ok(target) => arrived.push((parent, target)),
                    Err(TargetError::NoSuchProcess { .. } | TargetError::Zombie { .. }) => {}
                    Err(_) if now >= new.given_up => {}
                    Err(_) => self.newcomers.push(Newcomer { due: now + TRY_EVERY, ..new }),
                },
            }
        }
        arrived
    }

    /// When children are to be looked for.
    fn next_search(&self, now: Instant) -> Instant {
        let Some(asked) = self.asked else { return now };
        let pause = if self.is_told { SWEEP_EVERY } else { LOOK_EVERY };
        asked + pause.max(LONGEST_PAUSE.min(self.took * PART_OF_TIME))
    }

    fn is_time(&mut self) -> bool {
        let now = Instant::now();
        if now < self.next_search(now) {
            return false;
        }
        self.asked = Some(now);
        let number = last_number();
        let is_new = number.is_none() || number != self.last_number;
        let is_late = self.looked.is_none_or(|looked| looked.elapsed() >= LONGEST_PAUSE);
        let is_time = is_new || self.is_unsure || is_late;
        self.last_number = number;
        self.is_unsure = is_new;
        is_time
    }

    fn look_for_newcomers(&mut self, watched: &[ProcessId]) {
        let now = Instant::now();
        let mut known: HashSet<u32> = watched.iter().map(|process| process.pid).collect();
        known.extend(self.newcomers.iter().map(|new| new.pid));
        known.insert(std::process::id());
        let mut no_room = HashSet::new();
        for parent in watched {
            for pid in children_of(parent.pid) {
                if !known.insert(pid) {
                    continue;
                }
                if watched.len() + self.newcomers.len() < MOST_WATCHED {
                    self.newcomers.push(Newcomer::new(pid, parent.pid, now + LOOK_EVERY));
                } else if glance(pid).is_ok_and(|glance| !glance.has_ended) {
                    no_room.insert(pid);
                }
            }
        }
        self.left_out_in_all += no_room.difference(&self.left_out).count() as u64;
        self.left_out = no_room;
    }
}

/// The number that the kernel gave last to a process or thread (proc(5), /proc/loadavg).
fn last_number() -> Option<u32> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn shell() -> Child {
        // Its child ends with it: the shell waits, and is killed with its input.
        Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().expect("sh is everywhere")
    }

    #[test]
    fn a_child_is_told_once_and_children_of_it_too() {
        let here = look_at(std::process::id()).expect("this process can be looked at").process;
        let mut forks = Forks::new();
        let mut shell = shell();
        let mut watched = vec![here];
        let mut found = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(20);
        let of_shell = |(parent, _): &&(ProcessId, Target)| parent.pid == shell.id();
        while !found.iter().any(|new| of_shell(&new)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
            let known = watched.clone();
            let of = |pid| known.iter().copied().find(|process| process.pid == pid);
            for (parent, target) in forks.look(&watched, of) {
                watched.push(target.process);
                found.push((parent, target));
            }
        }
        let ours: Vec<_> = found.iter().filter(|(_, target)| target.process.pid == shell.id()).collect();
        assert_eq!(ours.iter().map(|(parent, _)| *parent).collect::<Vec<_>>(), [here]);
        let of_shell: Vec<_> = found.iter().filter(of_shell).collect();
        assert_eq!(of_shell.len(), 1, "{found:?}");
        let sleep = of_shell.first().map(|(_, target)| target.process.pid).and_then(|pid| i32::try_from(pid).ok());
        let sleep = sleep.and_then(rustix::process::Pid::from_raw).expect("a process");
        rustix::process::kill_process(sleep, rustix::process::Signal::KILL).expect("our own grandchild");
        shell.wait().expect("our own child");
    }

    #[test]
    fn nothing_is_looked_for_without_new_numbers_for_a_while() {
        let mut forks = Forks::new();
        let now = Instant::now();
        let earlier = now.checked_sub(LOOK_EVERY).expect("the clock is older");
        // Other processes may begin at this very moment: one try of many must find none.
        let quiet = (0..1000).any(|_| {
            (forks.last_number, forks.is_unsure) = (last_number(), false);
            (forks.looked, forks.asked) = (Some(Instant::now()), Some(earlier));
            !forks.is_time()
        });
        assert!(quiet);
        forks.looked = now.checked_sub(LONGEST_PAUSE);
        forks.asked = Some(earlier);
        assert!(forks.is_time());
    }

    #[test]
    fn a_child_that_is_told_is_looked_at_once_it_has_settled_and_one_that_ends_is_not() {
        let here = look_at(std::process::id()).expect("this process can be looked at").process;
        let mut children = [(); 3].map(|()| Command::new("sleep").arg("60").spawn().expect("sleep is everywhere"));
        let pids = children.each_ref().map(Child::id);
        let mut forks = Forks::new();
        forks.are_told();
        // As if they had been looked for: nothing but what is told is found.
        (forks.looked, forks.asked) = (Some(Instant::now()), Some(Instant::now()));
        for pid in pids {
            forks.forked(pid, here.pid, 1);
        }
        forks.ended(pids[0]);
        forks.newcomers[1].due = Instant::now() + SWEEP_EVERY * 100;
        forks.executed(pids[2]);
        assert!(forks.next_look() <= Instant::now(), "what has executed a program is looked at at once");
        let mut told = || forks.look(&[here], |pid| (pid == here.pid).then_some(here));
        let arrived: Vec<_> = told().into_iter().map(|(parent, target)| (parent, target.process.pid)).collect();
        assert_eq!(arrived, [(here, pids[2])]);
        assert!(told().is_empty() && forks.is_expecting(), "the other one is not due");
        forks.executed(pids[1]);
        // Who has forked it is gone, and nobody knows who that was.
        assert!(forks.look(&[here], |_| None).is_empty() && !forks.is_expecting());
        for child in &mut children {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
        }
    }

    #[test]
    fn a_child_waits_for_the_one_that_has_forked_it() {
        let mut forks = Forks::new();
        forks.are_told();
        (forks.looked, forks.asked) = (Some(Instant::now()), Some(Instant::now()));
        forks.forked(u32::MAX - 1, 1, 1);
        forks.forked(u32::MAX, u32::MAX - 1, 1);
        forks.executed(u32::MAX);
        assert!(forks.look(&[], |_| None).is_empty());
        assert_eq!(forks.newcomers.len(), 2);
        forks.ended(u32::MAX - 1);
        forks.executed(u32::MAX);
        std::thread::sleep(TRY_EVERY);
        assert!(forks.look(&[], |_| None).is_empty() && !forks.is_expecting());
    }
}
