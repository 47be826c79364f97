//! Suite of the requests that real servers are asked: each has one span, with what its client knows of it.

mod conversation;
mod parents;
mod routes;
mod sdk;
mod services;
mod unharmed;

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tracer_tests::process::{Running, poll};
use tracer_tests::python::{CHAIN, Interpreter};
use tracer_tests::spans::{SpanRow, Spans};
use tracer_tests::suite::{self, Case, Need, case, case_of, is_full};
use tracer_tests::tracer::{Attached, Trace, Tracer, ml_tracer};
use tracer_tests::workspace;

use conversation::{Asked, Manner, converse};

/// The environment that has the servers.
const MODELS: Interpreter = Interpreter::Environment("models");

/// Connections at one time, and requests on each.
const CONNECTIONS: usize = 8;
const EACH: usize = 24;

/// The servers, and how they are asked.
const SERVERS: [(&str, &[&str], Manner); 7] = [
    ("uvicorn", &["uvicorn"], Manner::Plain),
    ("uvicorn_split_heads", &["uvicorn"], Manner::Split),
    ("uvicorn_pipelined", &["uvicorn"], Manner::Pipelined),
    ("gunicorn_threads", &["gunicorn", "--threads", "8"], Manner::Plain),
    ("gunicorn_threads_split_heads", &["gunicorn", "--threads", "8"], Manner::Split),
    ("gunicorn_threads_pipelined", &["gunicorn", "--threads", "8"], Manner::Pipelined),
    ("gunicorn_with_workers_of_uvicorn", &["gunicorn", "-k", "uvicorn.workers.UvicornWorker"], Manner::Plain),
];

fn main() -> ExitCode {
    let needs = || vec![Need::Program, Need::Kernel, Need::Python(MODELS)];
    let mut cases: Vec<Case> = Vec::new();
    for (name, command, manner) in SERVERS {
        cases.push(case_of(format!("every_request_has_its_span_{name}"), needs(), move || whole(command, manner)));
        if is_full() || manner != Manner::Split {
            let predictions = format!("every_prediction_is_inside_its_request_{name}");
            cases.push(case_of(predictions, needs(), move || inside(command, manner)));
        }
    }
    cases.push(case_of("every_request_has_its_span_unix_socket".to_owned(), needs(), unix_socket));
    cases.push(case_of("every_request_has_its_span_at_system_calls".to_owned(), needs(), at_system_calls));
    cases.push(case_of("connections_that_were_there_before".to_owned(), needs(), there_before));
    cases.push(case_of("callers_are_joined_by_the_headers_that_are_named".to_owned(), needs(), other_headers));
    cases.push(case_of("a_client_that_hangs_up".to_owned(), needs(), hangs_up));
    cases.push(case_of("a_tracer_that_goes_while_requests_come".to_owned(), needs(), goes_in_the_middle));
    cases.push(case_of("a_tape_gives_the_same_requests".to_owned(), needs(), replayed));
    cases.push(case_of("a_full_ring_gives_no_wrong_request".to_owned(), needs(), full_ring));
    cases.extend(parents::cases());
    cases.extend(routes::cases());
    cases.extend(services::cases());
    cases.extend(sdk::cases());
    cases.extend(unharmed::cases());
    cases.push(case_of("servers_are_looked_at_by_themselves".to_owned(), needs(), auto));
    cases.push(case("what_is_not_built_is_refused", &[Need::Program], refused));
    suite::main(cases)
}

/// A running server, and where it listens.
struct Server {
    running: Running,
    place: Place,
}

/// A port, or the path of a unix socket.
struct Place(String);

impl Server {
    fn start(command: &[&str]) -> Result<Self> {
        let (program, options) = command.split_first().context("a server")?;
        let mut server = Command::new(workspace::python_environment("models", &format!("bin/{program}")));
        server.env("OMP_NUM_THREADS", "1").args(options);
        let folder = workspace::tests("targets/http_server");
        let told = if *program == "uvicorn" {
            server
                .args(["--lifespan", "off", "--no-access-log", "--timeout-keep-alive", "60", "--app-dir"])
                .arg(folder);
            if !options.contains(&"--uds") {
                server.args(["--port", "0"]);
            }
            server.arg("app:application");
            "running on "
        } else {
            server.args(["--bind", "127.0.0.1:0", "--keep-alive", "60", "--chdir"]).arg(folder);
            server.arg(if options.contains(&"-k") { "app:application" } else { "app:wsgi" });
            "Listening at: "
        };
        let mut running = Running::start(server)?;
        let line = running.wait_errors(told)?;
        let place = line.split_once(told).and_then(|(_, rest)| rest.split_whitespace().next());
        let place = place.with_context(|| line.clone())?.trim_start_matches("http://");
        let place = options.iter().skip_while(|option| **option != "--uds").nth(1).copied().unwrap_or(place);
        let server = Self { place: Place(place.to_owned()), running };
        // Its worker answers, once it has made its model.
        poll("the first answer", || Ok(server.place.converse(0, 1, Manner::Plain).ok().map(drop)))?;
        Ok(server)
    }

    fn attach(&self, more: &[&str]) -> Result<Attached> {
        Tracer::attach(self.running.pid())?.arguments(["--requests", "sockets"]).arguments(more).start()
    }
}

impl Place {
    fn converse(&self, first: usize, count: usize, manner: Manner) -> Result<Vec<Asked>> {
        if self.0.starts_with('/') {
            return converse(UnixStream::connect(&self.0)?, first, count, manner);
        }
        converse(self.connect()?, first, count, manner)
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(&self.0)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Many connections at one time.
    fn converse_in_parallel(&self, manner: Manner) -> Result<Vec<Asked>> {
        let conversations = std::thread::scope(|scope| {
            let one = |number: usize| scope.spawn(move || self.converse(1000 * (number + 1), EACH, manner));
            let all: Vec<_> = (0..CONNECTIONS).map(one).collect();
            all.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        });
        let mut asked = Vec::new();
        for conversation in conversations {
            asked.extend(conversation.map_err(|_| anyhow::anyhow!("a client has ended"))??);
        }
        Ok(asked)
    }
}

/// The requests among the spans, by their path.
fn requests(spans: &Spans) -> Result<BTreeMap<String, SpanRow>> {
    let mut found = BTreeMap::new();
    for row in spans.0.iter().filter(|row| row.span.kind == SpanKind::Server as i32) {
        let path = row.text("url.path").context("a request without a path")?.to_owned();
        ensure!(found.insert(path.clone(), row.clone()).is_none(), "two requests of {path}");
    }
    Ok(found)
}

/// Compares what is told of a request with what its client knows.
fn check(row: &SpanRow, asked: &Asked) -> Result<()> {
    let Asked { method, path, status, sent, received, caller } = asked;
    let number = path.rsplit('/').next().unwrap_or_default();
    let kind = path.split('/').nth(1).unwrap_or_default();
    let (route, known) = (row.text("http.route"), format!("/{kind}/{{number}}"));
    ensure!(route.is_none_or(|route| route == known), "{route:?}");
    let name = route.map_or_else(|| (*method).to_owned(), |route| format!("{method} {route}"));
    ensure!(row.span.name == name, "it is called {}", row.span.name);
    ensure!(row.text("http.request.method") == Some(method), "{:?}", row.text("http.request.method"));
    ensure!(row.integer("http.response.status_code") == Some(i64::from(*status)), "{row:?}");
    ensure!(row.integer("http.request.body.size") == Some(*sent as i64), "{row:?}");
    ensure!(row.integer("http.response.body.size") == Some(*received as i64), "{received} received: {row:?}");
    ensure!(row.text("url.query") == Some(&format!("sig=REDACTED&number={number}")), "{:?}", row.text("url.query"));
    ensure!(row.text("server.address") == Some("models") && row.integer("server.port") == Some(81), "{row:?}");
    ensure!(row.text("url.scheme") == Some("http") && row.text("user_agent.original") == Some("conversation"));
    ensure!(row.is_error() == (*status >= 500), "an error of the server and nothing else is one: {row:?}");
    ensure!(row.text("error.type") == (*status >= 500).then_some("500"), "{row:?}");
    ensure!(row.ending() == "returned", "{}", row.ending());
    let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match caller {
        Some((trace, span)) => {
            ensure!(hexadecimal(&row.span.trace_id) == *trace, "it is in another trace");
            ensure!(hexadecimal(&row.span.parent_span_id) == *span, "it has another parent");
            ensure!(row.span.trace_state == format!("vendor={number}"), "{}", row.span.trace_state);
        }
        None => ensure!(row.span.parent_span_id.is_empty(), "it has a parent that nobody named"),
    }
    Ok(())
}

/// Each request has a span, and there are no others.
fn check_all(trace: &Trace, asked: &[Asked]) -> Result<()> {
    let found = requests(&trace.spans)?;
    let told = &trace.summary.0["requests"];
    for asked in asked {
        let row = found.get(&asked.path).with_context(|| format!("no span of {}: {told}", asked.path))?;
        check(row, asked).with_context(|| format!("{asked:?}"))?;
    }
    ensure!(found.len() == asked.len(), "{} spans of {} requests: {told}", found.len(), asked.len());
    ensure!(told["out_of_step"].as_object().is_some_and(|reasons| reasons.is_empty()), "{told}");
    ensure!(told["seen"].as_u64() == Some(asked.len() as u64) && told["unanswered"] == 0, "{told}");
    Ok(())
}

fn whole(command: &[&str], manner: Manner) -> Result<()> {
    let server = Server::start(command)?;
    let attached = server.attach(&[])?;
    let asked = server.place.converse_in_parallel(manner)?;
    let trace = attached.stop()?;
    check_all(&trace, &asked)?;
    // FastAPI has routes for all but one kind.
    let is_fastapi = command.iter().any(|word| word.contains("uvicorn"));
    for (path, row) in requests(&trace.spans)? {
        let has_route = is_fastapi && !path.starts_with("/missing");
        ensure!(row.text("http.route").is_some() == has_route, "{path}: {:?}", row.text("http.route"));
    }
    Ok(())
}

/// Each prediction is inside the request that asked for it; of several that a thread has read at once, it is not known inside which.
fn inside(command: &[&str], manner: Manner) -> Result<()> {
    let server = Server::start(command)?;
    let attached = server.attach(&["--python", CHAIN])?;
    let asked = server.place.converse_in_parallel(manner)?;
    let trace = attached.stop()?;
    check_all(&trace, &asked)?;
    let told = &trace.summary.0["requests"];
    let found = requests(&trace.spans)?;
    let predictions =
        || trace.spans.0.iter().filter(|row| row.span.name.ends_with(".predict") && row.text("ml.step").is_none());
    let mut inside = 0;
    for asked in &asked {
        let row = found.get(&asked.path).context("a request")?;
        let number: usize = asked.path.rsplit('/').next().unwrap_or_default().parse()?;
        let calls: Vec<&str> = predictions()
            .filter(|call| call.span.parent_span_id == row.span.span_id && call.span.trace_id == row.span.trace_id)
            .map(|call| call.span.name.as_str())
            .collect();
        let expected = format!("Pipeline{:02}.predict", number % 16);
        ensure!(calls.iter().all(|call| *call == expected), "{calls:?} inside {}: {told}", asked.path);
        let is_known = !(manner == Manner::Pipelined && command.contains(&"--threads"));
        let is_exact = calls.len() == 1 || !(is_known && asked.method == "GET" && asked.path.contains("predict"));
        ensure!(is_exact && calls.len() <= 1, "{calls:?} inside {}: {told}", asked.path);
        inside += calls.len();
    }
    let joined = predictions().filter(|call| !call.span.parent_span_id.is_empty()).count();
    ensure!(joined == inside, "{joined} predictions are inside something, {inside} inside what was asked: {told}");
    Ok(())
}

fn unix_socket() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("socket");
    let server = Server::start(&["uvicorn", "--uds", path.to_str().context("a path")?])?;
    let attached = server.attach(&[])?;
    let asked = server.place.converse_in_parallel(Manner::Plain)?;
    check_all(&attached.stop()?, &asked)
}

/// As on kernels that do not tell of sockets; a unix socket, whose end is seen there in any case, and connections that are there already.
fn at_system_calls() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("socket");
    for more in [&[][..], &["--uds", path.to_str().context("a path")?]] {
        let server = Server::start(&[&["uvicorn"], more].concat())?;
        let attached = server.attach(&["--single-probes"])?;
        let asked = server.place.converse_in_parallel(Manner::Plain)?;
        check_all(&attached.stop()?, &asked)?;
    }
    Ok(())
}

/// Idle connections go on after the tracer has come.
fn there_before() -> Result<()> {
    let server = Server::start(&["uvicorn"])?;
    let mut streams = Vec::new();
    for number in 0..CONNECTIONS {
        let mut stream = server.place.connect()?;
        converse(&mut stream, number * 100, 3, Manner::Plain)?;
        streams.push(stream);
    }
    let attached = server.attach(&[])?;
    let mut asked = Vec::new();
    for (number, stream) in streams.into_iter().enumerate() {
        asked.extend(converse(stream, 1000 * (number + 1), EACH, Manner::Plain)?);
    }
    check_all(&attached.stop()?, &asked)
}

/// B3 and Jaeger's headers are read where `OTEL_PROPAGATORS` names them, and others are not.
fn other_headers() -> Result<()> {
    use std::io::{Read as _, Write as _};
    const SPAN: &str = "e457b5a2e4d86bd1";
    let trace_of = |number: usize| format!("80f198ee56343ba864fe8b2a57d3ef{number:02x}");
    let headers = [
        ("b3", format!("b3: {}-{SPAN}-1", trace_of(0))),
        ("b3multi", format!("X-B3-TraceId: {}\r\nX-B3-SpanId: {SPAN}\r\nX-B3-Sampled: 1", trace_of(1))),
        ("jaeger", format!("Uber-Trace-Id: {}:{SPAN}:0:1", trace_of(2))),
        ("tracecontext", format!("traceparent: 00-{}-{SPAN}-01", trace_of(3))),
    ];
    let server = Server::start(&["uvicorn"])?;
    for (named, _) in &headers {
        let tracer = Tracer::attach(server.running.pid())?.variable("OTEL_PROPAGATORS", named);
        let attached = tracer.arguments(["--requests", "sockets"]).start()?;
        let mut stream = server.place.connect()?;
        for (number, (_, header)) in headers.iter().enumerate() {
            write!(
                stream,
                "GET /none/{number} HTTP/1.1\r\nHost: models\r\n{header}\r\nConnection: keep-alive\r\n\r\n"
            )?;
            ensure!(stream.read(&mut [0; 4_096])? > 0, "no answer");
        }
        let found = requests(&attached.stop()?.spans)?;
        for (number, (kind, _)) in headers.iter().enumerate() {
            let row = found.get(&format!("/none/{number}")).context("the request is told of")?;
            let is_joined = row.span.trace_id == hexadecimal(&trace_of(number));
            let has_parent = row.span.parent_span_id == hexadecimal(SPAN);
            // Both forms of B3 go by either name.
            let is_read = named.trim_end_matches("multi") == kind.trim_end_matches("multi");
            ensure!((is_joined, has_parent) == (is_read, is_read), "{kind} where {named} is named: {row:?}");
        }
    }
    Ok(())
}

fn hexadecimal(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2).unwrap_or_default(), 16).unwrap_or_default();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Where the tracer goes while requests come, it sees no answers without them.
fn goes_in_the_middle() -> Result<()> {
    let server = Server::start(&["uvicorn"])?;
    let is_over = AtomicBool::new(false);
    let trace = std::thread::scope(|scope| {
        let client = |number: usize| {
            let (is_over, place) = (&is_over, &server.place);
            scope.spawn(move || -> Result<()> {
                let mut stream = place.connect()?;
                for round in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    converse(&mut stream, 100_000 * number + 10 * round, 1, Manner::Plain)?;
                }
                Ok(())
            })
        };
        let clients: Vec<_> = (1..=CONNECTIONS).map(client).collect();
        let run = || {
            let attached = server.attach(&[])?;
            std::thread::sleep(Duration::from_millis(500));
            attached.stop()
        };
        let trace = run();
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client has ended"))??;
        }
        trace
    })?;
    let told = &trace.summary.0["requests"];
    ensure!(told["seen"].as_u64().is_some_and(|seen| seen > 50), "{told}");
    ensure!(told["out_of_step"].as_object().is_some_and(serde_json::Map::is_empty), "{told}");
    Ok(())
}

/// A request whose answer nobody waits for has no status that was not written.
fn hangs_up() -> Result<()> {
    use std::io::Write as _;
    let server = Server::start(&["gunicorn", "--threads", "2"])?;
    let attached = server.attach(&[])?;
    let mut stream = server.place.connect()?;
    // Its body never comes.
    stream.write_all(b"POST /length/7 HTTP/1.1\r\nHost: models\r\nContent-Length: 100\r\n\r\nsome")?;
    std::thread::sleep(Duration::from_millis(300));
    drop(stream);
    let asked = server.place.converse(8, 1, Manner::Plain)?;
    std::thread::sleep(Duration::from_millis(300));
    let trace = attached.stop()?;
    let found = requests(&trace.spans)?;
    check(found.get(&asked[0].path).context("the other one")?, &asked[0])?;
    let row = found.get("/length/7").context("the request is told of")?;
    let status = row.integer("http.response.status_code");
    // The server reads what there is, and may try to answer it.
    ensure!(row.ending() == "unobserved" || status.is_some(), "{row:?}");
    ensure!(row.integer("http.request.body.size") == Some(4), "{row:?}");
    Ok(())
}

fn replayed() -> Result<()> {
    let server = Server::start(&["uvicorn"])?;
    let folder = tempfile::tempdir()?;
    let (tape, spans) = (folder.path().join("run.tape"), folder.path().join("spans.jsonl"));
    let attached = server.attach(&["--record-tape", tape.to_str().context("a path")?])?;
    let asked = server.place.converse_in_parallel(Manner::Plain)?;
    let trace = attached.stop()?;
    check_all(&trace, &asked)?;
    let export = format!("jsonl={}", spans.display());
    let replay = ml_tracer(["replay", tape.to_str().context("a path")?, "--export", &export])?;
    ensure!(replay.code == Some(0), "{}", replay.errors);
    let again = requests(&Spans::read(&spans)?)?;
    let first = requests(&trace.spans)?;
    ensure!(again.len() == first.len(), "{} requests, {} in the replay", first.len(), again.len());
    for (path, row) in &first {
        ensure!(again.get(path).is_some_and(|again| again.span == row.span), "{path} is another one in the replay");
    }
    Ok(())
}

/// What is lost is counted, and what is told is right.
fn full_ring() -> Result<()> {
    let server = Server::start(&["uvicorn"])?;
    let attached = server.attach(&["--ring-bytes", "4096"])?;
    let asked = server.place.converse_in_parallel(Manner::Plain)?;
    let trace = attached.stop()?;
    let told = &trace.summary.0["requests"];
    let lost = told["records_lost"].as_u64().context("a number")?;
    ensure!(lost > 0, "nothing was lost: {told}");
    let found = requests(&trace.spans)?;
    let by_path: BTreeMap<&str, &Asked> = asked.iter().map(|asked| (asked.path.as_str(), asked)).collect();
    for (path, row) in &found {
        let asked = by_path.get(path.as_str()).with_context(|| format!("nobody has asked {path}"))?;
        if row.ending() == "returned" {
            check(row, asked).with_context(|| format!("{asked:?}"))?;
        }
    }
    ensure!(told["seen"].as_u64() == Some(found.len() as u64), "{told}");
    Ok(())
}

fn refused() -> Result<()> {
    let finished = ml_tracer(["attach", "--pid", "1", "--requests", "libc"])?;
    let words = "not seen in the C library yet";
    ensure!(finished.code == Some(2) && finished.errors.contains(words), "{finished:?}");
    Ok(())
}

/// `--requests auto` looks at what listens, and at nothing else.
fn auto() -> Result<()> {
    let server = Server::start(&["uvicorn"])?;
    let attached = Tracer::attach(server.running.pid())?.start()?;
    let asked = server.place.converse(1, 5, Manner::Plain)?;
    check_all(&attached.stop()?, &asked)?;
    let mut sleep = Command::new("sleep");
    sleep.arg("60");
    let sleeper = Running::start(sleep)?;
    for (pid, is_server) in [(server.running.pid(), true), (sleeper.pid(), false)] {
        let finished = ml_tracer(["attach", "--pid", &pid.to_string(), "--dry-run"])?;
        ensure!(finished.errors.contains("requests over HTTP/1.1 would be looked at") == is_server, "{finished:?}");
    }
    Ok(())
}
