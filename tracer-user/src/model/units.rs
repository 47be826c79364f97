//! Units as types, so that an offset in a file can never be taken for an address in a process.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Offset from the start of a file, bytes. What the kernel wants for a uprobe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileOffset(pub u64);

/// Address as an ELF file states it (`st_value`, `p_vaddr`), before relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VirtualAddress(pub u64);

/// Address in the memory of another process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RemoteAddress(pub u64);

/// CLOCK_MONOTONIC, nanoseconds. What the kernel side stamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MonotonicNs(pub u64);

/// Nanoseconds since 1970-01-01 UTC. What leaves the house.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WallClockNs(pub u64);

/// Number of a traced function within one tracer, from 0; below 2^24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FunctionId(pub u32);

/// Thread id in the initial pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ThreadId(pub u32);

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id as the tracer's pid namespace numbers it.
    pub pid: u32,
    /// Start time in clock ticks since boot (field 22 of /proc/PID/stat, proc(5)).
    pub start_time: u64,
}

/// One instant read on both clocks; maps monotonic time to wall-clock time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockAnchor {
    /// The instant on CLOCK_MONOTONIC.
    pub monotonic: MonotonicNs,
    /// The same instant on CLOCK_REALTIME.
    pub wall_clock: WallClockNs,
}

impl ClockAnchor {
    /// Wall-clock time of a monotonic instant, before or after the anchor. Saturates at 0.
    #[must_use]
    pub fn wall_clock_of(&self, instant: MonotonicNs) -> WallClockNs {
        let offset = i128::from(self.wall_clock.0) - i128::from(self.monotonic.0);
        let nanoseconds = i128::from(instant.0) + offset;
        WallClockNs(u64::try_from(nanoseconds.max(0)).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.pid)
    }
}

macro_rules! hexadecimal_display {
    ($($name:ident),*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{:#x}", self.0)
            }
        })*
    };
}
hexadecimal_display!(FileOffset, VirtualAddress, RemoteAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchor_maps_instants_on_both_sides() {
        let anchor = ClockAnchor { monotonic: MonotonicNs(1_000), wall_clock: WallClockNs(50_000) };
        assert_eq!(anchor.wall_clock_of(MonotonicNs(1_500)), WallClockNs(50_500));
        assert_eq!(anchor.wall_clock_of(MonotonicNs(400)), WallClockNs(49_400));
    }
}
