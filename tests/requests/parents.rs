//! Which request a call of a model was made for: known, or said to be not known, and never another one's.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tracer_tests::process::Running;
use tracer_tests::python::{self, CHAIN, Interpreter};
use tracer_tests::spans::{SpanRow, Spans};
use tracer_tests::suite::{Case, Need, case_of, is_full};
use tracer_tests::targets;
use tracer_tests::tracer::{NEST_ALL, Trace, Tracer, ml_tracer};

use super::conversation::answer;

/// Connections at one time, and requests on each.
const CONNECTIONS: usize = 8;
const EACH: usize = 21;

/// The model of a request is that with its number modulo this.
const MODELS: usize = 16;

/// The models that are called for nobody.
const FOR_NOBODY: [&str; 2] = ["Model98.predict", "Model99.predict"];

/// What is asked for: the kind, and how many calls are made for it; `None`: not all of them can be known.
const KINDS: [(&str, Option<usize>); 7] = [
    ("direct", Some(1)),
    ("nested", Some(2)),
    ("thread", Some(1)),
    ("executor", None),
    ("after", Some(1)),
    ("stream", Some(1)),
    ("none", Some(0)),
];

/// The interpreter that is tried in both modes.
pub const BOTH: Interpreter = Interpreter::Environment("sklearn-3.12");

/// The tests.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |kind: &'static str, interpreter: Interpreter, mode: &'static str| {
        let name = format!("calls_are_inside_their_requests_{kind}_{mode}_{}", interpreter.label());
        let needs = vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
        cases.push(case_of(name, needs, move || whole(kind, interpreter, mode)));
    };
    for interpreter in python::all() {
        // Threads begin differently since 3.14.
        let is_special = is_full() || [BOTH, Interpreter::Sid].contains(&interpreter);
        let kinds = if is_special { &["tasks", "streams", "threads"][..] } else { &["tasks"] };
        for kind in kinds {
            add(kind, interpreter, CHAIN);
            if is_full() || interpreter == BOTH {
                add(kind, interpreter, "watch");
            }
        }
    }
    let native = "calls_are_inside_their_requests_native".to_owned();
    cases.push(case_of(native, vec![Need::Program, Need::Kernel], native_threads));
    let needs = || vec![Need::Program, Need::Kernel, Need::Python(BOTH)];
    cases.push(case_of("a_tape_gives_the_same_parents".to_owned(), needs(), replayed));
    cases.push(case_of("a_full_ring_gives_no_wrong_parent".to_owned(), needs(), full_ring));
    cases.push(case_of("callers_that_do_not_record_get_no_calls_either".to_owned(), needs(), not_sampled));
    cases
}

/// The server, and the port that it listens on.
pub struct Server {
    /// The process.
    pub running: Running,
    /// The port.
    pub port: u16,
    kind: &'static str,
}

impl Server {
    /// Starts the server of the standard library.
    pub fn start(kind: &'static str, interpreter: Interpreter) -> Result<Self> {
        let mut command = interpreter.command("targets/python_requests/server.py")?;
        command.arg(kind);
        Self::of(command, kind)
    }

    /// Starts any server that says its port.
    pub fn of(command: Command, kind: &'static str) -> Result<Self> {
        let mut running = Running::start(command)?;
        let line = running.wait_output("port ")?;
        let port = line.rsplit(' ').next().unwrap_or_default().trim().parse().with_context(|| line.clone())?;
        Ok(Self { running, port, kind })
    }

    fn tracer(&self, mode: &str) -> Result<Tracer> {
        let arguments =
            ["--requests", "sockets", "--python", mode, "--class", "Model", "--methods", "predict,transform"];
        Ok(Tracer::attach(self.running.pid())?.arguments(arguments))
    }

    /// Asks over many connections at one time.
    fn ask_in_parallel(&self, sampled: bool) -> Result<()> {
        std::thread::scope(|scope| {
            let port = self.port;
            let one = |connection: usize| scope.spawn(move || ask(port, 1_000 * (connection + 1), sampled));
            let all: Vec<_> = (0..CONNECTIONS).map(one).collect();
            all.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a client has ended"))?)
        })
    }

    /// Has it end, as it does by itself.
    pub fn end(mut self) -> Result<()> {
        self.running.close_input();
        ensure!(self.running.finish()?.code == Some(0), "the server did not end well");
        Ok(())
    }
}

/// Asks one after the other.
fn ask(port: u16, first: usize, sampled: bool) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    let mut unread = Vec::new();
    for number in first..first + EACH {
        // The last one is answered when what is done after the answers before it has been done.
        let (kind, _) = KINDS[if number + 1 == first + EACH { KINDS.len() - 1 } else { number * 3 % KINDS.len() }];
        let mut head = format!("GET /{kind}/{number} HTTP/1.1\r\nHost: models\r\n");
        write!(head, "traceparent: 00-{}-{:016x}-0{}\r\n\r\n", trace_of(number), number, u8::from(sampled))?;
        stream.write_all(head.as_bytes())?;
        answer(&mut stream, &mut unread, "GET").with_context(|| format!("the answer to /{kind}/{number}"))?;
    }
    Ok(())
}

fn trace_of(number: usize) -> String {
    format!("{:032x}", number + 1)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The number of the request that a span is about, and its kind.
fn asked(row: &SpanRow) -> Option<(usize, &str)> {
    let mut parts = row.text("url.path")?.split('/').skip(1);
    let (kind, number) = (parts.next()?, parts.next()?);
    Some((number.parse().ok()?, kind))
}

/// How many calls are inside each request, by its number. Checks that none is inside another one's.
fn calls_of(spans: &Spans) -> Result<BTreeMap<usize, (String, usize)>> {
    let mut calls: BTreeMap<usize, (String, usize)> = BTreeMap::new();
    let mut requests: HashMap<&[u8], usize> = HashMap::new();
    for row in spans.0.iter().filter(|row| row.span.kind == SpanKind::Server as i32) {
        let (number, kind) = asked(row).context("a request without a path")?;
        ensure!(hexadecimal(&row.span.trace_id) == trace_of(number), "{number} is in another trace");
        requests.insert(&row.span.span_id, number);
        calls.insert(number, (kind.to_owned(), 0));
    }
    let known: HashMap<&[u8], &SpanRow> = spans.0.iter().map(|row| (row.span.span_id.as_slice(), row)).collect();
    for row in spans.0.iter().filter(|row| row.span.kind != SpanKind::Server as i32) {
        let span = &row.span;
        let parent = known.get(span.parent_span_id.as_slice());
        ensure!(span.parent_span_id.is_empty() || parent.is_some(), "{} has a parent that is not told of", span.name);
        ensure!(parent.is_none_or(|parent| parent.span.trace_id == span.trace_id), "{} leaves its trace", span.name);
        if span.name.ends_with(".transform") {
            ensure!(parent.is_some_and(|parent| parent.span.name.ends_with(".predict")), "{} is outside", span.name);
            continue;
        }
        let Some(number) = requests.get(span.parent_span_id.as_slice()) else {
            ensure!(span.parent_span_id.is_empty(), "{} is inside a call", span.name);
            continue;
        };
        ensure!(
            !FOR_NOBODY.contains(&span.name.as_str()),
            "{} was called for nobody, and is inside {number}",
            span.name
        );
        let expected = format!("Model{:02}.predict", number % MODELS);
        ensure!(span.name == expected, "{} is inside request {number}, whose model is {expected}", span.name);
        let (kind, count) = calls.get_mut(number).context("a request")?;
        ensure!(kind != "none", "{} is inside a request that calls nothing", span.name);
        *count += 1;
    }
    Ok(calls)
}

fn check(trace: &Trace, kind_of_server: &str) -> Result<()> {
    let told = &trace.summary.0["requests"];
    let calls = calls_of(&trace.spans)?;
    ensure!(calls.len() == CONNECTIONS * EACH, "{} requests: {told}", calls.len());
    for (number, (kind, count)) in &calls {
        let expected = match (kind_of_server, KINDS.iter().find(|(known, _)| known == kind).context("a kind")?) {
            // Each calls its model once, in the thread that answers.
            ("native", ("executor", _)) => Some(0),
            ("threads" | "native", (kind, _)) => Some(usize::from(*kind != "none")),
            (_, (_, expected)) => *expected,
        };
        if let Some(expected) = expected {
            ensure!(*count == expected, "{count} calls inside /{kind}/{number}, not {expected}: {told}");
        }
    }
    let outermost = trace.spans.0.iter().filter(|row| row.span.name.ends_with(".predict")).count() as u64;
    let own = told["calls"]["own_root"].as_object().context("the reasons")?;
    let sum =
        told["calls"]["joined"].as_u64().unwrap_or_default() + own.values().filter_map(|n| n.as_u64()).sum::<u64>();
    // What was called before the first request is not asked for.
    ensure!(sum <= outermost && sum + 100 > outermost, "{sum} of {outermost} outermost calls are told of: {told}");
    Ok(())
}

fn whole(kind: &'static str, interpreter: Interpreter, mode: &str) -> Result<()> {
    let server = Server::start(kind, interpreter)?;
    let attached = server.tracer(mode)?.start()?;
    server.ask_in_parallel(true)?;
    let trace = attached.stop()?;
    check(&trace, server.kind)?;
    server.end()
}

/// Threads that wait for requests, and one that is handed a call by such a thread.
fn native_threads() -> Result<()> {
    let server = Server::of(Command::new(targets::build("cpp_server")?), "threads")?;
    let attached = Tracer::attach(server.running.pid())?.map(NEST_ALL)?.arguments(["--requests", "sockets"]).start()?;
    server.ask_in_parallel(true)?;
    let trace = attached.stop()?;
    check(&trace, "native")?;
    server.end()
}

fn replayed() -> Result<()> {
    let server = Server::start("tasks", BOTH)?;
    let folder = tempfile::tempdir()?;
    let (tape, spans) = (folder.path().join("run.tape"), folder.path().join("spans.jsonl"));
    let attached = server.tracer(CHAIN)?.arguments(["--record-tape", tape.to_str().context("a path")?]).start()?;
    server.ask_in_parallel(true)?;
    let trace = attached.stop()?;
    check(&trace, server.kind)?;
    server.end()?;
    let export = format!("jsonl={}", spans.display());
    let replay = ml_tracer(["replay", tape.to_str().context("a path")?, "--export", &export])?;
    ensure!(replay.code == Some(0), "{}", replay.errors);
    let again = Spans::read(&spans)?;
    let parents = |spans: &Spans| -> BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)> {
        let of =
            |row: &SpanRow| (row.span.span_id.clone(), (row.span.trace_id.clone(), row.span.parent_span_id.clone()));
        spans.0.iter().map(of).collect()
    };
    ensure!(parents(&trace.spans) == parents(&again), "the replay tells other parents");
    Ok(())
}

/// What is lost is said, and what is told is right.
fn full_ring() -> Result<()> {
    let server = Server::start("tasks", BOTH)?;
    let attached = server.tracer(CHAIN)?.arguments(["--ring-bytes", "4096"]).start()?;
    server.ask_in_parallel(true)?;
    let trace = attached.stop()?;
    let told = &trace.summary.0["requests"];
    let is_lost = |what: &str| told[what].as_u64().is_some_and(|count| count > 0);
    ensure!(is_lost("records_lost") || is_lost("context_records_lost"), "nothing was lost: {told}");
    let requests = trace.spans.0.iter().filter(|row| row.span.kind == SpanKind::Server as i32);
    let requests: HashMap<&[u8], usize> =
        requests.filter_map(|row| Some((row.span.span_id.as_slice(), asked(row)?.0))).collect();
    for row in trace.spans.0.iter().filter(|row| row.span.name.ends_with(".predict")) {
        if let Some(number) = requests.get(row.span.parent_span_id.as_slice()) {
            let expected = format!("Model{:02}.predict", number % MODELS);
            ensure!(row.span.name == expected, "{} is inside request {number}: {told}", row.span.name);
        }
    }
    server.end()
}

fn not_sampled() -> Result<()> {
    let server = Server::start("tasks", BOTH)?;
    let attached = server.tracer(CHAIN)?.start()?;
    server.ask_in_parallel(false)?;
    let trace = attached.stop()?;
    let told = &trace.summary.0["requests"];
    ensure!(told["not_sampled"].as_u64() == Some((CONNECTIONS * EACH) as u64), "{told}");
    ensure!(told["calls"]["not_sampled"].as_u64().is_some_and(|count| count > 50), "{told}");
    for row in trace.spans.0.iter().filter(|row| row.span.name.ends_with(".predict")) {
        // Those that are not known to be of any request are told of.
        let is_for_nobody = FOR_NOBODY.contains(&row.span.name.as_str());
        let is_unknown = row.text("ml.parent") == Some("unknown");
        ensure!(is_for_nobody || is_unknown, "{} is told of: {told}", row.span.name);
        if !row.span.parent_span_id.is_empty() {
            bail!("{} has a parent", row.span.name);
        }
    }
    server.end()
}
