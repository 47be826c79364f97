//! What can go wrong between a plan and live probes.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use super::features::{has_administration, missing_privilege};

/// Failures of loading and placing.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refused for want of privilege.
    #[error("the kernel refused {what}: not permitted ({problem}); {advice}")]
    NotPermitted {
        /// What was tried.
        what: String,
        /// What the kernel said.
        problem: String,
        /// What is missing, and what to do.
        advice: String,
    },
    /// The kernel is older than what the programs need.
    #[error(
        "Linux {}.{} is too old: the programs need what came with 5.15, and ml-tracer is tested on Linux 6.1 and newer",
        .version.0, .version.1
    )]
    OldKernel {
        /// Its version.
        version: (u32, u32),
    },
    /// No descriptor is left.
    #[error("no file descriptor is left for {what}: raise the hard limit on open files (`ulimit -n`) and start again")]
    NoDescriptor {
        /// What was tried.
        what: String,
    },
    /// The tracer runs in a pid namespace of its own, where the numbers of BPF programs mean nothing.
    #[error(
        "ml-tracer runs in a pid namespace of its own, but BPF programs see the numbers of the host; start it in the \
         host's pid namespace (Docker: --pid=host, Kubernetes: hostPID: true)"
    )]
    PidNamespace,
    /// The kernel refused to load the programs.
    #[error(
        "loading the BPF programs failed: {problem}; ml-tracer needs Linux 6.1 or newer with BPF, uprobes and the ring \
         buffer: run `ml-tracer doctor`"
    )]
    Load {
        /// What the loader or the verifier said.
        problem: String,
    },
    /// Requests cannot be seen on this kernel.
    #[error(
        "`--requests sockets` needs the tracepoints of system calls (CONFIG_FTRACE_SYSCALLS, and tracefs: `mount -t tracefs \
         nodev /sys/kernel/tracing`, or CAP_SYS_ADMIN): {problem}"
    )]
    NoRequests {
        /// What the kernel said.
        problem: String,
    },
    /// Something of the embedded object is not there: the program was built wrongly.
    #[error("the embedded BPF object lacks `{name}`; rebuild it with `cargo xtask build-ebpf`")]
    Incomplete {
        /// Name of the map or program.
        name: &'static str,
    },
    /// A map of the running programs could not be read or written.
    #[error("the BPF map `{name}` cannot be used: {problem}; run `ml-tracer doctor`")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// What the kernel said.
        problem: String,
    },
    /// A probe could not be placed for a reason that is not about one function.
    #[error("probes cannot be placed in {path}: {source}; run `ml-tracer doctor`")]
    Place {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A watchpoint was refused for another reason than want of privilege or of a debug register.
    #[error("no hardware watchpoint can be set in process {pid}: {source}; run `ml-tracer doctor`")]
    Watchpoint {
        /// The process.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The keeper of the leases on probed files cannot set up its signals or descriptors.
    #[error("keeping leases: {source}")]
    Leases {
        /// What the kernel said.
        source: io::Error,
    },
    /// The guard of a process cannot set up its signals or descriptors.
    #[error("guarding process {pid}: {source}")]
    Guard {
        /// The process.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// More processes than the programs have slots.
    #[error("{wanted} processes at once are more than the {most} that one tracer can watch; start a second one")]
    TooManyProcesses {
        /// Processes asked for.
        wanted: usize,
        /// Slots.
        most: u32,
    },
}

impl AttachError {
    /// A refusal for want of privilege: says what is missing.
    pub(super) fn not_permitted(what: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        Self::NotPermitted { what: what.into(), problem: chain(error), advice: advice() }
    }

    /// The kernel has not taken a probe in a file.
    pub(super) fn refused(path: &Path, error: io::Error) -> Self {
        if is_about_privilege(&error) {
            return Self::not_permitted(format!("a uprobe in {}", path.display()), &error);
        }
        Self::Place { path: path.to_owned(), source: error }
    }
}

/// What to do about a refusal for want of privilege.
fn advice() -> String {
    match missing_privilege() {
        Some(missing) => format!("{missing}: run as root (sudo), or grant what is missing"),
        None if has_administration() => {
            "nothing is missing that ml-tracer knows of: a security module, a seccomp filter of a container, or kernel \
             lockdown may refuse it"
                .to_owned()
        }
        None => {
            "this kernel wants CAP_SYS_ADMIN for it where it has no uprobe_multi links (before Linux 6.6): run as root \
                 (sudo)"
                .to_owned()
        }
    }
}

/// Whether the kernel refused for want of privilege.
pub(super) fn is_about_privilege(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

/// The error of the kernel that is behind the error of a library, with its number; otherwise one that says all that the
/// library says.
pub(super) fn kernel_error(error: &(dyn Error + 'static)) -> io::Error {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(number) = current.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(number);
        }
        cause = current.source();
    }
    io::Error::other(chain(error))
}

/// A refusal to load programs or maps: for want of privilege, or because the kernel cannot. The verifier refuses with
/// `EACCES` as well, but for reasons of its own.
pub(super) fn load_failure(error: &io::Error) -> AttachError {
    if error.raw_os_error() == Some(libc::EPERM) {
        return AttachError::not_permitted("the BPF programs", error);
    }
    AttachError::Load { problem: error.to_string() }
}

/// An error with all its causes. What says nothing new is left out.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the call failed")]
    struct Failed(#[source] io::Error);

    #[test]
    fn the_number_of_an_error_is_found_behind_others() {
        let failed = Failed(io::Error::other(Failed(io::Error::from_raw_os_error(libc::EACCES))));
        assert_eq!(kernel_error(&failed).raw_os_error(), Some(libc::EACCES));
        assert!(is_about_privilege(&kernel_error(&failed)));
        assert!(chain(&failed).ends_with("Permission denied (os error 13)"), "{}", chain(&failed));
        let other = kernel_error(&Failed(io::Error::other("no number")));
        assert_eq!((other.raw_os_error(), other.to_string().as_str()), (None, "the call failed: no number"));
    }
}
