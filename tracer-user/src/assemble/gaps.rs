//! Times in which not every call was seen to begin: what is open in one of them may lack children.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use tracer_common::limits::MAX_PROCESSES;

use crate::model::{Gap, MonotonicNs};

/// Gaps that are remembered of one process. Records are hardly ever older than a few.
const MOST_GAPS: usize = 32;

/// Processes of which gaps are remembered: twice what can be traced, because the end of a process is not announced.
const MOST_PROCESSES: usize = 2 * MAX_PROCESSES as usize;

/// The gaps of all processes.
#[derive(Debug, Default)]
pub struct Gaps {
    of_all: VecDeque<Gap>,
    by_process: FxHashMap<u32, VecDeque<Gap>>,
}

impl Gaps {
    /// A gap has begun, or (`to` is known) one that had begun is over.
    pub fn add(&mut self, gap: Gap) {
        let gaps = match gap.process {
            None => &mut self.of_all,
            Some(process) => {
                if self.by_process.len() >= MOST_PROCESSES && !self.by_process.contains_key(&process) {
                    let ended = |gaps: &VecDeque<Gap>| gaps.back().and_then(|gap| gap.to);
                    let oldest = self.by_process.iter().min_by_key(|(_, gaps)| ended(gaps).map_or(u64::MAX, |to| to.0));
                    let oldest = oldest.map(|(process, _)| *process);
                    oldest.and_then(|process| self.by_process.remove(&process));
                }
                self.by_process.entry(process).or_default()
            }
        };
        match gaps.iter_mut().rev().find(|known| known.from == gap.from) {
            Some(known) => *known = gap,
            None => {
                if gaps.len() >= MOST_GAPS {
                    gaps.pop_front();
                }
                gaps.push_back(gap);
            }
        }
    }

    /// The number of the process is another one's now.
    pub fn forget(&mut self, process: u32) {
        self.by_process.remove(&process);
    }

    /// Whether a call was open in one of them.
    pub fn meet(&self, process: u32, start: MonotonicNs, end: MonotonicNs) -> bool {
        let meets = |gap: &Gap| gap.from <= end && gap.to.is_none_or(|to| start < to);
        self.of_all.iter().any(meets) || self.by_process.get(&process).is_some_and(|gaps| gaps.iter().rev().any(meets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Gaps {
        fn has(&self, process: u32, start: u64, end: u64) -> bool {
            self.meet(process, MonotonicNs(start), MonotonicNs(end))
        }
    }

    fn gap(process: Option<u32>, from: u64, to: Option<u64>) -> Gap {
        Gap { process, from: MonotonicNs(from), to: to.map(MonotonicNs) }
    }

    #[test]
    fn calls_that_were_open_in_a_gap_meet_it() {
        let mut gaps = Gaps::default();
        gaps.add(gap(Some(7), 100, None));
        assert!(gaps.has(7, 50, 150), "its end is not known yet");
        gaps.add(gap(Some(7), 100, Some(200)));
        let open = [(50, 99), (50, 100), (120, 180), (199, 300), (200, 300)];
        assert_eq!(open.map(|(start, end)| gaps.has(7, start, end)), [false, true, true, true, false]);
        assert!(!gaps.has(8, 50, 150), "another process");
        gaps.forget(7);
        assert!(!gaps.has(7, 50, 150), "the number is another one's");
        gaps.add(gap(None, 400, None));
        assert!(gaps.has(8, 300, 500) && gaps.has(9, 300, 400) && !gaps.has(9, 300, 399));
    }

    #[test]
    fn they_do_not_grow_without_bound_and_an_open_one_stays() {
        let mut gaps = Gaps::default();
        gaps.add(gap(Some(0), 1, None));
        for process in 1..5_000 {
            for time in 0..50 {
                gaps.add(gap(Some(process), time * 10, Some(time * 10 + 5)));
            }
        }
        assert_eq!(gaps.by_process.len(), MOST_PROCESSES);
        assert!(gaps.by_process.values().all(|gaps| gaps.len() <= MOST_GAPS));
        assert!(gaps.has(0, 5, 6));
        assert!(gaps.has(4_999, 492, 493) && !gaps.has(4_999, 496, 499));
    }
}
