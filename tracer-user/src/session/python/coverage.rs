//! What of an interpreter was covered and what not.

use super::interpreter::{Calls, Interpreter};
use crate::attach::KernelProcess;
use crate::model::{PythonCoverage, PythonLeftOut, PythonMode, WatchedCode};
use crate::plan::Planner;

impl Interpreter {
    /// What would be seen, without seeing anything.
    pub fn plan_only(&mut self, planner: &mut Planner) -> PythonCoverage {
        self.choose(planner, &Calls::default());
        self.coverage()
    }

    /// What was seen, with the calls counted.
    pub fn counted_coverage(&mut self, kernel: Option<&dyn KernelProcess>) -> PythonCoverage {
        let mut coverage = PythonCoverage { left_out: self.left_out(kernel), ..self.coverage() };
        coverage.watched.clear();
        let is_seen = |code| self.mode == PythonMode::Frames || self.watched.contains(code);
        for (code, watched) in self.plan.watched.iter().filter(|(code, _)| is_seen(code)) {
            let before = self.past.remove(code);
            let calls_before = before.as_ref().map_or(0, |past| past.calls_seen);
            // What the programs cannot be asked any more was counted a moment ago.
            let counted = kernel.and_then(|kernel| kernel.python_calls(*code).ok());
            let counted = counted.unwrap_or_else(|| self.counted.get(code).copied().unwrap_or(0));
            let calls_seen = counted + calls_before;
            let named = before.filter(|_| watched.methods.is_empty());
            let named = named.unwrap_or_else(|| self.plan.called(*code, watched, calls_seen));
            coverage.watched.push(WatchedCode { calls_seen, ..named });
        }
        coverage.watched.extend(self.past.drain().map(|(_, past)| past));
        coverage
    }

    fn coverage(&self) -> PythonCoverage {
        let (major, minor, micro) = self.engine.runtime().version;
        let is_watching = self.mode == PythonMode::Watch;
        PythonCoverage {
            process: self.process.0.pid,
            interpreter: format!("CPython {major}.{minor}.{micro}"),
            layout: self.engine.runtime().layout_source.clone(),
            mode: self.mode,
            slots: if is_watching { u32::try_from(self.slots).unwrap_or(u32::MAX) } else { 0 },
            slots_held_by: self.held_by.clone(),
            seen_after_ms: self.seen_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            left_out: PythonLeftOut::default(),
            watched: self.plan.watched.iter().map(|(_, watched)| watched.clone()).collect(),
            not_watched: self.plan.not_watched.clone(),
            not_looked_at: self.survey.not_looked_at.clone(),
        }
    }
}
