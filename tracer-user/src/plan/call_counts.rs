//! The calls of the watched code of one process, counted again and again: what is called, what no longer, and what is not.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::model::{CodeCalls, RemoteAddress};

/// So many calls of other code show that code is not called which was watched meanwhile. Fewer may be one training, in which
/// other code is called than afterwards, or the beginning of a call, the steps of which are still to come.
const ENOUGH_OF_OTHERS: u64 = 16;

/// After so long without a call of watched code, classes without objects have their turns again.
const QUIET: Duration = Duration::from_secs(3);

/// Code whose calls were all folded is watched again after so long; each further time it waits twice as long, so many times.
const FOLDED_FOR: Duration = Duration::from_secs(60);
const MOST_DOUBLED: u32 = 4;

/// Calls of code objects, each since it was watched.
pub type Counts = HashMap<RemoteAddress, CodeCalls>;

/// A number for each code object.
pub type Weights = HashMap<RemoteAddress, u64>;

/// What the counts have shown so far.
#[derive(Clone, Debug, Default)]
pub struct CallCounts {
    /// Calls of each code object at the last count.
    counted: Counts,
    /// Calls of what is watched now that were not folded; old ones count for less.
    recent: Weights,
    /// Calls that were seen while all that is chosen was watched.
    traffic: u64,
    /// The same when watched code began to be watched.
    watched_since: Weights,
    /// The lowest reference count of what is watched now: while it is higher, a call is running.
    at_rest: Weights,
    /// Code that was watched without being called, while other code was or when it had its turn.
    uncalled: HashSet<RemoteAddress>,
    /// Of the uncalled code, what was watched while other code was called: it has not merely had its turn in a quiet time.
    uncalled_in_traffic: HashSet<RemoteAddress>,
    /// Code whose calls were all folded into others while it was watched.
    only_folded: HashMap<RemoteAddress, OnlyFolded>,
    /// When watched code was last found to have been called.
    called_at: Option<Instant>,
    /// Whether each class without objects has had its turn to be watched.
    all_had_a_turn: bool,
}

/// Code that is not worth a watchpoint for some time.
#[derive(Clone, Copy, Debug)]
struct OnlyFolded {
    until: Instant,
    times: u32,
}

impl CallCounts {
    /// Calls of a code object at the last count.
    #[must_use]
    pub fn counted(&self, code: RemoteAddress) -> CodeCalls {
        self.counted.get(&code).copied().unwrap_or_default()
    }

    /// All code that was counted, with its calls.
    pub fn all(&self) -> &Counts {
        &self.counted
    }

    /// Calls of what is watched now that were not folded; old ones count for less.
    #[must_use]
    pub fn recent(&self) -> &Weights {
        &self.recent
    }

    /// Code that was watched without being called.
    #[must_use]
    pub fn uncalled(&self) -> &HashSet<RemoteAddress> {
        &self.uncalled
    }

    /// Whether code was watched without being called while other code was.
    #[must_use]
    pub fn is_uncalled_in_traffic(&self, code: RemoteAddress) -> bool {
        self.uncalled_in_traffic.contains(&code)
    }

    /// Code whose calls are folded into others, all of them, as far as is known now.
    #[must_use]
    pub fn only_folded(&self, now: Instant) -> HashSet<RemoteAddress> {
        let is_left_out = |(_, folded): &(&RemoteAddress, &OnlyFolded)| now < folded.until;
        self.only_folded.iter().filter(is_left_out).map(|(code, _)| *code).collect()
    }

    /// Whether a call was ever seen.
    #[must_use]
    pub fn was_called(&self) -> bool {
        self.called_at.is_some()
    }

    /// Whether each class without objects has had its turn to be watched.
    #[must_use]
    pub fn all_had_a_turn(&self) -> bool {
        self.all_had_a_turn
    }

    /// Code that has made spans so far, or by a calibration; what is called `elsewhere` if there is none.
    #[must_use]
    pub fn called(&self, calibrated: &Counts, elsewhere: impl FnOnce() -> HashMap<RemoteAddress, u64>) -> Counts {
        let mut called = self.counted.clone();
        called.extend(calibrated);
        called.retain(|_, calls| calls.spans() > 0);
        if called.is_empty() {
            called.extend(elsewhere().into_iter().map(|(code, calls)| (code, calls.into())));
        }
        called
    }

    /// Notes what was counted, without a conclusion.
    pub fn note(&mut self, counts: &Counts) {
        self.counted.extend(counts);
    }

    /// Takes up a count of all that is watched; the answer is whether anything was called since the last one. `only_trains` tells code
    /// that trains a model and does nothing else.
    pub fn take_up(&mut self, now: Instant, counts: Counts, only_trains: impl Fn(RemoteAddress) -> bool) -> bool {
        // Calls of an earlier time say nothing about code that is watched only since then.
        let since = |code: &RemoteAddress, calls: &CodeCalls| calls.spans().saturating_sub(self.counted(*code).spans());
        let traffic: u64 = counts.iter().map(|(code, calls)| since(code, calls)).sum();
        let is_traffic = traffic > 0;
        let mut at_rest = Weights::with_capacity(counts.len());
        for (code, calls) in &counts {
            let lowest = self.at_rest.get(code).copied().unwrap_or(u64::MAX);
            at_rest.insert(*code, lowest.min(calls.references));
        }
        // A call may run for longer than from one count to the next.
        let is_running = |code: &RemoteAddress, calls: &CodeCalls| {
            calls.spans() > 0 && at_rest.get(code).is_some_and(|at_rest| calls.references > *at_rest)
        };
        // Old calls count for less with every count that sees new ones, and those of what has trained a model for nothing: it
        // may never be called again.
        let recent = |(code, calls): (&RemoteAddress, &CodeCalls)| {
            let before = self.recent.get(code).copied().unwrap_or(0);
            let kept = if only_trains(*code) { 0 } else { before / 2 };
            let recent = if is_traffic { kept + since(code, calls) } else { before };
            (*code, recent.max(u64::from(is_running(code, calls))))
        };
        self.recent = counts.iter().map(recent).collect();
        self.at_rest = at_rest;
        self.counted = counts;
        if is_traffic {
            self.called_at = Some(now);
            self.traffic += traffic;
        }
        is_traffic
    }

    /// The watched code that was not called while enough of other code was. It is asked after a count that has seen calls.
    #[must_use]
    pub fn uncalled_in_this_traffic(&self) -> Vec<RemoteAddress> {
        self.not_called_lately().filter(|code| self.traffic_since(*code) >= ENOUGH_OF_OTHERS).collect()
    }

    /// The watched code that was called often enough, and always inside a call that is not looked into: it is worth no watchpoint
    /// for some time.
    pub fn take_out_folded(&mut self, now: Instant) -> Vec<RemoteAddress> {
        let is_known = |code: &RemoteAddress| self.only_folded.get(code).is_some_and(|folded| now < folded.until);
        let is_folded = |code: &RemoteAddress| {
            let calls = self.counted(*code);
            calls.folded >= ENOUGH_OF_OTHERS && calls.spans() == 0 && !is_known(code)
        };
        let folded: Vec<RemoteAddress> = self.recent.keys().copied().filter(is_folded).collect();
        for code in &folded {
            let times = self.only_folded.get(code).map_or(0, |before| before.times + 1);
            let until = now + FOLDED_FOR * 2_u32.pow(times.min(MOST_DOUBLED));
            self.only_folded.insert(*code, OnlyFolded { until, times });
        }
        folded
    }

    /// The watched code that has had its turn. It is asked after a count without calls. What is not called may still be called, and stays.
    /// But where no class has objects, the traffic may be at what is not watched: then each code (`takes_turns`) has its turn,
    /// and again when all have had one, but for the code that is `wanted` by then.
    pub fn had_their_turn(
        &mut self,
        now: Instant,
        takes_turns: impl Fn(RemoteAddress) -> bool,
        wanted: impl FnOnce() -> HashSet<RemoteAddress>,
    ) -> Vec<RemoteAddress> {
        let is_quiet = self.called_at.is_none_or(|called| now.saturating_duration_since(called) >= QUIET);
        let had: Vec<_> = self.not_called_lately().filter(|code| is_quiet && takes_turns(*code)).collect();
        if !had.is_empty() && had.iter().all(|code| self.uncalled.contains(code)) {
            self.all_had_a_turn = true;
            let wanted = wanted();
            self.uncalled.retain(|code| wanted.contains(code));
        }
        had
    }

    /// This code was not called, although other code was.
    pub fn add_uncalled_in_traffic(&mut self, codes: &[RemoteAddress]) {
        self.uncalled_in_traffic.extend(codes);
    }

    /// This code makes room for other code.
    pub fn add_uncalled(&mut self, codes: Vec<RemoteAddress>) {
        self.uncalled.extend(codes);
    }

    /// Code that nobody called may be called now.
    pub fn may_be_called(&mut self, code: impl Fn(RemoteAddress) -> bool) {
        self.uncalled.retain(|uncalled| !code(*uncalled));
        self.uncalled_in_traffic.retain(|uncalled| !code(*uncalled));
        self.only_folded.retain(|folded, _| !code(*folded));
    }

    /// Whether some of what is watched was not called lately.
    #[must_use]
    pub fn is_any_not_called_lately(&self) -> bool {
        self.not_called_lately().next().is_some()
    }

    /// From here on all that is chosen is watched: calls of some of it while others were not yet watched say nothing about
    /// these.
    pub fn count_from_here(&mut self, counts: &Counts) {
        self.counted.extend(counts);
        let since = |code: &RemoteAddress| self.watched_since.get(code).copied().unwrap_or(self.traffic);
        self.watched_since = counts.keys().map(|code| (*code, since(code))).collect();
        self.at_rest.retain(|code, _| counts.contains_key(code));
    }

    /// Nothing is watched any more.
    pub fn restart(&mut self) {
        self.counted.clear();
        self.recent.clear();
        self.watched_since.clear();
        self.at_rest.clear();
    }

    fn not_called_lately(&self) -> impl Iterator<Item = RemoteAddress> {
        self.recent.iter().filter(|(_, recent)| **recent == 0).map(|(code, _)| *code)
    }

    /// Calls that were seen while this code was watched.
    fn traffic_since(&self, code: RemoteAddress) -> u64 {
        self.traffic - self.watched_since.get(&code).copied().unwrap_or(self.traffic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLED: RemoteAddress = RemoteAddress(1);
    const OTHER: RemoteAddress = RemoteAddress(2);

    fn counts(calls: [u64; 2]) -> Counts {
        HashMap::from([(CALLED, calls[0].into()), (OTHER, calls[1].into())])
    }

    fn weights(calls: [u64; 2]) -> Weights {
        HashMap::from([(CALLED, calls[0]), (OTHER, calls[1])])
    }

    /// Both are watched from here on, and were never called.
    fn watched() -> CallCounts {
        let mut calls = CallCounts::default();
        calls.count_from_here(&counts([0, 0]));
        calls
    }

    #[test]
    fn code_is_uncalled_after_enough_calls_of_other_code() {
        let (now, mut calls) = (Instant::now(), watched());
        assert!(calls.take_up(now, counts([15, 0]), |_| false));
        assert!(calls.uncalled_in_this_traffic().is_empty(), "it may be one call that has just begun");
        assert!(calls.take_up(now, counts([16, 0]), |_| false));
        assert_eq!(calls.uncalled_in_this_traffic(), [OTHER]);
        // What comes to be watched only now starts anew.
        let newer = HashMap::from([(CALLED, 16.into()), (RemoteAddress(3), 0.into())]);
        calls.count_from_here(&newer);
        calls.take_up(now, HashMap::from([(CALLED, 20.into()), (RemoteAddress(3), 0.into())]), |_| false);
        assert!(calls.uncalled_in_this_traffic().is_empty());
    }

    #[test]
    fn old_calls_count_for_less_and_those_of_a_training_for_nothing() {
        let (now, mut calls) = (Instant::now(), watched());
        let trains = |code| code == OTHER;
        calls.take_up(now, counts([8, 8]), trains);
        assert_eq!(calls.recent(), &weights([8, 8]));
        calls.take_up(now, counts([10, 8]), trains);
        assert_eq!(calls.recent(), &weights([6, 0]));
        assert!(!calls.take_up(now, counts([10, 8]), trains), "nothing was called");
        assert_eq!(calls.recent(), &weights([6, 0]));
    }

    #[test]
    fn in_a_quiet_time_classes_without_objects_have_their_turns() {
        let (now, mut calls) = (Instant::now(), watched());
        calls.take_up(now, counts([0, 1]), |_| true);
        calls.take_up(now, counts([0, 2]), |_| true);
        assert!(!calls.take_up(now, counts([0, 2]), |_| true));
        assert!(calls.had_their_turn(now, |_| true, HashSet::new).is_empty(), "it is not quiet");
        let later = now + QUIET;
        assert_eq!(calls.had_their_turn(later, |code| code == CALLED, HashSet::new), [CALLED]);
        calls.add_uncalled(vec![CALLED]);
        assert!(!calls.all_had_a_turn() && calls.uncalled().contains(&CALLED));
        assert_eq!(calls.had_their_turn(later, |code| code == CALLED, HashSet::new), [CALLED]);
        assert!(calls.all_had_a_turn() && calls.uncalled().is_empty(), "they begin again");
    }

    #[test]
    fn what_may_be_called_again_is_uncalled_no_more() {
        let mut calls = watched();
        calls.add_uncalled(vec![CALLED, OTHER]);
        calls.add_uncalled_in_traffic(&[CALLED]);
        calls.may_be_called(|code| code == CALLED);
        assert_eq!(calls.uncalled(), &HashSet::from([OTHER]));
        assert!(!calls.is_uncalled_in_traffic(CALLED));
    }

    #[test]
    fn calls_that_are_folded_are_no_traffic_and_take_the_watchpoint_away_for_some_time() {
        let (now, mut calls) = (Instant::now(), watched());
        let folded = |times: u64| {
            HashMap::from([
                (CALLED, times.into()),
                (OTHER, CodeCalls { seen: 10 * times, folded: 10 * times, references: 2 }),
            ])
        };
        calls.take_up(now, folded(1), |_| false);
        assert_eq!(calls.recent(), &weights([1, 0]));
        assert!(calls.take_out_folded(now).is_empty(), "a few calls show nothing");
        calls.take_up(now, folded(2), |_| false);
        assert_eq!(calls.take_out_folded(now), [OTHER]);
        assert_eq!(calls.only_folded(now), HashSet::from([OTHER]));
        let later = now + FOLDED_FOR;
        assert!(calls.only_folded(later).is_empty(), "it may be called by itself now");
        calls.take_out_folded(later);
        assert_eq!(calls.only_folded(later + FOLDED_FOR), HashSet::from([OTHER]), "it waits longer each time");
        calls.may_be_called(|code| code == OTHER);
        assert!(calls.only_folded(later).is_empty());
    }

    #[test]
    fn a_call_that_runs_is_a_call_however_long_it_takes() {
        let (now, mut calls) = (Instant::now(), watched());
        let running = |root: u64, inside: u64, references| {
            HashMap::from([(CALLED, inside.into()), (OTHER, CodeCalls { seen: root, folded: 0, references })])
        };
        calls.take_up(now, running(0, 0, 2), |_| false);
        calls.take_up(now, running(1, 10, 3), |_| false);
        for count in 2..8 {
            calls.take_up(now, running(1, 20 * count, 3), |_| false);
            assert!(calls.uncalled_in_this_traffic().is_empty(), "it has not returned");
        }
        calls.take_up(now, running(1, 200, 2), |_| false);
        calls.take_up(now, running(1, 220, 2), |_| false);
        assert_eq!(calls.uncalled_in_this_traffic(), [OTHER]);
    }
}
