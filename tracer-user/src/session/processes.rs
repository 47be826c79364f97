//! Who is traced: the processes that were named, and those that were followed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::attach::{AttachError, EndOfProcess, KernelProcess};
use crate::model::{ProcessId, Target};
use crate::target::is_our_child;

/// Processes without anything to trace, or that have ended, are remembered for the summary up to this number.
const MOST_ENDED: usize = 1_024;

/// A process that was forked to execute another program has done so by then, even on a busy machine: it is told under the
/// name of that one.
const TELL_AFTER: Duration = Duration::from_millis(100);

/// A followed process without anything to trace is waited for so long after the end of those that were named: it may be a server
/// that a script has just started.
const AWAITED_FOR: Duration = Duration::from_secs(5);

/// A process, for the summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessReport {
    /// Process id.
    pub pid: u32,
    /// The process that has forked it, if it was followed.
    pub forked_by: Option<u32>,
    /// The program that it runs, or ran last.
    pub executable: String,
    /// Functions that were seen in it: native ones that are probed, and code of runtimes.
    pub functions: usize,
    /// Whether it has ended.
    pub has_ended: bool,
    /// Why it was not traced to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A followed process whose first functions are traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The process.
    pub process: ProcessId,
    /// The process that has forked it.
    pub forked_by: ProcessId,
    /// Name of the program's file.
    pub name: String,
    /// Functions that are traced.
    pub functions: usize,
}

/// What is new about the processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessChanges {
    /// Followed processes that are traced from now on.
    pub followed: Vec<Followed>,
    /// Functions that are traced in addition in other processes.
    pub more_functions: usize,
    /// Named processes that have ended while others are traced on.
    pub ended: Vec<ProcessId>,
}

impl ProcessChanges {
    /// Whether something is traced that was not before.
    pub(super) fn has_more(&self) -> bool {
        self.more_functions > 0 || !self.followed.is_empty()
    }

    /// This, and what is new since.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        self.followed.extend(later.followed);
        self.more_functions += later.more_functions;
        self.ended.extend(later.ended);
        self
    }
}

/// What became of a process that is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeftProcess {
    /// It was named.
    Named,
    /// It was followed, and is the first such one.
    FirstFollowed,
    /// It was followed.
    Followed,
    /// It is not there, or was left alone before.
    Unknown,
}

/// One process that goes on, and all that the kernel holds for it.
pub(super) struct Process {
    pub process: ProcessId,
    pub forked_by: Option<ProcessId>,
    /// Native functions that are probed.
    pub native: usize,
    /// What the kernel holds for it, until it is let go.
    kernel: Option<Box<dyn KernelProcess>>,
    /// Why it is left alone.
    problem: Option<String>,
    /// Whether the sinks know it, and its program.
    is_described: bool,
    executable: String,
    name: String,
    /// Since when it has run its program, as far as is known.
    since: Instant,
    /// Functions that were told of.
    told: usize,
    /// To be asked how it has ended; `None` for our own child, whose end the command line waits for.
    end: Option<EndOfProcess>,
}

/// The processes.
#[derive(Default)]
pub(super) struct Processes {
    going_on: Vec<Process>,
    ended: VecDeque<ProcessReport>,
    /// Followed processes that are not traced.
    not_followed: u64,
    /// Named ones that have ended since that was told.
    ended_now: Vec<ProcessId>,
}

impl Processes {
    /// A process begins to be traced.
    pub fn add(&mut self, target: &Target, forked_by: Option<ProcessId>, kernel: Box<dyn KernelProcess>) {
        let mut process = Process {
            process: target.process,
            forked_by,
            native: 0,
            kernel: Some(kernel),
            problem: None,
            is_described: forked_by.is_none(),
            executable: String::new(),
            name: String::new(),
            since: Instant::now(),
            told: 0,
            end: (!is_our_child(target.process.pid)).then(|| EndOfProcess::of(target.process.pid)),
        };
        process.describe(target);
        self.going_on.push(process);
    }

    /// A process, if it goes on and is not left alone.
    pub fn traced(&mut self, process: ProcessId) -> Option<&mut Process> {
        self.going_on.iter_mut().find(|known| known.process == process && known.problem.is_none())
    }

    /// What the kernel holds for a process, if it goes on and is not left alone.
    pub fn in_kernel(&mut self, process: ProcessId) -> Option<&mut (dyn KernelProcess + 'static)> {
        self.traced(process)?.kernel.as_deref_mut()
    }

    /// Whether a process that goes on has this number.
    pub fn has_number(&self, pid: u32) -> bool {
        self.going_on.iter().any(|known| known.process.pid == pid)
    }

    /// Whether any process is traced that goes on and is worth it: one that was named, or a followed one that has something to
    /// trace, or that was forked or has executed its program a moment ago. `may_have` says the same of its runtime.
    pub fn is_any_of_interest(&self, now: Instant, may_have: impl Fn(ProcessId) -> bool) -> bool {
        let is_young = |known: &Process| now.saturating_duration_since(known.since) < AWAITED_FOR;
        let is_it = |known: &&Process| {
            known.forked_by.is_none() || known.native > 0 || is_young(known) || may_have(known.process)
        };
        self.going_on.iter().filter(|known| known.problem.is_none()).any(|known| is_it(&known))
    }

    /// Whether any process is traced that goes on.
    pub fn is_any_traced(&self) -> bool {
        self.going_on.iter().any(|process| process.problem.is_none())
    }

    /// Has the calls of all processes recorded from now on, or not any more. Gives those with which that went wrong.
    #[must_use]
    pub fn accept_entries(&mut self, accept: bool) -> Vec<(ProcessId, AttachError)> {
        self.in_each(|_, kernel| kernel.accept_entries(accept))
    }

    /// Does something with what the kernel holds for each process. Gives those with which that went wrong.
    pub fn in_each(
        &mut self,
        mut done: impl FnMut(ProcessId, &mut dyn KernelProcess) -> Result<(), AttachError>,
    ) -> Vec<(ProcessId, AttachError)> {
        let each = self.going_on.iter_mut().filter_map(|known| Some((known.process, known.kernel.as_mut()?)));
        each.filter_map(|(process, kernel)| Some((process, done(process, &mut **kernel).err()?))).collect()
    }

    /// Takes away what sees calls in runtimes, in all processes.
    pub fn remove_from_runtimes(&mut self) {
        self.going_on
            .iter_mut()
            .filter_map(|process| process.kernel.as_mut())
            .for_each(|kernel| kernel.remove_python());
    }

    /// All that the kernel holds for a process goes.
    pub fn let_go(&mut self, process: ProcessId) {
        self.going_on.iter_mut().filter(|known| known.process == process).for_each(|known| known.kernel = None);
    }

    /// A process that is not traced from now on, although it goes on.
    pub fn leave(&mut self, process: ProcessId, problem: String) -> LeftProcess {
        let Some(process) = self.traced(process) else { return LeftProcess::Unknown };
        process.kernel = None;
        process.problem = Some(problem);
        process.native = 0;
        if process.forked_by.is_none() {
            return LeftProcess::Named;
        }
        self.not_followed += 1;
        if self.not_followed == 1 { LeftProcess::FirstFollowed } else { LeftProcess::Followed }
    }

    /// A process has ended: all that the kernel holds for it goes. `seen` is how much code of its runtime was seen.
    pub fn end(&mut self, process: ProcessId, seen: usize) {
        for known in self.going_on.extract_if(.., |known| known.process == process) {
            if known.forked_by.is_none() {
                self.ended_now.push(process);
            }
            // Of what a server starts besides, most is of no interest.
            if known.forked_by.is_some() && known.native + seen == 0 {
                continue;
            }
            if self.ended.len() >= MOST_ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back(known.report(seen, true));
        }
    }

    /// The signal that has ended a process of which native functions were probed, if that is one about its code.
    pub fn ended_by(&self, process: ProcessId) -> Option<&'static str> {
        let known = self.going_on.iter().find(|known| known.process == process && known.native > 0)?;
        known.end.as_ref()?.signal()
    }

    /// What is new since this was asked last. `seen` tells how much code of its runtime is seen in a process, unless there may be
    /// more in a moment. The session may go on after the end of named ones or not.
    pub fn changes(
        &mut self,
        now: Instant,
        goes_on: bool,
        seen: impl Fn(ProcessId) -> Option<usize>,
    ) -> ProcessChanges {
        let mut changes = ProcessChanges::default();
        for process in &mut self.going_on {
            let is_new = process.forked_by.is_some() && process.told == 0;
            if is_new && now.saturating_duration_since(process.since) < TELL_AFTER {
                continue;
            }
            let Some(seen) = seen(process.process) else { continue };
            let functions = process.native + seen;
            let more = functions.saturating_sub(process.told);
            match process.forked_by {
                Some(forked_by) if process.told == 0 && more > 0 => changes.followed.push(Followed {
                    process: process.process,
                    forked_by,
                    name: process.name.clone(),
                    functions,
                }),
                _ => changes.more_functions += more,
            }
            process.told = functions;
        }
        let ended = std::mem::take(&mut self.ended_now);
        if goes_on {
            changes.ended = ended;
        }
        changes
    }

    /// Everybody, for the summary: those that go on first. Of followed ones, those with something to trace.
    pub fn report(&self, seen: impl Fn(ProcessId) -> usize) -> Vec<ProcessReport> {
        let going_on = self.going_on.iter().map(|known| known.report(seen(known.process), false));
        let going_on = going_on.filter(|process| process.forked_by.is_none() || process.functions > 0);
        going_on.chain(self.ended.iter().cloned()).collect()
    }

    /// Followed processes that are not traced.
    pub fn not_followed(&self) -> u64 {
        self.not_followed
    }
}

impl Process {
    /// Whether the sinks are still to be told of it. It is taken for done.
    pub fn is_to_be_described(&mut self) -> bool {
        !std::mem::replace(&mut self.is_described, true)
    }

    /// It runs another program now.
    pub fn executes(&mut self, target: &Target) {
        self.is_described = self.forked_by.is_none();
        self.since = Instant::now();
        if self.forked_by.is_some() {
            self.told = 0;
        }
        self.describe(target);
    }

    fn describe(&mut self, target: &Target) {
        self.executable = target.executable.to_string_lossy().into_owned();
        let name = target.executable.file_name().map(|name| name.to_string_lossy().into_owned());
        self.name = name.unwrap_or_else(|| self.executable.clone());
    }

    fn report(&self, seen: usize, has_ended: bool) -> ProcessReport {
        ProcessReport {
            pid: self.process.pid,
            forked_by: self.forked_by.map(|parent| parent.pid),
            executable: self.executable.clone(),
            functions: self.native + seen,
            has_ended,
            problem: self.problem.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake_kernel::FakeKernel;
    use super::*;
    use crate::attach::Kernel as _;
    use crate::model::ProgramImage;

    const MASTER: ProcessId = ProcessId { pid: 1, start_time: 1 };

    fn target(pid: u32) -> Target {
        Target {
            process: ProcessId { pid, start_time: 1 },
            command_line: Vec::new(),
            executable: "/usr/bin/python3.11".into(),
            modules: Vec::new(),
            container_id: None,
            image: ProgramImage::default(),
            service: crate::model::Service::default(),
        }
    }

    fn processes() -> Processes {
        let mut processes = Processes::default();
        processes.add(&target(1), None, FakeKernel::default().process(target(0).process));
        processes.add(&target(2), Some(MASTER), FakeKernel::default().process(target(0).process));
        processes
    }

    #[test]
    fn a_followed_process_is_told_once_it_has_functions() {
        let mut processes = processes();
        let worker = ProcessId { pid: 2, start_time: 1 };
        assert_eq!(processes.changes(Instant::now(), true, |_| Some(0)), ProcessChanges::default());
        let now = Instant::now() + TELL_AFTER;
        assert_eq!(processes.changes(now, true, |_| None), ProcessChanges::default(), "there may be more in a moment");
        let seen = |process: ProcessId| Some(if process == worker { 4 } else { 1 });
        let followed = Followed { process: worker, forked_by: MASTER, name: "python3.11".into(), functions: 4 };
        assert_eq!(
            processes.changes(now, true, seen),
            ProcessChanges { followed: vec![followed], more_functions: 1, ..ProcessChanges::default() }
        );
        assert_eq!(processes.changes(now, true, seen), ProcessChanges::default());
        assert_eq!(
            processes.changes(now, true, |_| Some(5)),
            ProcessChanges { more_functions: 4 + 1, ..ProcessChanges::default() }
        );
    }

    #[test]
    fn the_summary_leaves_out_what_ran_nothing_of_interest() {
        let mut processes = processes();
        processes.add(&target(3), Some(MASTER), FakeKernel::default().process(target(0).process));
        processes.end(ProcessId { pid: 3, start_time: 1 }, 0);
        processes.end(ProcessId { pid: 2, start_time: 1 }, 3);
        let report = processes.report(|_| 0);
        let facts: Vec<_> = report.iter().map(|it| (it.pid, it.forked_by, it.functions, it.has_ended)).collect();
        assert_eq!(facts, [(1, None, 0, false), (2, Some(1), 3, true)]);
    }

    #[test]
    fn what_is_left_alone_is_counted_once() {
        let mut processes = processes();
        let worker = ProcessId { pid: 2, start_time: 1 };
        assert_eq!(processes.leave(worker, "no descriptor left".to_owned()), LeftProcess::FirstFollowed);
        assert!(processes.traced(worker).is_none() && processes.traced(MASTER).is_some());
        processes.add(&target(3), Some(MASTER), FakeKernel::default().process(target(0).process));
        assert_eq!(processes.leave(ProcessId { pid: 3, start_time: 1 }, "likewise".to_owned()), LeftProcess::Followed);
        assert_eq!(processes.leave(worker, "again".to_owned()), LeftProcess::Unknown, "it is left alone once");
        assert_eq!(processes.not_followed(), 2);
    }

    #[test]
    fn a_named_process_that_fails_or_ends_leaves_the_others() {
        let mut processes = processes();
        let other = ProcessId { pid: 9, start_time: 1 };
        processes.add(&target(9), None, FakeKernel::default().process(target(0).process));
        assert_eq!(processes.leave(MASTER, "its memory cannot be read".to_owned()), LeftProcess::Named);
        assert_eq!(processes.not_followed(), 0);
        assert!(processes.is_any_traced());
        processes.end(ProcessId { pid: 2, start_time: 1 }, 0);
        processes.end(MASTER, 0);
        let changes = processes.changes(Instant::now(), true, |_| None);
        assert_eq!(changes, ProcessChanges { ended: vec![MASTER], ..ProcessChanges::default() });
        let report = processes.report(|_| 0);
        let problems: Vec<_> = report.iter().map(|it| (it.pid, it.problem.as_deref())).collect();
        assert_eq!(problems, [(9, None), (1, Some("its memory cannot be read"))]);
        assert_eq!(processes.leave(other, "nor can this one's".to_owned()), LeftProcess::Named);
        assert!(!processes.is_any_traced());
    }

    #[test]
    fn a_helper_that_has_nothing_to_trace_is_no_reason_to_go_on() {
        let mut processes = processes();
        let (worker, later) = (ProcessId { pid: 2, start_time: 1 }, Instant::now() + AWAITED_FOR);
        assert!(processes.is_any_of_interest(later, |_| false), "one was named");
        processes.end(MASTER, 0);
        assert!(processes.is_any_of_interest(Instant::now(), |_| false), "it may be a server that has just begun");
        assert!(!processes.is_any_of_interest(later, |_| false) && processes.is_any_traced());
        assert!(processes.is_any_of_interest(later, |process| process == worker), "its interpreter has something");
        processes.traced(worker).expect("it goes on").native = 1;
        assert!(processes.is_any_of_interest(later, |_| false));
    }

    #[test]
    fn ended_processes_are_remembered_up_to_a_number() {
        let mut processes = Processes::default();
        for pid in 2..5_000 {
            processes.add(&target(pid), Some(MASTER), FakeKernel::default().process(target(0).process));
            processes.end(ProcessId { pid, start_time: 1 }, 1);
        }
        assert!(processes.going_on.is_empty());
        assert_eq!(processes.report(|_| 0).len(), MOST_ENDED);
    }
}
