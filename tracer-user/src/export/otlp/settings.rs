//! Where and how to send, from the destination's URL and the `OTEL_EXPORTER_OTLP_` variables. The exporter library would read most
//! of them itself, but passes over what it does not understand; here it is an error that names the variable.

use std::time::Duration;

use opentelemetry_otlp::Protocol;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::super::environment::{Environment, parse_pairs, set};
use super::super::error::ExportError;

/// How to reach a collector.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is spoken.
    pub protocol: Protocol,
    /// Complete URL, for HTTP with its path.
    pub url: Url,
    /// Sent with every request; may hold secrets.
    pub headers: HeaderMap,
    /// Limit for a batch, its retries included.
    pub timeout: Duration,
    /// Whether requests are compressed.
    pub gzip: bool,
    /// Certificates to trust instead of the system's, PEM.
    pub certificate: Option<Vec<u8>>,
    /// Certificate and key of the tracer itself, PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Source: OpenTelemetry protocol exporter specification, as are all variable names and defaults here.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// How a block of a PEM file begins (RFC 7468).
const PEM_BEGIN: &[u8] = b"-----BEGIN ";

/// Names of a setting: for traces, and for all signals. The first wins.
type Names = [&'static str; 2];
const ENDPOINT: Names = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOL: Names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const HEADERS: Names = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const TIMEOUT: Names = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const COMPRESSION: Names = ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
const INSECURE: Names = ["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"];
const CERTIFICATE: Names = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
const CLIENT_CERTIFICATE: Names =
    ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"];
const CLIENT_KEY: Names = ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"];

impl Settings {
    /// Settings for `otlp=URL`, or for `otlp` without one.
    ///
    /// # Errors
    /// A variable or the URL cannot be used.
    pub fn read(url: Option<&str>, environment: Environment<'_>) -> Result<Self, ExportError> {
        let protocol = first(environment, PROTOCOL, protocol)?.unwrap_or(Protocol::HttpBinary);
        let incomplete = |[variable, _]: Names| bad(variable, "a client needs both a certificate and a key");
        let identity = match (first(environment, CLIENT_CERTIFICATE, pem)?, first(environment, CLIENT_KEY, pem)?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return incomplete(CLIENT_KEY),
            (None, Some(_)) => return incomplete(CLIENT_CERTIFICATE),
        };
        Ok(Self {
            protocol,
            url: endpoint(url, protocol, environment)?,
            headers: first(environment, HEADERS, headers)?.unwrap_or_default(),
            timeout: first(environment, TIMEOUT, timeout)?.unwrap_or(DEFAULT_TIMEOUT),
            gzip: first(environment, COMPRESSION, gzip)?.unwrap_or(false),
            certificate: first(environment, CERTIFICATE, pem)?,
            identity,
        })
    }

    /// The URL without user name and password, for messages.
    pub fn shown_url(&self) -> String {
        shown(&self.url)
    }

    /// Whether the collector is on this machine: no proxy is asked then.
    pub fn is_local(&self) -> bool {
        self.url.host_str().is_some_and(|host| {
            host == "localhost"
                || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        })
    }
}

fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Fails only for URLs that have no user name.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// What is read from the first variable that is set.
fn first<T>(
    environment: Environment<'_>,
    names: Names,
    read: impl FnOnce(&'static str, String) -> Result<T, ExportError>,
) -> Result<Option<T>, ExportError> {
    let found = names.into_iter().find_map(|name| set(environment, name).map(|value| (name, value)));
    found.map(|(variable, value)| read(variable, value)).transpose()
}

fn bad<T>(variable: &'static str, reason: impl Into<String>) -> Result<T, ExportError> {
    Err(ExportError::BadSetting { variable, reason: reason.into() })
}

fn endpoint(given: Option<&str>, protocol: Protocol, environment: Environment<'_>) -> Result<Url, ExportError> {
    let traces = set(environment, ENDPOINT[0]);
    let general = set(environment, ENDPOINT[1]);
    // A URL for all signals is a base; the one for traces is taken as it is.
    let (text, origin, is_base) = match (given, traces, general) {
        (Some(url), ..) => (url.to_owned(), "--export otlp=URL", true),
        (None, Some(url), _) => (url, ENDPOINT[0], false),
        (None, None, Some(url)) => (url, ENDPOINT[1], true),
        (None, None, None) if protocol == Protocol::Grpc => ("http://localhost:4317".to_owned(), "default", true),
        (None, None, None) => ("http://localhost:4318".to_owned(), "default", true),
    };
    let refuse = |reason: String| ExportError::BadEndpoint { url: text.clone(), reason, origin: origin.to_owned() };
    let insecure = first(environment, INSECURE, |_, value| Ok(value.eq_ignore_ascii_case("true")))?.unwrap_or(false);
    let with_scheme = match protocol {
        Protocol::Grpc if !text.contains("://") => format!("{}://{text}", if insecure { "http" } else { "https" }),
        _ => text.clone(),
    };
    let mut url = Url::parse(&with_scheme).map_err(|error| refuse(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(refuse("it begins with neither http:// nor https://, or has no host".to_owned()));
    }
    if protocol == Protocol::HttpBinary && is_base {
        let path = url.path().trim_end_matches('/').to_owned();
        // Who writes a path on the command line means it; in the variable the specification asks to append.
        if path.is_empty() || given.is_none() {
            url.set_path(&format!("{path}/v1/traces"));
        }
    }
    Ok(url)
}

fn protocol(variable: &'static str, value: String) -> Result<Protocol, ExportError> {
    match value.as_str() {
        "http/protobuf" => Ok(Protocol::HttpBinary),
        "grpc" => Ok(Protocol::Grpc),
        _ => Err(ExportError::UnknownProtocol { variable, value }),
    }
}

fn headers(variable: &'static str, list: String) -> Result<HeaderMap, ExportError> {
    let Some(pairs) = parse_pairs(&list) else { return bad(variable, "it is not of the form name=value,name=value") };
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let Ok(name) = HeaderName::try_from(&name) else { return bad(variable, "one of the names is no header name") };
        let Ok(mut value) = HeaderValue::try_from(&value) else {
            return bad(variable, "one of the values is no header value");
        };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn timeout(variable: &'static str, value: String) -> Result<Duration, ExportError> {
    match value.parse() {
        Ok(milliseconds @ 1..=3_600_000) => Ok(Duration::from_millis(milliseconds)),
        _ => bad(variable, format!("`{value}` is no number of milliseconds from 1 to 3600000")),
    }
}

fn gzip(variable: &'static str, value: String) -> Result<bool, ExportError> {
    match value.as_str() {
        "gzip" => Ok(true),
        "none" => Ok(false),
        _ => bad(variable, format!("`{value}` is neither gzip nor none")),
    }
}

fn pem(variable: &'static str, path: String) -> Result<Vec<u8>, ExportError> {
    match std::fs::read(&path) {
        Ok(bytes) if bytes.windows(PEM_BEGIN.len()).any(|window| window == PEM_BEGIN) => Ok(bytes),
        Ok(_) => bad(variable, format!("{path} is no PEM file")),
        Err(source) => Err(ExportError::UnreadablePem { variable, path: path.into(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: Option<&str>, variables: &[(&str, &str)]) -> Result<Settings, ExportError> {
        Settings::read(url, &|name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_endpoint_follows_the_specification() {
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
        let traces = |url| ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url);
        let general = |url| ("OTEL_EXPORTER_OTLP_ENDPOINT", url);
        for (given, variables, expected) in [
            (None, vec![], "http://localhost:4318/v1/traces"),
            (None, vec![grpc], "http://localhost:4317/"),
            (Some("http://a:1"), vec![general("http://b:2")], "http://a:1/v1/traces"),
            (Some("http://a:1/"), vec![], "http://a:1/v1/traces"),
            (Some("https://a/otlp/v1/traces"), vec![], "https://a/otlp/v1/traces"),
            (Some("http://a:1"), vec![grpc], "http://a:1/"),
            (None, vec![general("http://b:2")], "http://b:2/v1/traces"),
            (None, vec![general("http://b:2/api/")], "http://b:2/api/v1/traces"),
            (None, vec![general("http://b:2"), traces("http://c:3/x")], "http://c:3/x"),
            (None, vec![traces("http://c:3"), general("")], "http://c:3/"),
            (None, vec![grpc, general("b:2")], "https://b:2/"),
            (None, vec![grpc, insecure, general("b:2")], "http://b:2/"),
        ] {
            let settings = read(given, &variables).expect(expected);
            assert_eq!(settings.url.as_str(), expected);
        }
    }

    #[test]
    fn all_other_variables_are_honoured() {
        let certificate = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&certificate, "-----BEGIN CERTIFICATE-----").expect("written");
        let settings = read(
            None,
            &[
                ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x%3Dy, x-tenant=7"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "9000"),
                ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2500"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", &certificate.path().to_string_lossy()),
            ],
        )
        .expect("valid");
        assert_eq!(settings.headers["authorization"], "Bearer x=y");
        assert_eq!(settings.headers["x-tenant"], "7");
        assert_eq!(settings.timeout, Duration::from_millis(2500));
        assert!(settings.gzip && settings.is_local());
        assert_eq!(settings.certificate.as_deref(), Some(&b"-----BEGIN CERTIFICATE-----"[..]));
        assert!(!format!("{settings:?}").contains("Bearer"));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (variable, value, hint) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "http/protobuf or grpc"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "http://localhost:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "milliseconds"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "neither gzip nor none"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret", "name=value"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret", "no header name"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem", "/nowhere.pem"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/dev/null", "no PEM file"),
        ] {
            let error = read(None, &[(variable, value)]).expect_err(hint).to_string();
            assert!(error.contains(hint), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_client_certificate_needs_its_key() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&file, "-----BEGIN X-----").expect("written");
        let path = file.path().to_string_lossy();
        for variable in ["OTEL_EXPORTER_OTLP_CLIENT_KEY", "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE"] {
            let error = read(None, &[(variable, &path)]).expect_err("incomplete").to_string();
            assert!(error.contains("both a certificate and a key"), "{error}");
        }
    }

    #[test]
    fn passwords_in_urls_are_not_shown() {
        let settings = read(Some("https://me:secret@collector/"), &[]).expect("valid");
        assert_eq!(settings.shown_url(), "https://collector/v1/traces");
        assert!(!settings.is_local());
        assert!(read(Some("http://[::1]:4318"), &[]).expect("valid").is_local());
    }
}
