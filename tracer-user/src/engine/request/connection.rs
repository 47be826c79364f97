//! One connection that a process answers HTTP/1 over, as a machine: what was read and written goes in, requests that are over come
//! out. The n-th answer belongs to the n-th request; what does not fit ends it, and nothing is guessed.

use std::collections::VecDeque;
use std::sync::Arc;

use super::body::{Body, Progress};
use super::head::{
    ANSWER, AnswerEnd, AnswerHead, HTTP2, RequestHead, begins_request, end_of_head, may_be_request, parse_answer,
    parse_request, status_of,
};
use super::piece::Piece;
use super::propagators::Propagators;
use crate::model::{
    ConnectionId, MonotonicNs, OtherProtocol, OutOfStep, Request, RequestEnding, RequestFacts, RequestStart, ThreadId,
};

/// Longest head that is looked at, bytes: what the programs capture of one request.
const LONGEST_HEAD: usize = 32 << 10;

/// Requests of one connection that wait for their answers at one time.
const MOST_WAITING: usize = 1_024;

/// The first bytes of TLS: a record of a handshake in version 3.
const TLS: &[u8] = &[0x16, 3];

/// What comes out of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The head of a request has been read.
    Begins(RequestStart),
    /// The answer to a request is begun.
    Answers(ConnectionId, u64),
    /// A request is over.
    Request(Request),
    /// Nothing more is told of this connection, for this reason.
    OutOfStep(OutOfStep),
    /// Likewise: it speaks another protocol.
    Other(OtherProtocol),
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    reading: Reading,
    writing: Writing,
    /// The head that is being read, as far as it has come, and when that began.
    head: Vec<u8>,
    head_began: MonotonicNs,
    /// The head of the answer that is being written.
    answer_head: Vec<u8>,
    /// Requests that have not been answered to the end, in their order.
    waiting: VecDeque<Waiting>,
    /// Requests so far.
    number: u64,
    /// What callers' traces are read from.
    propagators: Arc<Propagators>,
}

/// What is read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Nobody knows: the connection is older than the probes.
    Unsynced,
    /// A head, or the rest of one.
    Head,
    /// The body of the request with this number.
    Body(Body, u64),
    /// The body of a request that was answered before its client was asked to send it, or another head: both may be.
    BodyOrHead,
    /// Nothing is looked at any more.
    Nothing,
}

/// What is written next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    /// The head of an answer, or the rest of one.
    Head,
    /// The body of the answer to the first request that waits.
    Body(Body),
    /// Likewise, up to the end of the connection.
    UntilClose,
    /// Likewise, and where it ends was not seen: before the next request at the latest.
    UntilNext,
    /// Nothing is looked at.
    Nothing,
}

/// A request that has not been answered to the end.
#[derive(Debug)]
struct Waiting {
    head: RequestHead,
    number: u64,
    thread: ThreadId,
    start: MonotonicNs,
    status: Option<u16>,
    /// When something of the answer was written last.
    last_write: MonotonicNs,
    request_bytes: u64,
    /// `None`: not all of it was seen.
    answer_bytes: Option<u64>,
    /// Whether its client still waits to be asked for the body.
    is_to_be_asked: bool,
}

impl Connection {
    /// A connection of which nothing has been read yet, or (`was_before`) nobody knows what.
    pub fn new(id: ConnectionId, was_before: bool, propagators: Arc<Propagators>) -> Self {
        let (reading, writing) = match was_before {
            true => (Reading::Unsynced, Writing::Nothing),
            false => (Reading::Head, Writing::Head),
        };
        Self {
            id,
            reading,
            writing,
            head: Vec::new(),
            head_began: id.opened,
            answer_head: Vec::new(),
            waiting: VecDeque::new(),
            number: 0,
            propagators,
        }
    }

    /// Which one it is.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Something was read by a thread.
    pub fn read(&mut self, time: MonotonicNs, thread: ThreadId, mut piece: Piece<'_>, out: &mut impl FnMut(Outcome)) {
        while !piece.is_empty() {
            match &mut self.reading {
                Reading::Nothing => return,
                Reading::Unsynced if begins_request(piece.bytes()) => {
                    (self.reading, self.writing) = (Reading::Head, Writing::Head);
                }
                Reading::Unsynced => return,
                Reading::Head => self.read_head(time, thread, &mut piece, out),
                Reading::BodyOrHead => self.lose_step(OutOfStep::UnknownEnd, time, out),
                Reading::Body(body, number) => {
                    let (mut bytes, number) = (0, *number);
                    let progress = body.advance(&mut piece, &mut bytes);
                    if let Some(request) = self.waiting.iter_mut().find(|request| request.number == number) {
                        request.request_bytes += bytes;
                        request.is_to_be_asked = false;
                    }
                    match progress {
                        Progress::Ended => self.reading = Reading::Head,
                        Progress::More => {}
                        Progress::Unseen => self.lose_step(OutOfStep::NotCaptured, time, out),
                        Progress::Malformed => self.lose_step(OutOfStep::NoRequest, time, out),
                    }
                }
            }
        }
    }

    /// Something was written.
    pub fn write(&mut self, time: MonotonicNs, mut piece: Piece<'_>, out: &mut impl FnMut(Outcome)) {
        while !piece.is_empty() {
            match self.writing {
                Writing::Nothing => return,
                Writing::Head => self.write_head(time, &mut piece, out),
                Writing::Body(mut body) => {
                    let Some(request) = self.waiting.front_mut() else { return };
                    request.last_write = time;
                    let progress = body.advance(&mut piece, request.answer_bytes.get_or_insert_default());
                    self.writing = Writing::Body(body);
                    match progress {
                        Progress::Ended => self.answered(out),
                        Progress::More => {}
                        Progress::Unseen => self.write_until_next(time, &mut piece, out),
                        Progress::Malformed => self.lose_step(OutOfStep::NoAnswer, time, out),
                    }
                }
                Writing::UntilClose | Writing::UntilNext => {
                    let Some(request) = self.waiting.front_mut() else { return };
                    request.last_write = time;
                    let bytes = piece.skip_all();
                    request.answer_bytes = request.answer_bytes.map(|before| before + bytes);
                }
            }
        }
    }

    /// It was closed.
    pub fn close(&mut self, time: MonotonicNs, out: &mut impl FnMut(Outcome)) {
        if self.writing == Writing::UntilClose {
            self.answered(out);
        }
        self.end(RequestEnding::Closed, time, out);
    }

    /// What waits for an answer gets none that anybody sees.
    pub fn end(&mut self, ending: RequestEnding, time: MonotonicNs, out: &mut impl FnMut(Outcome)) {
        (self.reading, self.writing) = (Reading::Nothing, Writing::Nothing);
        (self.head, self.answer_head) = (Vec::new(), Vec::new());
        for request in std::mem::take(&mut self.waiting) {
            let is_begun = ending == RequestEnding::Closed && request.status.is_some();
            let end = if is_begun { request.last_write } else { time };
            out(Outcome::Request(request.over(self.id, end, ending)));
        }
    }

    /// It does not fit together any more, for this reason.
    pub fn lose_step(&mut self, reason: OutOfStep, time: MonotonicNs, out: &mut impl FnMut(Outcome)) {
        let is_over = self.reading == Reading::Nothing && self.writing == Writing::Nothing;
        self.end(RequestEnding::OutOfStep, time, out);
        if !is_over {
            out(Outcome::OutOfStep(reason));
        }
    }

    fn read_head(&mut self, time: MonotonicNs, thread: ThreadId, piece: &mut Piece<'_>, out: &mut impl FnMut(Outcome)) {
        if self.head.is_empty() {
            // An empty line before a request is none of it (RFC 9112, section 2.2).
            let empty = piece.bytes().iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            piece.skip(empty as u64);
            self.head_began = time;
            if piece.is_empty() {
                return;
            }
        }
        let before = append(&mut self.head, piece);
        if let Some(reason) = self.is_no_request() {
            return self.is_no_http(reason, time, out);
        }
        let Some(end) = end_of_head(&self.head, before) else {
            let is_seen = self.head.len() < LONGEST_HEAD && piece.bytes().len() == self.head.len() - before;
            if !is_seen || piece.has_unseen() {
                return self.lose_step(OutOfStep::NotCaptured, time, out);
            }
            piece.skip_all();
            return;
        };
        piece.skip((end - before) as u64);
        let head = parse_request(&self.head[..end], &self.propagators);
        self.head.clear();
        match head {
            Some(head) => self.begin(head, time, thread, out),
            None => self.lose_step(OutOfStep::NoRequest, time, out),
        }
    }

    /// What else the bytes are that should begin a request, if they are something else.
    fn is_no_request(&self) -> Option<Option<OtherProtocol>> {
        let is_first = self.number == 0;
        if self.head.starts_with(HTTP2) {
            Some(Some(OtherProtocol::Http2))
        } else if may_be_request(&self.head) || HTTP2.starts_with(&self.head) || TLS.starts_with(&self.head) {
            None
        } else if self.head.starts_with(TLS) && is_first {
            Some(Some(OtherProtocol::Tls))
        } else {
            Some(is_first.then_some(OtherProtocol::Unknown))
        }
    }

    fn is_no_http(&mut self, other: Option<OtherProtocol>, time: MonotonicNs, out: &mut impl FnMut(Outcome)) {
        match other {
            Some(other) => {
                self.end(RequestEnding::OutOfStep, time, out);
                out(Outcome::Other(other));
            }
            None => self.lose_step(OutOfStep::NoRequest, time, out),
        }
    }

    /// The last of a head was read.
    fn begin(&mut self, head: RequestHead, time: MonotonicNs, thread: ThreadId, out: &mut impl FnMut(Outcome)) {
        if self.writing == Writing::UntilNext {
            // Whoever sends the next one has the answer.
            self.answered(out);
        }
        if self.waiting.len() >= MOST_WAITING {
            return self.lose_step(OutOfStep::TooMany, time, out);
        }
        self.number += 1;
        self.reading = head.body.map_or(Reading::Head, |body| Reading::Body(body, self.number));
        let trace = head.facts.trace.clone();
        out(Outcome::Begins(RequestStart { connection: self.id, number: self.number, begun: time, trace }));
        self.waiting.push_back(Waiting {
            is_to_be_asked: head.expects_continue && head.body.is_some(),
            head,
            number: self.number,
            thread,
            start: self.head_began,
            status: None,
            last_write: time,
            request_bytes: 0,
            answer_bytes: Some(0),
        });
    }

    fn write_head(&mut self, time: MonotonicNs, piece: &mut Piece<'_>, out: &mut impl FnMut(Outcome)) {
        if self.waiting.is_empty() {
            return self.lose_step(OutOfStep::UnexpectedAnswer, time, out);
        }
        let before = append(&mut self.answer_head, piece);
        let begins = self.answer_head.len().min(ANSWER.len());
        if self.answer_head[..begins] != ANSWER[..begins] {
            return self.lose_step(OutOfStep::NoAnswer, time, out);
        }
        let Some(end) = end_of_head(&self.answer_head, before) else {
            let is_seen = self.answer_head.len() < LONGEST_HEAD
                && piece.bytes().len() == self.answer_head.len() - before
                && !piece.has_unseen();
            if is_seen {
                piece.skip_all();
                return;
            }
            return match status_of(&self.answer_head).filter(|status| *status >= 200) {
                Some(status) => {
                    self.has_status(status, time, out);
                    self.write_until_next(time, piece, out);
                }
                None => self.lose_step(OutOfStep::NotCaptured, time, out),
            };
        };
        piece.skip((end - before) as u64);
        let method = self.waiting.front().map(|request| request.head.facts.method.clone()).unwrap_or_default();
        let answer = parse_answer(&self.answer_head[..end], &method);
        self.answer_head.clear();
        let Some(AnswerHead { status, end }) = answer else {
            return self.lose_step(OutOfStep::NoAnswer, time, out);
        };
        let is_agreed = status == 101 || (method.as_ref() == "CONNECT" && (200..300).contains(&status));
        if status < 200 && !is_agreed {
            if let Some(request) = self.waiting.front_mut() {
                // It is asked for the body now.
                request.is_to_be_asked = false;
            }
            return;
        }
        self.has_status(status, time, out);
        if is_agreed {
            self.answered(out);
            self.end(RequestEnding::OutOfStep, time, out);
            return out(Outcome::Other(OtherProtocol::Upgraded));
        }
        match end {
            AnswerEnd::Head => self.answered(out),
            AnswerEnd::Body(body) => self.writing = Writing::Body(body),
            AnswerEnd::Connection => self.writing = Writing::UntilClose,
        }
    }

    fn has_status(&mut self, status: u16, time: MonotonicNs, out: &mut impl FnMut(Outcome)) {
        let Some(request) = self.waiting.front_mut() else { return };
        out(Outcome::Answers(self.id, request.number));
        request.status = Some(status);
        request.last_write = time;
        if request.is_to_be_asked {
            self.reading = Reading::BodyOrHead;
        }
    }

    /// Where the answer ends is not seen any more.
    fn write_until_next(&mut self, time: MonotonicNs, piece: &mut Piece<'_>, out: &mut impl FnMut(Outcome)) {
        if self.waiting.len() > 1 {
            return self.lose_step(OutOfStep::UnknownEnd, time, out);
        }
        self.answer_head.clear();
        self.writing = Writing::UntilNext;
        if let Some(request) = self.waiting.front_mut() {
            request.answer_bytes = None;
        }
        piece.skip_all();
    }

    /// The first one that waits is answered.
    fn answered(&mut self, out: &mut impl FnMut(Outcome)) {
        self.writing = Writing::Head;
        if let Some(request) = self.waiting.pop_front() {
            let end = request.last_write;
            out(Outcome::Request(request.over(self.id, end, RequestEnding::Answered)));
        }
    }
}

impl Waiting {
    fn over(self, connection: ConnectionId, end: MonotonicNs, ending: RequestEnding) -> Request {
        Request {
            connection,
            number: self.number,
            thread: self.thread,
            start: self.start,
            end: end.max(self.start),
            ending,
            facts: RequestFacts {
                status: self.status,
                request_bytes: self.request_bytes,
                answer_bytes: self.answer_bytes,
                ..self.head.facts
            },
        }
    }
}

/// Appends what is known of a piece to a head, up to the longest one, and takes nothing from it; gives how long the head was.
fn append(head: &mut Vec<u8>, piece: &Piece<'_>) -> usize {
    let before = head.len();
    let room = LONGEST_HEAD.saturating_sub(before).min(piece.bytes().len());
    head.extend_from_slice(&piece.bytes()[..room]);
    before
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
