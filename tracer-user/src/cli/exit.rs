//! Failures as one sentence and an exit code.

use std::process::ExitCode;

use super::print::{tell, tell_lines};
use crate::attach::{AttachError, MissingPrivilege, missing_privilege};
use crate::session::SessionError;
use crate::symbol_map::MapErrors;
use crate::target::TargetError;
use crate::view::TopError;

/// Done.
pub const DONE: u8 = 0;
/// Something went wrong inside.
const INTERNAL: u8 = 1;
/// Usage, or a bad map.
pub const USAGE: u8 = 2;
/// Not permitted, or the kernel cannot.
pub const NOT_PERMITTED: u8 = 3;
/// No such process.
const NO_SUCH_PROCESS: u8 = 4;
/// Nothing to trace.
pub const NOTHING_TO_TRACE: u8 = 5;

/// A mistake in what was asked for, found after the command line was read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// A privilege that is missing, found before anything was tried.
#[derive(Debug, thiserror::Error)]
#[error("not permitted: {0}; {advice}", advice = advice_on(.0))]
pub struct LacksPrivilege(pub MissingPrivilege);

fn advice_on(missing: &MissingPrivilege) -> &'static str {
    match missing.capabilities.len() {
        _ if missing.only_in_user_namespace => {
            "run as root outside of it (a rootless container has a user namespace of its own)"
        }
        1 => "run as root (sudo ml-tracer ...), or grant it to the program",
        _ => "run as root (sudo ml-tracer ...), or grant them to the program",
    }
}

/// Fails before anything is tried if a capability is missing.
pub fn demand_privilege() -> anyhow::Result<()> {
    missing_privilege().map_or(Ok(()), |missing| Err(LacksPrivilege(missing).into()))
}

/// Prints the sentence and gives the code.
pub fn report(failure: &anyhow::Error) -> ExitCode {
    if is_closed_output(failure) {
        return ExitCode::SUCCESS;
    }
    // Each message names its cause itself. Only a list of what is wrong with maps has more than one line.
    if failure.is::<MapErrors>() {
        tell_lines(&failure.to_string())
    } else {
        tell(&failure.to_string())
    }
    ExitCode::from(code_of(failure))
}

/// `ml-tracer doctor | head -1` closes our output early; that is no failure.
fn is_closed_output(failure: &anyhow::Error) -> bool {
    let of_json = failure.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    let kind = failure.downcast_ref::<std::io::Error>().map(std::io::Error::kind).or(of_json);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

fn code_of(failure: &anyhow::Error) -> u8 {
    let wants_terminal = matches!(failure.downcast_ref(), Some(TopError::NoTerminal { .. }));
    if failure.is::<UsageError>() || failure.is::<MapErrors>() || wants_terminal {
        return USAGE;
    }
    if failure.is::<LacksPrivilege>() {
        return NOT_PERMITTED;
    }
    if let Some(error) = failure.downcast_ref::<TargetError>() {
        return match error {
            TargetError::NoSuchProcess { .. } | TargetError::NoneSelected { .. } | TargetError::Zombie { .. } => {
                NO_SUCH_PROCESS
            }
            TargetError::KernelThread { .. } => NOTHING_TO_TRACE,
            TargetError::Thread { .. } => USAGE,
            TargetError::NotPermitted { .. } => NOT_PERMITTED,
            TargetError::Unreadable { .. } => INTERNAL,
        };
    }
    failure.downcast_ref::<SessionError>().map_or(INTERNAL, session_code)
}

/// The exit code of a session that an error has ended.
pub fn code_of_session(failure: &SessionError) -> ExitCode {
    ExitCode::from(session_code(failure))
}

fn session_code(failure: &SessionError) -> u8 {
    match failure {
        SessionError::NothingToTrace { .. } => NOTHING_TO_TRACE,
        SessionError::FilesForbidden { .. } | SessionError::FewDescriptors { .. } => NOT_PERMITTED,
        SessionError::TargetsEnded { .. } => NO_SUCH_PROCESS,
        SessionError::Attach(
            AttachError::NotPermitted { .. }
            | AttachError::NoDescriptor { .. }
            | AttachError::OldKernel { .. }
            | AttachError::Load { .. }
            | AttachError::PidNamespace
            | AttachError::Place { .. }
            | AttachError::Watchpoint { .. },
        ) => NOT_PERMITTED,
        SessionError::Attach(AttachError::TooManyProcesses { .. }) | SessionError::Export(_) => USAGE,
        _ => INTERNAL,
    }
}
