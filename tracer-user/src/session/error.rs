//! What can keep a session from running.

use std::path::PathBuf;

use crate::attach::AttachError;
use crate::export::ExportError;
use crate::model::ProcessId;
use crate::ring::TapeError;

/// What can keep a session from running.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Probes could not be made live.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A destination could not be opened.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A tape could not be written or read.
    #[error("{path}: {source}")]
    Tape {
        /// The tape.
        path: PathBuf,
        /// What went wrong.
        source: TapeError,
    },
    /// The programs in the kernel, their maps and the destinations are descriptors of this process.
    #[error(
        "ml-tracer may open only {limit} files at one time and needs at least {least}: raise the hard limit (`ulimit -n \
         {least}`; for a service LimitNOFILE=, for a container --ulimit nofile=)"
    )]
    FewDescriptors {
        /// The hard limit.
        limit: u64,
        /// What is needed.
        least: u64,
    },
    /// No function of any target matches a map.
    #[error("nothing to trace: {detail}")]
    NothingToTrace {
        /// What was looked at, and what to do.
        detail: String,
    },
    /// No function of any target matches a map, and some files could not be looked into.
    #[error(
        "nothing to trace: {forbidden} of the files that are mapped by {processes} may not be read; run as root (sudo), or \
         grant CAP_DAC_READ_SEARCH as well"
    )]
    FilesForbidden {
        /// Files that may not be read.
        forbidden: usize,
        /// Whose.
        processes: String,
    },
    /// Every target ended while it was being attached to.
    #[error("nothing is left to trace: what was to be traced has ended before its probes were live ({processes})")]
    TargetsEnded {
        /// Who they were.
        processes: String,
    },
    /// Something was asked of a process that was let go.
    #[error("process {process} is not traced any more")]
    NotTraced {
        /// The process.
        process: ProcessId,
    },
    /// It was told to stop before it had begun.
    #[error("stopped before any probe was live")]
    Stopped,
    /// The tracer has too many threads, or the machine has.
    #[error(
        "no thread can be had to look at the processes: is the limit of threads of this user or control group reached?"
    )]
    NoThread,
    /// A thread of the tracer ended before its time.
    #[error(
        "the thread that reads the ring buffer has ended before its time; please report this with the log (RUST_LOG=debug)"
    )]
    DrainEnded,
}

impl SessionError {
    /// Whether it says that a process is ending: it has no memory any more.
    #[must_use]
    pub(super) fn is_about_the_end(&self) -> bool {
        let Self::Attach(AttachError::Place { source, .. } | AttachError::Watchpoint { source, .. }) = self else {
            return false;
        };
        matches!(source.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
    }
}
