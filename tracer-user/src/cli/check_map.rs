//! `ml-tracer check-map`.

use std::process::ExitCode;

use super::arguments::CheckMapArguments;
use super::exit::USAGE;
use super::print::{line, tell_lines};
use crate::symbol_map::{Summary, read_file};

/// Checks every file, tells every error, and prints what each good file holds.
pub fn check_map(arguments: &CheckMapArguments) -> anyhow::Result<ExitCode> {
    let mut output = std::io::stdout().lock();
    let mut bad = 0;
    for path in &arguments.files {
        match read_file(path) {
            Ok(maps) => {
                for map in &maps {
                    // A line for each part: a line end would be escaped.
                    let summary = Summary(map).to_string();
                    let mut parts = summary.lines();
                    let first = parts.next().unwrap_or_default();
                    line(&mut output, format_args!("{}:{}: {first}", path.display(), map.origin.line))?;
                    parts.try_for_each(|part| line(&mut output, format_args!("{part}")))?;
                }
            }
            Err(errors) => {
                bad += 1;
                tell_lines(&errors.to_string());
            }
        }
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(USAGE) })
}
