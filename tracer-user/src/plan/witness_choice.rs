//! Which witnesses stay in a process: what was counted while all of them were there goes in, the cheapest that would have shown
//! every call comes out.

use std::time::{Duration, Instant};

use crate::model::{DEEP_FRAMES, ProbesPassed, PythonMode, SPARSE_KINDS, SparseKinds, Witness, WitnessedCalls};

use super::python_cost::each_ns;

/// Share of one processor that all of them may take: they give the narrowest bounds.
const CHEAP: f64 = 0.03;

/// How long they are counted at first.
const FIRST_COUNT: Duration = Duration::from_secs(2);

/// How long they are counted later, and how long the choice holds in between: other methods may be called by then.
const COUNT: Duration = Duration::from_millis(500);
const HOLDS: Duration = Duration::from_secs(30);

/// How often it is asked whether all of them still cost little.
const ASKED_EVERY: Duration = Duration::from_secs(2);

/// Others are passed so much less often than all, or they are not taken: each costs more.
const AT_MOST_ONE_IN: u64 = 2;

/// As many are taken as are passed so much less often.
const FEW_ONE_IN: u64 = 4;

/// Calls of one method, of which one may have passed none of those that stay: it was open when the count began, or the first one of its
/// thread.
const ONE_IN: u32 = 200;

/// What was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessCount {
    /// For so long.
    pub time: Duration,
    /// Probes passed meanwhile.
    pub passed: ProbesPassed,
    /// Calls that ended meanwhile, for each method.
    pub calls: Vec<WitnessedCalls>,
}

/// What is to be done with the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WitnessStep {
    /// All are placed, and counted.
    Count,
    /// These stay; `None`: those that see the most.
    Keep(Option<SparseKinds>),
}

/// The choice for one process, which is made again and again.
#[derive(Clone, Debug)]
pub struct WitnessChoice {
    next: Instant,
    is_counting: bool,
    kinds: Option<SparseKinds>,
    /// All stay because they cost little.
    are_cheap: bool,
    /// Probes that are passed a second with this choice, and would be without one.
    passed: Option<(f64, f64)>,
}

impl WitnessChoice {
    /// The first count begins now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { next: now + FIRST_COUNT, is_counting: true, kinds: None, are_cheap: false, passed: None }
    }

    /// When [`Self::step`] is to be asked.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.next
    }

    /// Those that stay, if not all do.
    #[must_use]
    pub fn kinds(&self) -> Option<SparseKinds> {
        self.kinds
    }

    /// Probes that are passed a second with the choice that was made, and those that would be with all of them.
    #[must_use]
    pub fn passed(&self) -> Option<(f64, f64)> {
        self.passed
    }

    /// Other code is seen from now on: it may be called at once.
    pub fn hurry(&mut self, now: Instant) {
        if !self.is_counting {
            self.next = self.next.min(now + ASKED_EVERY);
        }
    }

    /// What is to be done now, if it is time. `counted` gives what was counted since, and is asked only where that decides; where it cannot
    /// be had, all stay. `empty_ns`: what an empty program takes at a probe.
    pub fn step(
        &mut self,
        now: Instant,
        empty_ns: Option<f64>,
        counted: impl FnOnce() -> Option<WitnessCount>,
    ) -> Option<WitnessStep> {
        if now < self.next {
            return None;
        }
        if !self.is_counting {
            if self.are_cheap && counted().is_some_and(|count| is_cheap(&count, empty_ns)) {
                self.next = now + ASKED_EVERY;
                return None;
            }
            (self.is_counting, self.next) = (true, now + COUNT);
            return Some(WitnessStep::Count);
        }
        let count = counted();
        self.are_cheap = count.as_ref().is_some_and(|count| is_cheap(count, empty_ns));
        (self.is_counting, self.next) = (false, now + if self.are_cheap { ASKED_EVERY } else { HOLDS });
        self.kinds = match &count {
            Some(_) if self.are_cheap => None,
            // The choice holds until something is called.
            Some(count) if !has_calls(count) => self.kinds,
            Some(count) => that_suffice(count),
            None => None,
        };
        self.passed = count.map(|count| {
            let all = dense(&count.passed) + of_kinds(&count.passed, SparseKinds(1));
            let kept = self.kinds.map_or(all, |kinds| of_kinds(&count.passed, kinds));
            (kept as f64 / count.time.as_secs_f64(), all as f64 / count.time.as_secs_f64())
        });
        Some(WitnessStep::Keep(self.kinds))
    }
}

/// Whether all of them have taken little while they were counted. Where it is not known what one takes, none cost little.
fn is_cheap(count: &WitnessCount, empty_ns: Option<f64>) -> bool {
    let each = each_ns(PythonMode::Chain, empty_ns.unwrap_or(0.0));
    (dense(&count.passed) as f64 * each / 1e9) < CHEAP * count.time.as_secs_f64()
}

fn has_calls(count: &WitnessCount) -> bool {
    count.calls.iter().any(|calls| calls.by_kinds.iter().any(|calls| *calls > 0))
}

/// Witnesses by which every call would have been seen: as many as cost little beside all, for narrow bounds, or else the fewest. `None`:
/// all are needed.
fn that_suffice(count: &WitnessCount) -> Option<SparseKinds> {
    if count.passed.by_place.get(DEEP_FRAMES).is_some_and(|deep| *deep > 0) {
        return None;
    }
    // The interpreter's lock is given away where threads wait, which tells that they do: it always stays.
    let some = (1..1 << SPARSE_KINDS).filter(|kinds| kinds & 1 != 0).map(SparseKinds);
    let see_all = some.filter(|kinds| count.calls.iter().all(|calls| sees(*kinds, calls)));
    let passed = see_all.map(|kinds| (of_kinds(&count.passed, kinds), kinds));
    let all = dense(&count.passed);
    let mut suffice: Vec<(u64, SparseKinds)> = passed.filter(|(passed, _)| passed * AT_MOST_ONE_IN < all).collect();
    suffice.sort_by_key(|(passed, _)| *passed);
    let narrow = suffice.iter().rev().find(|(passed, _)| passed * FEW_ONE_IN < all);
    narrow.or(suffice.first()).map(|(_, kinds)| *kinds)
}

fn sees(kinds: SparseKinds, calls: &WitnessedCalls) -> bool {
    let (mut all, mut unseen) = (0, 0);
    for (passed, count) in (0..).zip(calls.by_kinds) {
        all += count;
        unseen += if passed & kinds.0 == 0 { count } else { 0 };
    }
    unseen <= 1 + all / ONE_IN
}

/// Probes passed where C code enters Python code.
fn dense(passed: &ProbesPassed) -> u64 {
    let at = |witness: Witness| passed.by_place.get(witness as usize).copied().unwrap_or(0);
    at(Witness::EntersSecond) + at(Witness::EntersFirst)
}

/// Probes passed that these kinds have.
fn of_kinds(passed: &ProbesPassed, kinds: SparseKinds) -> u64 {
    const SPARSE: [Witness; 5] = [
        Witness::GivesLockAway,
        Witness::OfThread,
        Witness::CopiesDictionary,
        Witness::CallsMethod,
        Witness::AsksContext,
    ];
    let placed = SPARSE.into_iter().filter(|witness| kinds.place(*witness));
    placed.filter_map(|witness| passed.by_place.get(witness as usize)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Probes passed in a second, at those that are named.
    fn passed(counts: &[(Witness, u64)]) -> ProbesPassed {
        let mut passed = ProbesPassed::default();
        for (witness, count) in counts {
            passed.by_place[*witness as usize] = *count;
        }
        passed
    }

    fn busy() -> ProbesPassed {
        passed(&[
            (Witness::EntersSecond, 160_000),
            (Witness::GivesLockAway, 6_000),
            (Witness::OfThread, 6_000),
            (Witness::CopiesDictionary, 8_000),
            (Witness::CallsMethod, 1_800),
            (Witness::AsksContext, 12_000),
        ])
    }

    fn calls(by_kinds: &[(usize, u32)]) -> WitnessedCalls {
        let mut calls = WitnessedCalls::default();
        for (kinds, count) in by_kinds {
            calls.by_kinds[*kinds] = *count;
        }
        calls
    }

    fn choose(passed: ProbesPassed, calls: &[WitnessedCalls]) -> Option<SparseKinds> {
        that_suffice(&WitnessCount { time: SECOND, passed, calls: calls.to_vec() })
    }

    #[test]
    fn those_that_see_every_call_stay() {
        let (copies, asks) = (0b0010, 0b1000);
        let known = calls(&[(1, 400), (0b1111, 90)]);
        // They are few beside all.
        assert_eq!(choose(busy(), &[known]), Some(SparseKinds(0b1111)));
        // As many as are few.
        let mut often = busy();
        often.by_place[Witness::EntersSecond as usize] = 70_000;
        assert_eq!(choose(often, &[known]), Some(SparseKinds(0b0101)), "the lock 12,000, methods 1,800");
        // No more than are needed, where they are not few.
        often.by_place[Witness::EntersSecond as usize] = 45_000;
        let either = calls(&[(copies | asks, 500)]);
        assert_eq!(choose(often, &[known, either]), Some(SparseKinds(1 | copies as u8)));
        let only = calls(&[(asks, 500), (copies | asks, 500)]);
        assert_eq!(choose(often, &[known, either, only]), None, "24,000 are more than half");
    }

    #[test]
    fn all_stay_where_others_do_not_see_every_call() {
        let known = calls(&[(1, 400)]);
        assert_eq!(choose(busy(), &[known, calls(&[(0, 3), (1, 390)])]), None);
        // The first call of a thread, and what was open.
        assert_eq!(choose(busy(), &[known, calls(&[(0, 2), (1, 390)])]), Some(SparseKinds(0b1111)));
        let mut deep = busy();
        deep.by_place[DEEP_FRAMES] = 1;
        assert_eq!(choose(deep, &[known]), None, "more frames than can be walked");
    }

    #[test]
    fn all_stay_where_the_others_cost_as_much() {
        let often = passed(&[(Witness::EntersSecond, 100_000), (Witness::GivesLockAway, 60_000)]);
        assert_eq!(choose(often, &[calls(&[(1, 400)])]), None);
    }

    fn count(passed: ProbesPassed, made: u32) -> Option<WitnessCount> {
        Some(WitnessCount { time: SECOND, passed, calls: vec![calls(&[(1, made)])] })
    }

    #[test]
    fn they_are_counted_again_and_again() {
        let now = Instant::now();
        let mut choice = WitnessChoice::new(now);
        assert_eq!(choice.step(now, Some(300.0), || count(busy(), 400)), None);
        let first = now + FIRST_COUNT;
        let kept = Some(WitnessStep::Keep(Some(SparseKinds(0b1111))));
        assert_eq!(choice.step(first, Some(300.0), || count(busy(), 400)), kept);
        assert_eq!(choice.passed(), Some((33_800.0, 172_000.0)));
        let again = first + HOLDS;
        assert_eq!((choice.due(), choice.step(again, Some(300.0), || None)), (again, Some(WitnessStep::Count)));
        // Nothing is called just now.
        assert_eq!(choice.step(again + COUNT, Some(300.0), || count(busy(), 0)), kept);
        choice.hurry(again + COUNT);
        let third = choice.due();
        assert_eq!(third, again + COUNT + ASKED_EVERY);
        assert_eq!(choice.step(third, Some(300.0), || None), Some(WitnessStep::Count));
        assert_eq!(choice.step(third + COUNT, Some(300.0), || None), Some(WitnessStep::Keep(None)));
        assert_eq!((choice.kinds(), choice.passed()), (None, None));
    }

    #[test]
    fn all_stay_as_long_as_they_cost_little() {
        let (now, idle) = (Instant::now(), passed(&[(Witness::EntersSecond, 20_000), (Witness::GivesLockAway, 100)]));
        let mut choice = WitnessChoice::new(now);
        let first = now + FIRST_COUNT;
        assert_eq!(choice.step(first, Some(300.0), || count(idle, 9)), Some(WitnessStep::Keep(None)));
        let later = first + ASKED_EVERY;
        assert_eq!((choice.due(), choice.step(later, Some(300.0), || count(idle, 0))), (later, None));
        let busy = choice.step(later + ASKED_EVERY, Some(300.0), || count(busy(), 0));
        assert_eq!(busy, Some(WitnessStep::Count));
    }
}
