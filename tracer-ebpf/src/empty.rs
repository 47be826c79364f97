//! Programs that do nothing: what a probe costs before ml-tracer adds anything. Used by `doctor` and the benchmarks.

use aya_ebpf::{
    macros::{perf_event, uprobe, uretprobe},
    programs::{PerfEventContext, ProbeContext, RetProbeContext},
};

/// Empty entry probe.
#[uprobe]
pub fn empty_entry(_context: ProbeContext) -> u32 {
    0
}

/// Empty return probe.
#[uretprobe]
pub fn empty_return(_context: RetProbeContext) -> u32 {
    0
}

/// Empty watchpoint handler.
#[perf_event]
pub fn empty_watchpoint(_context: PerfEventContext) -> u32 {
    0
}
