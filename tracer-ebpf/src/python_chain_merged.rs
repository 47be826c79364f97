//! Calls that look like one: which of them may be several, when an instruction was repeated.

use tracer_common::chain::{Chain, MAX_WALK};

use crate::{
    maps::chain_is_on,
    python_chain_calls::mark_merged,
    python_chain_sparse::{is_entry, walks_whole},
    python_loops::may_come_back,
    python_walk::{bound, known, walked},
};

/// An instruction was repeated, by the frame that [`Chain::repeated`] names or by what it has called. Of the calls around it those
/// may be several that were seen at their first instruction only, if a caller may have come to them again. A global function, as
/// above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mark_repeated(chain: *mut Chain) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        let (base, repeated) = ((*chain).base, (*chain).repeated);
        let looks_around = walks_whole(chain) && base != 0;
        // What C code has entered was seen to begin, unless witnesses are sparse.
        let outermost = if looks_around { 0 } else { base };
        let mut first = repeated;
        for _ in 0..MAX_WALK {
            let place = first.wrapping_sub(1);
            if first == 0
                || place <= outermost
                || (*known(chain, place)).instruction != (*known(chain, place)).first_instruction
            {
                break;
            }
            first = place;
        }
        // What is around was not walked, and something there may be in a loop.
        let mut may_be_called_again = looks_around;
        let outermost = if looks_around { first.wrapping_sub(1) } else { base };
        for step in 0..MAX_WALK as u32 {
            let place = outermost.wrapping_add(step);
            if first >= repeated || place + 1 >= bound(&raw const (*chain).repeated) {
                return 0;
            }
            may_be_called_again = may_be_called_again
                || mark_one(chain, place, 0) != 0
                || (walks_whole(chain) && is_entry(chain, place.wrapping_add(1).wrapping_sub(base)));
            if may_be_called_again && place + 1 >= first {
                mark_one(chain, place + 1, 1);
            }
        }
    }
    0
}

/// Whether the frame at a place may run its instruction again in one call; or marks its call. A global function, so that the
/// loop around it has one way only.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mark_one(chain: *mut Chain, place: u32, is_merged: u32) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        let open = known(chain, place);
        if is_merged != 0 {
            return if (*open).call == 0 { 0 } else { mark_merged(chain, (*open).call) };
        }
        let code = (*walked(chain, place.wrapping_sub((*chain).base))).code;
        may_come_back((*chain).process_slot, code, (*open).instruction, (*open).instruction)
    }
}
