//! How long whole traces took, second by second.

use std::collections::VecDeque;
use std::time::Instant;

use hdrhistogram::Histogram;

/// Seconds that are kept: more than any terminal has columns.
const MAX_SECONDS: usize = 600;
/// Digits of a duration that the quantiles keep.
const DIGITS: u8 = 2;

/// One second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Traces whose outermost call has ended in it.
    pub traces: u64,
    /// 95 of 100 of these calls took at most this, nanoseconds.
    pub p95_ns: u64,
}

/// The last seconds.
pub struct History {
    began: Instant,
    seconds: VecDeque<Second>,
    /// The second that has not ended: its number, and its calls.
    current: u64,
    durations: Histogram<u32>,
}

impl History {
    /// Nothing yet.
    pub fn new(now: Instant) -> Self {
        let durations = Histogram::new(DIGITS).expect("the crate takes 0 to 5 digits");
        Self { began: now, seconds: VecDeque::new(), current: 0, durations }
    }

    /// The outermost call of a trace has ended.
    pub fn add(&mut self, now: Instant, nanoseconds: u64) {
        self.go_to(now);
        // It grows as far as durations go.
        let _ = self.durations.record(nanoseconds);
    }

    /// The last seconds that have ended, the newest last.
    pub fn seconds(&mut self, now: Instant) -> Vec<Second> {
        self.go_to(now);
        self.seconds.iter().copied().collect()
    }

    fn go_to(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.began).as_secs();
        if second <= self.current {
            return;
        }
        let ended = Second { traces: self.durations.len(), p95_ns: self.durations.value_at_quantile(0.95) };
        self.push(if ended.traces == 0 { Second::default() } else { ended });
        self.durations.reset();
        let empty = (second - self.current - 1).min(MAX_SECONDS as u64);
        (0..empty).for_each(|_| self.push(Second::default()));
        self.current = second;
    }

    fn push(&mut self, second: Second) {
        if self.seconds.len() >= MAX_SECONDS {
            self.seconds.pop_front();
        }
        self.seconds.push_back(second);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seconds_follow_each_other_with_and_without_calls() {
        let began = Instant::now();
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let mut history = History::new(began);
        (1..=100).for_each(|number| history.add(at(10 * number - 10), number * 1_000_000));
        assert!(history.seconds(at(999)).is_empty(), "it has not ended");
        history.add(at(3_100), 7_000);
        let seconds = history.seconds(at(4_000));
        assert_eq!(seconds.iter().map(|second| second.traces).collect::<Vec<_>>(), [100, 0, 0, 1]);
        assert!(seconds[0].p95_ns.abs_diff(95_000_000) < 1_000_000, "{seconds:?}");
        assert_eq!(seconds[1], Second::default());
        assert_eq!(history.seconds(at(100_000_000)).len(), MAX_SECONDS);
    }
}
