//! Functions of this very program that nobody else calls: what a probe costs is measured on them, and what the kernel takes
//! is tried on them.

use std::arch::global_asm;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use procfs::process::{MMapPath, Process};

// One function that begins with an instruction that the kernel emulates, and one that begins with one that it has to
// single-step.
global_asm!(
    ".text",
    ".p2align 4",
    ".globl ml_tracer_own_emulated",
    "ml_tracer_own_emulated:",
    "push rbp",
    "pop rbp",
    "ret",
    ".p2align 4",
    ".globl ml_tracer_own_single_stepped",
    "ml_tracer_own_single_stepped:",
    "endbr64",
    "push rbp",
    "pop rbp",
    "ret",
);

unsafe extern "C" {
    fn ml_tracer_own_emulated();
    fn ml_tracer_own_single_stepped();
}

/// The file that holds them.
pub const FILE: &str = "/proc/self/exe";

/// One of them: how it is called, and where it begins.
#[derive(Clone, Copy)]
pub struct OwnFunction {
    /// Calls it.
    pub call: fn(),
    begins: unsafe extern "C" fn(),
}

/// Begins with an instruction that the kernel emulates.
pub const EMULATED: OwnFunction = OwnFunction {
    // SAFETY: pushes, pops and returns.
    call: || unsafe { ml_tracer_own_emulated() },
    begins: ml_tracer_own_emulated,
};

/// Begins with an instruction that the kernel single-steps.
pub const SINGLE_STEPPED: OwnFunction = OwnFunction {
    // SAFETY: pushes, pops and returns.
    call: || unsafe { ml_tracer_own_single_stepped() },
    begins: ml_tracer_own_single_stepped,
};

/// Rounds of calls that are measured; the median counts.
const ROUNDS: usize = 5;

/// Nanoseconds that one of so many calls takes.
pub fn time(call: fn(), calls: u32) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..calls).for_each(|_| call());
            start.elapsed().as_nanos() as f64 / f64::from(calls)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

impl OwnFunction {
    /// Where it begins in [`FILE`]; `None` where that cannot be found in memory.
    pub fn offset(&self) -> Option<u64> {
        let address = self.begins as usize as u64;
        let maps = Process::myself().ok()?.maps().ok()?;
        let map = maps.into_iter().find(|map| (map.address.0..map.address.1).contains(&address))?;
        matches!(map.pathname, MMapPath::Path(_)).then(|| address - map.address.0 + map.offset)
    }
}

/// Hardware watchpoints that are tried: more than any x86-64 processor has.
pub const MOST_WATCHPOINTS: usize = 8;

/// Words of this program to be watched.
pub static WATCHED: [AtomicU64; MOST_WATCHPOINTS] = [const { AtomicU64::new(0) }; MOST_WATCHPOINTS];

/// Writes the first of them.
pub fn write_watched() {
    WATCHED[0].fetch_add(1, Relaxed);
}
