//! Why a sink cannot be opened.

use std::path::PathBuf;

/// Why a destination is not understood or cannot be opened. Told before anything is attached.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No such kind of destination.
    #[error("there is no destination `{given}`; use {instead}")]
    UnknownDestination {
        /// What was given.
        given: String,
        /// What there is.
        instead: String,
    },
    /// A kind that is planned.
    #[error("destination `{kind}` is not available in this version; use {instead}")]
    NotAvailable {
        /// The kind.
        kind: &'static str,
        /// What there is.
        instead: String,
    },
    /// A file destination without a file.
    #[error("destination `{kind}` needs a file: write {kind}=FILE")]
    MissingFile {
        /// The kind.
        kind: &'static str,
    },
    /// A destination that takes no value was given one.
    #[error("destination `console` takes no value, but was given `{value}`; it writes to standard output")]
    UnexpectedValue {
        /// The value.
        value: String,
    },
    /// Not a URL that OTLP can be sent to.
    #[error("cannot send OTLP to `{url}`: {reason}; write a URL such as http://localhost:4318 ({origin})")]
    BadEndpoint {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
        /// Where it was set.
        origin: String,
    },
    /// A protocol that is not spoken.
    #[error("{variable}={value}: this OTLP protocol is not supported; use http/protobuf or grpc")]
    UnknownProtocol {
        /// Where it was set.
        variable: &'static str,
        /// The protocol.
        value: String,
    },
    /// A setting that cannot be used.
    #[error("{variable}: {reason}; correct it or unset it")]
    BadSetting {
        /// Where it was set.
        variable: &'static str,
        /// What is wrong with it; never the value of a header, which may be secret.
        reason: String,
    },
    /// A certificate or key that cannot be read.
    #[error("cannot read {path} (named by {variable}): {source}; it must be a readable PEM file")]
    UnreadablePem {
        /// Where it was set.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The client for OTLP could not be built.
    #[error("cannot set up OTLP for {url}: {reason}; check the OTEL_EXPORTER_OTLP_ variables")]
    CannotConnect {
        /// Where to.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The file cannot be made.
    #[error("cannot create {path}: {source}; check that the directory exists and is writable")]
    CannotCreate {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A named pipe without a reader: to open it would wait until one comes.
    #[error("{path} is a named pipe that nobody reads; start its reader first")]
    NobodyReads {
        /// The pipe.
        path: PathBuf,
    },
    /// Standard output is closed.
    #[error("cannot write to standard output: {source}; open it, or name another destination with --export")]
    NoStandardOutput {
        /// Why not.
        source: std::io::Error,
    },
    /// No thread for the sink.
    #[error("cannot start a thread for the `{sink}` sink: {source}; check the limit on processes (ulimit -u)")]
    CannotStartThread {
        /// The sink.
        sink: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}
