//! Code that was seen under earlier plans, with the calls that were counted then: it was covered, whatever is seen in the end.

use std::collections::HashMap;

use crate::model::{PythonPlan, RemoteAddress, WatchedCode};

/// The code, named after what it may have been called as.
#[derive(Clone, Debug, Default)]
pub struct CoveredCode(HashMap<RemoteAddress, WatchedCode>);

impl CoveredCode {
    /// Keeps everything with methods that a plan has seen, called or not.
    pub fn add_all(&mut self, plan: &PythonPlan) {
        for (code, watched) in plan.watched.iter().filter(|(_, watched)| !watched.methods.is_empty()) {
            self.0.entry(*code).or_insert_with(|| watched.clone());
        }
    }

    /// Keeps the code of a plan that is seen no more (`which`), with its calls, if it was called.
    pub fn take_over(
        &mut self,
        plan: &PythonPlan,
        which: impl Fn(RemoteAddress) -> bool,
        counted: impl Fn(RemoteAddress) -> u64,
    ) {
        for (code, watched) in plan.watched.iter().filter(|(code, _)| which(*code)) {
            let calls = counted(*code);
            if calls > 0 {
                let earlier = self.0.get(code).map_or(0, |seen| seen.calls_seen);
                self.0.insert(*code, plan.called(*code, watched, calls + earlier));
            }
        }
    }

    /// The calls of each code object.
    pub fn calls(&self) -> impl Iterator<Item = (RemoteAddress, u64)> {
        self.0.iter().map(|(code, seen)| (*code, seen.calls_seen))
    }

    /// All that was covered, with what is seen now of the last plan (`which`) and its calls. Nothing is kept.
    pub fn told(
        &mut self,
        plan: &PythonPlan,
        which: impl Fn(RemoteAddress) -> bool,
        counted: impl Fn(RemoteAddress) -> u64,
    ) -> Vec<WatchedCode> {
        let mut told = Vec::new();
        for (code, watched) in plan.watched.iter().filter(|(code, _)| which(*code)) {
            let before = self.0.remove(code);
            let calls_seen = counted(*code) + before.as_ref().map_or(0, |seen| seen.calls_seen);
            let named = before.filter(|_| watched.methods.is_empty());
            let named = named.unwrap_or_else(|| plan.called(*code, watched, calls_seen));
            told.push(WatchedCode { calls_seen, ..named });
        }
        told.extend(self.0.drain().map(|(_, seen)| seen));
        told
    }
}
