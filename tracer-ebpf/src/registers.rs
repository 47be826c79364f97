//! General registers at a probe, by their numbers.

use aya_ebpf::programs::ProbeContext;

/// So many there are.
pub const GENERAL_REGISTERS: u32 = 16;

/// A general register, numbered as x86-64 instructions number them. The stack pointer is none.
#[inline(always)]
pub fn general_register(context: &ProbeContext, number: u32) -> u64 {
    macro_rules! value {
        ($name:ident) => {
            // SAFETY: the program's context. Volatile, so that each load keeps its constant offset into it.
            unsafe { core::ptr::read_volatile(&raw const (*context.regs).$name) }
        };
    }
    match number {
        0 => value!(rax),
        1 => value!(rcx),
        2 => value!(rdx),
        3 => value!(rbx),
        5 => value!(rbp),
        6 => value!(rsi),
        7 => value!(rdi),
        8 => value!(r8),
        9 => value!(r9),
        10 => value!(r10),
        11 => value!(r11),
        12 => value!(r12),
        13 => value!(r13),
        14 => value!(r14),
        15 => value!(r15),
        _ => 0,
    }
}
