//! Recorded memory in one file, which is read like a process.
//!
//! The file: a line of JSON (format, facts for whoever reads it, ranges), then the bytes of the ranges one after the
//! other; all of it compressed with gzip.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::reader::{Memory, MemoryError};
use crate::model::RemoteAddress;

/// Name and version of the format.
const FORMAT: &str = "ml-tracer/snapshot/v1";
/// Most bytes of memory that a snapshot holds.
const SIZE_LIMIT: u64 = 256 << 20;
/// Longest first line, bytes.
const HEADER_LIMIT: u64 = 16 << 20;

/// Recorded memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    facts: serde_json::Value,
    /// Bytes by first address, sorted, not overlapping.
    ranges: Vec<(u64, Vec<u8>)>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    facts: serde_json::Value,
    /// First address and length of each range.
    ranges: Vec<(u64, u64)>,
}

/// Why a snapshot cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file cannot be read or written.
    #[error("snapshot {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no snapshot, or one of another version.
    #[error("{path} is no snapshot of format {FORMAT}: {problem}; record it again")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl Snapshot {
    /// A snapshot of some ranges, in any order; of two that overlap the first one counts. `facts` is for whoever reads
    /// the memory: where in it things are.
    #[must_use]
    pub fn new(facts: serde_json::Value, ranges: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Self {
        let mut given: Vec<(u64, Vec<u8>)> = ranges.into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
        given.sort_by_key(|(start, _)| *start);
        let mut ranges: Vec<(u64, Vec<u8>)> = Vec::new();
        for (start, bytes) in given {
            match ranges.last_mut() {
                Some((first, last)) if first.checked_add(last.len() as u64) == Some(start) => last.extend(bytes),
                Some((first, last)) if first.saturating_add(last.len() as u64) > start => {}
                _ => ranges.push((start, bytes)),
            }
        }
        Self { facts, ranges }
    }

    /// What was recorded about the memory.
    #[must_use]
    pub fn facts(&self) -> &serde_json::Value {
        &self.facts
    }

    /// All bytes by first address, sorted.
    #[must_use]
    pub fn ranges(&self) -> &[(u64, Vec<u8>)] {
        &self.ranges
    }

    /// The bytes, to change them.
    pub fn ranges_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.ranges.iter_mut().map(|(_, bytes)| bytes.as_mut_slice())
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// The file cannot be read or is no snapshot.
    pub fn load(path: &Path) -> Result<Self, SnapshotError> {
        let file_error = |source| SnapshotError::File { path: path.to_owned(), source };
        let malformed = |problem: String| SnapshotError::Malformed { path: path.to_owned(), problem };
        let file = std::fs::File::open(path).map_err(file_error)?;
        let mut reader = BufReader::new(GzDecoder::new(BufReader::new(file)));
        let mut line = Vec::new();
        reader.by_ref().take(HEADER_LIMIT).read_until(b'\n', &mut line).map_err(file_error)?;
        let header: Header = serde_json::from_slice(&line).map_err(|error| malformed(error.to_string()))?;
        if header.format != FORMAT {
            return Err(malformed(format!("it says `{}`", header.format)));
        }
        let mut left = SIZE_LIMIT;
        let mut ranges = Vec::new();
        for (start, length) in header.ranges {
            left = left.checked_sub(length).ok_or_else(|| malformed(format!("more than {SIZE_LIMIT} bytes")))?;
            let mut bytes = Vec::new();
            reader.by_ref().take(length).read_to_end(&mut bytes).map_err(file_error)?;
            if bytes.len() as u64 != length {
                return Err(malformed("it is cut off".into()));
            }
            ranges.push((start, bytes));
        }
        Ok(Self::new(header.facts, ranges))
    }

    /// Writes the snapshot.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), SnapshotError> {
        let file_error = |source| SnapshotError::File { path: path.to_owned(), source };
        let header = Header {
            format: FORMAT.into(),
            facts: self.facts.clone(),
            ranges: self.ranges.iter().map(|(start, bytes)| (*start, bytes.len() as u64)).collect(),
        };
        let mut line = serde_json::to_vec(&header)
            .map_err(|error| SnapshotError::Malformed { path: path.to_owned(), problem: error.to_string() })?;
        line.push(b'\n');
        let file = std::fs::File::create(path).map_err(file_error)?;
        let mut writer = GzEncoder::new(file, Compression::best());
        let parts = std::iter::once(&line).chain(self.ranges.iter().map(|(_, bytes)| bytes));
        for part in parts {
            writer.write_all(part).map_err(file_error)?;
        }
        writer.finish().map_err(file_error)?;
        Ok(())
    }
}

impl Memory for Snapshot {
    fn read(&self, address: RemoteAddress, buffer: &mut [u8]) -> Result<(), MemoryError> {
        let length = buffer.len();
        let unmapped = || MemoryError::Unmapped { address, bytes: length };
        if buffer.is_empty() {
            return Ok(());
        }
        let after = self.ranges.partition_point(|(start, _)| *start <= address.0);
        let range = after.checked_sub(1).and_then(|index| self.ranges.get(index));
        let (start, bytes) = range.ok_or_else(unmapped)?;
        let skip = usize::try_from(address.0 - start).map_err(|_| unmapped())?;
        let end = skip.checked_add(length).ok_or_else(unmapped)?;
        buffer.copy_from_slice(bytes.get(skip..end).ok_or_else(unmapped)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::recorder::Recorder;
    use super::*;

    fn read<M: Memory>(memory: &M, address: u64) -> Result<[u8; 4], MemoryError> {
        let mut bytes = [0; 4];
        memory.read(RemoteAddress(address), &mut bytes).map(|()| bytes)
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let snapshot = Snapshot::new(serde_json::Value::Null, [(0x1004, vec![5, 6]), (0x1000, vec![1, 2, 3, 4])]);
        assert_eq!(read(&snapshot, 0x1002), Ok([3, 4, 5, 6]));
        for address in [0xfff, 0x1003, 0, u64::MAX] {
            assert!(read(&snapshot, address).is_err(), "{address:#x}");
        }
    }

    #[test]
    fn a_saved_snapshot_comes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("memory.snapshot");
        let source = Snapshot::new(serde_json::Value::Null, [(0x5000, (0..=255).collect())]);
        let recorder = Recorder::new(&source);
        read(&recorder, 0x5010).expect("it is there");
        assert!(read(&recorder, 0x6000).is_err());
        let snapshot = recorder.into_snapshot(serde_json::json!({"version": "3.11"}));
        snapshot.save(&path).expect("written");
        let loaded = Snapshot::load(&path).expect("read");
        assert_eq!(loaded, snapshot);
        assert_eq!(read(&loaded, 0x5010), Ok([0x10, 0x11, 0x12, 0x13]));
        assert_eq!(read(&loaded, 0x5020), Ok([0; 4]), "of the page only what was read is kept");
        assert_eq!(loaded.facts()["version"], "3.11");
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "no gzip").expect("written");
        assert!(matches!(Snapshot::load(&path), Err(SnapshotError::File { .. })));
        for text in ["{}\n", "{\"format\":\"other\",\"facts\":null,\"ranges\":[]}\n"] {
            let mut writer = GzEncoder::new(Vec::new(), Compression::fast());
            writer.write_all(text.as_bytes()).expect("written");
            std::fs::write(&path, writer.finish().expect("compressed")).expect("written");
            assert!(matches!(Snapshot::load(&path), Err(SnapshotError::Malformed { .. })), "{text}");
        }
        let cut = format!("{{\"format\":\"{FORMAT}\",\"facts\":null,\"ranges\":[[4096,10]]}}\nabc");
        let mut writer = GzEncoder::new(Vec::new(), Compression::fast());
        writer.write_all(cut.as_bytes()).expect("written");
        std::fs::write(&path, writer.finish().expect("compressed")).expect("written");
        assert!(
            matches!(Snapshot::load(&path), Err(SnapshotError::Malformed { problem, .. }) if problem == "it is cut off")
        );
    }
}
