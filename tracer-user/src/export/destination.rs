//! Where spans are to go, as the user writes it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::ExportError;

/// A destination, in the form that `--export` takes: `console`, `otlp[=URL]`, `jsonl=FILE`, `perfetto=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A tree on standard output.
    Console,
    /// A collector; without a URL as the `OTEL_` variables say.
    Otlp(Option<String>),
    /// A file of OTLP/JSON, one `TracesData` a line.
    JsonLines(PathBuf),
    /// A file of Chrome trace events.
    Perfetto(PathBuf),
}

impl Destination {
    /// The file that it writes to, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::JsonLines(path) | Self::Perfetto(path) => Some(path),
            Self::Console | Self::Otlp(_) => None,
        }
    }
}

impl FromStr for Destination {
    type Err = ExportError;

    fn from_str(text: &str) -> Result<Self, ExportError> {
        let (kind, value) = match text.split_once('=') {
            Some((kind, value)) => (kind, Some(value)),
            None => (text, None),
        };
        let file = |kind: &'static str| match value {
            Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
            _ => Err(ExportError::MissingFile { kind }),
        };
        match (kind, value) {
            ("console", None) => Ok(Self::Console),
            ("console", Some(value)) => Err(ExportError::UnexpectedValue { value: value.to_owned() }),
            ("otlp", None) => Ok(Self::Otlp(None)),
            ("otlp", Some(url)) if url.starts_with("http://") || url.starts_with("https://") => {
                Ok(Self::Otlp(Some(url.to_owned())))
            }
            ("otlp", Some(url)) => Err(ExportError::BadEndpoint {
                url: url.to_owned(),
                reason: "it begins with neither http:// nor https://".to_owned(),
                origin: "for gRPC set OTEL_EXPORTER_OTLP_PROTOCOL=grpc as well".to_owned(),
            }),
            ("jsonl", _) => file("jsonl").map(Self::JsonLines),
            ("perfetto", _) => file("perfetto").map(Self::Perfetto),
            ("html", _) => Err(ExportError::NotAvailable { kind: "html" }),
            _ => Err(ExportError::UnknownDestination { given: text.to_owned() }),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Console => write!(formatter, "console"),
            Self::Otlp(None) => write!(formatter, "otlp"),
            Self::Otlp(Some(url)) => write!(formatter, "otlp={url}"),
            Self::JsonLines(path) => write!(formatter, "jsonl={}", path.display()),
            Self::Perfetto(path) => write!(formatter, "perfetto={}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_and_written_alike() {
        for text in
            ["console", "otlp", "otlp=http://collector:4318", "otlp=https://x/y", "jsonl=/tmp/a=b.jsonl", "perfetto=t"]
        {
            let destination: Destination = text.parse().expect(text);
            assert_eq!(destination.to_string(), text);
        }
    }

    #[test]
    fn a_wrong_destination_is_told_what_to_write() {
        for (text, hint) in [
            ("", "use console"),
            ("jason=x", "use console"),
            ("jsonl", "jsonl=FILE"),
            ("perfetto=", "perfetto=FILE"),
            ("html=report.html", "not available in this version"),
            ("console=x", "standard output"),
            ("otlp=collector:4317", "http://localhost:4318"),
            ("otlp=", "http://localhost:4318"),
        ] {
            let error = text.parse::<Destination>().expect_err(text).to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
