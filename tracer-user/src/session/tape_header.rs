//! What a stream of records begins with, on a tape or not.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;

use super::clock::clock_anchor;
use super::error::SessionError;
use super::recording::{LearnedClass, Recording};
use crate::model::Target;
use crate::ring::{TapeError, TapeHeader, TapeWriter};

/// The header for these targets, with the clocks as they are now.
pub fn tape_header(targets: &[Target]) -> TapeHeader {
    TapeHeader {
        // The standard library seeds its hash maps from the operating system's random numbers.
        seed: RandomState::new().hash_one(std::process::id()),
        anchor: clock_anchor(),
        targets: targets.iter().map(|target| Target { modules: Vec::new(), ..target.clone() }).collect(),
    }
}

/// Begins a tape.
///
/// # Errors
/// The file cannot be written.
pub fn begin_tape(
    path: PathBuf,
    header: &TapeHeader,
    learned: Receiver<LearnedClass>,
) -> Result<Recording, SessionError> {
    let begin =
        || -> Result<_, TapeError> { TapeWriter::new(BufWriter::with_capacity(1 << 18, File::create(&path)?), header) };
    match begin() {
        Ok(writer) => Ok(Recording { path, writer, learned }),
        Err(source) => Err(SessionError::Tape { path, source }),
    }
}
