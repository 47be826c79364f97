//! OTLP receivers built on the official protobufs.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

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
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::codec::CompressionEncoding;
use tonic::metadata::KeyAndValueRef;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use crate::process::{poll, run};
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
        Self::serve_grpc(Server::builder())
    }

    /// A gRPC receiver with TLS, and the folder whose `authority.pem` vouches for it.
    ///
    /// # Errors
    /// When no certificate can be made or it cannot listen.
    pub fn grpc_with_tls() -> Result<(Self, TempDir)> {
        let folder = make_certificates()?;
        let read = |name: &str| fs::read(folder.path().join(name));
        let identity = Identity::from_pem(read("receiver.pem")?, read("receiver.key")?);
        let mut receiver = Self::serve_grpc(Server::builder().tls_config(ServerTlsConfig::new().identity(identity))?)?;
        receiver.address = receiver.address.replace("http://127.0.0.1", "https://localhost");
        Ok((receiver, folder))
    }

    fn serve_grpc(mut server: Server) -> Result<Self> {
        let inbox = Inbox::default();
        let service = TraceServiceServer::new(Grpc(inbox.clone())).accept_compressed(CompressionEncoding::Gzip);
        Self::serve(inbox, |listener| async move {
            let incoming = TcpIncoming::from(listener);
            server.add_service(service).serve_with_incoming(incoming).await.map_err(anyhow::Error::from)
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

/// An authority of our own and a certificate for `localhost` that it has signed.
fn make_certificates() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let key = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let authority = ["-keyout", "authority.key", "-out", "authority.pem", "-subj", "/CN=ml-tracer test authority"];
    let receiver = ["-keyout", "receiver.key", "-out", "receiver.pem", "-subj", "/CN=localhost"];
    let signed = ["-CA", "authority.pem", "-CAkey", "authority.key", "-addext", "subjectAltName=DNS:localhost"];
    let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
    for arguments in [[&authority[..], &[]].concat(), [&receiver[..], &signed, &leaf].concat()] {
        let mut command = Command::new("openssl");
        command.args(key).args(arguments).current_dir(folder.path());
        let finished = run(command)?;
        if finished.code != Some(0) {
            bail!("openssl failed: {}", finished.errors);
        }
    }
    Ok(folder)
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
