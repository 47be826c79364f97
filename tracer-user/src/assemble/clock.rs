//! Wall-clock times of spans. The two clocks move apart when the machine sleeps and when its time is set, so each tree counts
//! from what was known when the first call of it that ended had started: all of its spans lie inside one another.

use std::collections::VecDeque;

use crate::model::{ClockAnchor, MonotonicNs, WallClockNs};

/// Anchors that are remembered. One is added only when the clocks have moved apart; records are hardly ever older than a few.
const MOST_ANCHORS: usize = 256;

/// The anchors, oldest first.
#[derive(Debug)]
pub struct Clock {
    first: ClockAnchor,
    later: VecDeque<ClockAnchor>,
}

impl Clock {
    /// A clock with the anchor of the beginning.
    pub fn new(first: ClockAnchor) -> Self {
        Self { first, later: VecDeque::new() }
    }

    /// From this anchor's instant on it is in force.
    pub fn add(&mut self, anchor: ClockAnchor) {
        while self.later.pop_back_if(|last| last.monotonic >= anchor.monotonic).is_some() {}
        if self.later.len() >= MOST_ANCHORS
            && let Some(oldest) = self.later.pop_front()
        {
            self.first = oldest;
        }
        self.later.push_back(anchor);
    }

    /// Start and end: the start by the anchor in force at that instant, and the end as much later as it was by the clock that
    /// never jumps, so that durations are exact.
    pub fn times(&self, start: MonotonicNs, end: MonotonicNs) -> (WallClockNs, WallClockNs) {
        times_by(self.at(start), start, end)
    }

    /// The anchor in force at an instant.
    pub fn at(&self, instant: MonotonicNs) -> ClockAnchor {
        *self.later.iter().rev().find(|anchor| anchor.monotonic <= instant).unwrap_or(&self.first)
    }
}

/// Start and end by this anchor.
pub fn times_by(anchor: ClockAnchor, start: MonotonicNs, end: MonotonicNs) -> (WallClockNs, WallClockNs) {
    let began = anchor.wall_clock_of(start);
    (began, WallClockNs(began.0.saturating_add(end.0.saturating_sub(start.0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(monotonic: u64, wall_clock: u64) -> ClockAnchor {
        ClockAnchor { monotonic: MonotonicNs(monotonic), wall_clock: WallClockNs(wall_clock) }
    }

    fn times(clock: &Clock, start: u64, end: u64) -> (u64, u64) {
        let (start, end) = clock.times(MonotonicNs(start), MonotonicNs(end));
        (start.0, end.0)
    }

    #[test]
    fn a_span_counts_from_the_anchor_in_force_when_it_started() {
        let mut clock = Clock::new(anchor(1_000, 50_000));
        assert_eq!(times(&clock, 900, 1_900), (49_900, 50_900));
        // The machine slept for 7,000.
        clock.add(anchor(2_000, 58_000));
        assert_eq!(times(&clock, 1_999, 2_500), (50_999, 51_500), "its duration is exact");
        assert_eq!(times(&clock, 2_000, 2_500), (58_000, 58_500));
        // The time was set back.
        clock.add(anchor(3_000, 40_000));
        assert_eq!(times(&clock, 2_999, 3_100), (58_999, 59_100), "it never ends before it starts");
        assert_eq!(times(&clock, 3_001, 3_000), (40_001, 40_001));
    }

    #[test]
    fn anchors_do_not_grow_without_bound_and_never_go_back() {
        let mut clock = Clock::new(anchor(0, 0));
        for number in 1..10_000 {
            clock.add(anchor(number * 10, number * 1_000));
        }
        assert_eq!(clock.later.len(), MOST_ANCHORS);
        assert_eq!(times(&clock, 99_990, 99_991), (9_999_000, 9_999_001));
        clock.add(anchor(5, 7));
        assert_eq!((clock.later.len(), times(&clock, 99_990, 99_991)), (1, (99_992, 99_993)));
    }
}
