//! OTLP receivers built on the official protobufs, well behaved or not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message;
use tokio::runtime::Runtime;
use tonic::codec::CompressionEncoding;
use tonic::metadata::KeyAndValueRef;

use crate::process::poll;
use crate::spans::Spans;

/// A receiver on loopback. Dropping it ends it.
pub struct Receiver {
    /// Its `http://` address.
    pub address: String,
    inbox: Inbox,
    runtime: Option<Runtime>,
}

/// What has arrived.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<Arrived>>);

#[derive(Default)]
struct Arrived {
    requests: Vec<ExportTraceServiceRequest>,
    headers: Vec<(String, String)>,
    compressed: usize,
}

impl Inbox {
    fn with<T>(&self, action: impl FnOnce(&mut Arrived) -> T) -> T {
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An address of this machine where nobody listens.
///
/// # Errors
/// When there is none left.
pub fn unused_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Receiver {
    /// A gRPC receiver; takes gzip.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn grpc() -> Result<Self> {
        let inbox = Inbox::default();
        let service = TraceServiceServer::new(Grpc(inbox.clone())).accept_compressed(CompressionEncoding::Gzip);
        Self::serve(inbox, |listener| async move {
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            let server = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
            server.await.map_err(anyhow::Error::from)
        })
    }

    /// An HTTP receiver of protobuf, plain or gzip, at `/v1/traces`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn http() -> Result<Self> {
        let inbox = Inbox::default();
        let router = Router::new().route("/v1/traces", post(accept_http)).with_state(inbox.clone());
        Self::serve(inbox, |listener| async move { axum::serve(listener, router).await.map_err(anyhow::Error::from) })
    }

    fn serve<Server>(inbox: Inbox, server: impl FnOnce(tokio::net::TcpListener) -> Server) -> Result<Self>
    where
        Server: Future<Output = Result<()>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let address = format!("http://{}", listener.local_addr()?);
        runtime.spawn(server(listener));
        Ok(Self { address, inbox, runtime: Some(runtime) })
    }

    /// Waits until at least this many spans have arrived and gives all.
    ///
    /// # Errors
    /// When time is up.
    pub fn wait_spans(&self, count: usize) -> Result<Spans> {
        poll(&format!("{count} spans at the receiver"), || {
            let spans = self.spans();
            Ok((spans.0.len() >= count).then_some(spans))
        })
    }

    /// The spans that have arrived.
    #[must_use]
    pub fn spans(&self) -> Spans {
        let mut spans = Spans::default();
        self.inbox.with(|arrived| {
            for request in &arrived.requests {
                spans.add(request.resource_spans.clone());
            }
        });
        spans
    }

    /// Value of a header of any request.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.inbox.with(|arrived| {
            let found = arrived.headers.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        })
    }

    /// Requests that came compressed.
    #[must_use]
    pub fn compressed(&self) -> usize {
        self.inbox.with(|arrived| arrived.compressed)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Grpc(Inbox);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let headers = request.metadata().iter().filter_map(|entry| match entry {
            KeyAndValueRef::Ascii(key, value) => Some((key.to_string(), value.to_str().ok()?.to_owned())),
            KeyAndValueRef::Binary(..) => None,
        });
        let headers: Vec<_> = headers.collect();
        let compressed = headers.iter().any(|(key, value)| key == "grpc-encoding" && value == "gzip");
        self.0.with(|arrived| {
            arrived.headers.extend(headers);
            arrived.compressed += usize::from(compressed);
            arrived.requests.push(request.into_inner());
        });
        Ok(tonic::Response::new(ExportTraceServiceResponse { partial_success: None }))
    }
}

async fn accept_http(State(inbox): State<Inbox>, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
    match read_http(&headers, &body) {
        Ok((request, compressed)) => {
            inbox.with(|arrived| {
                arrived.compressed += usize::from(compressed);
                arrived.requests.push(request);
                for (key, value) in &headers {
                    arrived.headers.push((key.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
                }
            });
            (StatusCode::OK, ExportTraceServiceResponse { partial_success: None }.encode_to_vec())
        }
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string().into_bytes()),
    }
}

fn read_http(headers: &HeaderMap, body: &[u8]) -> Result<(ExportTraceServiceRequest, bool)> {
    let content = headers.get(header::CONTENT_TYPE).context("no content type")?;
    if content != "application/x-protobuf" {
        bail!("the content type is {content:?}");
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding == "gzip" => {
            let mut plain = Vec::new();
            GzDecoder::new(body).read_to_end(&mut plain)?;
            Ok((ExportTraceServiceRequest::decode(plain.as_slice())?, true))
        }
        Some(encoding) => bail!("the encoding is {encoding:?}"),
        None => Ok((ExportTraceServiceRequest::decode(body)?, false)),
    }
}

/// How a collector can fail its clients.
#[derive(Clone, Copy, Debug)]
pub enum Misbehaviour {
    /// Takes connections and bytes, and never answers.
    Silent,
    /// Answers with bytes that are no HTTP.
    Garbage,
    /// Answers each request with `503 Service Unavailable`.
    Overloaded,
    /// Closes each connection as soon as something arrives.
    HangsUp,
    /// Answers `200 OK` with a body without end.
    EndlessBody,
}

/// A bad collector on loopback. Dropping it ends it.
pub struct BadCollector {
    /// Its `http://` address.
    pub address: String,
    connections: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    local: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl BadCollector {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(misbehaviour: Misbehaviour) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let local = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let acceptor = {
            let (connections, stopping) = (Arc::clone(&connections), Arc::clone(&stopping));
            spawn(move || {
                for stream in listener.incoming().flatten() {
                    if stopping.load(Ordering::Relaxed) {
                        return;
                    }
                    connections.fetch_add(1, Ordering::Relaxed);
                    let stopping = Arc::clone(&stopping);
                    spawn(move || misbehave(stream, misbehaviour, &stopping));
                }
            })
        };
        Ok(Self { address: format!("http://{local}"), connections, stopping, local, acceptor: Some(acceptor) })
    }

    /// Connections that were made to it.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for BadCollector {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the acceptor; if that fails it has ended already.
        let _ = std::net::TcpStream::connect(self.local);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn misbehave(mut stream: std::net::TcpStream, misbehaviour: Misbehaviour, stopping: &AtomicBool) {
    let mut buffer = [0; 65536];
    if stream.set_read_timeout(Some(Duration::from_millis(200))).is_err() {
        return;
    }
    while !stopping.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => return,
        }
        let answered = match misbehaviour {
            Misbehaviour::Silent => Ok(()),
            Misbehaviour::Garbage => stream.write_all(b"\x00\xff\x13garbage\r\n\r\n\x07\x07\x07"),
            Misbehaviour::Overloaded => {
                stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
            }
            Misbehaviour::HangsUp => return,
            Misbehaviour::EndlessBody => endless_body(&mut stream, stopping),
        };
        if answered.is_err() {
            return;
        }
    }
}

fn endless_body(stream: &mut std::net::TcpStream, stopping: &AtomicBool) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\r\n")?;
    while !stopping.load(Ordering::Relaxed) {
        stream.write_all(&[b'x'; 4096])?;
    }
    Ok(())
}
