//! The exporter, with a client that takes note of what the collector says: the library keeps the reason of a failure, and
//! spans that the collector has refused, to itself.

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{
    Compression, Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::{Map, Value};

use super::super::error::ExportError;
use super::outcome::{Answer, Outcome};
use super::settings::Settings;

/// Retries go on until the timeout of the batch; the pauses double from 100 ms to 1.6 s.
const MAX_RETRIES: usize = 1_000;

/// An exporter. Must be called inside a tokio runtime.
///
/// # Errors
/// The certificates, or the URL, cannot be used.
pub fn exporter(settings: &Settings, outcome: &Arc<Outcome>) -> Result<SpanExporter, ExportError> {
    let failed = |reason| ExportError::CannotConnect { url: settings.shown_url(), reason };
    // Fails if another part of the program has chosen a provider already, which is just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retries = RetryPolicy::recommended().with_max_retries(MAX_RETRIES);
    let Settings { url, timeout, headers, .. } = settings;
    let built = if settings.protocol == Protocol::Grpc {
        let mut builder = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(url.as_str())
            .with_timeout(*timeout)
            .with_retry_policy(retries)
            .with_metadata(MetadataMap::from_headers(headers.clone()));
        if settings.gzip {
            builder = builder.with_compression(Compression::Gzip);
        }
        if url.scheme() == "https" {
            builder = builder.with_tls_config(tls_config(settings));
        }
        builder.build()
    } else {
        let http = http_client(settings).map_err(|error| failed(source_chain(&error)))?;
        let client = Client { http, headers: headers.clone(), outcome: Arc::clone(outcome) };
        let mut builder = SpanExporter::builder()
            .with_http()
            .with_protocol(settings.protocol)
            .with_endpoint(url.as_str())
            .with_timeout(*timeout)
            .with_retry_policy(retries)
            .with_http_client(client);
        if settings.gzip {
            builder = builder.with_compression(Compression::Gzip);
        }
        builder.build()
    };
    built.map_err(|error| failed(error.to_string()))
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

/// The library's own client knows no certificates, asks a proxy for a collector on this machine, and follows redirections,
/// which turn the request into one without spans.
fn http_client(settings: &Settings) -> reqwest::Result<reqwest::Client> {
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
    /// Sent from here: the library would not mark them as secret, and they would be in its debugging output.
    headers: HeaderMap,
    outcome: Arc<Outcome>,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        request.headers_mut().extend(self.headers.clone());
        let result = self.http.send_bytes(request).await;
        self.outcome.note_answer(match &result {
            Ok(response) if response.status().is_success() => read_answer(response),
            Ok(response) => Answer::nothing(format!("it answered {}", response.status())),
            Err(error) => Answer::nothing(innermost(&**error)),
        });
        result
    }
}

fn read_answer(response: &Response<Bytes>) -> Answer {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let partial = if kind.starts_with("application/json") {
        // Not what the specification asks for as the answer to protobuf, but unmistakable.
        partial_success_in_json(response.body()).ok_or_else(|| "a broken JSON answer".to_owned())
    } else {
        let decoded = ExportTraceServiceResponse::decode(response.body().clone());
        let partial = decoded.map(|decoded| decoded.partial_success.unwrap_or_default());
        partial.map(|partial| (partial.rejected_spans, partial.error_message)).map_err(|_| match kind {
            "" => "an answer of unknown kind".to_owned(),
            _ => format!("an answer of kind {kind}"),
        })
    };
    match partial {
        Ok((refused, reason)) => Answer::partial(refused, &reason),
        Err(answer) => Answer::nothing(format!("{answer} came back, so no OTLP receiver is there")),
    }
}

fn partial_success_in_json(body: &[u8]) -> Option<(i64, String)> {
    let answer: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let field = |name| answer.get("partialSuccess").and_then(|partial| partial.get(name));
    let refused = field("rejectedSpans").and_then(|count| count.as_i64().or_else(|| count.as_str()?.parse().ok()));
    let reason = field("errorMessage").and_then(Value::as_str).unwrap_or_default();
    Some((refused.unwrap_or(0), reason.to_owned()))
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
