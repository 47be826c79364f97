//! The guard that watch mode posts beside a process in a virtual machine.

use std::process::ExitCode;

use super::arguments::GuardArguments;
use crate::attach::run_guard;

/// Guards the process until it is told to stop, or the tracer or the process has ended.
pub fn guard(arguments: &GuardArguments) -> anyhow::Result<ExitCode> {
    run_guard(arguments.pid)?;
    Ok(ExitCode::SUCCESS)
}
