//! The exporters, and what the collector said: the library keeps the reason of a failure, and spans that the collector
//! has refused, to itself.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{
    Compression, ExporterBuildError, Protocol as LibraryProtocol, RetryPolicy, SpanExporter, WithExportConfig,
    WithHttpConfig, WithTonicConfig,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap};

use super::super::error::ExportError;
use super::settings::{Protocol, Settings};

/// Retries go on until the timeout of the batch; the pauses double from 100 ms to 1.6 s.
const MAX_RETRIES: usize = 1_000;

/// Makes exporters, one for each resource, which share one HTTP client.
#[derive(Clone, Debug)]
pub struct Transport {
    settings: Settings,
    client: Option<Client>,
}

/// What the collector has answered to the newest batch, as far as the library does not tell.
#[derive(Clone, Debug, Default)]
pub struct Answer(Arc<Mutex<AnswerParts>>);

#[derive(Debug, Default)]
pub struct AnswerParts {
    /// Why the batch did not arrive.
    pub failure: Option<String>,
    /// The request went well, but what came back is not OTLP.
    pub not_otlp: Option<String>,
    /// Spans that the collector refused.
    pub rejected: u64,
    /// Why it refused them.
    pub rejection: Option<String>,
}

impl Answer {
    /// What was said since the last time.
    pub fn take(&self) -> AnswerParts {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, note: impl FnOnce(&mut AnswerParts)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Transport {
    /// Prepares to send.
    ///
    /// # Errors
    /// The certificates, or the URL, cannot be used.
    pub fn new(settings: Settings, answer: &Answer) -> Result<Self, ExportError> {
        // Fails if another part of the program has chosen a provider already, which is just as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = match settings.protocol {
            Protocol::Grpc => None,
            Protocol::HttpProtobuf => {
                let http = http_client(&settings).map_err(|error| cannot_connect(&settings, source_chain(&error)))?;
                Some(Client { http, headers: settings.headers.clone(), answer: answer.clone() })
            }
        };
        Ok(Self { settings, client })
    }

    /// A new exporter. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The settings cannot be used.
    pub fn exporter(&self) -> Result<SpanExporter, ExportError> {
        self.build_exporter().map_err(|error| cannot_connect(&self.settings, error.to_string()))
    }

    fn build_exporter(&self) -> Result<SpanExporter, ExporterBuildError> {
        let retries = RetryPolicy::recommended().with_max_retries(MAX_RETRIES);
        let Settings { url, timeout, .. } = &self.settings;
        if let Some(client) = &self.client {
            let mut builder = SpanExporter::builder()
                .with_http()
                .with_protocol(LibraryProtocol::HttpBinary)
                .with_endpoint(url.as_str())
                .with_timeout(*timeout)
                .with_retry_policy(retries)
                .with_http_client(client.clone());
            if self.settings.gzip {
                builder = builder.with_compression(Compression::Gzip);
            }
            return builder.build();
        }
        let mut builder = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(url.as_str())
            .with_timeout(*timeout)
            .with_retry_policy(retries)
            .with_metadata(MetadataMap::from_headers(self.settings.headers.clone()));
        if self.settings.gzip {
            builder = builder.with_compression(Compression::Gzip);
        }
        if url.scheme() == "https" {
            builder = builder.with_tls_config(tls_config(&self.settings));
        }
        builder.build()
    }
}

fn cannot_connect(settings: &Settings, reason: String) -> ExportError {
    ExportError::CannotConnect { url: settings.shown_url(), reason }
}

fn tls_config(settings: &Settings) -> ClientTlsConfig {
    let config = match &settings.certificate {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        // The library's own default trusts nobody.
        None => ClientTlsConfig::new().with_enabled_roots(),
    };
    match &settings.identity {
        Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
        None => config,
    }
}

fn http_client(settings: &Settings) -> reqwest::Result<reqwest::Client> {
    // A redirection would turn the request into one without spans.
    let mut builder = reqwest::Client::builder().timeout(settings.timeout).redirect(reqwest::redirect::Policy::none());
    if settings.is_local() {
        builder = builder.no_proxy();
    }
    if settings.url.scheme() == "http" {
        // Spares reading the system's certificates, which small containers do not have.
        builder = builder.tls_certs_only([]);
    } else if let Some(pem) = &settings.certificate {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
    }
    if let Some((certificate, key)) = &settings.identity {
        let both = [certificate.as_slice(), b"\n", key.as_slice()].concat();
        builder = builder.identity(reqwest::Identity::from_pem(&both)?);
    }
    builder.build()
}

/// An HTTP client that takes note of what the collector says.
#[derive(Clone, Debug)]
struct Client {
    http: reqwest::Client,
    headers: HeaderMap,
    answer: Answer,
}

impl HttpClient for Client {
    fn send_bytes<'client, 'future>(
        &'client self,
        mut request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'future>>
    where
        'client: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            request.headers_mut().extend(self.headers.clone());
            let response = match self.http.send_bytes(request).await {
                Ok(response) => response,
                Err(error) => {
                    self.answer.note(|answer| answer.failure = Some(innermost(&*error)));
                    return Err(error);
                }
            };
            if response.status().is_success() {
                self.answer.note(|answer| read_answer(&response, answer));
            } else {
                let status = response.status();
                self.answer.note(|answer| answer.failure = Some(format!("it answered {status}")));
            }
            Ok(response)
        })
    }
}

fn read_answer(response: &Response<Bytes>, answer: &mut AnswerParts) {
    *answer = AnswerParts::default();
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let (rejected, message) = if kind.starts_with("application/json") {
        // Not what the specification asks for as the answer to protobuf, but unmistakable.
        match serde_json::from_slice::<serde_json::Value>(response.body()) {
            Ok(serde_json::Value::Object(object)) => {
                let partial = object.get("partialSuccess");
                let rejected = partial.and_then(|partial| partial.get("rejectedSpans"));
                let rejected = rejected.and_then(|count| count.as_i64().or_else(|| count.as_str()?.parse().ok()));
                let message = partial.and_then(|partial| partial.get("errorMessage")?.as_str());
                (rejected.unwrap_or(0), message.unwrap_or_default().to_owned())
            }
            _ => return answer.not_otlp = Some("a broken JSON answer".to_owned()),
        }
    } else {
        match ExportTraceServiceResponse::decode(response.body().clone()) {
            Ok(decoded) => {
                let partial = decoded.partial_success.unwrap_or_default();
                (partial.rejected_spans, partial.error_message)
            }
            Err(_) if kind.is_empty() => return answer.not_otlp = Some("an answer of unknown kind".to_owned()),
            Err(_) => return answer.not_otlp = Some(format!("an answer of kind {kind}")),
        }
    };
    answer.rejected = u64::try_from(rejected).unwrap_or(0);
    answer.rejection = (!message.is_empty()).then_some(message);
}

/// The cause at the end of the chain, which says most: "Connection refused (os error 111)".
fn innermost(error: &(dyn Error + 'static)) -> String {
    // The request library knows a timeout from its cause only.
    match error.downcast_ref::<reqwest::Error>() {
        Some(error) if error.is_timeout() => "it did not answer in time".to_owned(),
        _ => causes(error).last().map_or_else(String::new, ToString::to_string),
    }
}

fn source_chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn causes<'error>(error: &'error (dyn Error + 'static)) -> impl Iterator<Item = &'error (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error: &&'error (dyn Error + 'static)| error.source())
}
