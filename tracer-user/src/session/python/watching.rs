//! Watch mode: a calibration, watchpoints on the chosen code, and their move when other code is wanted more.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::super::error::SessionError;
use super::experience::Experience;
use super::interpreter::{Calls, Interpreter};
use super::targets::Means;
use crate::attach::{KernelProcess, WatchOutcome};
use crate::memory::{LiveProcess, Memory as _};
use crate::model::{ProcessId, PythonPlan, RemoteAddress};
use crate::plan::only_trains;
use crate::target::tracer_of;

/// A calibration takes so long at most: it watches a few candidates at a time.
const CALIBRATION: Duration = Duration::from_millis(120);

/// One step of it takes so long at most, and so long at least.
const LONGEST_STEP: Duration = Duration::from_millis(60);
const SHORTEST_STEP: Duration = Duration::from_millis(15);

/// Within a step the calls are looked at so often, and so many are enough: what is not called by then is called seldom.
const STEP_LOOK: Duration = Duration::from_millis(3);
const ENOUGH_CALLS: u64 = 32;

/// Steps of a calibration at most: what is not tried by then is tried later, when there is traffic.
const CALIBRATION_STEPS: usize = 8;

/// So many calls of other code show that code is not called which was watched meanwhile. Fewer may be one training, in which
/// other code is called than afterwards, or the beginning of a call, the steps of which are still to come.
const ENOUGH_OF_OTHERS: u64 = 16;

/// After so long without a call of watched code, classes without objects have their turns again.
const QUIET: Duration = Duration::from_secs(3);

impl Interpreter {
    /// Chooses what to watch and watches it; where there is more than can be watched, by what the calls in other processes
    /// have shown or else after a calibration.
    pub(super) fn begin_watching(
        &mut self,
        means: &mut Means<'_>,
        experience: &Experience,
        may_wait: bool,
    ) -> Result<(), SessionError> {
        let elsewhere = experience.of(&self.survey);
        let here = if elsewhere.is_empty() && may_wait { self.calibrate(means)? } else { HashMap::new() };
        self.considered.extend(elsewhere.keys());
        self.calibrated.clone_from(&here);
        let calls = Calls { here, elsewhere };
        self.choose(means.planner, &calls);
        self.put_into_force(means)?;
        if self.plan.watched.len() > self.slots {
            // Fewer registers than there should be: choose again, for these.
            self.choose(means.planner, &calls);
            self.put_into_force(means)?;
        }
        Ok(())
    }

    /// Chooses again if the process has changed, if traffic has shown that watched code is not called, or if calls in other
    /// processes have shown what is.
    pub(super) fn watch_again(
        &mut self,
        means: &mut Means<'_>,
        experience: &Experience,
        is_new: bool,
    ) -> Result<(), SessionError> {
        let mut calls = HashMap::new();
        for code in &self.watched {
            calls.insert(*code, means.in_kernel(self.process.0)?.python_calls(*code)?);
        }
        // Calls of an earlier time say nothing about code that is watched only since then.
        let counted = |code: &RemoteAddress| self.counted.get(code).copied().unwrap_or(0);
        let traffic: u64 = calls.iter().map(|(code, calls)| calls.saturating_sub(counted(code))).sum();
        let is_traffic = traffic > 0;
        // Old calls count for less with every look that sees new ones, and those of what has trained a model for nothing: it
        // may never be called again.
        let trains = |code| self.survey.codes.iter().any(|known| known.address == code && only_trains(known));
        let worth = |(code, calls): (&RemoteAddress, &u64)| {
            let before = self.worth.get(code).copied().unwrap_or(0);
            let kept = if trains(*code) { 0 } else { before / 2 };
            let worth = if is_traffic { kept + calls.saturating_sub(counted(code)) } else { before };
            (*code, worth)
        };
        let worth: HashMap<RemoteAddress, u64> = calls.iter().map(worth).collect();
        self.worth.clone_from(&worth);
        self.counted.clone_from(&calls);
        let mut idle: Vec<_> = worth.iter().filter(|(_, worth)| **worth == 0).map(|(code, _)| *code).collect();
        if is_traffic {
            self.called_at = Some(Instant::now());
            self.traffic += traffic;
            idle.retain(|code| self.traffic_since(*code) >= ENOUGH_OF_OTHERS);
        } else {
            self.take_turns(&mut idle);
        }
        let wants_more = self.plan.has_more && idle.iter().any(|code| !self.idle.contains(code));
        if is_traffic {
            self.in_vain.extend(&idle);
        }
        // What is called elsewhere is called here too, until it was watched in vain.
        let mut elsewhere = experience.of(&self.survey);
        elsewhere.retain(|code, _| !self.in_vain.contains(code));
        let is_unheard_of = |code: &RemoteAddress| !self.watched.contains(code) && !self.considered.contains(code);
        let has_room = self.watched.len() < self.slots || worth.values().any(|worth| *worth == 0);
        let knows_more = has_room && elsewhere.keys().any(is_unheard_of);
        if !is_new && !wants_more && !knows_more {
            return Ok(());
        }
        self.considered.extend(elsewhere.keys());
        self.idle.extend(idle);
        let before = std::mem::take(&mut self.plan);
        self.choose(means.planner, &Calls { here: worth, elsewhere });
        self.remember(&before, &calls);
        self.put_into_force(means)?;
        self.accept_entries(means)
    }

    /// Calls that were seen while this code was watched.
    fn traffic_since(&self, code: RemoteAddress) -> u64 {
        self.traffic - self.watched_since.get(&code).copied().unwrap_or(self.traffic)
    }

    /// Keeps the calls of code that was watched under an earlier plan and is no longer.
    pub(super) fn remember(&mut self, before: &PythonPlan, calls: &HashMap<RemoteAddress, u64>) {
        let kept: HashSet<RemoteAddress> = self.plan.watched.iter().map(|(code, _)| *code).collect();
        for (code, watched) in &before.watched {
            let counted = calls.get(code).copied().unwrap_or(0);
            if counted == 0 || kept.contains(code) {
                continue;
            }
            let earlier = self.past.get(code).map_or(0, |past| past.calls_seen);
            self.past.insert(*code, before.called(*code, watched, counted + earlier));
        }
    }

    /// Without traffic, what is not called may still be called: it stays. But where no class has objects, the traffic may be
    /// at what is not watched: then each code has its turn, and again when all have had one.
    fn take_turns(&mut self, idle: &mut Vec<RemoteAddress>) {
        let is_quiet = self.called_at.is_none_or(|called| called.elapsed() >= QUIET);
        idle.retain(|code| is_quiet && self.plan.without_objects.contains_key(code));
        if !idle.is_empty() && idle.iter().all(|code| self.idle.contains(code)) {
            self.all_had_a_turn = true;
            let Self { survey, lives, idle, .. } = self;
            let wanted = survey.codes.iter().filter(|code| lives.is_wanted(code)).map(|code| code.address);
            let wanted: HashSet<RemoteAddress> = wanted.collect();
            idle.retain(|code| wanted.contains(code));
        }
    }

    /// Where there is more than can be watched: watches a few candidates after the other for a moment each, and counts
    /// their calls. Nothing is recorded meanwhile, nor until the caller has entries accepted again.
    fn calibrate(&mut self, means: &mut Means<'_>) -> Result<HashMap<RemoteAddress, u64>, SessionError> {
        let mut calls = HashMap::new();
        let all = self.planned(means.planner, &self.unlimited());
        if all.watched.len() <= self.slots {
            return Ok(calls);
        }
        means.in_kernel(self.process.0)?.set_python(&self.layout, &all.tables)?;
        self.calibration = Some(means.drain.begin_gap(Some(self.process.1))?);
        means.in_kernel(self.process.0)?.accept_entries(false)?;
        let groups = all.watched.len().div_ceil(self.slots.max(1)).min(CALIBRATION_STEPS);
        let step = (CALIBRATION / u32::try_from(groups).unwrap_or(1).max(1)).clamp(SHORTEST_STEP, LONGEST_STEP);
        for group in all.watched.chunks(self.slots.max(1)).take(groups) {
            for (code, _) in group {
                if self.watch(means.in_kernel(self.process.0)?, *code)? != WatchOutcome::Live {
                    break;
                }
            }
            let began = Instant::now();
            let mut total = 0;
            while began.elapsed() < step && total < ENOUGH_CALLS {
                std::thread::sleep(STEP_LOOK);
                total = 0;
                for (code, _) in group {
                    total += means.in_kernel(self.process.0)?.python_calls(*code)?;
                }
            }
            for (code, _) in group {
                let counted = means.in_kernel(self.process.0)?.python_calls(*code)?;
                means.in_kernel(self.process.0)?.unwatch(*code)?;
                if counted > 0 {
                    calls.insert(*code, counted);
                }
            }
        }
        Ok(calls)
    }

    /// Tells everybody what the plan says, and moves the watchpoints.
    fn put_into_force(&mut self, means: &mut Means<'_>) -> Result<(), SessionError> {
        self.tell(means)?;
        let wanted: Vec<RemoteAddress> = self.plan.watched.iter().map(|(code, _)| *code).collect();
        if self.watched.len() == wanted.len() && self.watched.iter().all(|code| wanted.contains(code)) {
            return self.count_from_here(means.in_kernel(self.process.0)?);
        }
        // Calls that are open meanwhile lack calls of code that is watched only now, or not any more.
        let gap = means.drain.begin_gap(Some(self.process.1))?;
        let (kept, dropped): (Vec<_>, Vec<_>) = self.watched.iter().partition(|code| wanted.contains(code));
        for code in dropped {
            means.in_kernel(self.process.0)?.unwatch(code)?;
        }
        self.watched = kept;
        for code in wanted {
            if self.watched.contains(&code) {
                continue;
            }
            match self.watch(means.in_kernel(self.process.0)?, code)? {
                WatchOutcome::Live => self.watched.push(code),
                WatchOutcome::NoSlot => {
                    self.slots = self.watched.len();
                    self.held_by = vec![holder_of(self.process.0, means.in_kernel(self.process.0)?.guard())];
                    break;
                }
                WatchOutcome::NoDescriptors { needed, limit } => {
                    self.slots = self.watched.len();
                    let limit = format!("the limit of {limit} open files");
                    tracing::warn!(
                        "process {}: every thread takes a file descriptor for each watched code object; {limit} allows \
                         {} of them at one time, all 4 need {needed}: raise it (`ulimit -n {needed}`)",
                        self.process.0,
                        self.slots
                    );
                    self.held_by = vec![limit];
                    break;
                }
                WatchOutcome::Unguarded(reason) => {
                    let who =
                        tracer_of(self.process.0.pid).map(|who| format!(" ({who} traces it)")).unwrap_or_default();
                    self.watch_nothing(format!("it cannot be guarded{who}: {reason}"));
                    break;
                }
                WatchOutcome::Gone => break,
            }
        }
        means.drain.end_gap(gap)?;
        self.count_from_here(means.in_kernel(self.process.0)?)
    }

    /// From here on all that is chosen is watched: calls of some of it while others were not yet watched say nothing about
    /// these.
    fn count_from_here(&mut self, kernel: &dyn KernelProcess) -> Result<(), SessionError> {
        let mut since = HashMap::new();
        for code in &self.watched {
            self.counted.insert(*code, kernel.python_calls(*code)?);
            since.insert(*code, self.watched_since.get(code).copied().unwrap_or(self.traffic));
        }
        self.watched_since = since;
        Ok(())
    }

    /// The guard of the process has gone: its watchpoints must go at once.
    pub(super) fn lose_guard(&mut self, means: &mut Means<'_>) -> Result<(), SessionError> {
        let gap = means.drain.begin_gap(Some(self.process.1))?;
        means.in_kernel(self.process.0)?.unwatch_all()?;
        means.drain.end_gap(gap)?;
        self.watch_nothing("its guard has been killed".to_owned());
        Ok(())
    }

    /// From now on nothing can be watched, for a reason that is told.
    pub(super) fn watch_nothing(&mut self, reason: String) {
        tracing::warn!(
            "process {}: {reason}; in a virtual machine a watchpoint may end an unguarded process, so no Python code is \
             watched (`--python frames` needs no watchpoints)",
            self.process.0
        );
        // What was called until now was covered.
        for code in std::mem::take(&mut self.watched) {
            let calls = self.counted.get(&code).copied().unwrap_or(0);
            let known = self.plan.watched.iter().find(|(known, _)| *known == code);
            if let Some((_, watched)) = known.filter(|_| calls > 0) {
                let earlier = self.past.get(&code).map_or(0, |past| past.calls_seen);
                self.past.insert(code, self.plan.called(code, watched, calls + earlier));
            }
        }
        self.slots = 0;
        self.obstacle = Some(reason);
    }

    fn watch(&self, kernel: &mut dyn KernelProcess, code: RemoteAddress) -> Result<WatchOutcome, SessionError> {
        let memory = LiveProcess::new(self.process.0.pid);
        let mut count = || {
            let mut bytes = [0; 4];
            memory.read(code, &mut bytes).ok().map(|()| u32::from_ne_bytes(bytes))
        };
        Ok(kernel.watch(code, &mut count)?)
    }
}

/// Who may hold the other debug registers of a process.
fn holder_of(process: ProcessId, guard: Option<u32>) -> String {
    // Our own guard traces it, and has set no more than it was asked to.
    let tracer = if guard.is_some() { None } else { tracer_of(process.pid) };
    tracer.unwrap_or_else(|| "another tool (a debugger, perf, or a second ml-tracer: who is not known)".to_owned())
}
