//! Python calls seen at witnesses: places that a part of all Python calls passes, those through C code above all. At each the
//! frames of the thread are compared with those at the last one: a frame of traced code that is new has begun since, one that is
//! not there any more has ended.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_F_NO_PREALLOC,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_attach_cookie, bpf_ktime_get_ns},
    },
    macros::{map, uprobe},
    maps::{Array, HashMap},
    programs::ProbeContext,
};
use tracer_common::{
    chain::{
        Chain, HEADER_BYTES, LEFT, MAX_CHAIN, MAX_WALK, USUAL_BLOCK_BYTES, Witness, WitnessDensity, WitnessWindow,
    },
    cookie::Cookie,
    limits::{MAX_PROCESSES, MAX_THREADS},
    python::{FrameStyle, PythonWanted, WANTED_WORDS, wanted_bit},
    records::RecordEnding,
};

use crate::{
    maps::{PROCESSES, PYTHON_LAYOUTS, chain_is_on, count_passed},
    python_chain_calls::{begin, end_by_exception, end_gone, lose, note_unseen},
    python_chain_merged::mark_repeated,
    python_chain_quick::chain_goes_on,
    python_chain_sparse::{note_passed, read_stack, walks_whole},
    python_frame::{code_of, current_frame, exception_of, read_u64},
    python_greenlets,
    python_walk::{
        GAVE_UP, MET, MET_NOTHING, SETTLED, bound, chain_compare, chain_find, chain_walk, find_read, known,
        outermost_around, read_block, walked, word,
    },
    stack,
};

/// The frames of each thread, by the key of its stack of calls.
#[map]
static PYTHON_CHAINS: HashMap<u64, Chain> = HashMap::with_max_entries(MAX_THREADS, BPF_F_NO_PREALLOC);

/// An empty value to begin with: it is too large for the program's own stack.
#[map]
static EMPTY_CHAIN: Array<Chain> = Array::with_max_entries(1, 0);

/// The bits of the code that may be wanted, by process slot.
#[map]
static PYTHON_WANTED: Array<PythonWanted> = Array::with_max_entries(MAX_PROCESSES, 0);

/// Reads one register. Volatile, so that each load keeps its constant offset into the context.
macro_rules! register {
    ($registers:expr, $name:ident) => {
        // SAFETY: the program's context.
        unsafe { core::ptr::read_volatile(&raw const (*$registers).$name) }
    };
}

/// A witness is passed.
#[uprobe]
pub fn python_witness(context: ProbeContext) -> u32 {
    // SAFETY: the helper takes the context pointer that the kernel handed to the program.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(context.as_ptr()) });
    let identity = bpf_get_current_pid_tgid();
    let Some(slot) = PROCESSES.get(cookie.process_slot()) else { return 0 };
    if slot.process != (identity >> 32) as u32 || slot.witness_window == WitnessWindow::Closed as u32 {
        return 0;
    }
    count_passed(cookie.process_slot(), cookie.place());
    let (first, second) = (register!(context.regs, rdi), register!(context.regs, rsi));
    let stack_pointer = register!(context.regs, rsp);
    let place = cookie.place();
    let is_end = place == Witness::ThreadEnds as u32;
    let given = place == Witness::EntersSecond as u32 || place == Witness::OfThread as u32 || is_end;
    let python_thread = if given {
        first
    } else {
        let Some(layout) = PYTHON_LAYOUTS.get(cookie.process_slot()) else { return 0 };
        read_u64(layout.current_thread)
    };
    let entering = match place {
        place if place == Witness::EntersSecond as u32 => second,
        place if place == Witness::EntersFirst as u32 => first,
        _ => 0,
    };
    let unwinds = place == Witness::Unwinds as u32;
    if unwinds && !may_run_wanted(cookie.process_slot(), python_thread) {
        return 0;
    }
    let Some(chain) = chain_of(identity, slot.accepts_entries) else { return 0 };
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let was_away = (*chain).is_away != 0 && (*chain).python_thread == python_thread;
        (*chain).is_away = u32::from(place == Witness::GivesLockAway as u32);
        if place == Witness::OfThread as u32 && was_away {
            // Without the interpreter's lock it has run no Python code: what was seen when it gave the lock away still stands.
            if (*chain).last_ns == (*chain).now_ns {
                (*chain).now_ns = bpf_ktime_get_ns();
                (*chain).last_ns = (*chain).now_ns;
            }
            return 0;
        }
        (*chain).accepts = slot.accepts_entries;
        (*chain).window = slot.witness_window;
        (*chain).density = slot.witness_density;
        (*chain).process_slot = cookie.process_slot();
        (*chain).stack_pointer = stack_pointer;
        (*chain).entering = entering;
        (*chain).is_over = u32::from(is_end);
        if unwinds {
            forget_left(chain, python_thread);
        }
        // Another thread's, which is gone: after a fork, or when the interpreter ends.
        if is_end && (*chain).python_thread != python_thread {
            return 0;
        }
    }
    if look(chain, python_thread) != 0 {
        begin_new(identity);
    }
    if unwinds {
        end_unwound(identity);
    }
    if slot.witness_density == WitnessDensity::Counted as u32 {
        note_passed(identity, place);
    }
    0
}

/// Whether the innermost frame of a thread may run code that is wanted.
#[inline(always)]
fn may_run_wanted(process_slot: u32, python_thread: u64) -> bool {
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return false };
    may_be_wanted(process_slot, code_of(layout, current_frame(layout, python_thread)))
}

/// An exception leaves a frame once: where it has left one at this address before, that was another one's.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
unsafe fn forget_left(chain: *mut Chain, python_thread: u64) {
    // SAFETY: promised by the caller.
    unsafe {
        let Some(layout) = PYTHON_LAYOUTS.get((*chain).process_slot) else { return };
        let length = (*chain).length;
        if length == 0 {
            return;
        }
        let innermost = known(chain, length - 1);
        if (*innermost).call == LEFT && (*innermost).frame == current_frame(layout, python_thread) {
            (*chain).length = length - 1;
        }
    }
}

/// The innermost frame is left by the exception that is being raised: its call ends now. A global function, as below.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_unwound(identity: u64) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    let Some(chain) = chain_of(identity, 0) else { return 0 };
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let Some(layout) = PYTHON_LAYOUTS.get((*chain).process_slot) else { return 0 };
        let length = (*chain).length;
        if length == 0 {
            return 0;
        }
        let innermost = known(chain, length - 1);
        if (*innermost).frame != current_frame(layout, (*chain).python_thread) {
            return 0;
        }
        let call = (*innermost).call;
        (*innermost).call = LEFT;
        if call == 0 {
            return 0;
        }
        end_by_exception(chain, call, exception_of(layout, (*chain).python_thread))
    }
}

/// Something else than a witness happens on a thread whose Python calls are seen at witnesses: it is one, too. Its frames stand
/// as they are.
#[inline(always)]
pub fn witness(identity: u64, process_slot: u32, python_thread: u64, stack_pointer: u64) {
    let Some(main) = PYTHON_CHAINS.get_ptr_mut(identity) else { return };
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let python_thread = if python_thread == 0 { (*main).python_thread } else { python_thread };
        let Some(slot) = PROCESSES.get(process_slot) else { return };
        if slot.witness_window == WitnessWindow::Closed as u32 {
            return;
        }
        let Some(chain) = chain_of(identity, 0) else { return };
        (*chain).accepts = slot.accepts_entries;
        (*chain).window = slot.witness_window;
        (*chain).density = slot.witness_density;
        (*chain).process_slot = process_slot;
        (*chain).stack_pointer = stack_pointer;
        (*chain).entering = 0;
        (*chain).is_over = 0;
        if look(chain, python_thread) != 0 {
            begin_new(identity);
        }
    }
}

/// When the last witness on this thread was; 0 if there was none.
#[inline(always)]
pub fn last_witness(key: u64) -> u64 {
    // SAFETY: a checked map value used by this thread alone.
    PYTHON_CHAINS.get_ptr(key).map_or(0, |chain| unsafe { (*chain).last_ns })
}

/// Forgets the frames of a thread that ends.
#[inline(always)]
pub fn forget(key: u64) {
    // It may have none.
    let _ = PYTHON_CHAINS.remove(key);
}

/// The chain of the Python code that ran on this thread last; made if that is wanted.
#[inline(always)]
pub fn chain_of(identity: u64, is_wanted: u32) -> Option<*mut Chain> {
    let main = match PYTHON_CHAINS.get_ptr_mut(identity) {
        Some(main) => main,
        None if is_wanted != 0 => made(identity)?,
        None => return None,
    };
    // SAFETY: a checked map value used by this thread alone.
    let greenlet = unsafe { (*main).greenlet };
    if greenlet == 0 { Some(main) } else { PYTHON_CHAINS.get_ptr_mut(python_greenlets::key_of(u64::from(greenlet))) }
}

#[inline(never)]
fn made(key: u64) -> Option<*mut Chain> {
    PYTHON_CHAINS.insert(key, EMPTY_CHAIN.get(0)?, 0).ok()?;
    let chain = PYTHON_CHAINS.get_ptr_mut(key)?;
    // SAFETY: as above.
    unsafe { (*chain).key = key };
    Some(chain)
}

/// Looks at the frames of this thread. Not 0 if calls may begin ([`begin_new`]). A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look(chain: *mut Chain, python_thread: u64) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() || python_thread == 0 {
        return 0;
    }
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let walk = walk_from_innermost(chain, python_thread);
        if walk != MET_NOTHING || (*chain).length == 0 || (*chain).is_over != 0 {
            return update(chain, walk, RecordEnding::Vanished as u32);
        }
        let root = python_greenlets::root_of((*chain).process_slot, python_thread);
        if root == (*chain).root_chunk {
            // Nothing that was there is there: without other frames all of it has ended. With other ones, or where another
            // greenlet could not be told, it is not known what has become of it.
            let is_known = root != 0 && (*chain).walked == 0;
            let ending = if is_known { RecordEnding::Vanished } else { RecordEnding::Unobserved };
            return update(chain, walk, ending as u32);
        }
        let Some(other) = chain_of_root(root, python_thread) else { return 0 };
        (*other).accepts = (*chain).accepts;
        (*other).window = (*chain).window;
        (*other).density = (*chain).density;
        (*other).is_away = (*chain).is_away;
        (*other).process_slot = (*chain).process_slot;
        (*other).stack_pointer = (*chain).stack_pointer;
        (*other).entering = (*chain).entering;
        (*other).is_over = 0;
        let walk = walk_from_innermost(other, python_thread);
        let is_known = walk == MET || (*other).walked == 0;
        let ending = if is_known { RecordEnding::Vanished } else { RecordEnding::Unobserved };
        update(other, walk, ending as u32)
    }
}

/// Begins the calls that were found to be new, outermost first. After the look, not inside it: chains of calls are short. A global
/// function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn begin_new(identity: u64) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    let Some(chain) = chain_of(identity, 0) else { return 0 };
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let kept = (*chain).kept;
        for step in 0..MAX_CHAIN as u32 {
            let place = kept.wrapping_add(step);
            if place >= bound(&raw const (*chain).length) {
                return 0;
            }
            if (*known(chain, place)).is_new != 0 {
                begin(chain, place);
            }
        }
    }
    0
}

/// # Safety
/// `chain` must be checked.
#[inline(always)]
unsafe fn walk_from_innermost(chain: *mut Chain, python_thread: u64) -> u64 {
    // SAFETY: promised by the caller.
    unsafe {
        let Some(layout) = PYTHON_LAYOUTS.get((*chain).process_slot) else { return GAVE_UP };
        (*chain).now_ns = bpf_ktime_get_ns();
        let entering = (*chain).entering;
        (*chain).block = 0;
        (*chain).entering_code = 0;
        if layout.style == FrameStyle::Heap as u32 && entering != 0 && find_read(chain, entering) {
            // It knows its caller already.
            (*chain).walking = word(chain, layout.frame_previous);
            (*chain).entering_code = word(chain, layout.frame_code);
        } else {
            let current = current_frame(layout, python_thread);
            (*chain).walking = current;
            if layout.style != FrameStyle::Heap as u32 && current != 0 && walks_whole(chain) {
                read_stack(chain, layout, python_thread);
            } else if layout.style != FrameStyle::Heap as u32 && current != 0 {
                // A frame that is entered mostly stands right after the current one.
                let is_next = entering.wrapping_sub(current) < u64::from(USUAL_BLOCK_BYTES - HEADER_BYTES);
                let first = outermost_around(chain, current);
                read_block(chain, first, if is_next { entering } else { current });
                if is_next && (*chain).block != 0 && find_read(chain, entering) {
                    (*chain).entering_code = word(chain, layout.frame_code) & layout.pointer_mask;
                }
            }
        }
        if (*chain).python_thread != python_thread {
            (*chain).python_thread = python_thread;
            (*chain).root_chunk = python_greenlets::root_of((*chain).process_slot, python_thread);
        }
        if layout.style == FrameStyle::Heap as u32 && is_innermost_known(chain) {
            return MET;
        }
        if chain_goes_on(chain) != 0 {
            return SETTLED;
        }
        chain_walk(chain)
    }
}

/// Whether the innermost heap frame was there at the last witness: each is entered by C code.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
unsafe fn is_innermost_known(chain: *mut Chain) -> bool {
    // SAFETY: promised by the caller.
    unsafe {
        (*chain).walked = 1;
        (*chain).around = 0;
        let innermost = walked(chain, 0);
        (*innermost).frame = (*chain).walking;
        (*innermost).instruction = 0;
        (*innermost).is_entry = 1;
        (*chain).walking != 0 && chain_find(chain) != 0
    }
}

/// The chain of the greenlet whose data stack begins with this piece.
#[inline(always)]
fn chain_of_root(root: u64, python_thread: u64) -> Option<*mut Chain> {
    let identity = bpf_get_current_pid_tgid();
    let main = PYTHON_CHAINS.get_ptr_mut(identity)?;
    let thread = stack::of_current_thread(identity)?;
    // SAFETY: checked map values used by this thread alone.
    unsafe {
        (*thread).python_thread = python_thread;
        if (*thread).root_chunk == 0 {
            (*thread).root_chunk = (*main).root_chunk;
        }
        let number = if root == (*main).root_chunk { 0 } else { python_greenlets::number_of(thread, root) };
        if number == 0 && root != (*main).root_chunk {
            return None;
        }
        (*main).greenlet = number as u32;
        if number == 0 {
            return Some(main);
        }
        let key = python_greenlets::key_of(number);
        match PYTHON_CHAINS.get_ptr_mut(key) {
            Some(chain) => Some(chain),
            None => made(key),
        }
    }
}

/// Puts what was walked in the place of what is remembered. Calls that are gone end like this. Not 0 if calls may begin. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn update(chain: *mut Chain, walk: u64, ending: u32) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() || walk >= GAVE_UP {
        return 0;
    }
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        if walk == MET {
            chain_compare(chain);
        } else {
            ((*chain).base, (*chain).kept, (*chain).repeated) = (0, 0, 0);
        }
        let kept = (*chain).kept;
        let (now, last) = ((*chain).now_ns, (*chain).last_ns);
        // What is there where nothing is remembered began at an unknown time, unless nothing was there at the last look.
        let has_begun = u32::from(walk == MET || (last != 0 && (*chain).length == 0));
        (*chain).since_last_ns = if last == 0 { 0 } else { now - last };
        (*chain).last_ns = now;
        (*chain).was_sparse = u32::from((*chain).density == WitnessDensity::Sparse as u32);
        // The verifier follows a loop to its end only if it begins at a constant.
        for step in 0..MAX_CHAIN as u32 {
            let place = kept.wrapping_add(step);
            if place >= bound(&raw const (*chain).length) {
                break;
            }
            let call = (*known(chain, place)).call;
            // Where it is not open any more, because an exception was seen to leave it, one inside may be.
            if call != 0 && end_gone(chain, call, ending) != 0 {
                break;
            }
        }
        (*chain).length = kept;
        if kept < (*chain).unseen {
            (*chain).unseen = 0;
        }
        mark_repeated(chain);
        let mut may_begin = 0;
        let first = kept.wrapping_sub((*chain).base);
        for step in 0..MAX_WALK as u32 {
            let index = first.wrapping_add(step);
            if index >= bound(&raw const (*chain).walked) {
                break;
            }
            may_begin |= add(chain, index, has_begun);
        }
        may_begin | add_entering(chain)
    }
}

/// Remembers a frame that is new. 1 if its call may begin. A global function, so that the loop around it has one way only.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn add(chain: *mut Chain, index: u32, has_begun: u32) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        let place = (*chain).length;
        if place as usize >= MAX_CHAIN {
            return 0;
        }
        let new = walked(chain, index);
        let is_entry = (*new).is_entry != 0 || place == 0;
        let base = if is_entry { place } else { (*known(chain, place - 1)).base };
        let may_be_wanted = may_be_wanted((*chain).process_slot, (*new).code);
        let is_new = has_begun != 0 && (*chain).accepts != 0 && may_be_wanted;
        if has_begun == 0 && may_be_wanted {
            note_unseen(chain, (*new).code);
        }
        remember(chain, (*new).frame, (*new).identity, (*new).instruction, (base, is_new));
        u64::from(is_new)
    }
}

/// Remembers the frame that C code enters at this witness: its call begins now. 1 if it may be wanted.
///
/// # Safety
/// `chain` must be checked.
#[inline(always)]
unsafe fn add_entering(chain: *mut Chain) -> u64 {
    // SAFETY: promised by the caller.
    unsafe {
        let frame = (*chain).entering;
        let Some(layout) = PYTHON_LAYOUTS.get((*chain).process_slot) else { return 0 };
        if frame == 0 {
            return 0;
        }
        let known_code = (*chain).entering_code;
        let code = if known_code == 0 { code_of(layout, frame) } else { known_code };
        let is_wanted = (*chain).accepts != 0 && may_be_wanted((*chain).process_slot, code);
        let place = (*chain).length;
        if place as usize >= MAX_CHAIN {
            if is_wanted {
                lose(chain, code);
            }
            return 0;
        }
        remember(chain, frame, 0, 0, (place, is_wanted));
        u64::from(is_wanted)
    }
}

/// # Safety
/// `chain` must be checked, and have room.
#[inline(always)]
pub unsafe fn remember(chain: *mut Chain, frame: u64, identity: u64, instruction: u64, (base, is_new): (u32, bool)) {
    // SAFETY: promised by the caller.
    unsafe {
        let place = (*chain).length;
        let new = known(chain, place);
        (*new).frame = frame;
        // Volatile: the compiler would else call a function that clears them byte by byte.
        core::ptr::write_volatile(&raw mut (*new).identity, identity);
        core::ptr::write_volatile(&raw mut (*new).instruction, instruction);
        core::ptr::write_volatile(&raw mut (*new).first_instruction, instruction);
        core::ptr::write_volatile(&raw mut (*new).call, 0);
        core::ptr::write_volatile(&raw mut (*new).around, 0);
        (*new).base = base;
        (*new).is_new = u32::from(is_new);
        (*chain).length = place + 1;
    }
}

/// Whether code may be of those that are wanted. Most other code is told by one bit.
#[inline(always)]
pub fn may_be_wanted(process_slot: u32, code: u64) -> bool {
    let Some(wanted) = PYTHON_WANTED.get(process_slot) else { return false };
    let bit = wanted_bit(code);
    wanted.bits[(bit / 64) as usize & (WANTED_WORDS - 1)] >> (bit % 64) & 1 != 0
}
