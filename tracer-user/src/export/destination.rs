//! Where spans are to go, as the user writes it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::ExportError;
use super::shown::Shown;

/// A destination, in the form that `--export` takes: one of [`DESTINATIONS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Trees on standard output, as far as they are to be shown.
    Console(Box<Shown>),
    /// A collector; without a URL as the `OTEL_` variables say.
    Otlp(Option<String>),
    /// A file of OTLP/JSON, one `TracesData` a line.
    JsonLines(PathBuf),
    /// A file of Chrome trace events.
    Perfetto(PathBuf),
    /// A profile for speedscope.
    Speedscope(PathBuf),
    /// A file of folded stacks.
    Folded(PathBuf),
}

/// A kind of destination.
#[derive(Debug)]
pub struct DestinationKind {
    /// The word that `--export` takes, and the name of the sink.
    pub word: &'static str,
    /// What it is, for `--help`.
    pub about: &'static str,
    value: Value,
}

/// What follows the word.
#[derive(Debug)]
enum Value {
    None(fn() -> Destination),
    Url(fn(Option<String>) -> Destination),
    File(fn(PathBuf) -> Destination),
}

/// A tree for people.
pub const CONSOLE: DestinationKind = DestinationKind {
    word: "console",
    about: "a tree on standard output (the default)",
    value: Value::None(Destination::console),
};

/// OpenTelemetry's protocol.
pub const OTLP: DestinationKind = DestinationKind {
    word: "otlp",
    about: "an OpenTelemetry collector; honours the OTEL_* variables",
    value: Value::Url(Destination::Otlp),
};

/// OpenTelemetry's file format.
pub const JSON_LINES: DestinationKind = DestinationKind {
    word: "jsonl",
    about: "one OTLP/JSON TracesData a line",
    value: Value::File(Destination::JsonLines),
};

/// Chrome trace events.
pub const PERFETTO: DestinationKind =
    DestinationKind { word: "perfetto", about: "for ui.perfetto.dev", value: Value::File(Destination::Perfetto) };

/// A profile: all calls added up by their stacks.
pub const SPEEDSCOPE: DestinationKind = DestinationKind {
    word: "speedscope",
    about: "for speedscope.app, written at the end: all calls, added up by stack",
    value: Value::File(Destination::Speedscope),
};

/// The same as lines.
pub const FOLDED: DestinationKind = DestinationKind {
    word: "folded",
    about: "the same as folded stacks, for flamegraph.pl and inferno; in nanoseconds",
    value: Value::File(Destination::Folded),
};

/// Every kind there is: what is read, told and shown is made from this.
pub const DESTINATIONS: [DestinationKind; 6] = [CONSOLE, OTLP, JSON_LINES, PERFETTO, SPEEDSCOPE, FOLDED];

/// A kind that is planned.
const PLANNED: &str = "html";

impl DestinationKind {
    /// How it is written: `otlp[=URL]`.
    #[must_use]
    pub fn form(&self) -> String {
        match self.value {
            Value::None(_) => self.word.to_owned(),
            Value::Url(_) => format!("{}[=URL]", self.word),
            Value::File(_) => format!("{}=FILE", self.word),
        }
    }

    fn read(&self, value: Option<&str>) -> Result<Destination, ExportError> {
        match (&self.value, value) {
            (Value::None(of), None) => Ok(of()),
            (Value::None(_), Some(value)) => Err(ExportError::UnexpectedValue { value: value.to_owned() }),
            (Value::Url(of), None) => Ok(of(None)),
            (Value::Url(of), Some(url)) if url.starts_with("http://") || url.starts_with("https://") => {
                Ok(of(Some(url.to_owned())))
            }
            (Value::Url(_), Some(url)) => Err(ExportError::BadEndpoint {
                url: url.to_owned(),
                reason: "it begins with neither http:// nor https://".to_owned(),
                origin: "for gRPC set OTEL_EXPORTER_OTLP_PROTOCOL=grpc as well".to_owned(),
            }),
            (Value::File(of), Some(path)) if !path.is_empty() => Ok(of(PathBuf::from(path))),
            (Value::File(_), _) => Err(ExportError::MissingFile { kind: self.word }),
        }
    }
}

impl Destination {
    /// Trees on standard output, all of them.
    #[must_use]
    pub fn console() -> Self {
        Self::Console(Box::default())
    }

    /// The same; trees go to standard error, because standard output belongs to somebody else.
    #[must_use]
    pub fn off_stdout(self) -> Self {
        match self {
            Self::Console(shown) => Self::Console(Box::new(Shown { on_stderr: true, ..*shown })),
            other => other,
        }
    }

    /// The file that it writes to, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::JsonLines(path) | Self::Perfetto(path) | Self::Speedscope(path) | Self::Folded(path) => Some(path),
            Self::Console(_) | Self::Otlp(_) => None,
        }
    }

    fn parts(&self) -> (DestinationKind, Option<String>) {
        match self {
            Self::Console(_) => (CONSOLE, None),
            Self::Otlp(url) => (OTLP, url.clone()),
            Self::JsonLines(path) => (JSON_LINES, Some(path.display().to_string())),
            Self::Perfetto(path) => (PERFETTO, Some(path.display().to_string())),
            Self::Speedscope(path) => (SPEEDSCOPE, Some(path.display().to_string())),
            Self::Folded(path) => (FOLDED, Some(path.display().to_string())),
        }
    }
}

impl FromStr for Destination {
    type Err = ExportError;

    fn from_str(text: &str) -> Result<Self, ExportError> {
        let (word, value) = match text.split_once('=') {
            Some((word, value)) => (word, Some(value)),
            None => (text, None),
        };
        match DESTINATIONS.iter().find(|kind| kind.word == word) {
            Some(kind) => kind.read(value),
            None if word == PLANNED => Err(ExportError::NotAvailable { kind: PLANNED, instead: listed(false) }),
            None => Err(ExportError::UnknownDestination { given: text.to_owned(), instead: listed(true) }),
        }
    }
}

/// What can be written, in a sentence; with each form of what takes a value or none.
fn listed(each_form: bool) -> String {
    let forms = |kind: &DestinationKind| match kind.value {
        Value::Url(_) if each_form => vec![kind.word.to_owned(), format!("{}=URL", kind.word)],
        Value::Url(_) => vec![kind.word.to_owned()],
        _ => vec![kind.form()],
    };
    let mut all: Vec<String> = DESTINATIONS.iter().flat_map(forms).collect();
    let last = all.pop().unwrap_or_default();
    format!("{} or {last}", all.join(", "))
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, value) = self.parts();
        formatter.write_str(kind.word)?;
        value.map_or(Ok(()), |value| write!(formatter, "={value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_and_written_alike() {
        for text in [
            "console",
            "otlp",
            "otlp=http://collector:4318",
            "otlp=https://x/y",
            "jsonl=/tmp/a=b.jsonl",
            "perfetto=t",
            "speedscope=s",
            "folded=f",
        ] {
            let destination: Destination = text.parse().expect(text);
            assert_eq!(destination.to_string(), text);
        }
    }

    #[test]
    fn a_wrong_destination_is_told_what_to_write() {
        for (text, hint) in [
            ("", "use console, otlp, otlp=URL, jsonl=FILE, perfetto=FILE, speedscope=FILE or folded=FILE"),
            ("jason=x", "use console"),
            ("jsonl", "jsonl=FILE"),
            ("perfetto=", "perfetto=FILE"),
            ("html=report.html", "not available in this version; use console, otlp, jsonl=FILE, perfetto=FILE,"),
            ("console=x", "standard output"),
            ("otlp=collector:4317", "http://localhost:4318"),
            ("otlp=", "http://localhost:4318"),
        ] {
            let error = text.parse::<Destination>().expect_err(text).to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
