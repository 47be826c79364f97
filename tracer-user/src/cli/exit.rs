//! Failures as one sentence and an exit code.

use std::process::ExitCode;

use crate::session::AttachError;
use crate::session::SessionError;
use crate::session::{MapErrors, TargetError};

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
const NOTHING_TO_TRACE: u8 = 5;

/// A mistake in what was asked for, found after the command line was read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// A privilege that is missing, found before anything was tried.
#[derive(Debug, thiserror::Error)]
#[error("not permitted: {} missing; run as root (sudo ml-tracer ...), or grant {them} to the program", .missing.join(" and "), them = if .missing.len() == 1 { "it" } else { "them" })]
pub struct MissingPrivilege {
    /// Names of the capabilities.
    pub missing: Vec<&'static str>,
}

/// Prints the sentence and gives the code.
pub fn report(failure: &anyhow::Error) -> ExitCode {
    if is_closed_output(failure) {
        return ExitCode::SUCCESS;
    }
    // Each message names its cause itself.
    tell(&failure.to_string());
    ExitCode::from(code_of(failure))
}

/// One line to stderr, with the name of the program.
#[expect(clippy::print_stderr, reason = "messages go to stderr, stdout belongs to the console destination")]
pub fn tell(sentence: &str) {
    eprintln!("ml-tracer: {sentence}");
}

/// `ml-tracer doctor | head -1` closes our output early; that is no failure.
fn is_closed_output(failure: &anyhow::Error) -> bool {
    let of_json = failure.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    let kind = failure.downcast_ref::<std::io::Error>().map(std::io::Error::kind).or(of_json);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

fn code_of(failure: &anyhow::Error) -> u8 {
    if failure.is::<UsageError>() || failure.is::<MapErrors>() {
        return USAGE;
    }
    if failure.is::<MissingPrivilege>() {
        return NOT_PERMITTED;
    }
    if let Some(error) = failure.downcast_ref::<TargetError>() {
        return match error {
            TargetError::NoSuchProcess { .. } | TargetError::Zombie { .. } => NO_SUCH_PROCESS,
            TargetError::KernelThread { .. } => NOTHING_TO_TRACE,
            TargetError::Thread { .. } => USAGE,
            TargetError::NotPermitted { .. } => NOT_PERMITTED,
            TargetError::Unreadable { .. } => INTERNAL,
        };
    }
    match failure.downcast_ref::<SessionError>() {
        Some(SessionError::NothingToTrace { .. }) => NOTHING_TO_TRACE,
        Some(SessionError::CannotFollow | SessionError::FewDescriptors { .. }) => NOT_PERMITTED,
        Some(SessionError::TargetsEnded { .. }) => NO_SUCH_PROCESS,
        Some(SessionError::Attach(
            AttachError::NotPermitted { .. }
            | AttachError::NoDescriptor { .. }
            | AttachError::Load { .. }
            | AttachError::PidNamespace,
        )) => NOT_PERMITTED,
        Some(SessionError::Attach(AttachError::TooManyProcesses { .. }) | SessionError::Export(_)) => USAGE,
        Some(SessionError::Attach(AttachError::Place { .. })) => NOT_PERMITTED,
        _ => INTERNAL,
    }
}
