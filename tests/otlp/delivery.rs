//! Spans that arrive.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use tracer_tests::collector::Collector;
use tracer_tests::receiver::Receiver;
use tracer_tests::spans::Spans;
use tracer_tests::suite::{Case, Need, case};
use tracer_tests::targets::Target;
use tracer_tests::tracer::{NEST_ALL, Trace, Tracer};

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel];
    const COLLECTOR: &[Need] = &[Need::Program, Need::Kernel, Need::Collector];
    vec![
        case("http_protobuf", NEEDS, http_protobuf),
        case("http_protobuf_with_gzip", NEEDS, http_gzip),
        case("grpc", NEEDS, grpc),
        case("grpc_with_gzip", NEEDS, grpc_gzip),
        case("grpc_with_tls", NEEDS, grpc_tls),
        case("endpoint_from_the_environment", NEEDS, endpoint_from_environment),
        case("endpoint_for_traces_alone", NEEDS, endpoint_for_traces),
        case("headers_and_resource_from_the_environment", NEEDS, headers_and_resource),
        case("rotel_takes_grpc", COLLECTOR, rotel_grpc),
        case("rotel_takes_http", COLLECTOR, rotel_http),
        case("everything_at_once", NEEDS, everything_at_once),
    ]
}

/// Traces a pipeline on two threads into `export`.
fn trace_into(export: &str, variables: &[(&str, &str)]) -> Result<Trace> {
    let mut target = Target::start("cpp_pipeline", &["--requests", "60", "--threads", "2"])?;
    let mut tracer = Tracer::attach(target.pid())?.map(NEST_ALL)?.arguments(["--export", export]);
    for (name, value) in variables {
        tracer = tracer.variable(name, value);
    }
    let attached = tracer.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    Ok(trace)
}

/// What one span says, in a form that can be compared.
type Said = (String, Vec<u8>, u64, u64, i32, Vec<String>, Vec<String>);

fn said(spans: &Spans) -> BTreeMap<Vec<u8>, Said> {
    let sorted = |attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]| {
        let mut texts: Vec<String> = attributes.iter().map(|attribute| format!("{attribute:?}")).collect();
        texts.sort();
        texts
    };
    let rows = spans.0.iter().map(|row| {
        let span = &row.span;
        let said = (
            span.name.clone(),
            span.parent_span_id.clone(),
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            span.kind,
            sorted(&span.attributes),
            sorted(&row.resource),
        );
        (span.span_id.clone(), said)
    });
    rows.collect()
}

/// Checks what arrived on its own, and against the file of the same run.
fn arrived(receiver: &Receiver, trace: &Trace) -> Result<()> {
    let spans = receiver.wait_spans(trace.spans.0.len())?;
    spans.check()?;
    ensure!(spans.0.len() == trace.spans.0.len(), "{} arrived, {} in the file", spans.0.len(), trace.spans.0.len());
    let (arrived, written) = (said(&spans), said(&trace.spans));
    for (id, one) in &written {
        ensure!(arrived.get(id) == Some(one), "written: {one:?}\narrived: {:?}", arrived.get(id));
    }
    Ok(())
}

const GRPC: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
const GZIP: (&str, &str) = ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");

fn http_protobuf() -> Result<()> {
    let receiver = Receiver::http()?;
    let trace = trace_into(&format!("otlp={}", receiver.address), &[])?;
    ensure!(receiver.compressed() == 0, "compressed without being asked");
    arrived(&receiver, &trace)
}

fn http_gzip() -> Result<()> {
    let receiver = Receiver::http()?;
    let trace = trace_into(&format!("otlp={}", receiver.address), &[GZIP])?;
    ensure!(receiver.compressed() > 0, "nothing came compressed");
    arrived(&receiver, &trace)
}

fn grpc() -> Result<()> {
    let receiver = Receiver::grpc()?;
    let trace = trace_into(&format!("otlp={}", receiver.address), &[GRPC])?;
    arrived(&receiver, &trace)
}

fn grpc_gzip() -> Result<()> {
    let receiver = Receiver::grpc()?;
    let trace = trace_into(&format!("otlp={}", receiver.address), &[GRPC, GZIP])?;
    ensure!(receiver.compressed() > 0, "nothing came compressed");
    arrived(&receiver, &trace)
}

fn grpc_tls() -> Result<()> {
    let (receiver, authority) = Receiver::grpc_with_tls()?;
    let certificate = authority.path().join("authority.pem");
    let certificate = ("OTEL_EXPORTER_OTLP_CERTIFICATE", certificate.to_str().unwrap_or_default());
    let trace = trace_into(&format!("otlp={}", receiver.address), &[GRPC, certificate])?;
    arrived(&receiver, &trace)
}

fn endpoint_from_environment() -> Result<()> {
    let receiver = Receiver::http()?;
    let trace = trace_into("otlp", &[("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.address)])?;
    arrived(&receiver, &trace)
}

fn endpoint_for_traces() -> Result<()> {
    let receiver = Receiver::http()?;
    let complete = format!("{}/v1/traces", receiver.address);
    let variables = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", complete.as_str()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
    ];
    let trace = trace_into("otlp", &variables)?;
    arrived(&receiver, &trace)
}

fn headers_and_resource() -> Result<()> {
    for (receiver, protocol) in [(Receiver::http()?, "http/protobuf"), (Receiver::grpc()?, "grpc")] {
        let variables = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue%20sky,x-token=7"),
            ("OTEL_SERVICE_NAME", "scoring"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=overruled"),
        ];
        let trace = trace_into(&format!("otlp={}", receiver.address), &variables)?;
        arrived(&receiver, &trace)?;
        ensure!(receiver.header("x-tenant").as_deref() == Some("blue sky"), "{:?}", receiver.header("x-tenant"));
        ensure!(receiver.header("x-token").as_deref() == Some("7"), "{:?}", receiver.header("x-token"));
        for row in &receiver.spans().0 {
            ensure!(row.resource("service.name").as_deref() == Some("scoring"), "{:?}", row.resource);
            ensure!(row.resource("deployment.environment.name").as_deref() == Some("test"), "{:?}", row.resource);
        }
    }
    Ok(())
}

fn through_rotel(export: impl Fn(&Collector) -> String, variables: &[(&str, &str)]) -> Result<()> {
    let receiver = Receiver::grpc()?;
    let collector = Collector::start(&receiver.address)?;
    let trace = trace_into(&format!("otlp={}", export(&collector)), variables)?;
    arrived(&receiver, &trace)?;
    collector.stop()
}

fn rotel_grpc() -> Result<()> {
    through_rotel(|collector| collector.grpc.clone(), &[GRPC])
}

fn rotel_http() -> Result<()> {
    through_rotel(|collector| collector.http.clone(), &[])
}

fn everything_at_once() -> Result<()> {
    let receiver = Receiver::http()?;
    let mut target = Target::start("cpp_pipeline", &["--requests", "60"])?;
    let tracer = Tracer::attach(target.pid())?.map(NEST_ALL)?;
    let perfetto = format!("perfetto={}", tracer.file("trace.json").display());
    let otlp = format!("otlp={}", receiver.address);
    let attached = tracer.arguments(["--export", &otlp, "--export", &perfetto, "--export", "console"]).start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    ensure!(trace.finished.output.contains("Pipeline.predict"), "{:?}", trace.finished.output);
    ensure!(std::fs::metadata(trace.folder.path().join("trace.json"))?.len() > 1000, "the perfetto file is empty");
    arrived(&receiver, &trace)
}
