//! Sparse witnesses: few of the places that Python calls pass, where a process passes all of them too often. What C code enters is
//! not seen to begin then, so that the frames are looked at as far as the outermost one; and by which kinds each call would be
//! seen is counted while all of them are there.

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, helpers::bpf_get_current_pid_tgid, macros::map, maps::HashMap};
use tracer_common::{
    chain::{
        Chain, DEEP_FRAMES, HEADER_BYTES, LEFT, MANY_FRAMES, MAX_CHAIN, NOT_ASKED, SPARSE_KINDS, Witness,
        WitnessDensity, WitnessedCalls,
    },
    limits::MAX_PYTHON_FUNCTIONS,
    python::{EntryMark, FIRST_OWNER_IN_C, PythonKey, PythonLayout},
    thread_stack::{FrameKind, ThreadStack},
};

use crate::{
    maps::{PYTHON_LAYOUTS, chain_is_on, count_passed},
    python_chain::chain_of,
    python_frame::field,
    python_walk::{byte, find_read, identity_of, known, read_block, walked, word},
    stack,
};

/// What is counted of the code that user space asks for.
#[map]
static PYTHON_WITNESSED: HashMap<PythonKey, WitnessedCalls> =
    HashMap::with_max_entries(MAX_PYTHON_FUNCTIONS, BPF_F_NO_PREALLOC);

/// Whether the frames are looked at to the outermost one: at sparse witnesses, and once after them.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
pub unsafe fn walks_whole(chain: *const Chain) -> bool {
    // SAFETY: promised by the caller.
    unsafe { (*chain).was_sparse != 0 || (*chain).density == WitnessDensity::Sparse as u32 }
}

/// Whether C code has entered the walked frame so many from the outermost one.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
pub unsafe fn is_entry(chain: *mut Chain, from_outermost: u32) -> bool {
    // SAFETY: promised by the caller.
    unsafe { from_outermost < (*chain).walked && (*walked(chain, from_outermost)).is_entry != 0 }
}

/// Reads the data stack of a thread from the outermost frame that is remembered to its top, if that is not too long: coroutines do not
/// stand there.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
pub unsafe fn read_stack(chain: *mut Chain, layout: &PythonLayout, python_thread: u64) {
    // SAFETY: promised by the caller.
    unsafe {
        let top = field(python_thread, layout.thread_datastack_top);
        let outermost = if (*chain).length == 0 { 0 } else { (*known(chain, 0)).frame };
        read_block(chain, outermost, top.wrapping_sub(u64::from(HEADER_BYTES)));
    }
}

/// Whether all that is around the invocation from C code that was met again goes on: it is called from where it was.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
pub unsafe fn stands_around(chain: *mut Chain) -> bool {
    // SAFETY: promised by the caller.
    unsafe {
        let base = (*chain).base;
        // Nothing is around the outermost one: the next step of the walk shows that.
        if base == 0 || (*known(chain, base.wrapping_sub(1))).frame != (*chain).walking {
            return false;
        }
        if (*chain).standing == NOT_ASKED {
            (*chain).standing = chain_standing(chain, base) as u32;
        }
        (*chain).standing >= base
    }
}

/// How many of the remembered frames are called from where they were, outermost first, of so many. A global function, as below.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn chain_standing(chain: *mut Chain, most: u32) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    for place in 0..MAX_CHAIN as u32 {
        if place >= most || chain_stands_at(chain, place) == 0 {
            return u64::from(place);
        }
    }
    0
}

/// Whether a remembered frame is what it was, and has called what it had called. A global function, so that the loop around it has one way
/// only.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn chain_stands_at(chain: *mut Chain, place: u32) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let Some(layout) = PYTHON_LAYOUTS.get((*chain).process_slot) else { return 0 };
        let frame = known(chain, place);
        if (*frame).call == LEFT || !find_read(chain, (*frame).frame) {
            return 0;
        }
        if word(chain, layout.frame_instruction) != (*frame).instruction
            || identity_of(chain, layout, 0) != (*frame).identity
        {
            return 0;
        }
        let around = if place == 0 { 0 } else { (*known(chain, place.wrapping_sub(1))).frame };
        let is_entry = (*frame).base == place;
        let previous = word(chain, layout.frame_previous);
        if layout.entry_mark == EntryMark::Flag as u32 {
            let is_flagged = byte(chain, layout.frame_entry) != 0;
            return u64::from(is_flagged == is_entry && previous == around);
        }
        if !is_entry {
            return u64::from(previous == around);
        }
        // Around what C code has entered is a frame that is none.
        let is_read = previous != 0 && find_read(chain, previous);
        u64::from(
            is_read
                && byte(chain, layout.frame_entry) >= FIRST_OWNER_IN_C
                && word(chain, layout.frame_previous) == around,
        )
    }
}

/// A witness was passed, and all has been seen that it shows. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn note_passed(identity: u64, place: u32) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    let Some(chain) = chain_of(identity, 0) else { return 0 };
    let kind = match place {
        place if place == Witness::OfThread as u32 || place == Witness::GivesLockAway as u32 => 0,
        place if place == Witness::CopiesDictionary as u32 => 1,
        place if place == Witness::CallsMethod as u32 => 2,
        place if place == Witness::AsksContext as u32 => 3,
        _ => SPARSE_KINDS,
    };
    // SAFETY: a checked map value used by this thread alone; the mask keeps the element inside the array.
    unsafe {
        // From 1: at 0 there was none.
        let hit = (*chain).hits.wrapping_add(1);
        (*chain).hits = hit;
        if kind < SPARSE_KINDS {
            *(&raw mut (*chain).passed_at).cast::<u32>().add(kind & (SPARSE_KINDS - 1)) = hit;
        }
        if (*chain).length > MANY_FRAMES {
            count_passed((*chain).process_slot, DEEP_FRAMES as u32);
        }
    }
    0
}

/// The innermost call ends: it is counted which kinds of witnesses it has passed. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn note_witnessed(chain: *mut Chain, thread: *mut ThreadStack) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() || thread.is_null() {
        return 0;
    }
    // SAFETY: checked map values used by this thread alone; the index is below the length.
    unsafe {
        if (*chain).density != WitnessDensity::Counted as u32 {
            return 0;
        }
        let top = stack::frame(thread, (*thread).depth.wrapping_sub(1));
        if (*top).kind == FrameKind::Native as u32 || (*top).kind == FrameKind::PythonFolded as u32 {
            return 0;
        }
        let process = (bpf_get_current_pid_tgid() >> 32) as u32;
        let code = PythonKey { address: (*top).code, process, reserved: 0 };
        let Some(counted) = PYTHON_WITNESSED.get_ptr_mut(code) else { return 0 };
        let mut kinds = 0;
        for kind in 0..SPARSE_KINDS {
            let at = *(&raw const (*chain).passed_at).cast::<u32>().add(kind);
            if at != 0 && at.wrapping_sub((*top).first_hit) as i32 > 0 {
                kinds |= 1 << kind;
            }
        }
        *(&raw mut (*counted).by_kinds).cast::<u32>().add(kinds & ((1 << SPARSE_KINDS) - 1)) += 1;
    }
    0
}

/// What [`Chain::passed_at`] is compared with for a call that is seen to begin now. Where the thread has passed no sparse witness before,
/// it would not be known when it began: none counts then.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
pub unsafe fn first_hit(chain: *const Chain) -> u32 {
    // SAFETY: promised by the caller.
    unsafe {
        let mut any = 0;
        for kind in 0..SPARSE_KINDS {
            any |= *(&raw const (*chain).passed_at).cast::<u32>().add(kind);
        }
        // The hit itself is counted after it.
        let hits = (*chain).hits;
        if any == 0 { hits.wrapping_add(1 << 30) } else { hits }
    }
}
