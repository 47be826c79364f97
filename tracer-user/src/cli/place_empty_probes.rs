//! `ml-tracer place-empty-probes`: for benchmarks.

use std::io::Read as _;
use std::process::ExitCode;

use super::arguments::PlaceEmptyProbesArguments;
use super::print::tell;
use crate::attach::{EmptyProbeSites, EmptyProbes};

/// Places empty probes and keeps them until standard input ends.
pub fn place_empty_probes(arguments: &PlaceEmptyProbesArguments) -> anyhow::Result<ExitCode> {
    let probes = EmptyProbes::place(&EmptyProbeSites {
        process: arguments.pid,
        path: arguments.file.clone(),
        entries: arguments.entries.clone(),
        returns: arguments.returns.clone(),
        watched: arguments.watched.clone(),
        single_probes: arguments.single_probes,
    })?;
    tell("placed");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(probes);
    Ok(ExitCode::SUCCESS)
}
