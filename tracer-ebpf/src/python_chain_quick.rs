//! The short way of a witness: most of them have nothing to say of any call that is wanted. The frames of the thread are those of
//! the last witness but for a few innermost ones, which run other code; one pass over the piece of the data stack that has been
//! read shows it.

use tracer_common::{
    chain::{Chain, HEADER_BYTES, LEFT, MAX_CHAIN, WalkedFrame},
    python::{EntryMark, FrameStyle, PythonLayout},
};

use crate::{
    maps::{PYTHON_LAYOUTS, chain_is_on},
    python_chain::{may_be_wanted, remember},
    python_chain_sparse::walks_whole,
    python_walk::{MOST_GONE, bound, byte, identity_of, known, walked, word},
};

/// New frames that may be there without a longer look.
const MOST_NEW: u32 = 8;

/// Frames of one invocation from C code that are looked at.
const MOST_STANDING: u32 = 24;

/// 1 if no call that is wanted has begun or ended since the last witness, or may have been taken for another one: what is
/// remembered is then up to date. 0 if that takes a longer look, and nothing has changed. A global function, see
/// `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn chain_goes_on(chain: *mut Chain) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let Some(layout) = PYTHON_LAYOUTS.get((*chain).process_slot) else { return 0 };
        if layout.style == FrameStyle::Heap as u32 || (*chain).block == 0 || (*chain).is_over != 0 || walks_whole(chain)
        {
            return 0;
        }
        let entering = (*chain).entering;
        if entering != 0
            && ((*chain).entering_code == 0 || may_be_wanted((*chain).process_slot, (*chain).entering_code))
        {
            return 0;
        }
        // Where the current frame stands on another piece of the data stack, frames do not lead to each other, which is looked at
        // below.
        let kept = bound(&raw const (*chain).kept);
        for step in 0..MOST_GONE + 1 {
            let place = kept.wrapping_add(step);
            if place >= bound(&raw const (*chain).length) {
                break;
            }
            if step == MOST_GONE || (*known(chain, place)).call != 0 {
                return 0;
            }
        }
        if kept == 0 || kept as usize + MOST_NEW as usize >= MAX_CHAIN {
            return 0;
        }
        // Read again: of the checked number the compiler would know that places need no mask, which the verifier wants to see.
        let length = bound(&raw const (*chain).kept);
        let innermost = known(chain, length.wrapping_sub(1));
        if (*innermost).call == LEFT {
            return 0;
        }
        let new = frames_within(chain, layout, (*innermost).frame);
        if new > MOST_NEW {
            return 0;
        }
        if !stands(chain, layout, length.wrapping_sub(1)) {
            return 0;
        }
        // The last frame that was looked at is the innermost one of those that go on only if there is but one.
        if !find(chain, (*innermost).frame) {
            return 0;
        }
        let (was, is) = ((*innermost).instruction, word(chain, layout.frame_instruction));
        if is <= was {
            return 0;
        }
        (*innermost).instruction = is;
        if was == 0 {
            (*innermost).first_instruction = is;
        }
        let base = (*innermost).base;
        (*chain).length = length;
        if length < (*chain).unseen {
            (*chain).unseen = 0;
        }
        (*chain).walked = new;
        for index in 0..MOST_NEW {
            if index >= new {
                break;
            }
            let frame = walked(chain, index);
            remember(chain, (*frame).frame, (*frame).identity, (*frame).instruction, (base, false));
        }
        if entering != 0 {
            let place = (*chain).length;
            remember(chain, entering, 0, 0, (place, false));
        }
        (*chain).last_ns = (*chain).now_ns;
        1
    }
}

/// Walks from the current frame outwards to `known_frame`: how many frames are inside it. More than [`MOST_NEW`] if it is not
/// among the first callers, or if one that is inside may be wanted or was entered by C code.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
unsafe fn frames_within(chain: *mut Chain, layout: &PythonLayout, known_frame: u64) -> u32 {
    // SAFETY: promised by the caller; the index is below the length of the array.
    unsafe {
        let mut frame = (*chain).walking;
        for count in 0..MOST_NEW + 1 {
            if frame == known_frame {
                return count;
            }
            if !find(chain, frame) || is_flagged(chain, layout) {
                break;
            }
            let code = word(chain, layout.frame_code) & layout.pointer_mask;
            if may_be_wanted((*chain).process_slot, code) {
                break;
            }
            let new = (&raw mut (*chain).walk).cast::<WalkedFrame>().add(count as usize);
            (*new).frame = frame;
            (*new).identity = identity_of(chain, layout, code);
            (*new).instruction = word(chain, layout.frame_instruction);
            (*new).code = code;
            (*new).is_entry = 0;
            frame = word(chain, layout.frame_previous);
        }
        MOST_NEW + 1
    }
}

/// Whether the remembered frame at a place is still called from where it was: all that is around it, as far as the frame that C
/// code has entered, is what it was and has not moved.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
unsafe fn stands(chain: *mut Chain, layout: &PythonLayout, innermost: u32) -> bool {
    // SAFETY: promised by the caller.
    unsafe {
        let base = (*known(chain, innermost)).base;
        for step in 0..MOST_STANDING {
            let place = innermost.wrapping_sub(step);
            let frame = known(chain, place);
            if !find(chain, (*frame).frame) {
                return false;
            }
            if step != 0 && word(chain, layout.frame_instruction) != (*frame).instruction {
                return false;
            }
            let previous = word(chain, layout.frame_previous);
            if place == base {
                // No other frame can have been entered there without a witness.
                return if layout.entry_mark == EntryMark::Flag as u32 {
                    is_flagged(chain, layout)
                } else {
                    (*frame).around != 0 && previous == (*frame).around
                };
            }
            if is_flagged(chain, layout)
                || previous != (*known(chain, place.wrapping_sub(1))).frame
                || identity_of(chain, layout, 0) != (*frame).identity
            {
                return false;
            }
        }
        false
    }
}

/// Whether the frame that was found says of itself that C code has entered it.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
unsafe fn is_flagged(chain: *mut Chain, layout: &PythonLayout) -> bool {
    // SAFETY: promised by the caller.
    unsafe { layout.entry_mark == EntryMark::Flag as u32 && byte(chain, layout.frame_entry) != 0 }
}

/// Finds the beginning of a frame in the piece of the data stack that has been read, if it is there.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
unsafe fn find(chain: *mut Chain, frame: u64) -> bool {
    // SAFETY: promised by the caller.
    unsafe {
        let offset = frame.wrapping_sub((*chain).block);
        (*chain).at = (offset / 8) as u32;
        offset <= u64::from((*chain).block_bytes - HEADER_BYTES)
    }
}
