//! Notices the processes that watched ones fork.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use super::descendants::children_of;
use super::process::{glance, look_at};
use crate::model::{ProcessId, Target};

/// Processes watched at one time: four times what can be traced, because most of those that a server forks run nothing that
/// is.
const MOST_WATCHED: usize = 4 * tracer_common::limits::MAX_PROCESSES as usize;

/// Looking for children may take this share of the time.
const PART_OF_TIME: u32 = 50;

/// Longest time from one look for children to the next, whatever happens and whatever does not.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Looks for children of watched processes. As long as the kernel has given no new number to any process or thread, there
/// is none, and that costs the reading of one line.
pub(super) struct Forks {
    /// Last number that the kernel had given when children were looked for.
    last_number: Option<u32>,
    /// The list of children is read once more after each change: it may have been incomplete.
    is_unsure: bool,
    looked: Instant,
    took: Duration,
    newcomers: Vec<Newcomer>,
    /// Children that there is no room for.
    left_out: HashSet<u32>,
    left_out_in_all: u64,
}

/// A process seen once. Most that end at once, or execute another program, have done so when they are looked at the second
/// time; what they had inherited was not worth a look.
struct Newcomer {
    pid: u32,
    parent: ProcessId,
}

impl Forks {
    pub(super) fn new() -> Self {
        Self {
            last_number: None,
            is_unsure: true,
            looked: Instant::now(),
            took: Duration::ZERO,
            newcomers: Vec::new(),
            left_out: HashSet::new(),
            left_out_in_all: 0,
        }
    }

    /// Whether a process was seen that is still to be looked at.
    pub(super) fn is_expecting(&self) -> bool {
        !self.newcomers.is_empty()
    }

    /// Processes that there was no room for.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out_in_all
    }

    /// Children of these processes that are there for the second time, with the one that forked each.
    pub(super) fn look(&mut self, watched: &[ProcessId]) -> Vec<(ProcessId, Target)> {
        let arrived = std::mem::take(&mut self.newcomers);
        let arrived =
            arrived.into_iter().filter_map(|new| Some((new.parent, look_at(new.pid).ok()?))).collect::<Vec<_>>();
        if self.is_time() {
            let began = Instant::now();
            let arriving = arrived.iter().map(|(_, target)| target.process);
            self.look_for_newcomers(&watched.iter().copied().chain(arriving).collect::<Vec<_>>());
            self.looked = Instant::now();
            self.took = began.elapsed();
        }
        arrived
    }

    fn is_time(&mut self) -> bool {
        if self.looked.elapsed() < LONGEST_PAUSE.min(self.took * PART_OF_TIME) {
            return false;
        }
        let number = last_number();
        let is_new = number.is_none() || number != self.last_number;
        let is_time = is_new || self.is_unsure || self.looked.elapsed() >= LONGEST_PAUSE;
        self.last_number = number;
        self.is_unsure = is_new;
        is_time
    }

    fn look_for_newcomers(&mut self, watched: &[ProcessId]) {
        let mut known: HashSet<u32> = watched.iter().map(|process| process.pid).collect();
        known.insert(std::process::id());
        let mut no_room = HashSet::new();
        for parent in watched {
            for pid in children_of(parent.pid) {
                if !known.insert(pid) {
                    continue;
                }
                if watched.len() + self.newcomers.len() < MOST_WATCHED {
                    self.newcomers.push(Newcomer { pid, parent: *parent });
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
            for (parent, target) in forks.look(&watched) {
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
        (forks.last_number, forks.is_unsure) = (last_number(), false);
        forks.looked = Instant::now();
        // Other processes may begin at this very moment: one try of many must find none.
        let quiet = (0..1000).any(|_| {
            forks.last_number = last_number();
            forks.is_unsure = false;
            !forks.is_time()
        });
        assert!(quiet);
        forks.looked = Instant::now().checked_sub(LONGEST_PAUSE).expect("the clock is older");
        assert!(forks.is_time());
    }
}
