//! When probes that many calls pay for are live: all the time, or in windows.

use std::time::{Duration, Instant};

use crate::model::{ProcessId, Share};

/// Shortest window in which probes are live for a share of the time: placing and removing them takes some milliseconds.
const WINDOW: Duration = Duration::from_millis(100);

/// How long probes are live before it is asked what they have taken: a busy server has answered some requests by then.
const STRETCH: Duration = Duration::from_millis(500);

/// How often it is asked whether the last call that is open has ended.
const ASKED_EVERY: Duration = Duration::from_millis(20);

/// For so long open calls are waited for at the end of a window; what takes longer is not seen to its end.
const MOST_WAITING: Duration = Duration::from_secs(10);

/// What is to be done with the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// They are placed.
    On,
    /// Calls that are open are seen to their ends, and no other ones begin.
    Closing,
    /// They are taken away.
    Off,
}

/// When the probes are live.
#[derive(Clone, Copy, Debug)]
pub struct DutyCycle {
    share: Share,
    waits_for_open: bool,
    state: Turn,
    /// When this state began.
    turned: Instant,
    /// When it is to be looked at again.
    next: Option<Instant>,
    /// When they became live.
    live_since: Instant,
    /// How long they were live in windows that are over, and how long the windows and what was between them took.
    live: Duration,
    all: Duration,
}

impl DutyCycle {
    /// The probes are not live so far. `waits_for_open`: a window lasts until the calls have ended that are open when its time is over.
    #[must_use]
    pub fn new(now: Instant, share: Share, waits_for_open: bool) -> Self {
        let (live, all) = (Duration::ZERO, Duration::ZERO);
        let (turned, live_since, next) = (now, now, Some(now));
        Self { share, waits_for_open, state: Turn::Off, turned, next, live_since, live, all }
    }

    /// The same cycle from its beginning.
    #[must_use]
    pub fn anew(&self, now: Instant) -> Self {
        Self::new(now, self.share, self.waits_for_open)
    }

    /// How much of the time they may be live.
    #[must_use]
    pub fn share(&self) -> Share {
        self.share
    }

    /// Whether they have been taken away at least once.
    #[must_use]
    pub fn has_windows(&self) -> bool {
        !self.all.is_zero()
    }

    /// The share of the time in which they were live, once there are windows.
    #[must_use]
    pub fn live_share(&self) -> Option<f64> {
        self.has_windows().then(|| self.live.as_secs_f64() / self.all.as_secs_f64())
    }

    /// What to say of the cost, before it is taken: the process makes so many Python calls a second (`calls`), and a probe takes
    /// so many nanoseconds, if that can be measured.
    #[must_use]
    pub fn cost(&self, process: ProcessId, calls: f64, probe_ns: Option<f64>) -> String {
        let share = if let Share::OfTime(share) = self.share { share } else { 1.0 };
        let windows = if share < 1.0 { format!(", in {:.0} % of the time", share * 100.0) } else { String::new() };
        match probe_ns {
            Some(ns) => {
                let percent = calls * 2.0 * ns / 1e9 * 100.0 * share;
                format!(
                    "frames mode costs process {process} about {percent:.1} % of one processor: {calls:.0} Python calls a \
                     second, two probes each, {ns:.0} ns a probe{windows}"
                )
            }
            None => format!("frames mode: process {process} makes {calls:.0} Python calls a second{windows}"),
        }
    }

    /// When [`Self::step`] is to be asked; `None`: the probes stay.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Whether the probes are live, and may be taken away: it is to be known what they have taken.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.state != Turn::Off
    }

    /// What is to be done now. The probes have taken so much (`spent`) processor time since they became live; `has_open` tells whether
    /// a call is open, and is asked only where that decides.
    #[must_use]
    pub fn step(&mut self, now: Instant, spent: Duration, has_open: impl FnOnce() -> bool) -> Option<Turn> {
        if self.next.is_none_or(|next| now < next) {
            return None;
        }
        match (self.state, self.share) {
            (Turn::Off, _) => Some(Turn::On),
            (Turn::On, Share::OfProcessor(most)) if spent.as_secs_f64() <= most * self.time_live(now).as_secs_f64() => {
                self.next = Some(now + STRETCH);
                None
            }
            (Turn::On, _) if self.waits_for_open => Some(Turn::Closing),
            (Turn::Closing, _) if now < self.turned + MOST_WAITING && has_open() => {
                self.next = Some(now + ASKED_EVERY);
                None
            }
            (Turn::On | Turn::Closing, _) => Some(Turn::Off),
        }
    }

    /// It was done, and the probes had taken so much processor time since they became live.
    pub fn turned(&mut self, now: Instant, turn: Turn, spent: Duration) {
        match turn {
            Turn::On => {
                self.live_since = now;
                let window = match self.share {
                    Share::OfTime(share) if share < 1.0 => Some(WINDOW),
                    Share::Always | Share::OfTime(_) => None,
                    Share::OfProcessor(_) => Some(STRETCH),
                };
                self.next = window.map(|window| now + window);
            }
            Turn::Closing => self.next = Some(now),
            Turn::Off => {
                let live = self.time_live(now);
                let whole = match self.share {
                    Share::Always => live,
                    Share::OfTime(share) => live.div_f64(share),
                    Share::OfProcessor(most) => spent.div_f64(most),
                };
                // Where they stay, calls were only counted.
                if self.share != Share::Always {
                    self.live += live;
                    self.all += whole.max(live);
                }
                self.next = Some(now + whole.saturating_sub(live));
            }
        }
        (self.state, self.turned) = (turn, now);
    }

    fn time_live(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.live_since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// For how much of a minute the probes are live, where they take this share of a processor, and whether calls are never open.
    fn live_in_a_minute(mut duty: DutyCycle, begin: Instant, takes: f64, has_open: bool) -> Duration {
        let (mut time, mut live) = (begin, Duration::ZERO);
        let mut since = begin;
        while time < begin + MS * 60_000 {
            let spent = (time - since).mul_f64(takes);
            if let Some(turn) = duty.step(time, spent, || has_open) {
                duty.turned(time, turn, spent);
                since = if turn == Turn::On { time } else { since };
            }
            time += MS;
            live += if duty.is_live() { MS } else { Duration::ZERO };
        }
        live
    }

    #[test]
    fn they_are_live_in_a_share_of_the_time() {
        let now = Instant::now();
        let live = live_in_a_minute(DutyCycle::new(now, Share::OfTime(0.05), false), now, 0.5, true);
        assert!((MS * 2_700..MS * 3_300).contains(&live), "{live:?}");
    }

    #[test]
    fn without_a_share_they_stay() {
        let now = Instant::now();
        let mut duty = DutyCycle::new(now, Share::Always, true);
        assert_eq!(duty.step(now, Duration::ZERO, || false), Some(Turn::On));
        duty.turned(now, Turn::On, Duration::ZERO);
        assert_eq!(duty.step(now + MS * 100_000, MS * 90_000, || false), None);
        assert_eq!((duty.due(), duty.live_share()), (None, None));
        assert_eq!(duty.anew(now).step(now, Duration::ZERO, || false), Some(Turn::On));
    }

    #[test]
    fn they_take_no_more_of_a_processor_than_they_may() {
        let now = Instant::now();
        let duty = DutyCycle::new(now, Share::OfProcessor(0.05), true);
        // Half a second of each five is live where they take half of a processor; all the time where they take less than they may.
        let live = live_in_a_minute(duty, now, 0.5, false);
        assert!((MS * 5_500..MS * 6_700).contains(&live), "{live:?}");
        assert!(live_in_a_minute(duty, now, 0.04, true) > MS * 59_000);
        // Calls that never end are let go after a while, and what that has cost is made up for.
        let live = live_in_a_minute(duty, now, 0.5, true);
        assert!((MS * 10_000..MS * 11_000).contains(&live), "{live:?}");
    }

    #[test]
    fn a_window_ends_when_the_last_open_call_does() {
        let now = Instant::now();
        let mut duty = DutyCycle::new(now, Share::OfTime(0.1), true);
        duty.turned(now, Turn::On, Duration::ZERO);
        let end = now + WINDOW;
        assert_eq!(duty.step(end, Duration::ZERO, || true), Some(Turn::Closing));
        duty.turned(end, Turn::Closing, Duration::ZERO);
        assert_eq!(duty.step(end, Duration::ZERO, || true), None);
        assert_eq!(duty.step(end + MS, Duration::ZERO, || false), None, "it was asked a moment ago");
        let over = end + ASKED_EVERY;
        assert_eq!(duty.step(over, Duration::ZERO, || false), Some(Turn::Off));
        duty.turned(over, Turn::Off, Duration::ZERO);
        assert_eq!(duty.due(), Some(over + (WINDOW + ASKED_EVERY) * 9));
        assert!(duty.live_share().is_some_and(|share| (share - 0.1).abs() < 0.001));
    }

    #[test]
    fn the_cost_is_told_for_the_share() {
        let duty = DutyCycle::new(Instant::now(), Share::OfTime(0.05), false);
        let process = ProcessId { pid: 7, start_time: 1 };
        assert_eq!(
            duty.cost(process, 10_000.0, Some(1_000.0)),
            "frames mode costs process 7 about 0.1 % of one processor: 10000 Python calls a second, two probes each, 1000 ns a \
             probe, in 5 % of the time"
        );
    }
}
