//! What the running kernel can do, as found by trying.

use serde::Serialize;

/// Features that decide how probes are placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelFeatures {
    /// Kernel version, major and minor.
    pub version: (u32, u32),
    /// Many uprobes in one link (6.6).
    pub uprobe_multi: bool,
    /// Return probes never make a system call that a seccomp filter of the target could kill it for. Kernels 6.11 to
    /// 6.13 on x86-64 do.
    pub uretprobe_is_seccomp_safe: bool,
}
