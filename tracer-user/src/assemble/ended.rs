//! Processes that have ended, until they can be forgotten.

use std::collections::VecDeque;

use crate::model::{MonotonicNs, ProcessChange, ProcessEvent};

/// How long after its end a process is forgotten, nanoseconds: by then every record of it has come, also where the first
/// thread has ended before the others did.
const AFTER_NS: u64 = 10_000_000_000;

/// Processes that wait to be forgotten; with more the oldest is forgotten earlier.
const MOST: usize = 4096;

/// Those that have ended, the first one first.
#[derive(Debug, Default)]
pub struct EndedProcesses(VecDeque<(MonotonicNs, u32)>);

impl EndedProcesses {
    /// Something has happened to a process; calls `forget` for those whose time has come.
    pub fn event(&mut self, event: &ProcessEvent, mut forget: impl FnMut(u32)) {
        if event.change == ProcessChange::Ended {
            self.0.push_back((event.time, event.process));
        }
        let is_due = |(ended, _): &mut (MonotonicNs, u32)| event.time.0.saturating_sub(ended.0) >= AFTER_NS;
        while let Some((_, process)) = self.0.pop_front_if(is_due) {
            forget(process);
        }
        if self.0.len() > MOST
            && let Some((_, process)) = self.0.pop_front()
        {
            forget(process);
        }
    }

    /// The number of a process is that of one that goes on.
    pub fn goes_on(&mut self, process: u32) {
        self.0.retain(|(_, ended)| *ended != process);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(ended: &mut EndedProcesses, seconds: u64, process: u32, change: ProcessChange) -> Vec<u32> {
        let mut forgotten = Vec::new();
        let event = ProcessEvent { process, time: MonotonicNs(seconds * 1_000_000_000), change };
        ended.event(&event, |process| forgotten.push(process));
        forgotten
    }

    #[test]
    fn a_process_is_forgotten_late_and_not_if_its_number_is_used_again() {
        let mut ended = EndedProcesses::default();
        for (second, process) in [(1, 7), (2, 8), (5, 9)] {
            assert!(event(&mut ended, second, process, ProcessChange::Ended).is_empty());
        }
        ended.goes_on(8);
        assert_eq!(event(&mut ended, 11, 10, ProcessChange::Executed), [7]);
        assert_eq!(event(&mut ended, 20, 11, ProcessChange::Forked(10)), [9]);
    }

    #[test]
    fn they_do_not_grow_without_bound() {
        let mut ended = EndedProcesses::default();
        let forgotten = (0..10_000).flat_map(|process| event(&mut ended, 1, process, ProcessChange::Ended)).count();
        assert_eq!((forgotten, ended.0.len()), (10_000 - MOST, MOST));
    }
}
