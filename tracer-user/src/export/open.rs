//! From a destination to a sink that is ready to take spans.

use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::attribute_limits::AttributeLimits;
use super::chrome_trace::ChromeTrace;
use super::console::{Columns, Console};
use super::destination::{Destination, FOLDED, SPEEDSCOPE};
use super::environment::{Environment, set};
use super::error::ExportError;
use super::folded::folded;
use super::json_lines::JsonLines;
use super::otlp::Otlp;
use super::shown::Shown;
use super::sink::Sink;
use super::speedscope::speedscope;
use super::stack_file::StackFile;

/// Opens a destination. Files are created (an existing one is overwritten) and settings are checked here, so that what
/// is wrong is told before anything is attached.
///
/// # Errors
/// The file cannot be created, or a setting cannot be used.
pub fn open(destination: &Destination, environment: Environment<'_>) -> Result<Box<dyn Sink>, ExportError> {
    let limits = AttributeLimits::read(environment)?;
    Ok(match destination {
        Destination::Console(shown) => Box::new(console(shown, environment)?),
        Destination::Otlp(url) => Box::new(Otlp::new(url.as_deref(), environment)?),
        Destination::JsonLines(path) => {
            Box::new(JsonLines::new(create_file(path)?, path.display().to_string(), limits)?)
        }
        Destination::Perfetto(path) => {
            Box::new(ChromeTrace::new(create_file(path)?, path.display().to_string(), limits)?)
        }
        Destination::Speedscope(path) => {
            let place = path.display().to_string();
            Box::new(StackFile::new(SPEEDSCOPE.word, create_file(path)?, place, speedscope)?)
        }
        Destination::Folded(path) => {
            Box::new(StackFile::new(FOLDED.word, create_file(path)?, path.display().to_string(), folded)?)
        }
    })
}

/// Creates a file, or empties the one that is there.
///
/// # Errors
/// It cannot be created, or is a named pipe that nobody reads.
pub fn create_file(path: &Path) -> Result<File, ExportError> {
    let create = || -> std::io::Result<File> {
        let without_waiting = OFlags::NONBLOCK.bits().cast_signed();
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).custom_flags(without_waiting).open(path)?;
        fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
        Ok(file)
    };
    create().map_err(|source| match source.raw_os_error() {
        Some(libc::ENXIO) => ExportError::NobodyReads { path: path.to_owned() },
        _ => ExportError::CannotCreate { path: path.to_owned(), source },
    })
}

/// The terminal, or what standard output or standard error is instead. It is written in chunks of our own.
fn console(shown: &Shown, environment: Environment<'_>) -> Result<Console, ExportError> {
    let (output, errors) = (std::io::stdout(), std::io::stderr());
    let (stream, columns) = match shown.on_stderr {
        false => (output.as_fd(), Columns::Terminal),
        true => (errors.as_fd(), Columns::TerminalOfErrors),
    };
    let is_terminal = stream.is_terminal();
    let copy = stream.try_clone_to_owned().map_err(|source| ExportError::NoStandardOutput { source })?;
    let columns = if is_terminal { columns } else { Columns::Fixed };
    Console::new(File::from(copy), is_terminal && colour(environment), columns, shown.clone())
}

/// Colour for people only. Source: no-color.org.
fn colour(environment: Environment<'_>) -> bool {
    let dumb = set(environment, "TERM").is_some_and(|terminal| terminal == "dumb");
    set(environment, "NO_COLOR").is_none() && !dumb
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::super::sink::Summary;
    use super::*;

    #[test]
    fn a_pipe_without_a_reader_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
        let error = create_file(&pipe).expect_err("nobody reads").to_string();
        assert!(error.contains("nobody reads"), "{error}");
        // Read and write: opening it does not wait for another end.
        let reader = OpenOptions::new().read(true).write(true).open(&pipe).expect("opened");
        let writer = create_file(&pipe).expect("somebody reads");
        assert!(!fcntl_getfl(&writer).expect("flags").contains(OFlags::NONBLOCK));
        drop(reader);
    }

    #[test]
    fn files_are_made_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        for kind in ["jsonl", "perfetto", "speedscope", "folded"] {
            let path = directory.path().join(kind);
            let destination = format!("{kind}={}", path.display()).parse().expect("a destination");
            let mut sink = open(&destination, &|_| None).expect("opened");
            assert_eq!(sink.name(), kind);
            assert!(path.exists());
            samples::spans().iter().for_each(|span| sink.span(span));
            assert_eq!(sink.finish(&Summary::default()).delivered, 7);
            assert!(path.metadata().expect("a file").len() > 100);

            let lost = directory.path().join("nowhere").join(kind);
            let destination = format!("{kind}={}", lost.display()).parse().expect("a destination");
            let error = open(&destination, &|_| None).err().expect("no directory").to_string();
            assert!(error.contains("nowhere") && error.contains("directory exists"), "{error}");
        }
    }
}
