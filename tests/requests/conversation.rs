//! A client that knows what it has asked: connections that stay open, each with a random mix of requests.

use std::fmt::Write as _;
use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};

/// What a request was and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its method.
    pub method: &'static str,
    /// Its path, which no other request has.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// Bytes that it sent.
    pub sent: usize,
    /// Bytes of the answer's body.
    pub received: usize,
    /// The trace and the span of the caller, if it said one.
    pub caller: Option<(String, String)>,
}

/// How requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// One after the other.
    Plain,
    /// The bytes of each in two pieces.
    Split,
    /// Three at once, before the first answer.
    Pipelined,
}

/// The kinds, by their first word in the path; what comes of them, if it is known beforehand.
const KINDS: [(&str, &str); 7] = [
    ("GET", "predict"),
    ("POST", "length"),
    ("GET", "none"),
    ("GET", "broken"),
    ("GET", "stream"),
    ("GET", "missing"),
    ("HEAD", "predict"),
];

/// Asks so many requests over one connection that stays open; `first` is the number of the first one.
pub fn converse(mut stream: impl Read + Write, first: usize, count: usize, manner: Manner) -> Result<Vec<Asked>> {
    let mut unread = Vec::new();
    let mut asked = Vec::new();
    let at_once = if manner == Manner::Pipelined { 3 } else { 1 };
    let mut next = first;
    while asked.len() < count {
        let mut wire = Vec::new();
        let mut waiting = Vec::new();
        for _ in 0..at_once.min(count - asked.len()) {
            let (request, bytes) = request(next, manner);
            wire.extend(bytes);
            waiting.push(request);
            next += 1;
        }
        match manner {
            Manner::Split => {
                let middle = 5 + next % 40;
                stream.write_all(&wire[..middle])?;
                stream.flush()?;
                std::thread::sleep(std::time::Duration::from_millis(2));
                stream.write_all(&wire[middle..])?;
            }
            Manner::Plain | Manner::Pipelined => stream.write_all(&wire)?,
        }
        for mut request in waiting {
            (request.status, request.received) = answer(&mut stream, &mut unread, request.method)
                .with_context(|| format!("the answer to {} {}", request.method, request.path))?;
            asked.push(request);
        }
    }
    Ok(asked)
}

fn request(number: usize, manner: Manner) -> (Asked, Vec<u8>) {
    let (method, kind) = KINDS[number * 5 % KINDS.len()];
    let path = format!("/{kind}/{number}");
    let caller = (!number.is_multiple_of(3)).then(|| (format!("{:032x}", number + 1), format!("{:016x}", number + 1)));
    // A request behind a body that is longer than what is looked at cannot be seen.
    let unit = if manner == Manner::Pipelined { 4_000 } else { 40_000 };
    let body = vec![b'x'; if method == "POST" { number % 4 * unit } else { 0 }];
    let mut head = format!("{method} {path}?sig=secret&number={number} HTTP/1.1\r\nHost: models:81\r\n");
    if let Some((trace, span)) = &caller {
        let _ = write!(head, "TraceParent: 00-{trace}-{span}-01\r\ntracestate: vendor={number}\r\n");
    }
    if method == "POST" {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    head.push_str("User-Agent: conversation\r\n\r\n");
    let sent = body.len();
    (Asked { method, path, status: 0, sent, received: 0, caller }, [head.into_bytes(), body].concat())
}

/// Reads one answer: its status, and how long its body is.
pub fn answer(stream: &mut impl Read, unread: &mut Vec<u8>, method: &str) -> Result<(u16, usize)> {
    let (status, body) = whole_answer(stream, unread, method)?;
    Ok((status, body.len()))
}

/// Reads one answer: its status, and its body.
pub fn whole_answer(stream: &mut impl Read, unread: &mut Vec<u8>, method: &str) -> Result<(u16, Vec<u8>)> {
    let head = String::from_utf8(until(stream, unread, b"\r\n\r\n")?)?.to_ascii_lowercase();
    let status: u16 = head.get(9..12).context("no status")?.parse()?;
    if method == "HEAD" || status == 204 {
        return Ok((status, Vec::new()));
    }
    if head.contains("transfer-encoding: chunked") {
        let mut body = Vec::new();
        loop {
            let line = until(stream, unread, b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&line)?.trim(), 16)?;
            body.extend_from_slice(&take(stream, unread, size + 2)?[..size]);
            if size == 0 {
                return Ok((status, body));
            }
        }
    }
    let length = head.split("content-length: ").nth(1).context(head.clone())?;
    let length: usize = length.lines().next().context("no length")?.trim().parse()?;
    Ok((status, take(stream, unread, length)?))
}

/// Everything up to these bytes, with them.
fn until(stream: &mut impl Read, unread: &mut Vec<u8>, end: &[u8]) -> Result<Vec<u8>> {
    loop {
        if let Some(found) = unread.windows(end.len()).position(|window| window == end) {
            return Ok(unread.drain(..found + end.len()).collect());
        }
        more(stream, unread)?;
    }
}

fn take(stream: &mut impl Read, unread: &mut Vec<u8>, count: usize) -> Result<Vec<u8>> {
    while unread.len() < count {
        more(stream, unread)?;
    }
    Ok(unread.drain(..count).collect())
}

fn more(stream: &mut impl Read, unread: &mut Vec<u8>) -> Result<()> {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer)?;
    ensure!(count > 0, "the connection has ended");
    unread.extend_from_slice(&buffer[..count]);
    Ok(())
}
