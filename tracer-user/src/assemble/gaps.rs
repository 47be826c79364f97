//! Times in which not every call was seen to begin: what is open in one of them may lack children.

use std::collections::{HashMap, VecDeque};

use tracer_common::limits::MAX_PROCESSES;

use super::integer_hash::IntegerState;
use crate::model::{Call, Gap, MonotonicNs};

/// Gaps that are remembered of one process. Records are hardly ever older than a few.
const MOST_GAPS: usize = 32;

/// Processes of which gaps are remembered: twice what can be traced, because the end of a process is not announced.
const MOST_PROCESSES: usize = 2 * MAX_PROCESSES as usize;

/// The gaps of all processes.
#[derive(Debug, Default)]
pub struct Gaps {
    of_all: VecDeque<Gap>,
    by_process: HashMap<u32, VecDeque<Gap>, IntegerState>,
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
    pub fn meet(&self, call: &Call) -> bool {
        let meets = |gap: &Gap| gap.from <= call.end && gap.to.is_none_or(|to: MonotonicNs| call.start < to);
        self.of_all.iter().any(meets)
            || self.by_process.get(&call.process).is_some_and(|gaps| gaps.iter().rev().any(meets))
    }
}
