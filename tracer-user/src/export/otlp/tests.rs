//! The sink against receivers on loopback: right ones, dead ones, slow ones and ones that are no collectors at all.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Status};
use prost::Message;

use super::super::samples;
use super::super::sink::{Delivery, Sink, Summary};
use super::Otlp;
use crate::model::Span;

struct HttpRequest {
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

/// Answers each request with these bytes, or with silence, and passes the requests on.
fn http_receiver(answer: Option<Vec<u8>>) -> (SocketAddr, Receiver<HttpRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (requests, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (requests, answer) = (requests.clone(), answer.clone());
            std::thread::spawn(move || serve(stream, &requests, answer.as_deref()));
        }
    });
    (address, received)
}

fn serve(mut stream: TcpStream, requests: &Sender<HttpRequest>, answer: Option<&[u8]>) -> Option<()> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(head_end) = head_end {
            let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
            let mut lines = head.lines();
            let path = lines.next()?.split(' ').nth(1)?.to_owned();
            let headers: HashMap<String, String> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length: usize = headers.get("content-length")?.parse().ok()?;
            if bytes.len() >= head_end + 4 + length {
                let rest = bytes.split_off(head_end + 4 + length);
                let body = bytes.split_off(head_end + 4);
                bytes = rest;
                let _ = requests.send(HttpRequest { path, headers, body });
                match answer {
                    Some(answer) => stream.write_all(answer).ok()?,
                    None => std::thread::sleep(Duration::from_secs(60)),
                }
                continue;
            }
        }
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
    }
}

fn http_answer(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn taken() -> Vec<u8> {
    http_answer("200 OK", "application/x-protobuf", &ExportTraceServiceResponse::default().encode_to_vec())
}

fn sink(address: SocketAddr, variables: &[(&str, &str)]) -> Box<Otlp> {
    let url = format!("http://{address}");
    let lookup =
        |name: &str| variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned());
    let mut sink = Box::new(Otlp::new(Some(&url), &lookup).expect("a sink"));
    sink.process(&samples::resource());
    sink
}

fn deliver(mut sink: Box<Otlp>, spans: &[Span]) -> Delivery {
    spans.iter().for_each(|span| sink.span(span));
    sink.finish(&Summary::default())
}

fn all_delivered(count: usize) -> Delivery {
    Delivery { sink: "otlp", delivered: count as u64, lost: 0, problem: None }
}

/// What must arrive. The library states an unset status where the file format leaves it out.
fn expected(spans: &[Span]) -> ResourceSpans {
    let mut expected = samples::expected_resource_spans(&samples::resource(), spans);
    for span in expected.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
        span.status.get_or_insert_with(Status::default);
    }
    expected
}

/// Resource attributes have no order of their own in the library.
fn sorted(mut received: Vec<ResourceSpans>) -> Vec<ResourceSpans> {
    for resource in received.iter_mut().filter_map(|spans| spans.resource.as_mut()) {
        resource.attributes.sort_by(|left, right| left.key.cmp(&right.key));
    }
    received
}

#[test]
fn http_carries_ids_parents_times_and_attributes() {
    let (address, received) = http_receiver(Some(taken()));
    let spans = [samples::spans(), samples::request_spans()].concat();
    let delivery = deliver(sink(address, &[("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x")]), &spans);
    assert_eq!(delivery, all_delivered(spans.len()));
    let request = received.try_recv().expect("a request");
    assert_eq!(request.path, "/v1/traces");
    assert_eq!(request.headers["content-type"], "application/x-protobuf");
    assert_eq!(request.headers["authorization"], "Bearer x");
    let decoded = ExportTraceServiceRequest::decode(&*request.body).expect("protobuf");
    assert_eq!(sorted(decoded.resource_spans), sorted(vec![expected(&spans)]));
}

#[test]
fn http_compresses_when_asked() {
    let (address, received) = http_receiver(Some(taken()));
    let spans: Vec<Span> = samples::spans().into_iter().cycle().take(700).collect();
    let delivery = deliver(sink(address, &[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]), &spans);
    assert_eq!(delivery, all_delivered(700));
    let requests: Vec<HttpRequest> = received.try_iter().collect();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(request.headers["content-encoding"], "gzip");
        assert_eq!(request.body[..2], [0x1f, 0x8b]);
    }
}

struct GrpcReceiver {
    requests: Sender<(Option<String>, Option<String>, Vec<ResourceSpans>)>,
    answer: ExportTraceServiceResponse,
}

#[tonic::async_trait]
impl TraceService for GrpcReceiver {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let text = |name| request.metadata().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (tenant, encoding) = (text("x-tenant"), text("grpc-encoding"));
        let _ = self.requests.send((tenant, encoding, request.into_inner().resource_spans));
        Ok(tonic::Response::new(self.answer.clone()))
    }
}

impl GrpcReceiver {
    /// A receiver on loopback.
    fn serve(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("set");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let service = TraceServiceServer::new(self).accept_compressed(tonic::codec::CompressionEncoding::Gzip);
                let incoming = tonic::transport::server::TcpIncoming::from(listener);
                tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await
            })
        });
        address
    }
}

#[test]
fn grpc_carries_the_same() {
    let (requests, received) = channel();
    let address = GrpcReceiver { requests, answer: ExportTraceServiceResponse::default() }.serve();
    for compression in ["none", "gzip"] {
        let variables = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=7%25"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", compression),
        ];
        let spans = samples::spans();
        assert_eq!(deliver(sink(address, &variables), &spans), all_delivered(spans.len()));
        let (tenant, encoding, resource_spans) = received.try_recv().expect("a request");
        assert_eq!(tenant.as_deref(), Some("7%"));
        assert_eq!(encoding.as_deref(), (compression == "gzip").then_some("gzip"));
        assert_eq!(sorted(resource_spans), sorted(vec![expected(&spans)]));
    }
}

#[test]
fn each_process_is_a_resource() {
    let (address, received) = http_receiver(Some(taken()));
    let mut spans = samples::spans();
    spans[2].process.pid = 1;
    assert_eq!(deliver(sink(address, &[]), &spans), all_delivered(spans.len()));
    let sizes: Vec<usize> = received
        .try_iter()
        .map(|request| {
            let decoded = ExportTraceServiceRequest::decode(&*request.body).expect("protobuf");
            decoded.resource_spans[0].scope_spans[0].spans.len()
        })
        .collect();
    assert_eq!(sizes, [6, 1]);
}

#[test]
fn refused_spans_are_counted() {
    let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "too old".to_owned() };
    let body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let json = br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#;
    for answer in [
        http_answer("200 OK", "application/x-protobuf", &body),
        http_answer("200 OK", "application/json; charset=utf-8", json),
    ] {
        let (address, _received) = http_receiver(Some(answer));
        let delivery = deliver(sink(address, &[]), &samples::spans());
        assert_eq!((delivery.delivered, delivery.lost), (4, 3));
        assert!(delivery.problem.expect("a problem").contains("too old"));
    }
}

#[test]
fn spans_refused_over_grpc_are_counted_and_said() {
    for (rejected_spans, error_message, delivered, hint) in
        [(3, "too old", 4, Some("too old")), (7, "", 0, Some("no reason given")), (0, "use HTTP", 7, None)]
    {
        let partial = ExportTracePartialSuccess { rejected_spans, error_message: error_message.to_owned() };
        let answer = ExportTraceServiceResponse { partial_success: Some(partial) };
        let address = GrpcReceiver { requests: channel().0, answer }.serve();
        let delivery = deliver(sink(address, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), &samples::spans());
        assert_eq!((delivery.delivered, delivery.lost), (delivered, 7 - delivered));
        assert_eq!(
            delivery.problem.as_deref().is_some_and(|said| hint.is_some_and(|hint| said.contains(hint))),
            hint.is_some()
        );
    }
}

/// Sends far more than the queue holds and looks at how long the caller is kept, and what is said at the end.
fn flood(mut sink: Box<Otlp>) -> String {
    let spans = samples::spans();
    let begin = Instant::now();
    let mut given = 0;
    for _ in 0..20_000 {
        spans.iter().for_each(|span| sink.span(span));
        given += spans.len() as u64;
    }
    sink.flush();
    // Spans alone take well under a second, even unoptimised and on a busy machine.
    assert!(begin.elapsed() < Duration::from_secs(4), "kept for {:?}", begin.elapsed());
    assert!(sink.waiting_spans() <= 65 * 512);
    let begin = Instant::now();
    let delivery = sink.finish(&Summary::default());
    assert!(begin.elapsed() < Duration::from_secs(7), "the end took {:?}", begin.elapsed());
    assert_eq!((delivery.delivered, delivery.lost), (0, given));
    delivery.problem.expect("a problem")
}

#[test]
fn a_dead_collector_costs_counted_spans_only() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let problem = flood(sink(address, &[]));
    assert!(problem.contains("140000 of 140000") && problem.contains("refused"), "{problem}");
    assert!(problem.contains(&format!("http://{address}/v1/traces")), "{problem}");

    let problem = flood(sink(address, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]));
    assert!(problem.contains("140000 of 140000"), "{problem}");
}

#[test]
fn a_collector_that_never_answers_costs_counted_spans_only() {
    let (address, received) = http_receiver(None);
    let problem = flood(sink(address, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")]));
    assert!(problem.contains("did not answer in time"), "{problem}");
    assert!(received.try_recv().is_ok());
}

#[test]
fn what_is_no_collector_is_told_apart() {
    for (answer, hint) in [
        (b"\xff\x00 not http at all\r\n\r\n".to_vec(), "collector at"),
        (http_answer("200 OK", "text/html", b"<html>welcome</html>"), "an answer of kind text/html"),
        (http_answer("200 OK", "application/json", b"[1,"), "a broken JSON answer"),
        (http_answer("404 Not Found", "text/plain", b"no"), "it answered 404 Not Found"),
        (http_answer("302 Found\r\nlocation: /login", "text/plain", b""), "it answered 302 Found"),
    ] {
        let (address, _received) = http_receiver(Some(answer));
        let delivery = deliver(sink(address, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")]), &samples::spans());
        assert_eq!((delivery.delivered, delivery.lost), (0, 7));
        let problem = delivery.problem.expect("a problem");
        assert!(problem.contains(hint), "{problem}");
    }
}

#[test]
fn a_collector_that_is_busy_at_first_gets_everything() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (requests, received) = channel();
    std::thread::spawn(move || {
        let busy = [http_answer("503 Service Unavailable\r\nconnection: close", "text/plain", b""), taken()];
        for (stream, answer) in listener.incoming().flatten().zip(busy) {
            serve(stream, &requests, Some(&answer));
        }
    });
    let delivery = deliver(sink(address, &[]), &samples::spans());
    assert_eq!(delivery, all_delivered(7));
    assert_eq!(received.try_iter().count(), 2);
}

#[test]
fn a_lonely_span_is_sent_after_a_second() {
    let (address, received) = http_receiver(Some(taken()));
    let mut sink = sink(address, &[]);
    sink.span(&samples::spans()[0]);
    sink.flush();
    assert!(received.recv_timeout(Duration::from_millis(300)).is_err());
    std::thread::sleep(Duration::from_millis(800));
    sink.flush();
    assert!(received.recv_timeout(Duration::from_secs(5)).is_ok());
    assert_eq!(sink.finish(&Summary::default()), all_delivered(1));
}
