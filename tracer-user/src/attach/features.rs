//! What the running kernel can do and what this process may do.

use std::fmt;

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

/// What this process may not do and tracing needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPrivilege {
    /// The capabilities.
    pub capabilities: Vec<Capability>,
    /// Whether the process has capabilities, but only in a user namespace that is not the first one: the kernel does not
    /// count them for BPF and perf events.
    pub only_in_user_namespace: bool,
}

impl fmt::Display for MissingPrivilege {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.capabilities.iter().map(|capability| capability.name()).collect();
        match names.split_last() {
            Some((last, others)) if !others.is_empty() => write!(out, "{} and {last}", others.join(", "))?,
            _ => out.write_str(&names.concat())?,
        }
        out.write_str(" missing")?;
        if self.only_in_user_namespace {
            out.write_str(" (what this process has counts in its own user namespace alone)")?;
        }
        Ok(())
    }
}

/// Capabilities that tracing needs and that this process does not have; `None` if none is missing.
#[must_use]
pub fn missing_privilege() -> Option<MissingPrivilege> {
    let only_in_user_namespace = !in_initial_user_namespace();
    let effective = if only_in_user_namespace { 0 } else { effective_capabilities()? };
    let all = [Capability::Bpf, Capability::PerfMon, Capability::SysPtrace];
    let is_missing = |capability: &Capability| {
        let implied = has(effective, CAP_SYS_ADMIN) && *capability != Capability::SysPtrace;
        !has(effective, *capability as u32) && !implied
    };
    let capabilities: Vec<Capability> = all.into_iter().filter(is_missing).collect();
    (!capabilities.is_empty()).then_some(MissingPrivilege { capabilities, only_in_user_namespace })
}

/// Whether this process has the capability that holds most others.
#[must_use]
pub fn has_administration() -> bool {
    in_initial_user_namespace() && effective_capabilities().is_none_or(|effective| has(effective, CAP_SYS_ADMIN))
}

fn has(effective: u64, number: u32) -> bool {
    effective >> number & 1 == 1
}

/// `None` where they cannot be read: then the kernel will tell.
fn effective_capabilities() -> Option<u64> {
    Process::myself().and_then(|process| process.status()).ok().map(|status| status.capeff)
}

/// Inode of the initial user namespace (`PROC_USER_INIT_INO`, include/linux/proc_ns.h, Linux 6.1).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Whether the capabilities of this process are those of the machine. A kernel without user namespaces has no others.
fn in_initial_user_namespace() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self/ns/user").map_or(true, |metadata| metadata.ino() == INITIAL_USER_NAMESPACE)
}

/// Kernels before this one lack something that the programs cannot do without: the attach cookie came last.
pub const NEEDED_KERNEL: (u32, u32) = (5, 15);

/// The oldest kernel that ml-tracer is tested on.
pub const TESTED_KERNEL: (u32, u32) = (6, 1);

/// Features: those that no call shows by the version of the kernel; whether many probes fit in one link was found out by
/// making one.
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

/// Whether the processor is a virtual one: then the cause of a debug exception may get lost. By the flag that hypervisors set (CPUID leaf 1, ECX bit 31).
#[must_use]
pub fn is_virtual_machine() -> bool {
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = processors.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"))
}
