//! What travels through the ring buffer.
//!
//! Every record says its kind and its size, so that records of other versions can be read: a field is added at the end of
//! its struct and nowhere else, 0 says "not there", and no field is moved, removed or given another meaning. A shorter
//! record is then one without its last fields, and what a longer one has in addition is left alone.

use crate::limits::MAX_ARGUMENTS;

/// First field of every record; tells how to read the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct RecordHeader {
    /// One of [`RecordKind`].
    pub kind: u16,
    /// Bytes of the first part of a record that has two, header included; 0 for a record of one part.
    pub first_part: u16,
    /// Bytes of the whole record, header included.
    pub size: u32,
}

impl RecordHeader {
    /// Header of a record of one part.
    #[must_use]
    #[inline(always)]
    pub const fn new(kind: RecordKind, size: usize) -> Self {
        Self { kind: kind as u16, first_part: 0, size: size as u32 }
    }

    /// Header of a [`WideCallRecord`].
    #[must_use]
    #[inline(always)]
    pub const fn of_wide_call() -> Self {
        Self {
            kind: RecordKind::WideCall as u16,
            first_part: size_of::<CallRecord>() as u16,
            size: size_of::<WideCallRecord>() as u32,
        }
    }
}

/// Kinds of records. Numbers are never reused; user space must accept unknown ones as errors, not panics. 4 and 5 are
/// kept for payloads and samples, which nothing makes yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum RecordKind {
    /// A [`CallRecord`].
    Call = 1,
    /// A [`WideCallRecord`]: a Python call, or any call in a tree that is joined to another thread's.
    WideCall = 2,
    /// A [`SocketRecord`], and behind it bytes of a request or of an answer.
    Request = 3,
    /// A [`ProcessRecord`].
    Process = 6,
    /// A [`ThreadRecord`].
    Thread = 7,
    /// A [`ContextRecord`].
    Context = 8,
    /// A [`CurrentSpanRecord`].
    CurrentSpan = 9,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RecordEnding {
    /// Its return was seen: `end_ns` and `return_value` are exact.
    Returned = 1,
    /// It was left without a return (exception, longjmp): `end_ns` is when that was noticed, an upper bound.
    Unwound = 2,
    /// Its thread or process ended, or executed another program, while it was open: `end_ns` is when.
    ThreadEnded = 3,
    /// An exception left it, and that was seen when it happened: `end_ns` is exact.
    Raised = 4,
    /// It was not looked at any more when it ended: its probe had been taken away meanwhile, or it was on another stack
    /// than its thread's own and has been left. `end_ns` is when that was noticed.
    Unobserved = 5,
    /// It had not ended when the tracer ended: `end_ns` is when the tracer looked. User space makes such records.
    Open = 6,
    /// A Python call whose frame was found gone, without an exception that is known to have left it: `end_ns` is when that was
    /// noticed, and [`WidePart::end_uncertainty_ns`] how long before it may have been.
    Vanished = 7,
    /// It was left by a jump into another function, which returns in its place: `end_ns` is when, and what is returned is not known.
    Jumped = 8,
}

/// One call, 152 bytes. What a record must have ends with `end_ns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct CallRecord {
    /// Kind [`RecordKind::Call`].
    pub header: RecordHeader,
    /// Process (thread group) as the initial pid namespace numbers it.
    pub process: u32,
    /// Thread, likewise.
    pub thread: u32,
    /// Number of the function, from the cookie.
    pub function: u32,
    /// One of [`RecordEnding`].
    pub ending: u32,
    /// Open calls below this one on its thread: 0 for a root.
    pub depth: u32,
    /// Arguments that could be read, a bit each.
    pub arguments_read: u32,
    /// When the programs first saw this thread (monotonic ns); tells reused thread ids apart.
    pub thread_first_seen_ns: u64,
    /// Counts the records of calls of this thread from 1, lost ones included: a gap is a loss. 0: a call on another stack
    /// than the thread's own, which has no place among them.
    pub sequence: u64,
    /// Number of the call on this thread, from 1.
    pub call: u64,
    /// Call that this one is nested in, 0 for a root.
    pub parent_call: u64,
    /// Outermost call of the tree; equal to `call` for a root.
    pub root_call: u64,
    /// Monotonic ns at entry.
    pub start_ns: u64,
    /// Monotonic ns at the end; see [`RecordEnding`].
    pub end_ns: u64,
    /// Identity of the frame. Native: address of the return address. Python: address of the frame, or of the caller's.
    pub stack_pointer: u64,
    /// Address of the object, 0 if there is none.
    pub object: u64,
    /// `rax` at the return; 0 unless the ending is `Returned`, and for a Python call.
    pub return_value: u64,
    /// Matching calls inside this one that became no span of their own.
    pub folded_calls: u64,
    /// Captured arguments, in the order of the symbol map.
    pub arguments: [u64; MAX_ARGUMENTS],
}

/// A call of one thread, as records of another thread name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Join {
    /// Thread of the call that is the parent of the tree's outermost call; 0: the tree is not joined.
    pub parent_thread: u32,
    /// Thread of the outermost call of the whole trace.
    pub trace_thread: u32,
    /// When the programs first saw `parent_thread`.
    pub parent_first_seen_ns: u64,
    /// Number of the parent on its thread.
    pub parent_call: u64,
    /// When the programs first saw `trace_thread`.
    pub trace_first_seen_ns: u64,
    /// Number of the outermost call of the trace on its thread.
    pub trace_call: u64,
}

/// What Python calls and calls in joined trees have in addition: the second part of a [`WideCallRecord`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct WidePart {
    /// Address of the type of the receiver, 0 if it was not seen or for a native call.
    pub class: u64,
    /// Address of the type of the exception that left the call, 0 if none was seen.
    pub exception: u64,
    /// Where the tree hangs.
    pub join: Join,
    /// A call that was found running: it began no longer than this before `start_ns`. 0: `start_ns` is exact.
    pub start_uncertainty_ns: u64,
    /// A call that was found gone: it ended no longer than this before `end_ns`.
    pub end_uncertainty_ns: u64,
    /// 1 if it may be several calls: nothing between them was seen.
    pub calls_merged: u32,
    /// A [`ContextState`], of the thread when an outermost call began, and perhaps [`HAS_LOST_SPAN`].
    pub context_state: u32,
    /// Address of the `contextvars.Context` that the thread was in then, 0 for none.
    pub context: u64,
}

/// What is known of the context (`contextvars.Context`) that a thread runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ContextState {
    /// It was not read.
    NotRead = 0,
    /// Nobody has entered it, or the thread has none.
    NotEntered = 1,
    /// Somebody has entered it.
    Entered = 2,
}

/// A call in two parts, 240 bytes. Each part can grow at its end: the header says where the second one begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct WideCallRecord {
    /// What every call has, with kind [`RecordKind::WideCall`].
    pub call: CallRecord,
    /// What only some have.
    pub wide: WidePart,
}

/// Bytes of the first part of a [`WideCallRecord`] that does not say it: those of the first version.
pub const FIRST_PART_OF_OLD: usize = 152;

/// What has happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ProcessChange {
    /// It was forked by `parent`.
    Forked = 1,
    /// It runs another program now.
    Executed = 2,
    /// Its first thread has ended: its other threads, if it has any, may go on.
    Ended = 3,
    /// It has stopped itself at the first object of a class that is asked for.
    Stopped = 4,
}

/// Something has happened to a followed process, 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct ProcessRecord {
    /// Kind [`RecordKind::Process`].
    pub header: RecordHeader,
    /// The process.
    pub process: u32,
    /// One of [`ProcessChange`].
    pub change: u32,
    /// When, monotonic ns.
    pub time_ns: u64,
    /// The process that has forked it, 0 if it was not forked now.
    pub parent: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Bytes of a thread's name (`TASK_COMM_LEN` in include/linux/sched.h, Linux 6.18).
pub const THREAD_NAME_BYTES: usize = 16;

/// The programs see a thread for the first time, or the first call of a further greenlet on it, 40 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct ThreadRecord {
    /// Kind [`RecordKind::Thread`].
    pub header: RecordHeader,
    /// Process.
    pub process: u32,
    /// Thread.
    pub thread: u32,
    /// When, monotonic ns: what records of its calls say too.
    pub first_seen_ns: u64,
    /// Its name, ended by a 0.
    pub name: [u8; THREAD_NAME_BYTES],
}

/// What was done with a connection that a process is asked over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SocketAction {
    /// It was accepted.
    Accepted = 1,
    /// Bytes were read from it.
    Read = 2,
    /// Bytes were written to it.
    Written = 3,
    /// It was closed.
    Closed = 4,
}

/// Bytes of a request that one record has room for; a longer read makes several.
pub const MAX_CAPTURED: usize = 4096;

/// A process has done something with a connection: 72 bytes, and behind them the bytes that were captured, up to the next multiple
/// of 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct SocketRecord {
    /// Kind [`RecordKind::Request`]; the captured bytes are the second part.
    pub header: RecordHeader,
    /// Process.
    pub process: u32,
    /// Thread.
    pub thread: u32,
    /// The descriptor of the connection.
    pub descriptor: u32,
    /// One of [`SocketAction`].
    pub action: u32,
    /// When it had been done, monotonic ns.
    pub time_ns: u64,
    /// When the connection was accepted, or the programs were told of it.
    pub opened_ns: u64,
    /// Bytes that were read or written.
    pub length: u64,
    /// How many of them were captured: the first ones.
    pub captured: u32,
    /// Any of [`WAS_BEFORE`], [`HAS_LOST`] and [`NEVER_WAITS`].
    pub flags: u32,
    /// Address of the `contextvars.Context` that the thread was in where it began an answer, 0 for none.
    pub context: u64,
    /// A [`ContextState`].
    pub context_state: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A context (`contextvars.Context`) of a traced process was made, or is there no more, 48 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct ContextRecord {
    /// Kind [`RecordKind::Context`].
    pub header: RecordHeader,
    /// Process.
    pub process: u32,
    /// 1 if it was made, 0 if it was freed.
    pub is_made: u32,
    /// When, monotonic ns.
    pub time_ns: u64,
    /// Its address.
    pub context: u64,
    /// Address of the one that the thread was in when this one was made as a copy, 0 for none.
    pub current: u64,
    /// Such records of the process that were lost before.
    pub lost: u64,
}

/// The span of an OpenTelemetry SDK in a traced process that a thread is in, 72 bytes: told before anything that is said of what
/// the thread does in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct CurrentSpanRecord {
    /// Kind [`RecordKind::CurrentSpan`].
    pub header: RecordHeader,
    /// Process.
    pub process: u32,
    /// Thread.
    pub thread: u32,
    /// When the programs first saw this thread, as records of its calls say.
    pub thread_first_seen_ns: u64,
    /// Number of the outermost call that begins in the span, on this thread; 0: the thread begins an answer.
    pub call: u64,
    /// The first half of the trace id, as a number.
    pub trace_id_high: u64,
    /// The second half.
    pub trace_id_low: u64,
    /// The span id, as a number.
    pub span_id: u64,
    /// When the span began, nanoseconds since 1970 by the clock of the process; 0: not known.
    pub started_ns: u64,
    /// Any of [`SPAN_IS_SAMPLED`], [`SPAN_IS_REMOTE`], [`SPAN_IS_SERVER`] and [`SPAN_HAS_LOCAL_PARENT`].
    pub flags: u32,
    /// Always 0.
    pub reserved: u32,
}

/// The span is recorded.
pub const SPAN_IS_SAMPLED: u32 = 1;
/// The span is another process's: nothing was begun in this one.
pub const SPAN_IS_REMOTE: u32 = 2;
/// The span is that of a request.
pub const SPAN_IS_SERVER: u32 = 4;
/// The span is inside another one of this process.
pub const SPAN_HAS_LOCAL_PARENT: u32 = 8;

/// Beside a [`ContextState`] in the record of an outermost call: it was in a span of an SDK, and the record of that was lost.
pub const HAS_LOST_SPAN: u32 = 1 << 8;

/// The connection was there before the programs were told of it.
pub const WAS_BEFORE: u32 = 1;
/// A record of the connection was lost before this one.
pub const HAS_LOST: u32 = 2;
/// The thread did not wait for the connection, or would not have waited: somebody else tells it when there is something to do.
pub const NEVER_WAITS: u32 = 4;

const _: () = {
    assert!(size_of::<SocketRecord>() == 72);
    assert!(size_of::<ContextRecord>() == 48);
    assert!(size_of::<CurrentSpanRecord>() == 72);
    assert!(size_of::<RecordHeader>() == 8);
    assert!(size_of::<CallRecord>() == 152);
    assert!(size_of::<Join>() == 40);
    assert!(size_of::<WidePart>() == 88);
    assert!(size_of::<WideCallRecord>() == size_of::<CallRecord>() + size_of::<WidePart>());
    assert!(size_of::<ProcessRecord>() == 32);
    assert!(size_of::<ThreadRecord>() == 40);
};
