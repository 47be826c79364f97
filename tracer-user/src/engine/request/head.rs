//! Heads of requests and answers: from their bytes to what is told of them, and where their bodies end.

use std::sync::Arc;

use httparse::{EMPTY_HEADER, Header};

use super::body::Body;
use super::propagators::Propagators;
use super::url::{host_and_port, split_target, without_signatures};
use crate::model::RequestFacts;

/// Headers of one head that are looked at; one with more is no head.
const MOST_HEADERS: usize = 256;

/// Longest text that is kept of one header, bytes.
const LONGEST_TEXT: usize = 2_048;

/// Longest word that may be a method, bytes.
const LONGEST_METHOD: usize = 32;

/// The first bytes of every connection that speaks HTTP/2 with prior knowledge (RFC 9113, section 3.4).
pub const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What every answer begins with.
pub const ANSWER: &[u8] = b"HTTP/1.";

/// The head of a request.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// What it tells of the request.
    pub facts: RequestFacts,
    /// Its body, if it has one.
    pub body: Option<Body>,
    /// Whether the client may wait for an interim answer before it sends the body.
    pub expects_continue: bool,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerHead {
    pub status: u16,
    pub end: AnswerEnd,
}

/// Where an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerEnd {
    /// With its head.
    Head,
    /// With its body.
    Body(Body),
    /// With the connection.
    Connection,
}

/// Whether these first bytes can be those of a request: a method, and a space behind it.
pub fn may_be_request(bytes: &[u8]) -> bool {
    let method = bytes.iter().position(|byte| *byte == b' ').map_or(bytes, |end| &bytes[..end]);
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    method.len() <= LONGEST_METHOD
        && method.iter().all(is_letter)
        && method.first().is_none_or(u8::is_ascii_alphabetic)
        && bytes.first() != Some(&b' ')
}

/// Whether a piece of a stream begins with the head of a request beyond doubt: its first line is whole.
pub fn begins_request(bytes: &[u8]) -> bool {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return false };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    may_be_request(line) && (line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0"))
}

/// Where a head ends that begins with these bytes, if it does: behind its empty line. The first `looked_at` bytes do not end it.
pub fn end_of_head(bytes: &[u8], looked_at: usize) -> Option<usize> {
    let from = looked_at.saturating_sub(3);
    let ends = |index: &usize| {
        let rest = &bytes[index + 1..];
        bytes[*index] == b'\n' && (rest.starts_with(b"\n") || rest.starts_with(b"\r\n"))
    };
    let line_end = (from..bytes.len()).find(ends)?;
    Some(line_end + if bytes[line_end + 1] == b'\n' { 2 } else { 3 })
}

/// The head of a request in these bytes, which are all of it. `None`: they are none.
pub fn parse_request(bytes: &[u8], propagators: &Propagators) -> Option<RequestHead> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if !request.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let (method, target) = (request.method?, request.path?);
    let headers: &[Header<'_>] = request.headers;
    let values = |name: &str| values_of(headers, name).collect::<Vec<_>>();
    let first = |name: &str| values_of(headers, name).next().and_then(text);
    let target = split_target(method, target);
    let forwarded = first("forwarded");
    let told = |field: &str| forwarded.as_deref().and_then(|value| forwarded_field(value, field));
    let scheme = told("proto").or_else(|| first("x-forwarded-proto").and_then(first_of_list));
    let scheme = scheme.filter(|scheme| matches!(scheme.as_str(), "http" | "https"));
    let host = told("host").or_else(|| first("x-forwarded-host").and_then(first_of_list));
    let host = host.or_else(|| target.host.map(str::to_owned)).or_else(|| first("host"));
    let client = told("for").or_else(|| first("x-forwarded-for").and_then(first_of_list));
    let facts = RequestFacts {
        method: method.into(),
        path: target.path.into(),
        route: None,
        query: target.query.map(without_signatures).map(Arc::from),
        scheme: scheme.as_deref().or(target.scheme).unwrap_or("http").into(),
        version: if request.version? == 0 { "1.0" } else { "1.1" },
        server: host.as_deref().and_then(host_and_port),
        client: client.as_deref().and_then(host_and_port).map(|client| client.host),
        user_agent: first("user-agent").map(Arc::from),
        status: None,
        trace: propagators.callers_trace(values),
        request_bytes: 0,
        answer_bytes: None,
    };
    Some(RequestHead {
        facts,
        body: body_of_request(headers)?,
        expects_continue: first("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")),
    })
}

/// The head of an answer to a request with this method, in these bytes, which are all of it. `None`: they are none.
pub fn parse_answer(bytes: &[u8], method: &str) -> Option<AnswerHead> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    if !answer.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let status = answer.code?;
    let end = match status {
        _ if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) => AnswerEnd::Head,
        _ if has_chunks(answer.headers) == Some(true) => AnswerEnd::Body(Body::CHUNKED),
        _ => match length(answer.headers)? {
            Some(0) => AnswerEnd::Head,
            Some(length) => AnswerEnd::Body(Body::Length(length)),
            None => AnswerEnd::Connection,
        },
    };
    Some(AnswerHead { status, end })
}

/// Status of an answer of whose head no more is known than its beginning.
pub fn status_of(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(ANSWER)?.get(1..5)?.strip_prefix(b" ")?;
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|status| (100..1_000).contains(status))
}

/// The body of a request; the outer `None`: the head contradicts itself.
fn body_of_request(headers: &[Header<'_>]) -> Option<Option<Body>> {
    match has_chunks(headers) {
        Some(true) => Some(Some(Body::CHUNKED)),
        // A coding that is not ended by chunks: no server can tell where the body ends.
        Some(false) => None,
        None => Some(length(headers)?.filter(|length| *length > 0).map(Body::Length)),
    }
}

/// Whether the last coding of the body is chunks; `None` if it has no coding.
fn has_chunks(headers: &[Header<'_>]) -> Option<bool> {
    let last = values_of(headers, "transfer-encoding").last()?;
    let last = last.rsplit(|byte| *byte == b',').next()?;
    Some(last.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// Length of the body, if it is told; the outer `None`: it is told in ways that contradict each other.
fn length(headers: &[Header<'_>]) -> Option<Option<u64>> {
    let mut found = None;
    for value in values_of(headers, "content-length").flat_map(|value| value.split(|byte| *byte == b',')) {
        let digits = std::str::from_utf8(value.trim_ascii()).ok()?;
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let length: u64 = digits.parse().ok()?;
        if found.is_some_and(|other| other != length) {
            return None;
        }
        found = Some(length);
    }
    Some(found)
}

fn values_of<'head>(headers: &'head [Header<'head>], name: &str) -> impl Iterator<Item = &'head [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

fn text(value: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(value.trim_ascii());
    let end = text.char_indices().map(|(start, letter)| start + letter.len_utf8());
    let end = end.take_while(|end| *end <= LONGEST_TEXT).last()?;
    Some(text[..end].to_owned())
}

fn first_of_list(value: String) -> Option<String> {
    let first = value.split(',').next()?.trim();
    (!first.is_empty()).then(|| first.to_owned())
}

/// A field of the first element of `Forwarded` (RFC 7239).
fn forwarded_field(value: &str, field: &str) -> Option<String> {
    let element = value.split(',').next()?;
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut of_name = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case(field));
    let (_, value) = of_name.next()?;
    let value = value.trim().trim_matches('"');
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> RequestHead {
        assert_eq!(end_of_head(text.as_bytes(), 0), Some(text.len()));
        parse_request(text.as_bytes(), &Propagators::default()).expect("a request")
    }

    #[test]
    fn a_request_is_told_by_its_head() {
        let head = request(
            "POST /items/7?x=1&sig=abc HTTP/1.1\r\nhOsT: models.example:8080\r\nUser-Agent: curl/8\r\nContent-Length: 5\r\n\r\n",
        );
        assert_eq!(
            (&*head.facts.method, &*head.facts.path, head.facts.query.as_deref()),
            ("POST", "/items/7", Some("x=1&sig=REDACTED"))
        );
        assert_eq!(
            (&*head.facts.scheme, head.facts.version, head.facts.user_agent.as_deref()),
            ("http", "1.1", Some("curl/8"))
        );
        let server = head.facts.server.expect("a host");
        assert_eq!((&*server.host, server.port, head.facts.client), ("models.example", Some(8080), None));
        assert_eq!((head.body, head.expects_continue), (Some(Body::Length(5)), false));
    }

    #[test]
    fn what_a_proxy_tells_comes_before_what_it_sends() {
        let head = request(
            "GET / HTTP/1.0\r\nHost: inner:1\r\nX-Forwarded-Host: outer\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-For: 192.0.2.1, 10.0.0.1\r\n\r\n",
        );
        let server = head.facts.server.expect("a host");
        assert_eq!((&*server.host, server.port, &*head.facts.scheme), ("outer", None, "https"));
        assert_eq!((head.facts.client.as_deref(), head.facts.version), (Some("192.0.2.1"), "1.0"));
        let head = request(
            "GET http://absolute:81/a HTTP/1.1\r\nHost: inner\r\n\
             Forwarded: for=\"[2001:db8::1]:99\";proto=https;host=front, for=10.0.0.1\r\n\r\n",
        );
        assert_eq!(
            (head.facts.client.as_deref(), &*head.facts.scheme, &*head.facts.path),
            (Some("2001:db8::1"), "https", "/a")
        );
        assert_eq!(head.facts.server.map(|server| server.host).as_deref(), Some("front"));
    }

    #[test]
    fn bodies_are_told_by_their_heads_or_contradict_themselves() {
        let with = |headers: &str| {
            let text = format!("PUT / HTTP/1.1\r\n{headers}\r\n");
            parse_request(text.as_bytes(), &Propagators::default())
        };
        let body = |headers: &str| with(headers).map(|head| head.body);
        assert_eq!(body(""), Some(None));
        assert_eq!(body("Content-Length: 0\r\n"), Some(None));
        assert_eq!(body("Content-Length: 5, 5\r\nContent-Length: 5\r\n"), Some(Some(Body::Length(5))));
        assert_eq!(body("Transfer-Encoding: gzip, Chunked\r\nContent-Length: 5\r\n"), Some(Some(Body::CHUNKED)));
        for broken in ["Content-Length: 5, 6\r\n", "Content-Length: -1\r\n", "Transfer-Encoding: gzip\r\n"] {
            assert!(with(broken).is_none(), "{broken}");
        }
    }

    #[test]
    fn answers_end_where_their_heads_say() {
        let end = |text: &str, method: &str| parse_answer(text.as_bytes(), method).map(|head| (head.status, head.end));
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(end(ok, "GET"), Some((200, AnswerEnd::Body(Body::Length(3)))));
        assert_eq!(end(ok, "HEAD"), Some((200, AnswerEnd::Head)));
        assert_eq!(end("HTTP/1.1 304 \r\nContent-Length: 3\r\n\r\n", "GET"), Some((304, AnswerEnd::Head)));
        assert_eq!(end("HTTP/1.0 200 OK\r\n\r\n", "GET"), Some((200, AnswerEnd::Connection)));
        let chunked = "HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(end(chunked, "GET"), Some((500, AnswerEnd::Body(Body::CHUNKED))));
        assert_eq!(end("HTTP/1.1 2x0 OK\r\n\r\n", "GET"), None);
        let statuses = ["HTTP/1.1 200 OK", "HTTP/1.1 404", "HTTP/1.1 20", "HTTP/2 200", ""];
        assert_eq!(statuses.map(|line| status_of(line.as_bytes())), [Some(200), Some(404), None, None, None]);
    }

    #[test]
    fn the_first_bytes_tell_what_cannot_be_a_request() {
        let may = [&b"G"[..], b"GET ", b"M-SEARCH * HTTP/1.1", b""];
        assert!(may.iter().all(|bytes| may_be_request(bytes)));
        let may_not = [&b" GET"[..], b"\x16\x03\x01", b"{\"a\":1}", b"0123 ", &[b'A'; 40]];
        assert!(may_not.iter().all(|bytes| !may_be_request(bytes)));
        assert!(begins_request(b"GET / HTTP/1.1\r\nHost"));
        assert!(!begins_request(b"GET / HTTP/1.1") && !begins_request(b"GET is a word\n"));
    }
}
