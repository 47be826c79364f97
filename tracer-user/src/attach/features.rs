//! What the running kernel can do and what this process may do.

use procfs::process::Process;

use crate::model::KernelFeatures;

/// A Linux capability that tracing needs, with its number (include/uapi/linux/capability.h, Linux 6.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Load BPF programs and maps.
    Bpf = 39,
    /// Open perf events and place uprobes.
    PerfMon = 38,
    /// Look into processes of other users.
    SysPtrace = 19,
}

/// Holds everything that the others give.
const CAP_SYS_ADMIN: u32 = 21;

impl Capability {
    /// Name as capabilities(7) writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bpf => "CAP_BPF",
            Self::PerfMon => "CAP_PERFMON",
            Self::SysPtrace => "CAP_SYS_PTRACE",
        }
    }
}

/// Capabilities that tracing needs and that this process does not have.
#[must_use]
pub fn missing_capabilities() -> Vec<Capability> {
    let all = [Capability::Bpf, Capability::PerfMon, Capability::SysPtrace];
    let Ok(status) = Process::myself().and_then(|process| process.status()) else { return Vec::new() };
    let has = |number: u32| status.capeff >> number & 1 == 1;
    let admin = has(CAP_SYS_ADMIN);
    all.into_iter()
        .filter(|capability| {
            let implied = admin && *capability != Capability::SysPtrace;
            !has(*capability as u32) && !implied
        })
        .collect()
}

/// Features by kernel version; whether many probes fit in one link is found out when the programs are loaded.
#[must_use]
pub fn probe_features(uprobe_multi: bool) -> KernelFeatures {
    let version = kernel_version();
    KernelFeatures {
        version,
        uprobe_multi,
        // Linux 6.11 to 6.13 return from a uretprobe by a system call that seccomp filters see.
        uretprobe_is_seccomp_safe: !((6, 11)..(6, 14)).contains(&version),
    }
}

/// Major and minor version of the running kernel, (0, 0) if it cannot be read.
#[must_use]
pub fn kernel_version() -> (u32, u32) {
    procfs::sys::kernel::Version::current()
        .map(|version| (u32::from(version.major), u32::from(version.minor)))
        .unwrap_or_default()
}

/// Inode of the initial pid namespace (`PID_NS_INIT_INO`, include/uapi/linux/nsfs.h, Linux 6.18).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Whether process numbers mean the same to this process and to BPF programs.
#[must_use]
pub fn in_initial_pid_namespace() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self/ns/pid").is_ok_and(|metadata| metadata.ino() == INITIAL_PID_NAMESPACE)
}
