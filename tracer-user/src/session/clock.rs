//! The two clocks.

use crate::model::{ClockAnchor, MonotonicNs, WallClockNs};

/// Both clocks at one instant: the wall clock is read between two readings of the monotonic one, and the tightest of a
/// few tries counts.
pub fn clock_anchor() -> ClockAnchor {
    use rustix::time::{ClockId, clock_gettime};
    let nanoseconds = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
    };
    let readings = (0..5).map(|_| {
        let before = nanoseconds(ClockId::Monotonic);
        let wall_clock = nanoseconds(ClockId::Realtime);
        let after = nanoseconds(ClockId::Monotonic);
        (after - before, before + (after - before) / 2, wall_clock)
    });
    let (_, monotonic, wall_clock) = readings.min().unwrap_or_default();
    ClockAnchor { monotonic: MonotonicNs(monotonic), wall_clock: WallClockNs(wall_clock) }
}
