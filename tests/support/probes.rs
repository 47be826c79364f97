//! Whether a process has probes in its code: its text compared with the file it was mapped from.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Bytes of a process's executable mappings of `file` that differ from the file.
///
/// # Errors
/// When the process is gone or its memory cannot be read.
pub fn changed_bytes(pid: u32, file: &Path) -> Result<usize> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let original = File::open(file)?;
    let mut changed = 0;
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [range, permissions, offset, _, _, path] = fields.as_slice() else { continue };
        if !permissions.contains('x') || Path::new(path) != file {
            continue;
        }
        let (start, end) = range.split_once('-').context("a mapping has a range")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        let mut mapped = vec![0; usize::try_from(end - start)?];
        let mut stored = mapped.clone();
        memory.read_exact_at(&mut mapped, start)?;
        // The last page of a file is mapped whole; behind the end of the file it holds zeros.
        let length = original.read_at(&mut stored, u64::from_str_radix(offset, 16)?)?;
        stored.truncate(length);
        changed += mapped.iter().zip(&stored).filter(|(one, other)| one != other).count();
    }
    Ok(changed)
}
