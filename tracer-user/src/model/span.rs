//! A span and what is known of its ends; what sinks receive.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::plan::FunctionDescription;
use super::symbol_map::ArgumentType;
use super::units::{ProcessId, ThreadId, WallClockNs};

/// W3C trace id, never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub [u8; 16]);

/// W3C span id, never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

/// What a span is nested in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// Nothing: it begins a trace.
    Root,
    /// Nothing that is known: it begins a trace, but was made on another stack than its thread's own.
    Unknown,
    /// This span.
    Span(SpanId),
    /// This span is around it, but not directly: the calls between were lost.
    Ancestor(SpanId),
}

/// How a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// It was left without a return: exception, longjmp.
    Unwound {
        /// Bare name of the class of the exception, if it is known.
        exception: Option<Arc<str>>,
    },
    /// Its thread or process ended, or executed another program, while it was open.
    ThreadEnded,
    /// It returned a value that means an error.
    Returned {
        /// The returned bits.
        bits: u64,
        /// How they are read.
        kind: ArgumentType,
    },
}

/// How a call ended, as far as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Its return was seen.
    Returned,
    /// It was left without a return: exception, longjmp, end of the thread. The end is an upper bound unless the span
    /// says that it was observed.
    Unwound,
    /// Its record was lost; it is known only because its children name it. Start and end are not observed.
    Lost,
    /// No end was seen by the time the tracer let go. The end is when the tracer looked.
    StillOpen,
}

/// One traced call.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Trace that it belongs to.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// What it is nested in.
    pub parent: Parent,
    /// The parent's thread, if it is another one: the call began a tree on its own thread that was joined to a call there.
    pub parent_thread: Option<ThreadId>,
    /// Traced calls around it on its own thread.
    pub depth: u32,
    /// The function, for a Python method under the name of the receiver's class; `None` for a `Lost` span, whose function
    /// is not known.
    pub function: Option<Arc<FunctionDescription>>,
    /// `false` if the call was open, and has ended, while not every call inside it was seen to begin.
    pub children_observed: bool,
    /// `false` for a Python method whose receiver's class was not seen: the name then says where the method is defined.
    pub class_observed: bool,
    /// Python: name of the call's object in the list of the container that holds it.
    pub step: Option<Arc<str>>,
    /// Process.
    pub process: ProcessId,
    /// Thread.
    pub thread: ThreadId,
    /// Name of the thread when it was first seen, if it could be read.
    pub thread_name: Option<Arc<str>>,
    /// Start.
    pub start: WallClockNs,
    /// End, never before the start.
    pub end: WallClockNs,
    /// How it ended.
    pub ending: Ending,
    /// Whether `end` is the end of the call itself.
    pub end_observed: bool,
    /// Whether the thread or process ended while the call was open.
    pub thread_ended: bool,
    /// Matching calls inside that became no span of their own.
    pub folded_calls: u64,
    /// Records of this thread that were lost directly before this one.
    pub lost_before: u64,
    /// Whether the call failed: left by an exception, or the returned value means an error.
    pub error: Option<CallError>,
    /// Attributes of this call alone (captured arguments), in the order of the map.
    pub attributes: Vec<(Arc<str>, AttributeValue)>,
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    /// Whole number.
    Integer(i64),
    /// True or false.
    Boolean(bool),
    /// Text.
    Text(Arc<str>),
}

/// Records of one thread that never arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Process.
    pub process: ProcessId,
    /// Thread.
    pub thread: ThreadId,
    /// Calls whose record is missing.
    pub calls: u64,
}

/// What the assembler has seen by the end of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamTotals {
    /// Spans handed to the sinks, `StillOpen` and `Lost` ones not counted.
    pub spans: u64,
    /// Spans of calls that were still open.
    pub open: u64,
    /// Calls known to be missing from gaps in the thread sequences.
    pub missing: u64,
    /// Stand-ins made for lost parents.
    pub stand_ins: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// Spans of Python methods by process and name, of the first few thousand names.
    pub python: BTreeMap<(u32, Arc<str>), u64>,
}

impl Span {
    /// Span name: `{Class}.{method}`, or why there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.function {
            Some(function) => &function.span_name,
            None if self.ending == Ending::Lost => "(lost)",
            None => "(unknown function)",
        }
    }

    /// Duration in nanoseconds; an upper bound unless the end was observed.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }
}

impl ArgumentType {
    /// The value as a span attribute; a number beyond 63 bits as text.
    #[must_use]
    pub fn attribute(self, bits: u64) -> AttributeValue {
        let value = self.read(bits);
        match self {
            Self::Bool => AttributeValue::Boolean(value != 0),
            _ => i64::try_from(value)
                .map_or_else(|_| AttributeValue::Text(value.to_string().into()), AttributeValue::Integer),
        }
    }
}

impl Parent {
    /// Whether the span begins a trace.
    #[must_use]
    pub const fn begins_trace(self) -> bool {
        matches!(self, Self::Root | Self::Unknown)
    }

    /// The span to name as parent, direct or not.
    #[must_use]
    pub fn span_id(self) -> Option<SpanId> {
        match self {
            Self::Root | Self::Unknown => None,
            Self::Span(span_id) | Self::Ancestor(span_id) => Some(span_id),
        }
    }
}

impl CallError {
    /// The value of the `error.type` attribute.
    #[must_use]
    pub fn kind(&self) -> Cow<'_, str> {
        match self {
            Self::Unwound { exception: Some(class) } => Cow::Borrowed(class),
            // The convention's word for an error of unknown kind.
            Self::Unwound { exception: None } | Self::ThreadEnded => Cow::Borrowed("_OTHER"),
            Self::Returned { bits, kind } => Cow::Owned(kind.read(*bits).to_string()),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwound { exception: None } => write!(formatter, "unwound"),
            Self::Unwound { exception: Some(class) } => write!(formatter, "raised {class}"),
            Self::ThreadEnded => write!(formatter, "thread ended"),
            Self::Returned { bits, kind } => write!(formatter, "return {}", kind.read(*bits)),
        }
    }
}

impl Ending {
    /// The value of the `ml.ending` attribute.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Returned => "returned",
            Self::Unwound => "unwound",
            Self::Lost => "lost",
            Self::StillOpen => "still_open",
        }
    }
}

fn write_hexadecimal(bytes: &[u8], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hexadecimal(&self.0, formatter)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hexadecimal(&self.0, formatter)
    }
}
