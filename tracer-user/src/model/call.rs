//! What comes out of the kernel: bytes, then events.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use tracer_common::counters::Counter;
use tracer_common::limits::MAX_ARGUMENTS;

use super::span::Ending;
use super::units::{FunctionId, MonotonicNs, RemoteAddress, ThreadId};

/// The bytes of one record, as the ring buffer or a tape held them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord<'bytes>(pub &'bytes [u8]);

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A call has ended.
    Call(Call),
}

/// What a tape says that was written before this was told.
const fn on_own_stack() -> bool {
    true
}

/// One finished call. See `tracer_common::records::CallRecord` for the meaning of each field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Process id in the initial pid namespace.
    pub process: u32,
    /// The thread.
    pub thread: ThreadId,
    /// The function.
    pub function: FunctionId,
    /// How it ended: `Returned` or `Unwound`, or `StillOpen` for a call read from the stacks at detach.
    pub ending: Ending,
    /// Whether its thread ended, or executed another program, while the call was open.
    pub thread_ended: bool,
    /// Open calls below it on its thread.
    pub depth: u32,
    /// When the programs first saw the thread.
    pub incarnation: MonotonicNs,
    /// Counts the records of the thread from 1; a call read from the stacks at detach counts on, innermost first. 0:
    /// not known.
    pub sequence: u64,
    /// Number of the call on its thread.
    pub call: u64,
    /// Call that it is nested in.
    pub parent_call: Option<u64>,
    /// Outermost call of the tree.
    pub root_call: u64,
    /// Entry.
    pub start: MonotonicNs,
    /// End; an upper bound unless `end_observed`.
    pub end: MonotonicNs,
    /// Whether `end` is the instant at which the call ended: always for `Returned`, and for a Python call that was seen
    /// being left by an exception.
    #[serde(default)]
    pub end_observed: bool,
    /// Whether its probe was taken away while it was open, so that its end was not seen: `StillOpen`, and yet a record.
    #[serde(default)]
    pub let_go: bool,
    /// Whether it is a Python call that was open at detach: the identity of its frame is no address on the stack.
    #[serde(default)]
    pub is_python: bool,
    /// Identity of the frame.
    pub stack_pointer: RemoteAddress,
    /// Whether it was made on the stack that its thread was started with, as far as is known. What is around a call on
    /// another one (a fiber) is not known, and it has no place among the records of its thread.
    #[serde(default = "on_own_stack")]
    pub is_on_own_stack: bool,
    /// Of a call that was open at detach: the addresses, from the first to before the last, that can be compared with its
    /// stack pointer because they are on the same stack. Empty where no others are known to be; `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_stack: Option<Range<RemoteAddress>>,
    /// The object, if it has one.
    pub object: Option<RemoteAddress>,
    /// Returned bits, if it returned.
    pub return_value: Option<u64>,
    /// Matching calls inside that became no span of their own.
    pub folded_calls: u64,
    /// Captured arguments; `None` where reading failed or nothing was asked for.
    pub arguments: [Option<u64>; MAX_ARGUMENTS],
    /// Python: the type of the receiver, if it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<RemoteAddress>,
    /// Python: the type of the exception that left the call, if it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<RemoteAddress>,
    /// The call of another thread that this call's tree is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Join>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Parent of the tree's outermost call.
    pub parent: ForeignCall,
    /// Outermost call of the whole trace.
    pub trace: ForeignCall,
}

/// A call of another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignCall {
    /// The thread.
    pub thread: ThreadId,
    /// When the programs first saw it.
    pub incarnation: MonotonicNs,
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
            Counter::LostUnclear => "could not be told from a reference to the code that somebody else took",
            Counter::LostOtherStacksFull => {
                "more than 16384 calls open at once on other stacks than their threads' own"
            }
            Counter::Entries
            | Counter::Spans
            | Counter::Folded
            | Counter::ReturnsWithoutEntry
            | Counter::HitsWithoutCause => UNKNOWN_REASON,
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
