//! The two clocks: the one that stamps records, and the one that spans are shown by.

use rustix::time::{ClockId, clock_gettime};

use crate::model::{ClockAnchor, MonotonicNs, WallClockNs};

/// The clock of the records.
pub fn monotonic_now() -> MonotonicNs {
    MonotonicNs(nanoseconds(ClockId::Monotonic))
}

/// Both clocks at one instant: the wall clock is read between two readings of the monotonic one, and the tightest of a
/// few tries counts.
pub fn clock_anchor() -> ClockAnchor {
    let readings = (0..5).map(|_| {
        let before = nanoseconds(ClockId::Monotonic);
        let wall_clock = nanoseconds(ClockId::Realtime);
        let after = nanoseconds(ClockId::Monotonic);
        (after - before, before + (after - before) / 2, wall_clock)
    });
    let (_, monotonic, wall_clock) = readings.min().unwrap_or_default();
    ClockAnchor { monotonic: MonotonicNs(monotonic), wall_clock: WallClockNs(wall_clock) }
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Notices when the clocks have moved apart: the machine has slept, or its time was set.
#[derive(Debug)]
pub struct ClockWatch {
    in_force: ClockAnchor,
}

/// Two anchors that differ by less are the same: reading two clocks takes time, most on a busy machine. The clocks run at the same
/// speed, so this does not add up.
const TOLERANCE_NS: u64 = 1_000_000;

impl ClockWatch {
    /// Watches from this anchor on.
    pub fn new(in_force: ClockAnchor) -> Self {
        Self { in_force }
    }

    /// The anchor that is in force from now on, if it is another one.
    pub fn look(&mut self, now: ClockAnchor) -> Option<ClockAnchor> {
        let expected = self.in_force.wall_clock_of(now.monotonic);
        if expected.0.abs_diff(now.wall_clock.0) <= TOLERANCE_NS {
            return None;
        }
        self.in_force = now;
        Some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_anchor_is_taken_only_where_the_clocks_have_moved_apart() {
        let anchor = |monotonic, wall_clock| ClockAnchor {
            monotonic: MonotonicNs(monotonic),
            wall_clock: WallClockNs(wall_clock),
        };
        let mut watch = ClockWatch::new(anchor(1_000_000, 50_000_000));
        assert_eq!(watch.look(anchor(2_000_000, 51_000_000 + TOLERANCE_NS)), None);
        let slept = anchor(3_000_000, 99_000_000);
        assert_eq!(watch.look(slept), Some(slept));
        assert_eq!(watch.look(anchor(4_000_000, 100_000_000)), None);
        let set_back = anchor(5_000_000, 1_000_000);
        assert_eq!(watch.look(set_back), Some(set_back));
    }

    #[test]
    fn the_clocks_of_this_machine_stay_together() {
        let mut watch = ClockWatch::new(clock_anchor());
        assert!((0..100).any(|_| watch.look(clock_anchor()).is_none()));
        assert!(monotonic_now() > MonotonicNs(0));
    }
}
