//! A span: what it is about, and what is known of its ends; what sinks receive.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::current_span::SpanLink;
use super::method_row::MethodRow;
use super::plan::FunctionDescription;
use super::request::{RequestFacts, RequestTotals};
use super::symbol_map::ArgumentType;
use super::trace_ids::{SpanId, TraceId};
use super::units::{ProcessId, ThreadId, WallClockNs};
use super::unwatched::UnwatchedSteps;

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
    /// This span of whoever asked for it, which somebody else tells of.
    Remote(SpanId),
    /// This span of an SDK in the same process, which tells of it itself.
    Sdk(SpanId),
}

/// One thing that took time in a traced process: what it is about, where it belongs, and how it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Trace.
    pub trace_id: TraceId,
    /// Span.
    pub span_id: SpanId,
    /// What it is nested in.
    pub parent: Parent,
    /// Thread of the parent, if it is another one: this span begins a tree that was joined to that thread's.
    pub parent_thread: Option<ThreadId>,
    /// Spans around it on its thread.
    pub depth: u32,
    /// Process.
    pub process: ProcessId,
    /// Thread.
    pub thread: ThreadId,
    /// Name of the thread when it was first seen, if it is known.
    pub thread_name: Option<Arc<str>>,
    /// Start.
    pub start: WallClockNs,
    /// End, never before the start.
    pub end: WallClockNs,
    /// What it is about.
    pub subject: Subject,
    /// How it ended.
    pub ending: Ending,
    /// Records of this thread that were lost directly before this one.
    pub lost_before: u64,
    /// A span that it has to do with and is not inside.
    pub link: Option<SpanLink>,
    /// Whether the trace that it is part of is recorded, as whoever began that has decided: what is not goes to people, and to no
    /// backend.
    pub is_recorded: bool,
    /// Attributes of this one alone (captured arguments), in the order of the map.
    pub attributes: Vec<(Arc<str>, AttributeValue)>,
}

/// What a span is about. Each subject brings its own fields.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A call of a traced function.
    Call(CallFacts),
    /// A placeholder for a call whose record was lost: it is known only because its children name it, and its times are
    /// theirs.
    LostCall,
    /// A request that the process was asked.
    Request(Box<RequestFacts>),
}

/// What is known of a call besides its times.
#[derive(Clone, Debug, PartialEq)]
pub struct CallFacts {
    /// The function; `None` if nobody knows the number that the record names.
    pub function: Option<Arc<FunctionDescription>>,
    /// `false` for a Python method whose receiver's class was not seen: the name then says where the method is defined.
    pub class_observed: bool,
    /// Python: name of the call's object in the list of the container that holds it.
    pub step: Option<Arc<str>>,
    /// `false` if the call was open, and has ended, while not every call inside it was seen to begin.
    pub children_observed: bool,
    /// Python: steps of the call's object that were not watched: their time may be in that of the call itself.
    pub unwatched_steps: UnwatchedSteps,
    /// Matching calls inside that became no span of their own.
    pub folded_calls: u64,
    /// The call began no longer than so many nanoseconds before the span's start; 0: the start is exact.
    pub start_uncertainty_ns: u64,
    /// Whether it may be several calls, because nothing between them was seen.
    pub may_be_several: bool,
}

/// How a call ended, as far as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its return was seen.
    Returned {
        /// The returned value, if it means an error.
        error: Option<ReturnedError>,
    },
    /// It was left without a return: exception, longjmp.
    Unwound {
        /// Bare name of the class of the exception, if it is known.
        exception: Option<Arc<str>>,
        /// Whether the end is when it was left; otherwise it is when that was noticed, an upper bound.
        is_end_exact: bool,
    },
    /// Its thread or process ended, or executed another program, while it was open. The end is when that was noticed.
    ThreadEnded,
    /// Nobody looked any more when it ended, and its record came all the same. The end is when that was noticed.
    Unobserved,
    /// It was open when the tracer ended. The end is when the tracer looked.
    StillOpen,
    /// A request of which not the whole answer was seen: its connection was closed, or what was seen of it did not fit together.
    /// The end is when that was noticed.
    Unanswered,
    /// Its record was lost. Neither start nor end were observed.
    Lost,
    /// It was found to have ended, and no exception is known to have left it.
    Vanished {
        /// It ended no longer than so many nanoseconds before the span's end.
        uncertainty_ns: u64,
    },
}

/// A returned value that means an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnedError {
    /// The returned bits.
    pub bits: u64,
    /// How they are read.
    pub kind: ArgumentType,
}

/// How a call failed, as its ending tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError<'ending> {
    /// It was left without a return, by an exception of this class if that is known.
    Unwound(Option<&'ending str>),
    /// Its thread ended.
    ThreadEnded,
    /// It returned a value that means an error.
    Returned(ReturnedError),
    /// A request that the server could not answer: this status.
    Status(u16),
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
    /// Placeholders made for lost parents.
    pub placeholders: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// What the finished calls of each method have come to.
    pub methods: Vec<MethodRow>,
    /// What became of the requests.
    pub requests: RequestTotals,
    /// Spans of Python methods by process and name, of the first few thousand names.
    pub python: BTreeMap<(u32, Arc<str>), u64>,
}

impl Span {
    /// Span name: `{Class}.{method}`, or why there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.subject {
            Subject::Call(CallFacts { function: Some(function), .. }) => &function.span_name,
            Subject::Call(CallFacts { function: None, .. }) => "(unknown function)",
            Subject::LostCall => "(lost)",
            // The semantic conventions: the method and the route, and never the path, of which there may be any number.
            Subject::Request(facts) => facts.route.as_ref().map_or(facts.method_in_name(), |route| &route.span_name),
        }
    }

    /// How it failed, if it did.
    #[must_use]
    pub fn error(&self) -> Option<CallError<'_>> {
        match &self.subject {
            Subject::Request(facts) => {
                let failed = facts.status.filter(|status| *status >= FIRST_SERVER_ERROR).map(CallError::Status);
                failed.or_else(|| self.ending.error())
            }
            Subject::Call(_) | Subject::LostCall => self.ending.error(),
        }
    }

    /// The function, if it is about a call of one that is known.
    #[must_use]
    pub fn function(&self) -> Option<&Arc<FunctionDescription>> {
        match &self.subject {
            Subject::Call(call) => call.function.as_ref(),
            Subject::LostCall | Subject::Request(_) => None,
        }
    }

    /// What the vendors on the way of its trace keep there (W3C `tracestate`).
    #[must_use]
    pub fn trace_state(&self) -> Option<&str> {
        match &self.subject {
            Subject::Request(facts) => facts.trace.as_ref()?.state.as_deref(),
            Subject::Call(_) | Subject::LostCall => None,
        }
    }

    /// How many nanoseconds before its start it may have begun, if it was not seen to begin.
    #[must_use]
    pub fn start_uncertainty_ns(&self) -> Option<u64> {
        match &self.subject {
            Subject::Call(call) => (call.start_uncertainty_ns != 0).then_some(call.start_uncertainty_ns),
            Subject::LostCall | Subject::Request(_) => None,
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
    /// Whether the span begins a trace, or what this tracer tells of one.
    #[must_use]
    pub const fn begins_trace(self) -> bool {
        matches!(self, Self::Root | Self::Unknown | Self::Remote(_) | Self::Sdk(_))
    }

    /// The span of this tracer that it is inside, directly or not.
    #[must_use]
    pub fn span_id(self) -> Option<SpanId> {
        match self {
            Self::Root | Self::Unknown | Self::Remote(_) | Self::Sdk(_) => None,
            Self::Span(span_id) | Self::Ancestor(span_id) => Some(span_id),
        }
    }

    /// The span to name as parent, whoever tells of it.
    #[must_use]
    pub fn named(self) -> Option<SpanId> {
        match self {
            Self::Remote(span_id) | Self::Sdk(span_id) => Some(span_id),
            other => other.span_id(),
        }
    }
}

/// The first status that says that the server has failed. Below it the client has, which is no error of the server's span.
const FIRST_SERVER_ERROR: u16 = 500;

impl CallError<'_> {
    /// What to say of it besides its kind; `None` where an attribute says all of it (the semantic conventions want no words then).
    #[must_use]
    pub fn message(&self) -> Option<String> {
        (!matches!(self, Self::Status(_))).then(|| self.to_string())
    }

    /// The value of the `error.type` attribute.
    #[must_use]
    pub fn kind(&self) -> Cow<'_, str> {
        match self {
            Self::Unwound(Some(class)) => Cow::Borrowed(class),
            // The convention's word for an error of unknown kind.
            Self::Unwound(None) | Self::ThreadEnded => Cow::Borrowed("_OTHER"),
            Self::Returned(ReturnedError { bits, kind }) => Cow::Owned(kind.read(*bits).to_string()),
            Self::Status(status) => Cow::Owned(status.to_string()),
        }
    }
}

impl fmt::Display for CallError<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwound(None) => write!(formatter, "unwound"),
            Self::Unwound(Some(class)) => write!(formatter, "raised {class}"),
            Self::ThreadEnded => write!(formatter, "thread ended"),
            Self::Returned(ReturnedError { bits, kind }) => write!(formatter, "return {}", kind.read(*bits)),
            Self::Status(status) => write!(formatter, "status {status}"),
        }
    }
}

impl Ending {
    /// The value of the `ml.ending` attribute.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Returned { .. } | Self::Vanished { .. } => "returned",
            Self::Unwound { .. } | Self::ThreadEnded => "unwound",
            Self::Unobserved | Self::StillOpen => "still_open",
            Self::Unanswered => "unobserved",
            Self::Lost => "lost",
        }
    }

    /// How many nanoseconds before the span's end the call may have ended, where that is known.
    #[must_use]
    pub fn uncertainty_ns(&self) -> Option<u64> {
        match self {
            Self::Vanished { uncertainty_ns } => Some(*uncertainty_ns),
            _ => None,
        }
    }

    /// Whether the span's end is the end of the call itself.
    #[must_use]
    pub fn is_end_observed(&self) -> bool {
        matches!(self, Self::Returned { .. } | Self::Unwound { is_end_exact: true, .. })
    }

    /// Whether the call failed: left by an exception, ended with its thread, or the returned value means an error.
    #[must_use]
    pub fn error(&self) -> Option<CallError<'_>> {
        match self {
            Self::Returned { error } => error.map(CallError::Returned),
            Self::Unwound { exception, .. } => Some(CallError::Unwound(exception.as_deref())),
            Self::ThreadEnded => Some(CallError::ThreadEnded),
            Self::Unobserved | Self::StillOpen | Self::Unanswered | Self::Lost | Self::Vanished { .. } => None,
        }
    }
}
