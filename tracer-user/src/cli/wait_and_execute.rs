//! What `run` starts in the place of the command: it stops itself, and once continued becomes the command.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::process::{Signal, getpid, getppid, kill_process, set_parent_process_death_signal};

use super::arguments::WaitAndExecuteArguments;
use super::print::tell;

/// Shells give this code for a command that cannot be executed.
const CANNOT_EXECUTE: u8 = 126;

/// Stops, and when continued executes the command in this very process.
pub fn wait_and_execute(arguments: &WaitAndExecuteArguments) -> anyhow::Result<ExitCode> {
    let parent = getppid();
    // If the tracer dies while we are stopped, nobody would continue us.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != parent {
        return Ok(ExitCode::FAILURE);
    }
    kill_process(getpid(), Signal::STOP)?;
    // The command may be standing still for the tracer when that dies, see `session::first_calls`.
    set_parent_process_death_signal(Some(Signal::CONT))?;
    let Some((program, rest)) = arguments.command.split_first() else { return Ok(ExitCode::FAILURE) };
    let error = Command::new(program).args(rest).exec();
    tell(&format!("{}: {error}", program.display()));
    Ok(ExitCode::from(CANNOT_EXECUTE))
}
