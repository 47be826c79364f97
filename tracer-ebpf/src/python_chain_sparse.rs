//! Sparse witnesses: few of the places that Python calls pass, where a process passes all of them too often. What C code enters is
//! not seen to begin then, so that the frames are walked and compared as far as the outermost one; and by which kinds each
//! call would be seen is counted while all of them are there.

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, helpers::bpf_get_current_pid_tgid, macros::map, maps::HashMap};
use tracer_common::{
    chain::{Chain, DEEP_FRAMES, MANY_FRAMES, SPARSE_KINDS, Witness, WitnessDensity, WitnessedCalls},
    limits::MAX_PYTHON_FUNCTIONS,
    python::PythonKey,
    thread_stack::{FrameKind, ThreadStack},
};

use crate::{
    maps::{chain_is_on, count_passed},
    python_chain::chain_of,
    python_walk::walked,
    stack,
};

/// What is counted of the code that user space asks for.
#[map]
static PYTHON_WITNESSED: HashMap<PythonKey, WitnessedCalls> =
    HashMap::with_max_entries(MAX_PYTHON_FUNCTIONS, BPF_F_NO_PREALLOC);

/// Whether the frames are walked to the outermost one: at sparse witnesses, and once after them.
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
