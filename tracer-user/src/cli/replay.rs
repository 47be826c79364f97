//! `ml-tracer replay`.

use std::process::ExitCode;

use super::arguments::ReplayArguments;
use super::attach::conclude;
use crate::session;
use crate::session::Destination;

/// Replays a tape into destinations.
pub fn replay(arguments: &ReplayArguments) -> anyhow::Result<ExitCode> {
    let exports = if arguments.exports.is_empty() { &[Destination::Console][..] } else { &arguments.exports };
    let report = session::replay(&arguments.tape, exports)?;
    conclude(&report, arguments.summary.as_deref())?;
    Ok(ExitCode::SUCCESS)
}
