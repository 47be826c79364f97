//! `ml-tracer replay`.

use std::io::Write as _;
use std::process::ExitCode;

use super::arguments::ReplayArguments;
use super::attach::conclude;
use super::summary_file::SummaryFile;
use crate::session;

/// Replays a tape into destinations.
pub fn replay(arguments: &ReplayArguments) -> anyhow::Result<ExitCode> {
    if let Some(rounds) = arguments.measure {
        let throughput = session::measure(&arguments.tape, &arguments.exports, rounds)?;
        let mut output = std::io::stdout().lock();
        serde_json::to_writer(&mut output, &throughput)?;
        writeln!(output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let exports = arguments.display.destinations(&arguments.exports);
    let summary = SummaryFile::create(&exports, arguments.summary.as_deref())?;
    let report = session::replay(&arguments.tape, &exports)?;
    conclude(&report, summary)?;
    Ok(ExitCode::SUCCESS)
}
