//! Services that ask each other, one with OpenTelemetry's SDK in it and two without: one trace for each request, in a collector.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tracer_tests::collector::Collector;
use tracer_tests::process::{Running, poll};
use tracer_tests::python::CHAIN;
use tracer_tests::receiver::Receiver;
use tracer_tests::spans::{SpanRow, Spans};
use tracer_tests::suite::{Case, Need, case_of};
use tracer_tests::tracer::Tracer;

use super::MODELS;
use super::conversation::answer;
use super::routes::{ask, port_of};

/// Requests to the first service.
const REQUESTS: usize = 10;

/// The services that are traced, and what their requests are called.
const TRACED: [(&str, &str); 2] = [("formatter", "GET /format/{name}"), ("publisher", "GET /publish/<text>")];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = || vec![Need::Program, Need::Kernel, Need::Python(MODELS), Need::Collector];
    vec![
        case_of("services_are_in_one_trace".to_owned(), needs(), one_trace),
        case_of("models_are_inside_the_spans_of_an_instrumented_server".to_owned(), needs(), instrumented),
        case_of("requests_that_the_sdk_puts_into_another_trace_are_linked".to_owned(), needs(), contradicted),
    ]
}

fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Result<(Running, u16)> {
    let mut command = MODELS.command("targets/python_services/service.py")?;
    command.args(arguments).envs(variables.iter().copied());
    let mut running = Running::start(command)?;
    let port = port_of(&mut running)?;
    Ok((running, port))
}

fn one_trace() -> Result<()> {
    let receiver = Receiver::grpc()?;
    let collector = Collector::start(&receiver.address)?;
    let [formatter, publisher] = TRACED.map(|(name, _)| start(&[name], &[("OTEL_SERVICE_NAME", name)]));
    let ((formatter, format_port), (publisher, publish_port)) = (formatter?, publisher?);
    let others = [format_port, publish_port].map(|port| format!("http://127.0.0.1:{port}"));
    let variables = [("OTEL_SERVICE_NAME", "frontend"), ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.http.as_str())];
    let (_frontend, port) = start(&["frontend", &others[0], &others[1]], &variables)?;
    let export = format!("otlp={}", collector.http);
    // Flask is known to answer once it has.
    ask(publish_port, "GET", "/publish/first")?;
    let publisher = publisher.pid().to_string();
    let arguments = ["--pid", &publisher, "--requests", "sockets", "--export", &export];
    let attached = Tracer::attach(formatter.pid())?.arguments(arguments).start()?;
    for number in 0..REQUESTS {
        ask(port, "GET", &format!("/hello/{number}"))?;
    }
    attached.stop()?;
    let is_hello = |row: &SpanRow| row.span.name == "GET /hello/{name}" && row.span.kind == SpanKind::Server as i32;
    let whole = |spans: &Spans| {
        let count = |name: &str| spans.0.iter().filter(|row| row.span.name == name).count();
        TRACED.iter().all(|(_, name)| count(name) == REQUESTS)
            && spans.0.iter().filter(|row| is_hello(row)).count() == REQUESTS
    };
    poll("all spans at the receiver", || {
        let spans = receiver.spans();
        Ok(whole(&spans).then_some(()))
    })
    .with_context(|| {
        let spans = receiver.spans();
        spans.0.iter().map(|row| row.span.name.as_str()).collect::<Vec<_>>().join(", ")
    })?;
    collector.stop()?;
    check(&receiver.spans(), is_hello)
}

fn check(spans: &Spans, is_hello: impl Fn(&SpanRow) -> bool) -> Result<()> {
    let by_id: HashMap<&[u8], &SpanRow> = spans.0.iter().map(|row| (row.span.span_id.as_slice(), row)).collect();
    for hello in spans.0.iter().filter(|row| is_hello(row)) {
        let of_trace: Vec<&SpanRow> = spans.0.iter().filter(|row| row.span.trace_id == hello.span.trace_id).collect();
        for (service, name) in TRACED {
            let mut asked = of_trace.iter().filter(|row| row.span.name == name);
            let row = asked.next().with_context(|| format!("no {name} in a trace"))?;
            ensure!(asked.next().is_none(), "two requests of {name} in a trace");
            ensure!(row.span.kind == SpanKind::Server as i32, "{row:?}");
            ensure!(row.resource("service.name").as_deref() == Some(service), "{row:?}");
            let parent = by_id.get(row.span.parent_span_id.as_slice()).context("its caller has a span")?;
            let is_client = parent.span.kind == SpanKind::Client as i32;
            ensure!(is_client && parent.span.trace_id == row.span.trace_id, "{parent:?}");
            ensure!(parent.resource("service.name").as_deref() == Some("frontend"), "{parent:?}");
            let above = by_id.get(parent.span.parent_span_id.as_slice()).context("which is inside a span")?;
            ensure!(above.span.span_id == hello.span.span_id, "{above:?}");
        }
        let servers = of_trace.iter().filter(|row| row.span.kind == SpanKind::Server as i32).count();
        ensure!(servers == 1 + TRACED.len(), "{servers} requests in a trace");
    }
    Ok(())
}

/// A server with `FastAPIInstrumentor` and spans of its own: the SDK tells of its requests, and the tracer of the model inside, in one tree.
fn instrumented() -> Result<()> {
    let receiver = Receiver::grpc()?;
    let collector = Collector::start(&receiver.address)?;
    let variables = [("OTEL_SERVICE_NAME", "predictor"), ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.http.as_str())];
    let (predictor, port) = start(&["predictor"], &variables)?;
    let paths = [("/task", "GET /task/{number}"), ("/thread", "GET /thread/{number}"), ("/manual", "manual")];
    for (path, _) in paths {
        ask(port, "GET", &format!("{path}/0"))?;
    }
    let export = format!("otlp={}", collector.http);
    let arguments = ["--requests", "sockets", "--python", CHAIN, "--export", &export];
    let attached = Tracer::attach(predictor.pid())?.arguments(arguments).start()?;
    for number in 0..REQUESTS {
        for (path, _) in paths {
            ask(port, "GET", &format!("{path}/{number}"))?;
        }
    }
    let told = attached.stop()?.summary.0["requests"].clone();
    let expected = (paths.len() * REQUESTS) as u64;
    ensure!(told["told_by_sdk"].as_u64() == Some(expected), "{told}");
    ensure!(told["calls"]["in_spans"].as_u64() == Some(expected), "{told}");
    let is_prediction = |row: &&SpanRow| row.span.name == "Pipeline.predict";
    poll("all predictions and the spans around them at the receiver", || {
        let spans = receiver.spans();
        let ids: Vec<&[u8]> = spans.0.iter().map(|row| row.span.span_id.as_slice()).collect();
        let inside = spans.0.iter().filter(is_prediction);
        Ok((inside.filter(|row| ids.contains(&row.span.parent_span_id.as_slice())).count() == paths.len() * REQUESTS)
            .then_some(()))
    })
    .with_context(|| told.to_string())?;
    collector.stop()?;
    let spans = receiver.spans();
    let by_id: HashMap<&[u8], &SpanRow> = spans.0.iter().map(|row| (row.span.span_id.as_slice(), row)).collect();
    let mut around: HashMap<&str, usize> = HashMap::new();
    for row in spans.0.iter().filter(is_prediction) {
        let parent = by_id.get(row.span.parent_span_id.as_slice()).context("the span around it")?;
        ensure!(parent.span.trace_id == row.span.trace_id, "{row:?} is in another trace than {parent:?}");
        let is_around = parent.span.start_time_unix_nano <= row.span.start_time_unix_nano
            && row.span.end_time_unix_nano <= parent.span.end_time_unix_nano;
        ensure!(is_around, "{row:?} is not inside {parent:?} in time");
        *around.entry(parent.span.name.as_str()).or_default() += 1;
    }
    ensure!(around == paths.map(|(_, name)| (name, REQUESTS)).into(), "{around:?}");
    let servers = spans.0.iter().filter(|row| row.span.kind == SpanKind::Server as i32).count();
    ensure!(servers == paths.len() * (REQUESTS + 1), "{servers} requests are told of");
    Ok(())
}

/// With asyncio the context of a request with a large body stays with its connection (cpython#140947): the SDK takes the next requests for parts
/// of it. Their callers' traces say otherwise.
fn contradicted() -> Result<()> {
    const LARGE: usize = 300_000;
    let receiver = Receiver::grpc()?;
    let collector = Collector::start(&receiver.address)?;
    let variables = [("OTEL_SERVICE_NAME", "predictor"), ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.http.as_str())];
    let (predictor, port) = start(&["predictor"], &variables)?;
    ask(port, "GET", "/task/0")?;
    let arguments = ["--requests", "sockets", "--python", CHAIN];
    let attached = Tracer::attach(predictor.pid())?.arguments(arguments).start()?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut unread = Vec::new();
    for (number, length) in [(1, LARGE), (2, 2), (3, 2)] {
        let head = format!(
            "POST /body/{number} HTTP/1.1\r\nHost: models\r\ntraceparent: 00-{number:032x}-{number:016x}-01\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(&vec![b'x'; length])?;
        answer(&mut stream, &mut unread, "POST")?;
    }
    let trace = attached.stop()?;
    collector.stop()?;
    let told = &trace.summary.0["requests"];
    let calls: Vec<&SpanRow> = trace.spans.0.iter().filter(|row| row.span.name == "Pipeline.predict").collect();
    ensure!(calls.len() == 3, "{told}");
    let mut contradicted = 0;
    for (row, number) in calls.iter().zip(1_u8..) {
        let (mut caller, mut callers_span) = ([0; 16], [0; 8]);
        (caller[15], callers_span[7]) = (number, number);
        if row.span.trace_id == caller {
            ensure!(row.span.links.is_empty(), "{row:?}");
            continue;
        }
        contradicted += 1;
        let [link] = row.span.links.as_slice() else { bail!("no link to the request: {row:?}") };
        ensure!(link.trace_id == caller && link.span_id == callers_span, "{row:?}");
    }
    ensure!(contradicted == 2, "{contradicted} calls are in another trace than their callers'");
    ensure!(told["calls"]["contradicted"].as_u64() == Some(contradicted), "{told}");
    Ok(())
}
