//! `ml-tracer check-map`.

use std::io::Write as _;
use std::process::ExitCode;

use super::arguments::CheckMapArguments;
use super::exit::{USAGE, tell};
use crate::session::{MapSummary, read_map};

/// Checks every file, tells every error, and prints what each good file holds.
pub fn check_map(arguments: &CheckMapArguments) -> anyhow::Result<ExitCode> {
    let mut output = std::io::stdout().lock();
    let mut bad = 0;
    for path in &arguments.files {
        match read_map(path) {
            Ok(maps) => {
                for map in &maps {
                    writeln!(output, "{}:{}: {}", path.display(), map.origin.line, MapSummary(map))?;
                }
            }
            Err(errors) => {
                bad += 1;
                tell(&errors.to_string());
            }
        }
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(USAGE) })
}
