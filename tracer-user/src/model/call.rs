//! What comes out of the kernel: bytes, then events.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracer_common::counters::Counter;
use tracer_common::limits::MAX_ARGUMENTS;
use tracer_common::records::WideCallRecord;
use zerocopy::IntoBytes as _;

use super::current_span::CurrentSpanEvent;
use super::request::{ContextEvent, PythonContext, SocketEvent};
use super::units::{FunctionId, MonotonicNs, RemoteAddress, ThreadId};

/// The bytes of one record, as the ring buffer or a tape held them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord<'bytes>(pub &'bytes [u8]);

/// A decoded record.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every event is a call; a box would cost each of them an allocation"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A call has ended, or was open when the tracer ended.
    Call(Call),
    /// Something has happened to a followed process.
    Process(ProcessEvent),
    /// The programs have seen a thread for the first time.
    Thread(ThreadEvent),
    /// A process has done something with a connection that it is asked over.
    Socket(SocketEvent),
    /// A context of a process that is asked something was made or freed.
    Context(ContextEvent),
    /// A thread was in a span of an SDK when an outermost call, or an answer, began.
    CurrentSpan(CurrentSpanEvent),
}

/// One call. See `tracer_common::records::CallRecord` for the meaning of each field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Process id in the initial pid namespace.
    pub process: u32,
    /// The thread.
    pub thread: ThreadId,
    /// When the programs first saw the thread.
    pub thread_first_seen: MonotonicNs,
    /// The function.
    pub function: FunctionId,
    /// Counts the records of calls of the thread from 1; calls that were open at the end count on, innermost first. 0: not
    /// known.
    pub sequence: u64,
    /// Number of the call on its thread.
    pub call: u64,
    /// Call that it is nested in.
    pub parent_call: Option<u64>,
    /// Outermost call of the tree.
    pub root_call: u64,
    /// Open calls below it on its thread.
    pub depth: u32,
    /// Entry.
    pub start: MonotonicNs,
    /// End; an upper bound where the ending says so.
    pub end: MonotonicNs,
    /// How it ended.
    pub ending: CallEnding,
    /// Whether it was made on the stack that its thread was started with, as far as is known. What is around a call on
    /// another one (a fiber) is not known, and it has no place among the records of its thread.
    pub is_on_own_stack: bool,
    /// The object, if it has one.
    pub object: Option<RemoteAddress>,
    /// Matching calls inside that became no span of their own.
    pub folded_calls: u64,
    /// Captured arguments; `None` where reading failed or nothing was asked for.
    pub arguments: [Option<u64>; MAX_ARGUMENTS],
    /// Python: the type of the receiver, if it was seen.
    pub class: Option<RemoteAddress>,
    /// The call of another thread that this call's tree is part of.
    pub join: Option<Join>,
    /// It began no longer than so many nanoseconds before `start`; 0: `start` is when it began.
    pub start_uncertainty_ns: u64,
    /// Whether it may be several calls, because nothing between them was seen.
    pub may_be_several: bool,
    /// Outermost calls: the context of Python code that the thread was in when the call began, if that was read.
    pub context: Option<PythonContext>,
    /// Outermost calls: it began in a span of an SDK, and the record of that was lost.
    pub has_lost_span: bool,
}

/// How a call ended, as its record tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnding {
    /// Its return was seen.
    Returned {
        /// The returned bits; `None` if the record does not say.
        value: Option<u64>,
    },
    /// It was left without a return: exception, longjmp.
    Unwound {
        /// Python: the type of the exception, if it was seen.
        exception: Option<RemoteAddress>,
        /// Whether the end is when it was left; otherwise it is when that was noticed.
        is_end_exact: bool,
    },
    /// Its thread ended, or executed another program, while it was open.
    ThreadEnded,
    /// Nobody looked any more when it ended: its probe had been taken away, or it was on another stack.
    Unobserved,
    /// It was open when the tracer ended.
    Open,
    /// Python: its frame was found gone, without an exception that is known to have left it.
    Vanished {
        /// It ended no longer than so many nanoseconds before `end`.
        uncertainty_ns: u64,
    },
}

/// Something has happened to a followed process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessEvent {
    /// Process id in the initial pid namespace.
    pub process: u32,
    /// When.
    pub time: MonotonicNs,
    /// What.
    pub change: ProcessChange,
}

/// What has happened to a process, see `tracer_common::records::ProcessChange`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessChange {
    /// It was forked by this one.
    Forked(u32),
    /// It runs another program.
    Executed,
    /// Its first thread has ended.
    Ended,
    /// It has stopped itself at the first object of a class.
    Stopped,
}

/// The programs have seen a thread for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadEvent {
    /// Process id in the initial pid namespace.
    pub process: u32,
    /// The thread.
    pub thread: ThreadId,
    /// When: what the records of its calls say too.
    pub first_seen: MonotonicNs,
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
}

/// A call that was open when the kernel side was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCall {
    /// Its record, as if it ended now.
    pub record: WideCallRecord,
    /// Whether it is a Python call: the identity of its frame is no address on the stack.
    pub is_python: bool,
    /// The addresses, from the first to before the last, that can be compared with its stack pointer because they are on
    /// the same stack. Empty where no others are known to be.
    pub same_stack: Range<RemoteAddress>,
}

impl OpenCall {
    /// The record as the ring buffer would have held it.
    #[must_use]
    pub fn raw(&self) -> RawRecord<'_> {
        RawRecord(self.record.as_bytes())
    }
}

/// A time in which not every call of a process was seen to begin: probes came, went, or changed places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Process id in the initial pid namespace; `None`: all of them.
    pub process: Option<u32>,
    /// When it began.
    pub from: MonotonicNs,
    /// From when on every call is seen again; `None` as long as that is not so.
    pub to: Option<MonotonicNs>,
}

/// Where a tree of calls hangs that was joined to a call of another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// Parent of the tree's outermost call.
    pub parent: ForeignCall,
    /// Outermost call of the whole trace.
    pub trace: ForeignCall,
}

/// A call of another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignCall {
    /// The thread.
    pub thread: ThreadId,
    /// When the programs first saw it.
    pub first_seen: MonotonicNs,
    /// Number of the call on it.
    pub call: u64,
}

/// Totals read from the kernel side once all probes are gone. `entries = spans + folded + lost + open`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossCounts {
    /// Calls seen to begin.
    pub entries: u64,
    /// Calls whose record was submitted.
    pub spans: u64,
    /// Calls folded into their caller.
    pub folded: u64,
    /// Calls still open.
    pub open: u64,
    /// Lost calls by reason (the number of a `Counter`), only reasons that occurred.
    pub lost: Vec<LossOfReason>,
    /// Returns for which no call was open; no loss.
    pub returns_without_entry: u64,
    /// Hits of watchpoints that the kernel did not know for ones, and that were recognised all the same. Not a loss.
    #[serde(default)]
    pub hits_without_cause: u64,
    /// Records of what was done with connections that were lost. No call is lost with them.
    #[serde(default)]
    pub socket_records_lost: u64,
    /// Connections that were not looked at for want of room. Likewise.
    #[serde(default)]
    pub connections_lost: u64,
    /// Records of contexts of Python code that were lost. Likewise.
    #[serde(default)]
    pub context_records_lost: u64,
    /// Records of the spans of an SDK that calls began in, which were lost. Likewise.
    #[serde(default)]
    pub span_records_lost: u64,
}

/// Calls lost for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossOfReason {
    /// Number of the reason: a [`Counter`] for which `is_loss` holds.
    pub reason: u32,
    /// Lost calls.
    pub calls: u64,
}

const UNKNOWN_REASON: &str = "a reason that this version does not know";

impl LossOfReason {
    /// The reason in a few words, for people.
    #[must_use]
    pub fn sentence(&self) -> &'static str {
        let Some(counter) = Counter::ALL.get(self.reason as usize) else { return UNKNOWN_REASON };
        // No wildcard: a new counter does not compile until somebody has decided what to say of it.
        match counter {
            Counter::LostRingFull => "the ring buffer was full: the tracer got too little processor time",
            Counter::LostStackFull => "nested deeper than 64 traced calls",
            Counter::LostThreadTableFull => "more than 8192 threads at once, or 64 greenlets of one thread",
            Counter::LostUnknownFunction => "a Python function that was defined since the last look at the process",
            Counter::LostUnclear => "a call that could not be told from another use of its code object",
            Counter::LostOtherStacksFull => {
                "more than 16384 calls open at once on other stacks than their threads' own"
            }
            Counter::Entries
            | Counter::Spans
            | Counter::Folded
            | Counter::ReturnsWithoutEntry
            | Counter::HitsWithoutCause
            | Counter::LostSocketRecords
            | Counter::LostConnections
            | Counter::LostContextRecords
            | Counter::LostSpanRecords
            | Counter::UnixConnections => UNKNOWN_REASON,
        }
    }
}

impl LossCounts {
    /// Lost calls of all reasons.
    #[must_use]
    pub fn lost_total(&self) -> u64 {
        self.lost.iter().map(|loss| loss.calls).sum()
    }
}
