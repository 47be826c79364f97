//! When probes that every call pays for are live: all the time, or in windows.

use std::time::{Duration, Instant};

use crate::model::ProcessId;

/// Shortest window in which probes are live: placing and removing them takes some milliseconds.
const WINDOW: Duration = Duration::from_millis(100);

/// When the probes are live.
#[derive(Clone, Copy, Debug)]
pub struct DutyCycle {
    /// Share of the time, above 0 and at most 1.
    share: f64,
    is_live: bool,
    turned: Instant,
}

impl DutyCycle {
    /// The probes are not live so far. They are to be live for this `share` of the time, above 0 and at most 1; `None`: all the time.
    #[must_use]
    pub fn new(now: Instant, share: Option<f64>) -> Self {
        Self { share: share.unwrap_or(1.0), is_live: false, turned: now }
    }

    /// The same cycle from its beginning.
    #[must_use]
    pub fn anew(&self, now: Instant) -> Self {
        Self { share: self.share, is_live: false, turned: now }
    }

    /// What to say of the cost, before it is taken: the process makes so many Python calls a second (`calls`), and a probe takes
    /// so many nanoseconds, if that can be measured.
    #[must_use]
    pub fn cost(&self, process: ProcessId, calls: f64, probe_ns: Option<f64>) -> String {
        let windows =
            if self.share < 1.0 { format!(", in {:.0} % of the time", self.share * 100.0) } else { String::new() };
        match probe_ns {
            Some(ns) => {
                let percent = calls * 2.0 * ns / 1e9 * 100.0 * self.share;
                format!(
                    "frames mode costs process {process} about {percent:.1} % of one processor: {calls:.0} Python calls a \
                     second, two probes each, {ns:.0} ns a probe{windows}"
                )
            }
            None => format!("frames mode: process {process} makes {calls:.0} Python calls a second{windows}"),
        }
    }

    /// When the probes are to be turned on or off; `None`: they stay.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        if self.share >= 1.0 && self.is_live {
            return None;
        }
        let on = WINDOW.max(WINDOW.mul_f64(self.share));
        let off = on.mul_f64((1.0 - self.share) / self.share);
        Some(self.turned + if self.is_live { on } else { off })
    }

    /// Whether it is time to turn the probes on (`Some(true)`) or off.
    #[must_use]
    pub fn step(&self, now: Instant) -> Option<bool> {
        self.due().is_some_and(|due| now >= due).then_some(!self.is_live)
    }

    /// The probes were turned on or off.
    pub fn turned(&mut self, now: Instant, is_live: bool) {
        (self.turned, self.is_live) = (now, is_live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn they_are_live_in_a_share_of_the_time() {
        let now = Instant::now();
        let mut duty = DutyCycle::new(now, Some(0.05));
        let (mut time, mut live) = (now, Duration::ZERO);
        while time < now + MS * 20_000 {
            if let Some(is_live) = duty.step(time) {
                duty.turned(time, is_live);
            }
            time += MS;
            live += if duty.is_live { MS } else { Duration::ZERO };
        }
        assert!((MS * 800..MS * 1_200).contains(&live), "{live:?}");
    }

    #[test]
    fn without_a_share_they_stay() {
        let now = Instant::now();
        let mut duty = DutyCycle::new(now, None);
        assert_eq!(duty.step(now), Some(true));
        duty.turned(now, true);
        assert_eq!(duty.step(now + MS * 100_000), None);
        assert_eq!(duty.anew(now).step(now), Some(true));
    }

    #[test]
    fn the_cost_is_told_for_the_share() {
        let duty = DutyCycle::new(Instant::now(), Some(0.05));
        let process = ProcessId { pid: 7, start_time: 1 };
        assert_eq!(
            duty.cost(process, 10_000.0, Some(1_000.0)),
            "frames mode costs process 7 about 0.1 % of one processor: 10000 Python calls a second, two probes each, 1000 ns a \
             probe, in 5 % of the time"
        );
    }
}
