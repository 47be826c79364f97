//! Watch mode: a calibration, watchpoints on the chosen code, and their move when other code is wanted more.

use std::collections::HashMap;
use std::sync::Once;
use std::time::Duration;

use super::super::error::SessionError;
use super::experience::Experience;
use super::interpreter::Interpreter;
use super::targets::Means;
use crate::attach::{Programs, VIRTUAL_WATCHPOINTS, WatchOutcome, is_virtual_machine};
use crate::memory::{LiveProcess, Memory as _};
use crate::model::{ProcessId, RemoteAddress};
use crate::target::tracer_of;

/// Debug registers of an x86-64 processor.
pub const DEBUG_REGISTERS: usize = 4;

/// A calibration watches a few candidates for so long before it goes on to the next ones.
const CALIBRATION_STEP: Duration = Duration::from_millis(60);

/// Steps of a calibration at most: what is not tried by then is tried later, when there is traffic.
const CALIBRATION_STEPS: usize = 8;

impl Interpreter {
    /// Chooses what to watch and watches it; where there is more than can be watched, by what the calls in other processes
    /// have shown or else after a calibration.
    pub(super) fn begin_watching(
        &mut self,
        means: &mut Means<'_>,
        experience: &Experience,
        may_wait: bool,
    ) -> Result<(), SessionError> {
        static IS_TOLD: Once = Once::new();
        if is_virtual_machine() {
            IS_TOLD.call_once(|| tracing::warn!("{VIRTUAL_WATCHPOINTS}"));
        }
        let known = experience.of(&self.survey);
        let calls = if known.is_empty() && may_wait { self.calibrate(means)? } else { known };
        self.choose(means.planner, &calls);
        self.put_into_force(means)?;
        if self.plan.watched.len() > self.slots {
            // Fewer registers than there should be: choose again, for these.
            self.choose(means.planner, &calls);
            self.put_into_force(means)?;
        }
        Ok(())
    }

    /// Chooses again if the process has changed, or if traffic has shown that watched code is not called.
    pub(super) fn watch_again(&mut self, means: &mut Means<'_>, is_new: bool) -> Result<(), SessionError> {
        let mut calls = HashMap::new();
        for code in &self.watched {
            calls.insert(*code, means.programs.python_calls(self.process.1, *code)?);
        }
        let idle: Vec<_> = calls.iter().filter(|(_, calls)| **calls == 0).map(|(code, _)| *code).collect();
        // Calls of an earlier time say nothing about code that is watched only since then.
        let counted = |code| self.counted.get(code).copied().unwrap_or(0);
        let is_traffic = calls.iter().any(|(code, calls)| *calls > counted(code));
        self.counted.clone_from(&calls);
        let wants_more =
            !self.plan.not_watched.is_empty() && is_traffic && idle.iter().any(|code| !self.idle.contains(code));
        if !is_new && !wants_more {
            return Ok(());
        }
        if is_traffic {
            self.idle.extend(idle);
        }
        for (code, watched) in &self.plan.watched {
            let counted = calls.get(code).copied().unwrap_or(0);
            if counted > 0 {
                let mut watched = watched.clone();
                watched.calls_seen = counted;
                self.past.insert(*code, watched);
            }
        }
        self.choose(means.planner, &calls);
        self.put_into_force(means)?;
        means.programs.accept_entries_of(self.process.0, true)?;
        Ok(())
    }

    /// Where there is more than can be watched: watches a few candidates after the other for a moment each, and counts
    /// their calls. Nothing is recorded meanwhile, nor until the caller has entries accepted again.
    fn calibrate(&mut self, means: &mut Means<'_>) -> Result<HashMap<RemoteAddress, u64>, SessionError> {
        let mut calls = HashMap::new();
        let all = self.planned(means.planner, &self.unlimited());
        if all.watched.len() <= self.slots {
            return Ok(calls);
        }
        means.programs.set_python(self.process, &self.layout, &all.tables)?;
        means.programs.accept_entries_of(self.process.0, false)?;
        for group in all.watched.chunks(self.slots).take(CALIBRATION_STEPS) {
            for (code, _) in group {
                if self.watch(means.programs, *code)? != WatchOutcome::Live {
                    break;
                }
            }
            std::thread::sleep(CALIBRATION_STEP);
            for (code, _) in group {
                let counted = means.programs.python_calls(self.process.1, *code)?;
                means.programs.unwatch(self.process.0, *code)?;
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
        let (kept, dropped): (Vec<_>, Vec<_>) = self.watched.iter().partition(|code| wanted.contains(code));
        for code in dropped {
            means.programs.unwatch(self.process.0, code)?;
        }
        self.watched = kept;
        for code in wanted {
            if self.watched.contains(&code) {
                continue;
            }
            match self.watch(means.programs, code)? {
                WatchOutcome::Live => self.watched.push(code),
                WatchOutcome::NoSlot => {
                    self.slots = self.watched.len();
                    self.held_by = vec![holder_of(self.process.0)];
                    break;
                }
                WatchOutcome::Gone => break,
            }
        }
        Ok(())
    }

    fn watch(&self, programs: &mut Programs, code: RemoteAddress) -> Result<WatchOutcome, SessionError> {
        let memory = LiveProcess::new(self.process.0.pid);
        let count = || {
            let mut bytes = [0; 4];
            memory.read(code, &mut bytes).ok().map(|()| u32::from_ne_bytes(bytes))
        };
        Ok(programs.watch(self.process, code, count)?)
    }
}

/// Who may hold the other debug registers of a process.
fn holder_of(process: ProcessId) -> String {
    tracer_of(process.pid)
        .unwrap_or_else(|| "another tool (a debugger, perf, or a second ml-tracer: who is not known)".to_owned())
}
