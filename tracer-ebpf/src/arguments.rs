//! What is read of a native call when it begins: its object and the arguments that are captured.

use aya_ebpf::{bindings::pt_regs, helpers::bpf_probe_read_user};
use tracer_common::{
    cookie::{Cookie, ObjectLocation},
    limits::MAX_ARGUMENTS,
    thread_stack::Frame,
};

use crate::maps::CAPTURES;

/// Reads one register. Volatile, because the verifier takes no computed offset into the context and the compiler would
/// make one out of a choice between registers.
macro_rules! register {
    ($registers:expr, $name:ident) => {
        core::ptr::read_volatile(&raw const (*$registers).$name)
    };
}

/// Address of the object of a call that begins, 0 if it has none.
#[inline(always)]
pub fn object_of(registers: *mut pt_regs, cookie: Cookie) -> u64 {
    // SAFETY: `registers` is the program's context.
    let (first, second) = unsafe { (register!(registers, rdi), register!(registers, rsi)) };
    match cookie.object() {
        location if location == ObjectLocation::FirstArgument as u64 => first,
        location if location == ObjectLocation::SecondArgument as u64 => second,
        _ => 0,
    }
}

/// Reads the arguments that are captured. Kept out of line: few functions capture anything.
#[inline(never)]
pub fn capture(registers: *mut pt_regs, cookie: u64, frame: *mut Frame) {
    let Some(spec) = CAPTURES.get(Cookie(cookie).function()) else { return };
    // SAFETY: `registers` is the program's context, `frame` lies in a checked map value.
    unsafe {
        let (first, second, third) = (register!(registers, rdi), register!(registers, rsi), register!(registers, rdx));
        let (fourth, fifth, sixth) = (register!(registers, rcx), register!(registers, r8), register!(registers, r9));
        for index in 0..MAX_ARGUMENTS {
            if index as u32 >= spec.count {
                return;
            }
            let value = match spec.positions[index] {
                0 => first,
                1 => second,
                2 => third,
                3 => fourth,
                4 => fifth,
                5 => sixth,
                position => {
                    // The seventh integer argument is above the return address (System V ABI, x86-64, 3.2.3).
                    let address = (*frame).stack_pointer + 8 + (u64::from(position) - 6) * 8;
                    match bpf_probe_read_user(address as *const u64) {
                        Ok(value) => value,
                        Err(_) => continue,
                    }
                }
            };
            (*frame).arguments[index] = value;
            (*frame).arguments_read |= 1 << index;
        }
    }
}
