//! How candidates are tried out where there are more than can be watched: a few after the other, for a moment each.

use std::time::Duration;

use crate::model::{PythonPlan, PythonTables, RemoteAddress};

/// A calibration takes so long at most: it watches a few candidates at a time.
const CALIBRATION: Duration = Duration::from_millis(120);

/// One step of it takes so long at most, and so long at least.
const LONGEST_STEP: Duration = Duration::from_millis(60);
const SHORTEST_STEP: Duration = Duration::from_millis(15);

/// Steps of a calibration at most: what is not tried by then is tried later, when there is traffic.
const STEPS: usize = 8;

/// Calls that are enough in one step: what is not called by then is called seldom.
const ENOUGH_CALLS: u64 = 32;

/// What to watch for a moment, to see what is called.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// What the programs must know of all candidates.
    pub tables: PythonTables,
    /// Code that is watched at one time, one group after the other.
    pub groups: Vec<Vec<RemoteAddress>>,
    /// A group is watched for so long at most.
    pub step: Duration,
    /// After so many calls of its code a group is watched no longer.
    pub enough_calls: u64,
}

impl Calibration {
    /// The calibration of everything that would be watched if it could; `None` if all of it can.
    #[must_use]
    pub fn of(all: PythonPlan, slots: usize) -> Option<Self> {
        if all.watched.len() <= slots {
            return None;
        }
        let count = all.watched.len().div_ceil(slots.max(1)).min(STEPS);
        let step = (CALIBRATION / u32::try_from(count).unwrap_or(1).max(1)).clamp(SHORTEST_STEP, LONGEST_STEP);
        let addresses = |group: &[(RemoteAddress, _)]| group.iter().map(|(code, _)| *code).collect();
        let groups = all.watched.chunks(slots.max(1)).take(count).map(addresses).collect();
        Some(Self { tables: all.tables, groups, step, enough_calls: ENOUGH_CALLS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WatchedCode;

    fn plan(count: u64) -> PythonPlan {
        let watched =
            |code| (RemoteAddress(code), WatchedCode { code: String::new(), methods: Vec::new(), calls_seen: 0 });
        PythonPlan { watched: (0..count).map(watched).collect(), ..PythonPlan::default() }
    }

    #[test]
    fn only_what_cannot_be_watched_at_once_is_tried_out() {
        assert_eq!(Calibration::of(plan(4), 4), None);
        let few = Calibration::of(plan(5), 4).expect("more than four");
        assert_eq!((few.groups.iter().map(Vec::len).collect::<Vec<_>>(), few.step), (vec![4, 1], LONGEST_STEP));
        let many = Calibration::of(plan(1_000), 4).expect("more than four");
        assert_eq!((many.groups.len(), many.step), (STEPS, SHORTEST_STEP));
        assert_eq!(Calibration::of(plan(2), 0).expect("nothing can be watched").groups.len(), 2);
    }
}
