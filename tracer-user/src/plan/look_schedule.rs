//! When a process is looked at again: soon while it may get something to trace at any moment, seldom while nothing changes, and
//! never for more than a share of the time.

use std::time::{Duration, Instant};

/// How often a process is looked at again for new classes, functions and models.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A look that has found nothing new doubles the time to the next one, up to this.
const LOOK_SELDOM: Duration = Duration::from_secs(4);

/// How often a process is looked at while nothing to trace has been found: it is importing its libraries, perhaps.
const LOOK_EARLY: Duration = Duration::from_millis(200);

/// Looks may take this share of the time, those at all processes together: where one takes longer, the next one comes
/// later.
const PART_OF_TIME: u32 = 10;

/// A worker that was just forked makes its model soon, and then has requests: until it has, a greater share is well spent. All
/// together take one processor at most.
const PART_OF_SETTLING_TIME: u32 = 3;

/// A forked process is given so long for that.
const SETTLING: Duration = Duration::from_secs(60);

/// A program that has just begun is importing its libraries, and may use them the moment they are there. For so long, and
/// until a call is seen, it is looked at as often as this while its memory grows, and half of the time at most.
const YOUNG: Duration = Duration::from_secs(20);
const LOOK_YOUNG: Duration = Duration::from_millis(20);

/// For so long after it has come, the calls of a followed process are counted often.
const FRESH: Duration = Duration::from_secs(4);

/// A process in which nothing to trace has been found, and whose address space is as large as when it was looked at last, has
/// imported nothing since: it is looked at all the same after four times the time each time, up to this.
const LOOK_IDLE: Duration = Duration::from_secs(16);

/// How long a process that has mapped an interpreter may take to set it up.
const MOST_FOR_START: Duration = Duration::from_secs(30);

/// Looking for an interpreter that is still being set up may take this share of the time.
const PART_OF_START: u32 = 20;

/// When one process is looked at again.
#[derive(Clone, Debug)]
pub struct LookSchedule {
    /// When the process came to the session.
    since: Instant,
    /// When the last look ended; while one is under way, when that one began.
    looked: Instant,
    /// Processor time that the last look took.
    took: Duration,
    /// Time from the last look to the next.
    every: Duration,
    /// The same while the process is young.
    every_young: Duration,
    /// Bytes of memory that the last look went through.
    memory: u64,
    /// Bytes of address space when it began.
    address_space: u64,
    /// When it ended, and how long nothing needs to be looked at unless the address space changes.
    seen: Instant,
    idle: Duration,
    /// When its program began, if that was while the tracer was there.
    began: Option<Instant>,
    /// Whether the process was forked by a traced one.
    is_followed: bool,
    /// Whether the process was found while its program was perhaps still making its classes and models, and no look since has
    /// found everything as it was.
    is_settling: bool,
}

/// What is known of the calls in a process when the next look is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Whether a call was ever seen.
    pub was_called: bool,
    /// Whether there is code to see.
    pub has_code: bool,
    /// Processes that share the time for looks.
    pub sharers: u32,
}

impl LookSchedule {
    /// The schedule of a process that was looked at a moment ago; the look took so long.
    #[must_use]
    pub fn new(now: Instant, took: Duration) -> Self {
        Self {
            since: now,
            looked: now,
            took,
            every: LOOK_EVERY,
            every_young: LOOK_YOUNG,
            memory: 0,
            address_space: 0,
            seen: now,
            idle: LOOK_EARLY,
            began: None,
            is_followed: false,
            is_settling: false,
        }
    }

    /// The schedule of a process that was forked by a traced one and has not been looked at itself. `may_change`: nothing to trace was found
    /// in the other one.
    #[must_use]
    pub fn of_fork(now: Instant, may_change: bool) -> Self {
        Self { every: LOOK_EARLY, is_followed: true, is_settling: may_change, ..Self::new(now, Duration::ZERO) }
    }

    /// The process was forked by a traced one, and more may be found in it at any moment.
    pub fn follow(&mut self) {
        (self.is_followed, self.is_settling) = (true, true);
    }

    /// Its program has begun at this time, while the tracer was there.
    pub fn begin_young(&mut self, began: Instant) {
        self.began = Some(began);
    }

    /// Whether the process was forked by a traced one.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.is_followed
    }

    /// Whether more may be found at any moment, because the process is young.
    #[must_use]
    pub fn is_settling(&self, now: Instant) -> bool {
        self.is_followed && self.is_settling && now.saturating_duration_since(self.since) < SETTLING
    }

    /// Whether the process has come to the session a moment ago, and was followed: what is called in it shows soon, and serves
    /// the others.
    #[must_use]
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.is_followed && now.saturating_duration_since(self.since) < FRESH
    }

    /// Time from the beginning of its program, if that was while the tracer was there.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.began.map(|began| now.saturating_duration_since(began))
    }

    /// A look has begun.
    pub fn look_begins(&mut self, now: Instant) {
        self.looked = now;
    }

    /// A look has ended, whatever it has found.
    pub fn look_ends(&mut self, now: Instant, took: Duration) {
        (self.looked, self.seen, self.took) = (now, now, took);
    }

    /// Whether a look that is due may be left out, where nothing to trace has been found so far: so many bytes of address space
    /// say that nothing was imported since the last one.
    pub fn leaves_out(&mut self, now: Instant, address_space: u64) -> bool {
        let is_young = self.age(now).is_some_and(|age| age < YOUNG);
        let is_as_before = std::mem::replace(&mut self.address_space, address_space) == address_space;
        if !is_as_before {
            self.idle = LOOK_EARLY;
        }
        let leaves_out = is_as_before && !is_young && now.saturating_duration_since(self.seen) < self.idle;
        if leaves_out {
            (self.looked, self.took) = (now, Duration::ZERO);
        }
        leaves_out
    }

    /// What the look has found. `has_begun`: there is something to see.
    pub fn found(&mut self, is_new: bool, memory: u64, has_begun: bool) {
        // Nothing to trace, and again nothing: it is still to come.
        self.is_settling &= is_new || !has_begun;
        self.every = if is_new { LOOK_EVERY } else { LOOK_SELDOM.min(self.every * 2) };
        let is_busy = is_new || memory != self.memory;
        self.every_young = if is_busy { LOOK_YOUNG } else { LOOK_EVERY.min(self.every_young * 2) };
        self.idle = if is_new { LOOK_EARLY } else { LOOK_IDLE.min(self.idle * 4) };
        self.memory = memory;
    }

    /// A forked process has been looked at itself, for which somebody has waited.
    pub fn first_look(&mut self, now: Instant, took: Duration) {
        self.look_ends(now, took);
        self.every = LOOK_EVERY;
    }

    /// When the next look is due.
    #[must_use]
    pub fn next_look(&self, now: Instant, activity: Activity) -> Instant {
        let is_young = !activity.was_called && self.age(now).is_some_and(|age| age < YOUNG);
        let shared = PART_OF_TIME.saturating_mul(activity.sharers);
        let (every, part) = if is_young {
            (self.every_young, 1)
        } else if self.is_settling(now) {
            (LOOK_EARLY.min(self.every), PART_OF_SETTLING_TIME.max(activity.sharers))
        } else if activity.has_code {
            (self.every, shared)
        } else {
            (LOOK_EARLY.min(self.every), shared)
        };
        self.looked + every.max(self.took.saturating_mul(part))
    }
}

/// When an interpreter is looked for in a process that has mapped one and is perhaps still setting it up.
#[derive(Clone, Copy, Debug)]
pub struct StartSchedule {
    since: Instant,
    due: Instant,
}

impl StartSchedule {
    /// The process has mapped the interpreter now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { since: now, due: now }
    }

    /// When the process has mapped the interpreter.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// When the interpreter is to be looked for.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Whether it is time for that.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// Whether the interpreter is not expected any more.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= MOST_FOR_START
    }

    /// The interpreter was looked for and not found; that took so long.
    pub fn tried(&mut self, now: Instant, took: Duration) {
        self.due = now + took * PART_OF_START;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Activity = Activity { was_called: false, has_code: true, sharers: 1 };
    const MS: Duration = Duration::from_millis(1);

    fn wait(schedule: &LookSchedule, now: Instant, activity: Activity) -> Duration {
        schedule.next_look(now, activity).saturating_duration_since(now)
    }

    #[test]
    fn looks_that_find_nothing_become_seldom_and_one_that_does_makes_them_often() {
        let now = Instant::now();
        let mut schedule = LookSchedule::new(now, MS);
        let mut waits = Vec::new();
        for is_new in [false, false, false, true, false] {
            waits.push(wait(&schedule, now, QUIET).as_secs());
            schedule.found(is_new, 0, true);
        }
        waits.push(wait(&schedule, now, QUIET).as_secs());
        assert_eq!(waits, [1, 2, 4, 4, 1, 2]);
    }

    #[test]
    fn long_looks_share_the_time_with_the_others() {
        let now = Instant::now();
        let mut schedule = LookSchedule::new(now, MS * 300);
        assert_eq!(wait(&schedule, now, QUIET), MS * 3_000);
        assert_eq!(wait(&schedule, now, Activity { sharers: 5, ..QUIET }), MS * 15_000);
        // A worker that makes its model has a greater share, for a while.
        schedule.follow();
        assert_eq!(wait(&schedule, now, Activity { sharers: 2, ..QUIET }), MS * 900);
        assert_eq!(wait(&schedule, now, Activity { sharers: 5, ..QUIET }), MS * 1_500);
        let later = now + SETTLING;
        assert!(!schedule.is_settling(later));
        assert_eq!(schedule.next_look(later, QUIET), now + MS * 3_000);
    }

    #[test]
    fn a_process_that_imports_nothing_is_looked_at_less_and_less() {
        let mut now = Instant::now();
        let mut schedule = LookSchedule::new(now, MS);
        let mut look = |now: Instant, address_space| {
            let is_left_out = schedule.leaves_out(now, address_space);
            if !is_left_out {
                schedule.look_ends(now, MS);
                schedule.found(false, 0, false);
            }
            !is_left_out
        };
        assert!(look(now, 100), "it has not been looked at");
        let begin = now;
        let mut looks = Vec::new();
        while looks.len() < 8 {
            now += LOOK_EARLY;
            if look(now, 100) {
                looks.push((now - begin).as_millis());
            }
        }
        assert_eq!(looks, [800, 4_000, 16_800, 32_800, 48_800, 64_800, 80_800, 96_800]);
        assert!(look(now, 101), "it has grown");
        assert!(look(now + LOOK_EARLY * 4, 101), "and is importing, perhaps");
        // A program that has just begun is looked at in any case.
        let mut young = LookSchedule::new(now, MS);
        young.begin_young(now);
        assert!(!young.leaves_out(now, 1) && !young.leaves_out(now, 1));
    }

    #[test]
    fn a_young_program_is_looked_at_while_its_memory_grows_until_it_is_called() {
        let now = Instant::now();
        let mut schedule = LookSchedule::new(now, MS);
        schedule.begin_young(now);
        assert_eq!(wait(&schedule, now, QUIET), LOOK_YOUNG);
        schedule.found(false, 7, false);
        assert_eq!(wait(&schedule, now, QUIET), LOOK_YOUNG, "it has read more memory");
        schedule.found(false, 7, false);
        assert_eq!(wait(&schedule, now, QUIET), LOOK_YOUNG * 2);
        assert_eq!(wait(&schedule, now, Activity { was_called: true, ..QUIET }), LOOK_SELDOM);
        assert_eq!(schedule.next_look(now + YOUNG, QUIET), now + LOOK_SELDOM);
    }

    #[test]
    fn where_nothing_is_to_be_seen_yet_the_next_look_comes_soon() {
        let now = Instant::now();
        let schedule = LookSchedule::new(now, MS);
        assert_eq!(wait(&schedule, now, Activity { has_code: false, ..QUIET }), LOOK_EARLY);
        assert_eq!(wait(&LookSchedule::of_fork(now, false), now, QUIET), LOOK_EARLY);
    }

    #[test]
    fn a_followed_process_settles_once_a_look_finds_everything_as_it_was() {
        let now = Instant::now();
        let mut schedule = LookSchedule::of_fork(now, true);
        schedule.found(false, 0, false);
        assert!(schedule.is_settling(now), "nothing to trace, and again nothing");
        schedule.found(true, 0, true);
        assert!(schedule.is_settling(now));
        schedule.found(false, 0, true);
        assert!(!schedule.is_settling(now) && schedule.is_fresh(now) && !schedule.is_fresh(now + FRESH));
    }

    #[test]
    fn an_interpreter_is_looked_for_in_a_share_of_the_time_and_not_for_ever() {
        let now = Instant::now();
        let mut schedule = StartSchedule::new(now);
        assert!(schedule.is_due(now));
        schedule.tried(now, MS * 10);
        assert!(!schedule.is_due(now + MS * 199) && schedule.is_due(now + MS * 200));
        assert!(!schedule.is_over(now + MOST_FOR_START - MS) && schedule.is_over(now + MOST_FOR_START));
    }
}
