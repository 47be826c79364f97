//! What can go wrong between a plan and live probes.

use std::io;
use std::path::PathBuf;

/// Failures of loading and placing.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refused for want of privilege.
    #[error("the kernel refused {what}: not permitted; run as root (sudo), or grant CAP_BPF and CAP_PERFMON")]
    NotPermitted {
        /// What was tried.
        what: String,
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
        "loading the BPF programs failed: {problem}; ml-tracer needs Linux 5.15 or newer with BPF, uprobes and the ring \
         buffer: run `ml-tracer doctor`"
    )]
    Load {
        /// What the loader or the verifier said.
        problem: String,
    },
    /// Something of the embedded object is not there: the program was built wrongly.
    #[error("the embedded BPF object lacks `{name}`; rebuild it with `cargo xtask build-ebpf`")]
    Incomplete {
        /// Name of the map or program.
        name: &'static str,
    },
    /// A map of the running programs could not be read or written.
    #[error("map `{name}`: {problem}; run `ml-tracer doctor`")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// What the kernel said.
        problem: String,
    },
    /// A probe could not be placed for a reason that is not about one function.
    #[error("placing probes in {path}: {source}; run `ml-tracer doctor`")]
    Place {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A watchpoint was refused for another reason than want of privilege or of a debug register.
    #[error("setting a hardware watchpoint in process {pid}: {source}; run `ml-tracer doctor`")]
    Watchpoint {
        /// The process.
        pid: u32,
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
