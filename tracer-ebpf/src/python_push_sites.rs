//! The instructions of an interpreter that take the reference of a heap frame that is pushed. They are learned from calls
//! that prove to be some, and tell a call from a reference that somebody else has taken.

use tracer_common::{
    python::{PROVISIONAL, UNSEEN},
    records::ThreadStack,
};

use crate::{maps::PYTHON_PUSH_SITES, stack};

/// Whether any is known.
#[inline(always)]
pub fn knows_any(process_slot: u32) -> bool {
    PYTHON_PUSH_SITES.get(process_slot).is_some_and(|known| known.instructions[0] != 0)
}

/// Whether an instruction is one of them.
#[inline(always)]
pub fn is_known(process_slot: u32, instruction: u64) -> bool {
    let Some(known) = PYTHON_PUSH_SITES.get(process_slot) else { return false };
    known.instructions[0] == instruction
        || known.instructions[1] == instruction
        || known.instructions[2] == instruction
        || known.instructions[3] == instruction
}

/// The innermost call was seen to run, or ends where it began, at the same instruction of its caller: its beginning was
/// one. What did not show its function teaches nothing. A global function, see `stack::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn learn(thread: *mut ThreadStack) -> u64 {
    if thread.is_null() {
        return 0;
    }
    // SAFETY: checked map values; the call is used by this thread alone.
    unsafe {
        let top = stack::frame(thread, (*thread).depth.wrapping_sub(1));
        if (*top).by_caller != PROVISIONAL {
            return 0;
        }
        let Some(known) = PYTHON_PUSH_SITES.get_ptr_mut((*top).process_slot) else { return 0 };
        for instruction in &mut (*known).instructions {
            if *instruction == (*top).push_site {
                return 0;
            }
            if *instruction == 0 {
                *instruction = (*top).push_site;
                return 0;
            }
        }
    }
    0
}

/// Whether nothing but the count says that the innermost call was one: neither its function nor its receiver was seen, and
/// the instruction is not known to push frames. Somebody may have taken a reference and dropped it again. A global
/// function, see `stack::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn was_no_push(thread: *mut ThreadStack) -> u64 {
    if thread.is_null() {
        return 0;
    }
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let top = stack::frame(thread, (*thread).depth.wrapping_sub(1));
        u64::from((*top).by_caller == UNSEEN && (*top).object == 0 && !is_known((*top).process_slot, (*top).push_site))
    }
}
