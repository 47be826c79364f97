//! A hit of a watchpoint that the kernel does not know for one. The processor tells in `DR6` which watchpoint a debug
//! exception is about; the hypervisor of a virtual machine may lose that. The kernel then takes the exception for one of
//! the program's own and sends SIGTRAP. User space keeps the signal from the program; here the hit is made up for, in the
//! thread that made it and before it goes on: the reference count that has changed tells which code it was about.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel,
        generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    },
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use tracer_common::{
    counters::Counter,
    python::{DEBUG_REGISTERS, PythonKey},
};

use crate::{
    maps::{PYTHON_COUNTS, PYTHON_WATCHED, copy_of, count},
    python_frame::read_u32,
    python_watch::count_changed,
};

/// `SIGTRAP` and `TRAP_BRKPT` (include/uapi/asm-generic/signal.h and siginfo.h, Linux 6.18).
const SIGTRAP: i32 = 5;
const TRAP_BRKPT: i32 = 1;

/// Offset of `si_code` in `kernel_siginfo`, and below it the pointers that mean "no information" (`SEND_SIG_NOINFO`,
/// `SEND_SIG_PRIV`; include/linux/signal_types.h and sched/signal.h).
const SIGNAL_CODE: u64 = 8;
const FIRST_POINTER: u64 = 2;

/// Offsets in `pt_regs` (arch/x86/include/asm/ptrace.h).
const INSTRUCTION: u64 = 128;
const STACK_POINTER: u64 = 152;

/// A signal is sent: `TP_PROTO` in include/trace/events/signal.h is its number, its information, the receiver, and more.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn python_missed_hit(context: RawTracePointContext) -> i32 {
    let signal: i32 = context.arg(0);
    let information: u64 = context.arg(1);
    if signal != SIGTRAP || information < FIRST_POINTER {
        return 0;
    }
    // SAFETY: the helper checks the address; a bad one is an error, not a fault.
    let code = unsafe { bpf_probe_read_kernel((information + SIGNAL_CODE) as *const i32) };
    if code != Ok(TRAP_BRKPT) {
        return 0;
    }
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(watched) = copy_of(&PYTHON_WATCHED, &process) else { return 0 };
    // SAFETY: helpers without side effects; the second one takes what the first one gives.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    // SAFETY: as above.
    let register = |offset| unsafe { bpf_probe_read_kernel((registers + offset) as *const u64) }.unwrap_or(0);
    for index in 0..DEBUG_REGISTERS {
        let address = watched.codes[index];
        if has_changed(address, process) {
            count(Counter::HitsWithoutCause, 1);
            count_changed(address, register(STACK_POINTER), register(INSTRUCTION));
            return 0;
        }
    }
    0
}

/// Whether the count of watched code is not what it was when it was last seen. Each change is seen at once, so at most
/// one has.
#[inline(always)]
fn has_changed(address: u64, process: u32) -> bool {
    let key = PythonKey { address, process, reserved: 0 };
    // SAFETY: a value of plain words; whoever writes it holds the interpreter's lock, as this thread does.
    let last = unsafe { PYTHON_COUNTS.get(&key) };
    address != 0 && last.is_some_and(|last| last.references != u64::from(read_u32(address)))
}
