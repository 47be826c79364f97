//! Calls that begin in spans of an OpenTelemetry SDK in their process: they are inside those, whatever the task or thread.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tracer_tests::python::{self, CHAIN, Interpreter};
use tracer_tests::spans::{SpanRow, Spans};
use tracer_tests::suite::{Case, Need, case_of, is_full};
use tracer_tests::tracer::{Trace, Tracer, ml_tracer};

use super::conversation::answer;
use super::parents::{BOTH, Server};

/// Connections at one time, and requests on each.
const CONNECTIONS: usize = 8;
const EACH: usize = 33;

/// The model of a request is that with its number modulo this.
const MODELS: usize = 16;

/// What is asked for.
const KINDS: [&str; 10] =
    ["direct", "inner", "many", "thread", "executor", "remote", "unsampled", "bare", "own", "none"];

/// The tests.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |kind: &'static str, interpreter: Interpreter, mode: &'static str, requests: &'static str| {
        let name = format!("calls_are_inside_spans_of_the_sdk_{kind}_{mode}_{requests}_{}", interpreter.label());
        let needs = vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
        cases.push(case_of(name, needs, move || whole(kind, interpreter, mode, requests)));
    };
    // What 3.9 keeps is where 3.8 has it.
    for interpreter in python::all().into_iter().filter(|interpreter| is_full() || *interpreter != python::ORACLE) {
        add("tasks", interpreter, CHAIN, "sockets");
        if is_full() || interpreter == BOTH {
            add("tasks", interpreter, "watch", "sockets");
            add("tasks", interpreter, "watch", "off");
            add("threads", interpreter, CHAIN, "sockets");
            add("threads", interpreter, CHAIN, "off");
        }
    }
    let needs = || vec![Need::Program, Need::Kernel, Need::Python(BOTH)];
    cases.push(case_of("a_tape_gives_the_same_spans_of_the_sdk".to_owned(), needs(), replayed));
    cases.push(case_of("a_full_ring_gives_no_wrong_span_of_the_sdk".to_owned(), needs(), full_ring));
    cases
}

/// The kind of a request.
fn kind_of(number: usize) -> &'static str {
    KINDS[number % KINDS.len()]
}

/// Whether a request names a trace. Where only the caller's span is known in the process, it does.
fn has_caller(number: usize) -> bool {
    ["remote", "unsampled"].contains(&kind_of(number)) || (number / KINDS.len()).is_multiple_of(2)
}

/// Asks one after the other.
fn ask(port: u16, first: usize) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    let mut unread = Vec::new();
    for number in first..first + EACH {
        let kind = kind_of(number);
        let mut head = format!("GET /{kind}/{number} HTTP/1.1\r\nHost: models\r\n");
        if has_caller(number) {
            let flags = u8::from(kind != "unsampled");
            write!(head, "traceparent: 00-{:032x}-{number:016x}-0{flags}\r\n", number + 1)?;
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        answer(&mut stream, &mut unread, "GET").with_context(|| format!("the answer to /{kind}/{number}"))?;
    }
    Ok(())
}

/// The server is traced while it is asked.
fn run(kind: &'static str, interpreter: Interpreter, (mode, requests): (&str, &str), others: &[&str]) -> Result<Trace> {
    let mut command: Command = interpreter.command("targets/python_current_spans/server.py")?;
    command.arg(kind);
    python::with_sdk(&mut command, interpreter);
    let server = Server::of(command, kind)?;
    // The first spans show what the attributes of one are called.
    ask(server.port, 900_000)?;
    let arguments = ["--requests", requests, "--python", mode, "--class", "Model", "--methods", "predict,transform"];
    let attached = Tracer::attach(server.running.pid())?.arguments(arguments).arguments(others).start()?;
    let port = server.port;
    std::thread::scope(|scope| {
        let one = |connection: usize| scope.spawn(move || ask(port, 1_000 * (connection + 1)));
        let all: Vec<_> = (0..CONNECTIONS).map(one).collect();
        all.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a client has ended"))?)
    })?;
    let trace = attached.stop()?;
    server.end()?;
    Ok(trace)
}

fn whole(kind: &'static str, interpreter: Interpreter, mode: &str, requests: &str) -> Result<()> {
    let trace = run(kind, interpreter, (mode, requests), &[])?;
    check(&trace, kind == "threads", requests == "sockets")
}

fn replayed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (tape, spans) = (folder.path().join("run.tape"), folder.path().join("spans.jsonl"));
    let tape = tape.to_str().context("a path")?;
    let trace = run("tasks", BOTH, (CHAIN, "sockets"), &["--record-tape", tape])?;
    check(&trace, false, true)?;
    let replay = ml_tracer(["replay", tape, "--export", &format!("jsonl={}", spans.display())])?;
    ensure!(replay.code == Some(0), "{}", replay.errors);
    let again = Spans::read(&spans)?;
    let all = |spans: &Spans| spans.0.iter().map(|row| (row.span.span_id.clone(), row.span.clone())).collect();
    let (first, again): (BTreeMap<_, _>, BTreeMap<_, _>) = (all(&trace.spans), all(&again));
    ensure!(first == again, "the replay tells other spans");
    Ok(())
}

/// What is lost is said, and what is told is right.
fn full_ring() -> Result<()> {
    let trace = run("tasks", BOTH, (CHAIN, "off"), &["--ring-bytes", "4096"])?;
    let told = &trace.summary.0["requests"];
    let mut lost = 0;
    for row in trace.spans.0.iter().filter(|row| row.span.name.ends_with(".predict")) {
        lost += u64::from(row.text("ml.parent_reason") == Some("record_lost"));
        let Some(number) = number_of(&row.span.trace_id) else { continue };
        let expected = format!("Model{:02}.predict", number % MODELS);
        ensure!(row.span.name == expected, "{} is in the trace of request {number}: {told}", row.span.name);
    }
    let of_spans = told["span_records_lost"].as_u64().context("a number")?;
    ensure!(of_spans >= lost, "{lost} calls have lost their spans: {told}");
    Ok(())
}

fn number_of(trace_id: &[u8]) -> Option<usize> {
    let number = u128::from_be_bytes(trace_id.try_into().ok()?).checked_sub(1)?;
    (number < 1_000_000).then_some(number as usize)
}

fn check(trace: &Trace, is_threads: bool, has_requests: bool) -> Result<()> {
    let told = &trace.summary.0["requests"];
    let known: HashMap<&[u8], &SpanRow> = trace.spans.0.iter().map(|row| (row.span.span_id.as_slice(), row)).collect();
    let mut requests: BTreeMap<usize, &SpanRow> = BTreeMap::new();
    for row in trace.spans.0.iter().filter(|row| row.span.kind == SpanKind::Server as i32) {
        let number = row.text("url.path").and_then(|path| path.rsplit('/').next()).context("a path")?.parse()?;
        requests.insert(number, row);
    }
    let mut calls: BTreeMap<usize, usize> = BTreeMap::new();
    let mut for_nobody = 0;
    for row in trace.spans.0.iter().filter(|row| row.span.kind != SpanKind::Server as i32) {
        let span = &row.span;
        if span.name.ends_with(".transform") {
            let parent = known.get(span.parent_span_id.as_slice()).context("what is around a step")?;
            ensure!(parent.span.name.ends_with(".predict"), "{} is in {}", span.name, parent.span.name);
            ensure!(parent.span.trace_id == span.trace_id, "{} leaves its trace", span.name);
            continue;
        }
        let inside = requests.iter().find(|(_, request)| request.span.span_id == span.parent_span_id);
        let number = inside.map(|(number, _)| *number).or_else(|| number_of(&span.trace_id));
        let Some(number) = number else {
            ensure!(span.parent_span_id.is_empty(), "{} is in a trace that nobody has begun: {told}", span.name);
            for_nobody += 1;
            continue;
        };
        *calls.entry(number).or_default() += 1;
        let kind = kind_of(number);
        let expected = format!("Model{:02}.predict", number % MODELS);
        ensure!(span.name == expected, "{} is in the trace of /{kind}/{number}: {told}", span.name);
        let parent = span.parent_span_id.as_slice().try_into().map_or(0, u64::from_be_bytes) as usize;
        let is_right = match kind {
            "direct" => parent == 16 * number + 1,
            "thread" | "executor" if is_threads => parent == 16 * number + 1,
            "many" if is_threads => parent == 16 * number + 1,
            "thread" => parent == 16 * number + 1,
            "inner" => parent == 16 * number + 2,
            "many" => [16 * number + 2, 16 * number + 3].contains(&parent),
            "own" => parent == 16 * number + 1,
            "remote" if has_requests => inside.is_some(),
            "remote" => parent == number,
            "bare" => inside.is_some(),
            _ => false,
        };
        // The span of the model itself may have been begun before the call was seen first.
        let is_unknown = row.text("ml.parent_reason") == Some("span_may_be_inside") && parent == 0;
        ensure!(is_right || is_unknown, "{} in /{kind}/{number} is inside {parent}: {row:?}, {told}", span.name);
        ensure!(kind == "own" || !is_unknown, "{} in /{kind}/{number} is inside no span: {row:?}", span.name);
    }
    for connection in 1..=CONNECTIONS {
        for number in 1_000 * connection..1_000 * connection + EACH {
            let kind = kind_of(number);
            let expected = match kind {
                "unsampled" | "none" => 0,
                "executor" if !is_threads => 0,
                "many" if !is_threads => 2,
                "bare" if !has_requests => 0,
                _ => 1,
            };
            let count = calls.get(&number).copied().unwrap_or_default();
            ensure!(count == expected, "{count} calls in /{kind}/{number}, not {expected}: {told}");
            // In threads the spans are over when the answers begin: not every request shows that the SDK tells of it.
            let is_told = requests.contains_key(&number);
            let is_wrong = match kind {
                "bare" | "remote" => !is_told,
                "unsampled" | "direct" => is_told,
                _ => is_told && !is_threads,
            };
            if has_requests && is_wrong {
                bail!("/{kind}/{number} is told of: {is_told}; {told}");
            }
        }
    }
    let nobody = KINDS.iter().filter(|kind| **kind == "executor" || (**kind == "bare" && !has_requests)).count();
    let most = nobody * (CONNECTIONS * EACH / KINDS.len() + CONNECTIONS);
    ensure!(for_nobody <= most, "{for_nobody} calls are in no trace, of at most {most}: {told}");
    Ok(())
}
