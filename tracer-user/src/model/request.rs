//! Requests that a traced process was asked, and what its sockets did.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::route::RouteTaken;
use super::trace_ids::{SpanId, TraceId};
use super::units::{MonotonicNs, RemoteAddress, ThreadId};

/// How a process is asked, where that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSockets {
    /// The connections that it has accepted.
    pub accepted: Vec<AcceptedConnection>,
    /// The ports of TCP that it listens on.
    pub ports: Vec<u16>,
    /// Whether it listens on a unix socket.
    pub listens_on_unix: bool,
}

/// A connection that a process has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedConnection {
    /// Its descriptor.
    pub descriptor: u32,
    /// The number of its socket's inode, by which the kernel tells it from others.
    pub inode: u64,
}

/// A connection of a process: its descriptor, and when it was opened, which tells apart those that had the same descriptor one after
/// the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Process id in the initial pid namespace.
    pub process: u32,
    /// The descriptor.
    pub descriptor: u32,
    /// When it was accepted, or when the programs were told of it.
    pub opened: MonotonicNs,
}

/// A traced process has done something with a connection that it was asked over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketEvent {
    /// The connection.
    pub connection: ConnectionId,
    /// The thread that did it.
    pub thread: ThreadId,
    /// When it had been done.
    pub time: MonotonicNs,
    /// Whether the connection was there before anything of it was seen.
    pub was_before: bool,
    /// Whether something that was done with it before is not told.
    pub has_lost: bool,
    /// The context that the thread began an answer in, if that was read.
    pub context: Option<PythonContext>,
    /// Whether threads wait for the connection: then one that has read a request does nothing else until it has answered it, or has
    /// handed it on.
    pub waits: bool,
    /// What it did.
    pub action: SocketAction,
}

/// What was done with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketAction {
    /// It was accepted.
    Accepted,
    /// So many bytes were read from it, and these are the first of them.
    Read {
        /// How many.
        length: u64,
        /// The first of them.
        bytes: Box<[u8]>,
    },
    /// So many bytes were written to it, and these are the first of them.
    Written {
        /// How many.
        length: u64,
        /// The first of them.
        bytes: Box<[u8]>,
    },
    /// It was closed.
    Closed,
}

/// A request that is over, as far as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The connection that it came over.
    pub connection: ConnectionId,
    /// Counts the requests of the connection from 1.
    pub number: u64,
    /// The thread that read the last of its head.
    pub thread: ThreadId,
    /// When the first of it was read.
    pub start: MonotonicNs,
    /// When the last of its answer was written, or what else ended it.
    pub end: MonotonicNs,
    /// How it ended.
    pub ending: RequestEnding,
    /// What else is known of it.
    pub facts: RequestFacts,
}

/// What is known of a request once its head has been read: what is done for it is joined to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestStart {
    /// The connection that it came over.
    pub connection: ConnectionId,
    /// Counts the requests of the connection from 1.
    pub number: u64,
    /// When the last of its head was read.
    pub begun: MonotonicNs,
    /// The trace that it is part of, if its caller names one.
    pub trace: Option<CallersTrace>,
}

/// The context (`contextvars.Context`) that a thread of CPython runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PythonContext {
    /// Its address; `None`: the thread has none yet.
    pub address: Option<RemoteAddress>,
    /// Whether somebody has entered it. Otherwise it is the one that a thread begins with.
    pub is_entered: bool,
}

/// A context of a traced process was made, or is there no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextEvent {
    /// Process id in the initial pid namespace.
    pub process: u32,
    /// When.
    pub time: MonotonicNs,
    /// Such records of the process that were lost before.
    pub lost: u64,
    /// What.
    pub change: ContextChange,
}

/// What has happened to a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextChange {
    /// It was made.
    Made {
        /// Its address.
        context: RemoteAddress,
        /// The one that the thread was in, if it is a copy: of that one in most cases.
        current: Option<RemoteAddress>,
    },
    /// It was freed.
    Freed {
        /// Its address.
        context: RemoteAddress,
    },
}

/// What an outermost call was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallParent {
    /// For this request.
    Request(Box<RequestStart>),
    /// For none, or none that is known.
    None(NoParent),
}

/// Why an outermost call is not joined to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NoParent {
    /// No request was there when it began.
    NoRequest,
    /// None of those that were there was shown to have asked for it.
    NotShown,
    /// Several may have.
    Several,
    /// What would show it was not read.
    NotRead,
    /// The request that it was made for had been over for long.
    LongOver,
    /// An answer that would show it did not come in time.
    TimedOut,
    /// Too many calls waited for answers.
    TooMany,
    /// Its record was lost.
    Lost,
    /// An SDK in the process tells of the request itself, and in which span is not known.
    ToldElsewhere,
    /// The span of an SDK in which it was seen first may have been begun by it.
    MayBeInside,
}

/// What is known of a request besides its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// The method as it was sent.
    pub method: Arc<str>,
    /// The path, without the query.
    pub path: Arc<str>,
    /// The route of the application that the path belongs to, if that is known.
    pub route: Option<Box<RouteTaken>>,
    /// The query, without what people sign requests with.
    pub query: Option<Arc<str>>,
    /// `http` or `https`, as a proxy or the request says.
    pub scheme: Arc<str>,
    /// `1.0` or `1.1`.
    pub version: &'static str,
    /// Name or address of the server, as the client knows it.
    pub server: Option<HostAndPort>,
    /// The client, as a proxy tells of it.
    pub client: Option<Arc<str>>,
    /// What the client says of itself.
    pub user_agent: Option<Arc<str>>,
    /// Status of the answer, if one was seen.
    pub status: Option<u16>,
    /// The trace that it is part of, if its caller names one.
    pub trace: Option<CallersTrace>,
    /// Bytes of its body.
    pub request_bytes: u64,
    /// Bytes of the body of the answer; `None` where its end was not seen.
    pub answer_bytes: Option<u64>,
}

/// A host, and its port if that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAndPort {
    /// Name or address.
    pub host: Arc<str>,
    /// Port.
    pub port: Option<u16>,
}

/// The trace that the caller of a request asks it to be part of (W3C Trace Context, level 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallersTrace {
    /// The trace.
    pub trace_id: TraceId,
    /// The caller's span.
    pub parent: SpanId,
    /// Whether the caller records it.
    pub is_sampled: bool,
    /// What the vendors on the way keep there.
    pub state: Option<Arc<str>>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEnding {
    /// Its answer was written to the end.
    Answered,
    /// The connection was closed before the whole answer had been written.
    Closed,
    /// Its process ended.
    ProcessEnded,
    /// What was seen of the connection did not fit together any more.
    OutOfStep,
    /// The tracer ended.
    StillOpen,
}

/// Why nothing more is told of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutOfStep {
    /// A record was lost.
    LostRecord,
    /// A head, or what tells where a body ends, was longer than what is looked at.
    NotCaptured,
    /// What was read is no request.
    NoRequest,
    /// What was written is no answer.
    NoAnswer,
    /// An answer to no request that was seen.
    UnexpectedAnswer,
    /// Where an answer ends cannot be told, and another one follows.
    UnknownEnd,
    /// More requests wait for their answers than are kept.
    TooMany,
}

/// What a connection speaks instead of HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OtherProtocol {
    /// HTTP/2.
    Http2,
    /// TLS.
    Tls,
    /// What both sides have agreed upon (`Upgrade`, `CONNECT`): WebSocket above all.
    Upgraded,
    /// Something else.
    Unknown,
}

/// What became of the requests of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestTotals {
    /// Those that were seen.
    pub requests: u64,
    /// Those among them whose whole answer was not seen.
    pub unanswered: u64,
    /// Those among them that their callers do not record, and that no backend is told of therefore.
    pub not_sampled: u64,
    /// Those among them that make no span because an SDK in the process tells of them.
    pub told_by_sdk: u64,
    /// Connections of which no more could be told, by the reason.
    pub out_of_step: BTreeMap<OutOfStep, u64>,
    /// Connections that were not looked at because they speak something else.
    pub others: BTreeMap<OtherProtocol, u64>,
    /// Outermost calls of the processes that were asked something, by what became of them.
    pub calls: JoinedCalls,
}

/// What became of the outermost calls of processes that were asked something, or that began in spans of an SDK.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinedCalls {
    /// They are inside the request that they were made for.
    pub joined: u64,
    /// They are inside a span of an SDK in the process.
    pub in_spans: u64,
    /// Those among them that were made for a request of another trace.
    pub contradicted: u64,
    /// They are not recorded, as the request or span that they were made in.
    pub not_sampled: u64,
    /// They begin traces of their own, by the reason.
    pub own_root: BTreeMap<NoParent, u64>,
}

/// Methods that the semantic conventions know (RFC 9110, PATCH of RFC 5789, QUERY): all others have one name together.
const METHODS: [&str; 10] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"];

#[cfg(test)]
impl RequestFacts {
    /// A request without a body, of which nothing else is known.
    pub fn plain(method: &str, path: &str, status: u16) -> Self {
        Self {
            method: method.into(),
            path: path.into(),
            route: None,
            query: None,
            scheme: "http".into(),
            version: "1.1",
            server: None,
            client: None,
            user_agent: None,
            status: Some(status),
            trace: None,
            request_bytes: 0,
            answer_bytes: None,
        }
    }
}

impl RequestFacts {
    /// The method, if it is a known one.
    #[must_use]
    pub fn known_method(&self) -> Option<&str> {
        METHODS.contains(&&*self.method).then_some(&self.method)
    }

    /// What stands for the method in the name of the span.
    #[must_use]
    pub fn method_in_name(&self) -> &str {
        self.known_method().unwrap_or("HTTP")
    }
}

impl NoParent {
    /// Its name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NoRequest => "no_request",
            Self::NotShown => "not_shown",
            Self::Several => "several_requests",
            Self::NotRead => "not_read",
            Self::LongOver => "request_long_over",
            Self::TimedOut => "no_answer_in_time",
            Self::TooMany => "too_many_waiting",
            Self::Lost => "record_lost",
            Self::ToldElsewhere => "request_told_by_sdk",
            Self::MayBeInside => "span_may_be_inside",
        }
    }
}

impl OutOfStep {
    /// The reason in a few words, for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::LostRecord => "a record was lost",
            Self::NotCaptured => "a head or a chunk was longer than what is looked at",
            Self::NoRequest => "what was read is no request",
            Self::NoAnswer => "what was written is no answer",
            Self::UnexpectedAnswer => "an answer came to no request that was seen",
            Self::UnknownEnd => "where an answer ends could not be told",
            Self::TooMany => "too many requests waited at once",
        }
    }
}

impl OtherProtocol {
    /// Its name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Http2 => "HTTP/2",
            Self::Tls => "TLS",
            Self::Upgraded => "an upgraded protocol",
            Self::Unknown => "an unknown protocol",
        }
    }
}
