//! What of a call is covered by the calls inside it.

use crate::model::{Span, WallClockNs};

/// Pieces of time kept of one call; of more than that, the two that are nearest become one.
const MAX_PIECES: usize = 1_024;

/// The pieces of time in which calls inside a call were running: those on other threads run at the same time.
#[derive(Clone, Debug, Default)]
pub struct Covered {
    /// Apart from each other, in their order.
    pieces: Vec<(WallClockNs, WallClockNs)>,
}

impl Covered {
    /// A call inside was running.
    pub fn add(&mut self, span: &Span) {
        let (mut start, mut end) = (span.start, span.end);
        let first = self.pieces.partition_point(|(_, known_end)| *known_end < start);
        let behind = self.pieces.partition_point(|(known_start, _)| *known_start <= end);
        if let (Some((known, _)), Some((_, last))) = (self.pieces.get(first), self.pieces[..behind].last())
            && first < behind
        {
            (start, end) = (start.min(*known), end.max(*last));
        }
        self.pieces.splice(first..behind.max(first), [(start, end)]);
        if self.pieces.len() > MAX_PIECES {
            self.join_nearest();
        }
    }

    fn join_nearest(&mut self) {
        let gap = |pair: &[(WallClockNs, WallClockNs)]| pair[1].0.0.saturating_sub(pair[0].1.0);
        let nearest = self.pieces.windows(2).enumerate().min_by_key(|(_, pair)| gap(pair)).map(|(place, _)| place);
        if let Some(place) = nearest {
            let (_, end) = self.pieces.remove(place + 1);
            self.pieces[place].1 = end;
        }
    }

    /// Nanoseconds of the call around in which one was running.
    #[must_use]
    pub fn within(&self, around: &Span) -> u64 {
        let inside = |(start, end): &(WallClockNs, WallClockNs)| {
            end.0.min(around.end.0).saturating_sub(start.0.max(around.start.0))
        };
        self.pieces.iter().map(inside).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::model::Parent;

    fn span(times: (u64, u64)) -> Span {
        samples::span(1, Parent::Root, 0, None, times)
    }

    /// All in microseconds.
    fn covered(pieces: &[(u64, u64)], around: (u64, u64)) -> u64 {
        let mut covered = Covered::default();
        pieces.iter().for_each(|piece| covered.add(&span(*piece)));
        covered.within(&span(around)) / 1_000
    }

    #[test]
    fn each_moment_counts_once() {
        assert_eq!(covered(&[], (0, 100)), 0);
        assert_eq!(covered(&[(10, 20), (30, 40)], (0, 100)), 20);
        assert_eq!(covered(&[(30, 40), (10, 20), (15, 35)], (0, 100)), 30);
        assert_eq!(covered(&[(10, 20), (20, 30)], (0, 100)), 20);
        assert_eq!(covered(&[(10, 50), (20, 30)], (0, 100)), 40);
        assert_eq!(covered(&[(20, 30), (10, 50)], (0, 100)), 40);
        assert_eq!(covered(&[(0, 50)], (40, 100)), 10, "a clock that was set: no more than the call itself");
        assert_eq!(covered(&[(50, 200)], (0, 100)), 50);
    }

    #[test]
    fn pieces_are_bounded() {
        let mut covered = Covered::default();
        for number in 0..10 * MAX_PIECES as u64 {
            covered.add(&span((number * 100, number * 100 + 90)));
        }
        assert!(covered.pieces.len() <= MAX_PIECES);
        let whole = span((0, 1_000 * MAX_PIECES as u64));
        let share = covered.within(&whole) as f64 / whole.duration_ns() as f64;
        assert!((0.9..=1.0).contains(&share), "{share}");
    }
}
