//! What the programs keep of one thread: its open calls and what it has counted.

use crate::limits::{MAX_ARGUMENTS, MAX_DEPTH, MAX_GREENLETS};
use crate::records::{CurrentSpanRecord, Join};

/// One open call on a thread's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Frame {
    /// Identity of the frame. Native: address of the return address. Python: address of the frame, or of the caller's
    /// frame where `by_caller` is not 0.
    pub stack_pointer: u64,
    /// Number of the function.
    pub function: u32,
    /// 1 if matching calls inside become spans of their own.
    pub nests: u32,
    /// Monotonic ns at entry.
    pub start_ns: u64,
    /// Number of the call on this thread.
    pub call: u64,
    /// Matching calls folded into this one so far.
    pub folded_calls: u64,
    /// Frame identity of the outermost folded call that is still open inside this one, 0 if none.
    pub folded_below: u64,
    /// Address of the object, 0 if there is none.
    pub object: u64,
    /// Captured arguments.
    pub arguments: [u64; MAX_ARGUMENTS],
    /// Number of the call that this one is nested in, 0 for a root.
    pub parent_call: u64,
    /// Arguments that could be read, a bit each.
    pub arguments_read: u32,
    /// A [`FrameKind`].
    pub kind: u32,
    /// Index of the call that this one is folded into, if it is [`FrameKind::PythonFolded`].
    pub folded_into: u32,
    /// Python: slot of the process.
    pub process_slot: u32,
    /// Python: address of the type of the receiver, 0 if not seen.
    pub class: u64,
    /// Python: address of the code.
    pub code: u64,
    /// Python: address of the type of the exception that passed through the call last, 0 if none was seen.
    pub exception: u64,
    /// Python: the frame object that the exception passed through, 0 if none was seen.
    pub exception_frame: u64,
    /// Python: a [`crate::python::Receiver`].
    pub receiver: u32,
    /// Python: offset of the receiver's variable from the first one.
    pub receiver_offset: u32,
    /// Python, heap frames: the instruction of the caller that calls.
    pub call_instruction: u32,
    /// Python: 0 if `stack_pointer` is the frame itself, 1 if it is the frame of the caller.
    pub by_caller: u32,
    /// Python: where calls of other threads can find this call: [`FOUND_WAITING`], [`FOUND_OPEN`].
    pub found: u32,
    /// Python: [`ProcessSlot::python_epoch`] at entry.
    pub python_epoch: u32,
    /// Python: see [`crate::records::WidePart::start_uncertainty_ns`].
    pub start_uncertainty_ns: u64,
    /// Python: see [`crate::records::WidePart::calls_merged`].
    pub calls_merged: u32,
    /// Python: [`crate::chain::Chain::hits`] when the call was first seen.
    pub first_hit: u32,
}

/// The call is in a slot of the waiting containers; which one is told by the bits from [`FOUND_SLOT_SHIFT`] on.
pub const FOUND_WAITING: u32 = 1;
/// See [`FOUND_WAITING`].
pub const FOUND_SLOT_SHIFT: u32 = 8;
/// The call is in the map of open containers.
pub const FOUND_OPEN: u32 = 2;

/// What kind of call a frame is, and how far it has been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FrameKind {
    /// A native function.
    Native = 0,
    /// A Python function whose receiver is known, or known to be out of reach.
    Python = 1,
    /// A Python function that has just begun: its receiver is read at the next event of the thread.
    PythonPending = 2,
    /// A Python function that is folded into a call around it: it makes no record, and calls inside it are folded too.
    PythonFolded = 3,
}

/// What is known of a Python call when it begins. It is kept with the thread while calls that were left are ended: the
/// programs' own stack is too small for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Entering {
    /// The frame, or the caller's where `by_caller` is not 0; 0 while no call begins.
    pub frame: u64,
    /// The code.
    pub code: u64,
    /// The receiver, if it is known already, otherwise 0.
    pub object: u64,
    /// The function object, if it is known, otherwise 0.
    pub function_object: u64,
    /// The native stack pointer.
    pub stack_pointer: u64,
    /// Number of the function.
    pub function: u32,
    /// 1 if the function is found on a class whose instances list their children.
    pub of_container: u32,
    /// Heap frames: the instruction of the caller.
    pub call_instruction: u32,
    /// As in [`Frame::by_caller`].
    pub by_caller: u32,
    /// Process.
    pub process: u32,
    /// Slot of the process.
    pub process_slot: u32,
    /// A [`crate::python::Receiver`].
    pub receiver: u32,
    /// Offset of the receiver's variable from the first one.
    pub receiver_offset: u32,
}

/// What is kept for one thread: the value of the thread map.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ThreadStack {
    /// When the programs first saw this thread, monotonic ns.
    pub first_seen_ns: u64,
    /// Records made so far, lost ones included.
    pub sequence: u64,
    /// Entries seen so far; also the number of the newest call.
    pub entries: u64,
    /// Records submitted.
    pub spans: u64,
    /// Calls folded.
    pub folded: u64,
    /// Records that found no room in the ring buffer.
    pub lost_ring_full: u64,
    /// Calls nested deeper than [`MAX_DEPTH`].
    pub lost_stack_full: u64,
    /// Returns for which no call was open.
    pub returns_without_entry: u64,
    /// Entries counted whose call turned out to be of an excluded class; to be taken off `entries`.
    pub excluded: u64,
    /// Calls of Python functions that were not known yet.
    pub lost_unknown_function: u64,
    /// Address of the `PyThreadState`, 0 until the thread was seen to run Python code.
    pub python_thread: u64,
    /// Where the tree of the open calls hangs.
    pub join: Join,
    /// The Python call that begins now.
    pub entering: Entering,
    /// Calls that could not be told from references that somebody else has taken.
    pub lost_unclear: u64,
    /// Calls for which there was no room among those on other stacks than their threads' own.
    pub lost_other_stacks_full: u64,
    /// The lowest address of the stack that the thread was started with.
    pub own_start: u64,
    /// Bytes of that stack. Where nothing is known of it every address is on it.
    pub own_size: u64,
    /// Address of the oldest piece of the data stack that the calls of this stack stand on, 0 if not known or heap frames.
    pub root_chunk: u64,
    /// How long before now a call may have ended that is found gone now.
    pub end_uncertainty_ns: u64,
    /// Of a thread whose Python code changes stacks (greenlets): the oldest piece of the data stack that each further stack of
    /// this thread belongs to, 0 for a free one.
    pub greenlets: [u64; MAX_GREENLETS],
    /// Open calls.
    pub depth: u32,
    /// The thread.
    pub number: u32,
    /// 1 if an exception has passed through an open call.
    pub exceptions_noted: u32,
    /// What is known of `context`: a [`crate::records::ContextState`].
    pub context_state: u32,
    /// Address of the `contextvars.Context` in which the outermost open call began, 0 for none.
    pub context: u64,
    /// The open calls, outermost first; only `depth` of them hold anything.
    pub frames: [Frame; MAX_DEPTH],
    /// The record of the span of an SDK in which the outermost open call began: too large for the programs' own stack, and seldom used.
    pub current_span: CurrentSpanRecord,
}

/// What an open call on another stack than its thread's own is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct OtherStackKey {
    /// Address of the return address.
    pub stack_pointer: u64,
    /// Number of the function.
    pub function: u32,
    /// Process.
    pub process: u32,
}

/// An open call on another stack than its thread's own.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct OtherStackCall {
    /// When the programs first saw the thread that it began on, monotonic ns.
    pub first_seen_ns: u64,
    /// That thread.
    pub thread: u32,
    /// Always 0.
    pub reserved: u32,
    /// The call.
    pub frame: Frame,
}

const _: () = {
    assert!(size_of::<Frame>() == 184);
    assert!(size_of::<Entering>() == 72);
    assert!(size_of::<ThreadStack>() == 344 + 8 * MAX_GREENLETS + 184 * MAX_DEPTH);
    assert!(size_of::<OtherStackKey>() == 16);
    assert!(size_of::<OtherStackCall>() == 200);
    assert!(MAX_DEPTH.is_power_of_two());
};
