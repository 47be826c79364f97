//! Conversations, whole and cut into pieces.

use super::*;

/// What goes over a connection.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// Read by the server.
    In(&'static [u8]),
    /// Written by it.
    Out(&'static [u8]),
}

use Turn::{In, Out};

const ID: ConnectionId = ConnectionId { process: 7, descriptor: 5, opened: MonotonicNs(1) };

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// Method, path, status, ending, bytes of both bodies.
type Seen = (String, String, Option<u16>, RequestEnding, (u64, Option<u64>));

fn seen(outcomes: &[Outcome]) -> (Vec<Seen>, Vec<Outcome>) {
    let mut requests = Vec::new();
    let mut others = Vec::new();
    for outcome in outcomes {
        match outcome {
            Outcome::Request(Request { facts, ending, number, .. }) => {
                assert_eq!(*number, requests.len() as u64 + 1, "they come in their order");
                let bytes = (facts.request_bytes, facts.answer_bytes);
                requests.push((facts.method.to_string(), facts.path.to_string(), facts.status, *ending, bytes));
            }
            other => others.push(other.clone()),
        }
    }
    (requests, others)
}

/// Keeps what is over; [`a_request_is_told_of_when_it_begins_and_when_it_is_answered`] is about what is not.
fn keep(outcomes: &mut Vec<Outcome>, outcome: Outcome) {
    if !matches!(outcome, Outcome::Begins(_) | Outcome::Answers(..)) {
        outcomes.push(outcome);
    }
}

/// Has a connection with pieces of so many bytes at most, and closes it.
fn play(turns: &[Turn], most: usize, was_before: bool) -> Vec<Outcome> {
    let mut connection = Connection::new(ID, was_before, Arc::default());
    let mut outcomes = Vec::new();
    let out = &mut |outcome| keep(&mut outcomes, outcome);
    for turn in turns {
        let (In(bytes) | Out(bytes)) = turn;
        for part in bytes.chunks(most) {
            let piece = Piece::new(part, part.len() as u64);
            match turn {
                In(_) => connection.read(MonotonicNs(5), ThreadId(3), piece, out),
                Out(_) => connection.write(MonotonicNs(6), piece, out),
            }
        }
    }
    connection.close(MonotonicNs(9), out);
    outcomes
}

fn request(method: &str, path: &str, status: u16, bytes: (u64, u64)) -> Seen {
    (method.into(), path.into(), Some(status), RequestEnding::Answered, (bytes.0, Some(bytes.1)))
}

/// The same however it is cut.
fn is(turns: &[Turn], requests: &[Seen], others: &[Outcome]) {
    let longest = turns.iter().map(|(In(bytes) | Out(bytes))| bytes.len()).max().unwrap_or(1);
    for most in 1..=longest {
        let outcomes = play(turns, most, false);
        let (found, rest) = seen(&outcomes);
        assert_eq!((found.as_slice(), rest.as_slice()), (requests, others), "cut into pieces of {most} bytes");
    }
}

#[test]
fn one_request_after_another() {
    let post: &[u8] = b"POST /p?x=1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    let expected =
        [request("GET", "/a", 200, (0, 2)), request("POST", "/p", 200, (3, 2)), request("GET", "/a", 200, (0, 2))];
    is(&[In(GET), Out(OK), In(post), Out(OK), In(GET), Out(OK)], &expected, &[]);
}

#[test]
fn several_requests_in_one_read_and_their_answers_in_one_write() {
    let requests: &[u8] =
        b"GET /1 HTTP/1.1\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx\r\nGET /3 HTTP/1.1\r\n\r\n";
    let answers: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n\
                           HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    let expected =
        [request("GET", "/1", 200, (0, 1)), request("POST", "/2", 404, (1, 0)), request("GET", "/3", 200, (0, 2))];
    is(&[In(requests), Out(answers)], &expected, &[]);
    // Each answer as soon as there is one, while the next request is on its way.
    is(
        &[In(GET), In(GET), Out(OK), In(GET), Out(OK), Out(OK)],
        &[(); 3].map(|()| request("GET", "/a", 200, (0, 2))),
        &[],
    );
}

#[test]
fn answers_without_a_body() {
    let head: &[u8] = b"HEAD /h HTTP/1.1\r\n\r\n";
    let turns = [
        In(head),
        Out(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
        In(GET),
        Out(b"HTTP/1.1 204 No Content\r\n\r\n"),
        In(GET),
        Out(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"),
    ];
    let expected =
        [request("HEAD", "/h", 200, (0, 0)), request("GET", "/a", 204, (0, 0)), request("GET", "/a", 304, (0, 0))];
    is(&turns, &expected, &[]);
}

#[test]
fn interim_answers_are_none() {
    let post: &[u8] = b"POST /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let turns = [In(post), Out(b"HTTP/1.1 100 Continue\r\n\r\n"), In(b"abc"), Out(OK), In(GET), Out(OK)];
    is(&turns, &[request("POST", "/p", 200, (3, 2)), request("GET", "/a", 200, (0, 2))], &[]);
    // A server that does not want the body: the client may send it all the same, and nobody knows.
    let refusal: &[u8] = b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n";
    is(&[In(post), Out(refusal)], &[request("POST", "/p", 417, (0, 0))], &[]);
    let expected = [request("POST", "/p", 417, (0, 0))];
    is(&[In(post), Out(refusal), In(GET)], &expected, &[Outcome::OutOfStep(OutOfStep::UnknownEnd)]);
}

#[test]
fn an_answer_may_end_with_the_connection_or_be_cut() {
    let endless: &[u8] = b"HTTP/1.0 200 OK\r\n\r\nsome bytes";
    is(&[In(GET), Out(endless)], &[request("GET", "/a", 200, (0, 10))], &[]);
    let cut = ("GET".to_owned(), "/a".to_owned(), Some(200), RequestEnding::Closed, (0, Some(1)));
    is(&[In(GET), Out(&OK[..OK.len() - 1])], &[cut], &[]);
    let unanswered = ("GET".to_owned(), "/a".to_owned(), None, RequestEnding::Closed, (0, Some(0)));
    is(&[In(GET)], &[unanswered], &[]);
    // Nothing but the beginning of a head: nobody was asked anything.
    is(&[In(&GET[..10])], &[], &[]);
}

#[test]
fn an_early_answer_leaves_the_body_to_be_read() {
    let post: &[u8] = b"POST /p HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc";
    let turns = [In(post), Out(OK), In(b"GET"), In(GET), Out(OK)];
    is(&turns, &[request("POST", "/p", 200, (3, 2)), request("GET", "/a", 200, (0, 2))], &[]);
}

#[test]
fn what_is_no_http_is_said_to_be_that() {
    let http2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    is(&[In(http2), Out(b"\0\0\x12\x04")], &[], &[Outcome::Other(OtherProtocol::Http2)]);
    is(&[In(b"\x16\x03\x01\x02\0\x01"), Out(b"\x16")], &[], &[Outcome::Other(OtherProtocol::Tls)]);
    is(&[In(b"{\"method\":1}"), Out(b"{}")], &[], &[Outcome::Other(OtherProtocol::Unknown)]);
    let upgrade: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let turns = [In(GET), Out(upgrade), In(b"\x81\x05hello"), Out(b"\x81\x02hi")];
    is(&turns, &[request("GET", "/a", 101, (0, 0))], &[Outcome::Other(OtherProtocol::Upgraded)]);
}

#[test]
fn what_does_not_fit_is_out_of_step_and_nothing_after_it_is_told() {
    let lost = |reason| [Outcome::OutOfStep(reason)];
    let waiting = ("GET".to_owned(), "/a".to_owned(), None, RequestEnding::OutOfStep, (0, Some(0)));
    is(&[Out(OK), In(GET), Out(OK)], &[], &lost(OutOfStep::UnexpectedAnswer));
    is(&[In(GET), Out(b"250 hello"), In(GET)], &[waiting], &lost(OutOfStep::NoAnswer));
    let turns = [In(GET), Out(OK), In(b"{}"), In(GET), Out(OK)];
    is(&turns, &[request("GET", "/a", 200, (0, 2))], &lost(OutOfStep::NoRequest));
    let broken: &[u8] = b"GET / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n";
    is(&[In(broken), In(GET)], &[], &lost(OutOfStep::NoRequest));
}

/// One piece of which only the first bytes are known.
fn known(bytes: &[u8], length: u64) -> Piece<'_> {
    Piece::new(bytes, length)
}

fn read(connection: &mut Connection, piece: Piece<'_>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    connection.read(MonotonicNs(5), ThreadId(3), piece, &mut |outcome| keep(&mut outcomes, outcome));
    outcomes
}

fn written(connection: &mut Connection, time: u64, piece: Piece<'_>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    connection.write(MonotonicNs(time), piece, &mut |outcome| keep(&mut outcomes, outcome));
    outcomes
}

#[test]
fn bodies_need_not_be_seen_and_heads_must() {
    let mut connection = Connection::new(ID, false, Arc::default());
    let head: &[u8] = b"PUT /big HTTP/1.1\r\nContent-Length: 300000\r\n\r\nxyz";
    assert!(read(&mut connection, known(head, head.len() as u64 - 3 + 65_536)).is_empty());
    assert!(read(&mut connection, known(b"", 300_000 - 65_536)).is_empty());
    assert!(read(&mut connection, known(GET, GET.len() as u64)).is_empty());
    let answer: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
    assert!(written(&mut connection, 6, known(answer, answer.len() as u64 + 50_000)).is_empty());
    let outcomes = written(&mut connection, 7, known(b"", 50_000));
    let (requests, _) = seen(&outcomes);
    assert_eq!(requests, [request("PUT", "/big", 200, (300_000, 100_000))]);
    // The next one's head goes on beyond what is known.
    let outcomes = read(&mut connection, known(b"GET /b HTTP/1.1\r\nCookie: ", 8_000));
    assert_eq!(outcomes.last(), Some(&Outcome::OutOfStep(OutOfStep::NotCaptured)));
    let mut connection = Connection::new(ID, false, Arc::default());
    let long = [b"GET / HTTP/1.1\r\nCookie: ".as_slice(), &vec![b'c'; LONGEST_HEAD]].concat();
    let outcomes = read(&mut connection, known(&long, long.len() as u64));
    assert_eq!(outcomes, [Outcome::OutOfStep(OutOfStep::NotCaptured)]);
}

#[test]
fn an_answer_whose_end_is_not_seen_ends_with_the_last_write_before_the_next_request() {
    let mut connection = Connection::new(ID, false, Arc::default());
    let chunks: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n";
    assert!(read(&mut connection, known(GET, GET.len() as u64)).is_empty());
    assert!(written(&mut connection, 6, known(chunks, chunks.len() as u64 + 100)).is_empty());
    assert!(written(&mut connection, 8, known(b"", 10)).is_empty());
    let outcomes = read(&mut connection, known(GET, GET.len() as u64));
    let [Outcome::Request(request)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!(
        (request.end, request.ending, request.facts.status),
        (MonotonicNs(8), RequestEnding::Answered, Some(200))
    );
    // Of a long head the status is known.
    let long: &[u8] = b"HTTP/1.1 404 Not Found\r\nSet-Cookie: ";
    assert!(written(&mut connection, 9, known(long, 5_000)).is_empty());
    let mut outcomes = Vec::new();
    connection.close(MonotonicNs(20), &mut |outcome| keep(&mut outcomes, outcome));
    let [Outcome::Request(request)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((request.end, request.ending, request.facts.status), (MonotonicNs(9), RequestEnding::Closed, Some(404)));
    // With another request behind it, nobody knows where that one's answer begins.
    let mut connection = Connection::new(ID, false, Arc::default());
    let both = [GET, GET].concat();
    assert!(read(&mut connection, known(&both, both.len() as u64)).is_empty());
    let outcomes = written(&mut connection, 6, known(chunks, chunks.len() as u64 + 100));
    assert_eq!(outcomes.last(), Some(&Outcome::OutOfStep(OutOfStep::UnknownEnd)));
    assert_eq!(outcomes.len(), 3);
}

#[test]
fn a_connection_that_was_there_before_begins_with_the_first_request() {
    let turns = [In(b"the rest of a body"), Out(OK), Out(b"more"), In(GET), Out(OK)];
    let (requests, others) = seen(&play(&turns, 100, true));
    assert_eq!((requests, others), (vec![request("GET", "/a", 200, (0, 2))], vec![]));
    assert_eq!(seen(&play(&[In(b"GET is a word"), Out(OK)], 100, true)), (vec![], vec![]));
}

#[test]
fn a_request_begins_with_its_first_byte_and_is_its_reader_s() {
    let mut connection = Connection::new(ID, false, Arc::default());
    let mut outcomes = Vec::new();
    let out = &mut |outcome| keep(&mut outcomes, outcome);
    connection.read(MonotonicNs(10), ThreadId(3), known(b"\r\n", 2), out);
    connection.read(MonotonicNs(20), ThreadId(3), known(&GET[..4], 4), out);
    connection.read(MonotonicNs(30), ThreadId(4), known(&GET[4..], GET.len() as u64 - 4), out);
    connection.write(MonotonicNs(40), known(&OK[..20], 20), out);
    connection.write(MonotonicNs(50), known(&OK[20..], OK.len() as u64 - 20), out);
    let [Outcome::Request(request)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((request.start, request.end, request.thread), (MonotonicNs(20), MonotonicNs(50), ThreadId(4)));
}

#[test]
fn a_request_is_told_of_when_it_begins_and_when_it_is_answered() {
    let mut connection = Connection::new(ID, false, Arc::default());
    let mut outcomes = Vec::new();
    let out = &mut |outcome| outcomes.push(outcome);
    connection.read(MonotonicNs(20), ThreadId(3), known(&GET[..4], 4), out);
    connection.read(MonotonicNs(30), ThreadId(3), known(&GET[4..], GET.len() as u64 - 4), out);
    connection.write(MonotonicNs(35), known(b"HTTP/1.1 100 Continue\r\n\r\n", 25), out);
    connection.write(MonotonicNs(40), known(&OK[..20], 20), out);
    connection.write(MonotonicNs(50), known(&OK[20..], OK.len() as u64 - 20), out);
    let [Outcome::Begins(start), Outcome::Answers(ID, 1), Outcome::Request(_)] = outcomes.as_slice() else {
        panic!("{outcomes:?}")
    };
    assert_eq!((start.connection, start.number, start.begun), (ID, 1, MonotonicNs(30)), "with the last of its head");
}
