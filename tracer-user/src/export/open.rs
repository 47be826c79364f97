//! From a destination to a sink that is ready to take spans.

use std::fs::File;
use std::io::IsTerminal;
use std::path::Path;

use super::chrome_trace::ChromeTrace;
use super::console::Console;
use super::destination::Destination;
use super::environment::{Environment, set};
use super::error::ExportError;
use super::json_lines::JsonLines;
use super::otlp::Otlp;
use super::sink::Sink;

/// Opens a destination. Files are created (an existing one is overwritten) and settings are checked here, so that what
/// is wrong is told before anything is attached.
///
/// # Errors
/// The file cannot be created, or a setting cannot be used.
pub fn open(destination: &Destination, environment: Environment<'_>) -> Result<Box<dyn Sink>, ExportError> {
    Ok(match destination {
        Destination::Console => Box::new(Console::new(std::io::stdout(), colour(environment))?),
        Destination::Otlp(url) => Box::new(Otlp::new(url.as_deref(), environment)?),
        Destination::JsonLines(path) => Box::new(JsonLines::new(create(path)?, path.display().to_string())?),
        Destination::Perfetto(path) => Box::new(ChromeTrace::new(create(path)?, path.display().to_string())?),
    })
}

fn create(path: &Path) -> Result<File, ExportError> {
    File::create(path).map_err(|source| ExportError::CannotCreate { path: path.to_owned(), source })
}

/// Colour for people only. Source: no-color.org.
fn colour(environment: Environment<'_>) -> bool {
    let dumb = set(environment, "TERM").is_some_and(|terminal| terminal == "dumb");
    std::io::stdout().is_terminal() && set(environment, "NO_COLOR").is_none() && !dumb
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::super::sink::Summary;
    use super::*;

    #[test]
    fn files_are_made_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        for kind in ["jsonl", "perfetto"] {
            let path = directory.path().join(kind);
            let destination = format!("{kind}={}", path.display()).parse().expect("a destination");
            let mut sink = open(&destination, &|_| None).expect("opened");
            assert_eq!(sink.name(), kind);
            assert!(path.exists());
            samples::spans().iter().for_each(|span| sink.span(span));
            assert_eq!(sink.finish(&Summary::default()).delivered, 7);
            assert!(path.metadata().expect("a file").len() > 1_000);

            let lost = directory.path().join("nowhere").join(kind);
            let destination = format!("{kind}={}", lost.display()).parse().expect("a destination");
            let error = open(&destination, &|_| None).err().expect("no directory").to_string();
            assert!(error.contains("nowhere") && error.contains("directory exists"), "{error}");
        }
    }
}
