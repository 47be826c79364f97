//! Services that ask each other, one with OpenTelemetry's SDK in it and two without: one trace for each request, in a collector.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tracer_tests::collector::Collector;
use tracer_tests::process::{Running, poll};
use tracer_tests::receiver::Receiver;
use tracer_tests::spans::{SpanRow, Spans};
use tracer_tests::suite::{Case, Need, case_of};
use tracer_tests::tracer::Tracer;

use super::MODELS;
use super::routes::{ask, port_of};

/// Requests to the first service.
const REQUESTS: usize = 10;

/// The services that are traced, and what their requests are called.
const TRACED: [(&str, &str); 2] = [("formatter", "GET /format/{name}"), ("publisher", "GET /publish/<text>")];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = vec![Need::Program, Need::Kernel, Need::Python(MODELS), Need::Collector];
    vec![case_of("services_are_in_one_trace".to_owned(), needs, one_trace)]
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
