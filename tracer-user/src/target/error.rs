//! Why a process cannot be looked at.

use procfs::ProcError;

/// Why a process cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// There is no such process, or it has ended.
    #[error("no process {pid}: it does not exist or has ended; `pgrep -a NAME` finds the right number")]
    NoSuchProcess {
        /// Process id asked for.
        pid: u32,
    },
    /// Nobody is what was asked for.
    #[error("no process {what}; `pgrep -a NAME` and `ss -ltnp` list what is there")]
    NoneSelected {
        /// What it was to be or do.
        what: String,
    },
    /// A thread of the kernel has no user code.
    #[error("process {pid} ({name}) is a kernel thread: it runs no user code that could be traced")]
    KernelThread {
        /// Process id asked for.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// A zombie has no memory any more.
    #[error("process {pid} ({name}) has ended and waits for its parent: nothing of it can be traced")]
    Zombie {
        /// Process id asked for.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// The id of a thread was given.
    #[error("{tid} is a thread of process {pid}; use `--pid {pid}`: all its threads are traced")]
    Thread {
        /// Thread id asked for.
        tid: u32,
        /// Process that it belongs to.
        pid: u32,
    },
    /// Looking is not permitted.
    #[error(
        "process {pid} may not be looked at: run as root (sudo), or grant CAP_SYS_PTRACE; if ml-tracer has these already, a \
         security module or another user namespace protects the process"
    )]
    NotPermitted {
        /// Process id asked for.
        pid: u32,
    },
    /// Something of /proc could not be read.
    #[error("reading /proc/{pid}: {problem}")]
    Unreadable {
        /// Process id asked for.
        pid: u32,
        /// What went wrong.
        problem: String,
    },
}

impl TargetError {
    pub(super) fn from_proc(pid: u32, error: ProcError) -> Self {
        match error {
            ProcError::NotFound(_) => Self::NoSuchProcess { pid },
            ProcError::PermissionDenied(_) => Self::NotPermitted { pid },
            // ESRCH: the process ended between opening and reading.
            ProcError::Io(error, _) if error.raw_os_error() == Some(libc::ESRCH) => Self::NoSuchProcess { pid },
            other => Self::Unreadable { pid, problem: other.to_string() },
        }
    }
}
