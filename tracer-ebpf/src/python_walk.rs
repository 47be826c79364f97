//! Walks the frames of a thread at a witness, and compares them with those that were there at the last one.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use tracer_common::{
    chain::{
        BLOCK_BYTES, Chain, ChainFrame, HEADER_BYTES, LEFT, MAX_CHAIN, MAX_WALK, NOT_ASKED, READ_WORDS,
        USUAL_BLOCK_BYTES, WalkedFrame,
    },
    python::{EntryMark, FIRST_OWNER_IN_C, FrameStyle, PythonLayout},
};

use crate::{
    maps::{PYTHON_LAYOUTS, chain_is_on},
    python_chain_sparse::{is_entry, stands_around, walks_whole},
    python_loops::may_come_back,
};

/// What a step of the walk has found.
const FRAME: u64 = 0;
const ENTRY: u64 = 1;
const END: u64 = 2;

/// How a walk ends: at a frame that was there at the last witness, with all that is around it.
pub const MET: u64 = 0;
/// At the end of the chain: nothing was met that was there.
pub const MET_NOTHING: u64 = 1;
/// It was given up: too many frames, or one that cannot be read.
pub const GAVE_UP: u64 = 2;
/// There was no need for one, and all that is remembered is up to date.
pub const SETTLED: u64 = 4;

/// Invocations of C code that are gone through to find the one that is running.
const MAX_INVOCATIONS: usize = MAX_CHAIN;

/// A number that bounds a loop. Volatile, so that it is asked at each turn: the compiler would else make one bound of it and the
/// constant, which the verifier does not understand.
///
/// # Safety
/// `number` must be checked.
#[inline(always)]
pub unsafe fn bound(number: *const u32) -> u32 {
    // SAFETY: promised by the caller.
    unsafe { core::ptr::read_volatile(number) }
}

/// The remembered frame at a place; masked, so that the verifier sees it in range.
#[inline(always)]
pub fn known(chain: *mut Chain, place: u32) -> *mut ChainFrame {
    // SAFETY: the mask keeps the element inside the array.
    unsafe { (&raw mut (*chain).frames).cast::<ChainFrame>().add(place as usize & (MAX_CHAIN - 1)) }
}

/// The walked frame so many from the outermost one; masked likewise.
#[inline(always)]
pub fn walked(chain: *mut Chain, from_outermost: u32) -> *mut WalkedFrame {
    // SAFETY: as above.
    unsafe {
        let index = (*chain).walked.wrapping_sub(1).wrapping_sub(from_outermost);
        (&raw mut (*chain).walk).cast::<WalkedFrame>().add(index as usize & (MAX_WALK - 1))
    }
}

/// Walks outwards until a frame is met that C code has entered and that was there at the last witness: what is around it has
/// stood still since, or is looked at where it may have gone. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn chain_walk(chain: *mut Chain) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return GAVE_UP;
    }
    // SAFETY: `chain` is a checked map value used by this thread alone.
    unsafe { ((*chain).walked, (*chain).around, (*chain).standing) = (0, 0, NOT_ASKED) };
    for _ in 0..2 * MAX_WALK {
        match chain_step(chain) {
            FRAME => {}
            ENTRY => {
                // SAFETY: as above.
                if chain_find(chain) != 0 && unsafe { !walks_whole(chain) || stands_around(chain) } {
                    return MET;
                }
            }
            END => {
                // SAFETY: as above.
                let is_met = unsafe { walks_whole(chain) && is_outermost_known(chain) };
                return if is_met { MET } else { MET_NOTHING };
            }
            _ => return GAVE_UP,
        }
    }
    GAVE_UP
}

/// One step of the walk. A global function, so that the loop around it has one way only.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn chain_step(chain: *mut Chain) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return GAVE_UP;
    }
    // SAFETY: as above; the helper writes no more than there is room for, and checks the address.
    unsafe {
        let Some(layout) = PYTHON_LAYOUTS.get((*chain).process_slot) else { return GAVE_UP };
        let frame = (*chain).walking;
        if frame == 0 {
            return END;
        }
        if !find_read(chain, frame) {
            return GAVE_UP + 1;
        }
        (*chain).walking = word(chain, layout.frame_previous);
        let mark = byte(chain, layout.frame_entry);
        let is_around = layout.entry_mark == EntryMark::FrameAround as u32 && mark >= FIRST_OWNER_IN_C;
        if is_around {
            (*chain).around = frame;
            if (*chain).walked != 0 {
                (*walked(chain, 0)).is_entry = 1;
            }
            return ENTRY;
        }
        let index = (*chain).walked;
        if index as usize >= MAX_WALK {
            return GAVE_UP + 1;
        }
        (*chain).walked = index + 1;
        let innermost = (&raw mut (*chain).walk).cast::<WalkedFrame>().add(index as usize & (MAX_WALK - 1));
        let is_entry =
            layout.entry_mark == EntryMark::Always as u32 || (layout.entry_mark == EntryMark::Flag as u32 && mark != 0);
        (*innermost).frame = frame;
        (*innermost).code = word(chain, layout.frame_code) & layout.pointer_mask;
        (*innermost).identity = identity_of(chain, layout, (*innermost).code);
        // Of heap frames nothing is asked but which they are: each is entered by C code, and so seen to begin.
        (*innermost).instruction =
            if layout.style == FrameStyle::Heap as u32 { 0 } else { word(chain, layout.frame_instruction) };
        (*innermost).is_entry = u64::from(is_entry);
        if is_entry || (!walks_whole(chain) && is_known_entry(chain)) { ENTRY } else { FRAME }
    }
}

/// Whether the outermost frame of the thread is the one that was there at the last witness: what was walked is then compared from there on.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
unsafe fn is_outermost_known(chain: *mut Chain) -> bool {
    // SAFETY: promised by the caller.
    unsafe {
        (*chain).base = 0;
        (*chain).walked != 0 && (*chain).length != 0 && (*known(chain, 0)).frame == (*walked(chain, 0)).frame
    }
}

/// Whether the frame around the one that was walked last is none, and is known as such from the last witness: it need not be
/// read. It stands on the native stack, where no frame can be.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
unsafe fn is_known_entry(chain: *mut Chain) -> bool {
    // SAFETY: promised by the caller.
    unsafe {
        let (length, around) = ((*chain).length, (*chain).walking);
        if length == 0 || around == 0 {
            return false;
        }
        let inner = (*known(chain, length - 1)).base;
        let mut is_known = (*known(chain, inner)).around == around;
        if !is_known && inner != 0 {
            let outer = (*known(chain, inner - 1)).base;
            is_known = (*known(chain, outer)).around == around;
        }
        if is_known {
            (*chain).around = around;
            (*walked(chain, 0)).is_entry = 1;
        }
        is_known
    }
}

/// Reads the part of the data stack that begins and ends with these frames, if it is not too long; frames that stand there need not
/// be read one by one.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
pub unsafe fn read_block(chain: *mut Chain, first: u64, last: u64) {
    // SAFETY: promised by the caller; the mask keeps the helper within what there is room for, and it checks the address.
    unsafe {
        let distance = last.wrapping_sub(first);
        let is_whole = distance <= u64::from(BLOCK_BYTES - HEADER_BYTES);
        (*chain).block_bytes = if is_whole { distance as u32 + HEADER_BYTES } else { USUAL_BLOCK_BYTES };
        let bytes = bound(&raw const (*chain).block_bytes) & (8 * READ_WORDS as u32 - 1);
        let start = last.wrapping_add(u64::from(HEADER_BYTES)).wrapping_sub(u64::from(bytes));
        let failed = bpf_probe_read_user((&raw mut (*chain).read).cast(), bytes, start as *const _) != 0;
        (*chain).block = if failed { 0 } else { start };
    }
}

/// Frames that may be gone since the last witness without a longer look.
pub const MOST_GONE: u32 = 8;

/// The outermost frame of the invocation from C code that the current frame runs in, as far as it is remembered; 0 if it is not. What
/// stands beyond the current frame on a data stack is gone: says how many frames are left in [`Chain::kept`].
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
pub unsafe fn outermost_around(chain: *mut Chain, current: u64) -> u64 {
    // SAFETY: promised by the caller.
    unsafe {
        (*chain).kept = (*chain).length;
        for _ in 0..MOST_GONE {
            let length = bound(&raw const (*chain).kept);
            if length == 0 {
                return 0;
            }
            let innermost = known(chain, length.wrapping_sub(1));
            if (*innermost).frame <= current {
                return (*known(chain, (*innermost).base)).frame;
            }
            (*chain).kept = length - 1;
        }
        0
    }
}

/// Finds the beginning of a frame among what has been read, or reads it.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
pub unsafe fn find_read(chain: *mut Chain, frame: u64) -> bool {
    // SAFETY: as above.
    unsafe {
        let offset = frame.wrapping_sub((*chain).block);
        if (*chain).block != 0 && offset <= u64::from((*chain).block_bytes - HEADER_BYTES) {
            (*chain).at = (offset / 8) as u32;
            return true;
        }
        (*chain).at = BLOCK_BYTES / 8;
        let place = (&raw mut (*chain).read).cast::<u64>().add(BLOCK_BYTES as usize / 8);
        bpf_probe_read_user(place.cast(), HEADER_BYTES, frame as *const _) == 0
    }
}

/// What tells two frames of one place apart: the function object, where the frame holds it.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
pub unsafe fn identity_of(chain: *mut Chain, layout: &PythonLayout, code: u64) -> u64 {
    if layout.style == FrameStyle::Heap as u32 {
        return code;
    }
    // SAFETY: promised by the caller.
    unsafe { word(chain, layout.frame_function) & layout.pointer_mask }
}

/// A word of the beginning of the frame that is being walked.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
pub unsafe fn word(chain: *mut Chain, offset: u32) -> u64 {
    // SAFETY: promised by the caller; the mask keeps the element inside the array.
    unsafe {
        let index = (*chain).at as usize + offset as usize / 8;
        *(&raw const (*chain).read).cast::<u64>().add(index & (READ_WORDS - 1))
    }
}

/// A byte of it.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
pub unsafe fn byte(chain: *mut Chain, offset: u32) -> u64 {
    // SAFETY: promised by the caller.
    unsafe { word(chain, offset) >> (8 * (offset & 7)) & 0xff }
}

/// Looks for the outermost frame that was walked among those that C code had entered at the last witness. If it is there, says
/// where. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn chain_find(chain: *mut Chain) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        if (*chain).walked == 0 {
            return 0;
        }
        let sought = (*walked(chain, 0)).frame;
        let mut length = (*chain).length;
        for _ in 0..MAX_INVOCATIONS {
            if length == 0 {
                return 0;
            }
            let base = (*known(chain, length - 1)).base;
            if (*known(chain, base)).frame == sought {
                (*chain).base = base;
                return 1;
            }
            if base >= length {
                return 0;
            }
            length = base;
        }
    }
    0
}

/// Compares what was walked with what was there at the last witness, outermost first, as long as it is the same: a caller's
/// instruction stands still while what it has called runs. Says how many remembered frames go on, and the place, from 1, of the
/// innermost one among them that has repeated an instruction or gone back ([`Chain::repeated`]). A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn chain_compare(chain: *mut Chain) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        let base = (*chain).base;
        (*chain).repeated = 0;
        (*known(chain, base)).around = (*chain).around;
        for index in 0..MAX_WALK as u32 {
            let place = base + index;
            (*chain).kept = place;
            if index >= bound(&raw const (*chain).walked) || place >= bound(&raw const (*chain).length) {
                // The innermost one has come to C code twice by one instruction, or what it has called is gone.
                (*chain).repeated = place;
                return 0;
            }
            let before = known(chain, place);
            let now = walked(chain, index);
            // Of a frame that was entered at a witness nothing else was known then.
            if (*before).identity == 0 {
                (*before).identity = (*now).identity;
            }
            // The frame at the base was found by its address, and no other can be there without a witness, unless they are sparse.
            let may_be_other = index != 0 || walks_whole(chain);
            if may_be_other && ((*before).frame != (*now).frame || (*before).identity != (*now).identity) {
                return chain_called_again(chain);
            }
            let (was, is) = ((*before).instruction, (*now).instruction);
            // A frame that an exception has left does not go on, nor does it call Python code; C code that clears it away may.
            if may_be_other && (*before).call == LEFT && (was != is || calls_on(chain, index)) {
                return chain_called_again(chain);
            }
            if was == is {
                continue;
            }
            let is_back = is < was && may_be_other;
            if is_back && may_come_back((*chain).process_slot, (*now).code, was, is) == 0 {
                return chain_called_again(chain);
            }
            (*before).instruction = is;
            if was == 0 {
                (*before).first_instruction = is;
            }
            (*chain).kept = place + 1;
            (*chain).repeated = if is_back { place + 1 } else { 0 };
            return 0;
        }
    }
    0
}

/// Whether the walked frame so many from the outermost one has called another one itself.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
unsafe fn calls_on(chain: *mut Chain, from_outermost: u32) -> bool {
    // SAFETY: promised by the caller.
    unsafe { from_outermost + 1 < (*chain).walked && (*walked(chain, from_outermost + 1)).is_entry == 0 }
}

/// The frame after those that go on is another call than the one that was there: its caller has run one instruction twice. If
/// that cannot be in one call, the caller is another call, too. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn chain_called_again(chain: *mut Chain) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        for _ in 0..MAX_WALK {
            let (base, kept) = ((*chain).base, (*chain).kept);
            (*chain).repeated = kept;
            let place = kept.wrapping_sub(1);
            // What C code has entered was seen to begin, unless witnesses are sparse.
            let is_first = place == base && (base == 0 || !walks_whole(chain));
            if kept == 0 || place < base || is_first {
                return 0;
            }
            // C code may have called it twice.
            if walks_whole(chain) && is_entry(chain, kept.wrapping_sub(base)) {
                return 0;
            }
            let instruction = (*known(chain, place)).instruction;
            let code = (*walked(chain, place - base)).code;
            if may_come_back((*chain).process_slot, code, instruction, instruction) != 0 {
                return 0;
            }
            (*chain).kept = place;
        }
    }
    0
}
