//! The file of `--summary`, and that every file is named once.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::exit::UsageError;
use crate::export::{Destination, create_file};
use crate::session::{Report, SessionError};

/// The file of `--summary`, made before anything is attached.
pub struct SummaryFile {
    path: PathBuf,
    file: File,
}

impl SummaryFile {
    /// Creates it, if it was asked for. Checks first that nothing else is written to it, nor two things to any file.
    pub fn create(exports: &[Destination], summary: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let mut taken = Vec::new();
        for path in exports.iter().filter_map(Destination::file).chain(summary) {
            let absolute = std::path::absolute(path)?;
            // A terminal or /dev/null takes as much as one likes.
            let shared = path.metadata().is_ok_and(|metadata| !metadata.is_file());
            if !shared && taken.contains(&absolute) {
                return Err(UsageError(format!("{} is named twice; name a file for each", path.display())).into());
            }
            taken.push(absolute);
        }
        let Some(path) = summary.map(Path::to_owned) else { return Ok(None) };
        let file = create_file(&path).map_err(SessionError::from)?;
        Ok(Some(Self { path, file }))
    }

    /// Writes the totals.
    pub fn write(mut self, report: &Report) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(report)? + "\n";
        self.file
            .write_all(json.as_bytes())
            .map_err(|error| anyhow::anyhow!("the summary could not be written to {}: {error}", self.path.display()))
    }
}
