//! Loops in bytecode: whether one call of a function can come to an instruction from a later one.

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, helpers::bpf_get_current_pid_tgid, macros::map, maps::HashMap};
use tracer_common::{
    limits::MAX_PYTHON_FUNCTIONS,
    python::{MAX_LOOPS, PythonKey, PythonLoops},
};

use crate::maps::{PYTHON_LAYOUTS, chain_is_on};

/// The loops of code objects that user space has looked into.
#[map]
static PYTHON_LOOPS: HashMap<PythonKey, PythonLoops> =
    HashMap::with_max_entries(MAX_PYTHON_FUNCTIONS, BPF_F_NO_PREALLOC);

/// Whether one call of a function may run the instruction at `now` after the one at `before`, which is the same or a later one: 0
/// if no way back in its code leads there. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn may_come_back(process_slot: u32, code: u64, before: u64, now: u64) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return 1 };
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(known) = PYTHON_LOOPS.get_ptr(PythonKey { address: code, process, reserved: 0 }) else { return 1 };
    let start = code + u64::from(layout.code_instructions);
    let (before, now) = (before.wrapping_sub(start), now.wrapping_sub(start));
    for index in 0..MAX_LOOPS {
        // SAFETY: a checked map value; the index is below the length.
        unsafe {
            if index as u32 >= (*known).count {
                return 0;
            }
            let [first, end] = (*known).loops[index];
            if u64::from(first) <= now && before < u64::from(end) {
                return 1;
            }
        }
    }
    0
}
