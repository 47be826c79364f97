//! Looks at the machine: what tracing needs, whether it is there, and what to do if not.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::features::{in_initial_pid_namespace, kernel_version, missing_capabilities};
use super::programs::{LoadOptions, Programs};

/// Oldest kernel with everything that is needed: the attach cookie came last, in 5.15.
const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub state: CheckState,
    /// What was found and, if it is not good, what to do.
    pub detail: String,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// As it should be.
    Good,
    /// Tracing works, but something is slower or missing.
    Limited,
    /// Tracing does not work.
    Bad,
}

/// Looks at everything.
#[must_use]
pub fn check_machine() -> Vec<Check> {
    let mut checks = vec![kernel(), architecture(), capabilities()];
    checks.extend(programs());
    checks.extend([
        uprobes(),
        type_information(),
        lockdown(),
        perf_event_paranoid(),
        trace_file_system(),
        pid_namespace(),
        watchpoints(),
    ]);
    checks
}

fn check(name: &'static str, state: CheckState, detail: impl Into<String>) -> Check {
    Check { name, state, detail: detail.into() }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Check {
    let (major, minor) = kernel_version();
    if (major, minor) >= OLDEST_KERNEL {
        check("kernel", CheckState::Good, format!("Linux {major}.{minor} (5.15 or newer is needed)"))
    } else {
        check("kernel", CheckState::Bad, format!("Linux {major}.{minor} is too old: 5.15 or newer is needed"))
    }
}

fn architecture() -> Check {
    match std::env::consts::ARCH {
        "x86_64" => check("processor", CheckState::Good, "x86-64"),
        other => check("processor", CheckState::Bad, format!("{other}: only x86-64 is supported")),
    }
}

fn capabilities() -> Check {
    let missing: Vec<_> = missing_capabilities().iter().map(|capability| capability.name()).collect();
    if missing.is_empty() {
        check("capabilities", CheckState::Good, "CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE are there")
    } else {
        let detail = format!("{} missing: run as root (sudo ml-tracer doctor)", missing.join(" and "));
        check("capabilities", CheckState::Bad, detail)
    }
}

/// Loading the real programs proves BPF, the ring buffer and the helpers at once.
fn programs() -> Vec<Check> {
    match Programs::load(LoadOptions::default()) {
        Ok(mut programs) => {
            let ring = match programs.take_ring() {
                Ok(_) => check("ring buffer", CheckState::Good, "mapped"),
                Err(error) => check("ring buffer", CheckState::Bad, error.to_string()),
            };
            let features = programs.features();
            let multi = if features.uprobe_multi {
                check("uprobe_multi", CheckState::Good, "many probes are placed in one system call")
            } else {
                check("uprobe_multi", CheckState::Limited, "not there (Linux 6.6): probes are placed one by one")
            };
            let returns = if features.uretprobe_is_seccomp_safe {
                check("uretprobes", CheckState::Good, "safe under seccomp filters")
            } else {
                let detail =
                    "Linux 6.11 to 6.13 can kill processes with a seccomp filter: return sites are used instead";
                check("uretprobes", CheckState::Limited, detail)
            };
            vec![check("BPF", CheckState::Good, "all programs load"), ring, multi, returns]
        }
        Err(error) => vec![check("BPF", CheckState::Bad, error.to_string())],
    }
}

fn uprobes() -> Check {
    match read("/sys/bus/event_source/devices/uprobe/type") {
        Some(_) => check("uprobes", CheckState::Good, "the kernel has the uprobe event source"),
        None => {
            check("uprobes", CheckState::Bad, "no uprobe event source: the kernel was built without CONFIG_UPROBES")
        }
    }
}

fn type_information() -> Check {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        check("BTF", CheckState::Good, "/sys/kernel/btf/vmlinux")
    } else {
        check("BTF", CheckState::Limited, "no /sys/kernel/btf/vmlinux; native tracing does without")
    }
}

fn lockdown() -> Check {
    match read("/sys/kernel/security/lockdown") {
        None => check("lockdown", CheckState::Good, "not there"),
        Some(modes) if modes.contains("[none]") => check("lockdown", CheckState::Good, "none"),
        Some(modes) if modes.contains("[integrity]") => {
            check("lockdown", CheckState::Good, "integrity: nothing is written into targets anyway")
        }
        Some(modes) => {
            let detail = format!("{modes}: BPF programs may not read memory; boot without lockdown=confidentiality");
            check("lockdown", CheckState::Bad, detail)
        }
    }
}

fn perf_event_paranoid() -> Check {
    match read("/proc/sys/kernel/perf_event_paranoid") {
        Some(level) => {
            check("perf_event_paranoid", CheckState::Good, format!("{level} (of no consequence with CAP_PERFMON)"))
        }
        None => check("perf_event_paranoid", CheckState::Bad, "no perf events in this kernel"),
    }
}

fn trace_file_system() -> Check {
    let mounted = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .into_iter()
        .find(|path| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()));
    match mounted {
        Some(path) => check("tracefs", CheckState::Good, path),
        None => check("tracefs", CheckState::Good, "not mounted; native tracing does without"),
    }
}

/// Whether the processor is a virtual one: then the cause of a debug exception may get lost. By the flag that hypervisors set (CPUID leaf 1, ECX bit 31).
#[must_use]
pub fn is_virtual_machine() -> bool {
    let processors = read("/proc/cpuinfo").unwrap_or_default();
    let flags = processors.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"))
}

fn watchpoints() -> Check {
    if is_virtual_machine() {
        let detail = "the processor is a virtual one, whose host may lose the cause of a hit: watched processes are guarded \
                      against the signal that the kernel sends then (by ptrace, so no debugger can be attached meanwhile)";
        check("hardware watchpoints", CheckState::Good, detail)
    } else {
        check("hardware watchpoints", CheckState::Good, "the processor is not a virtual one")
    }
}

fn pid_namespace() -> Check {
    if in_initial_pid_namespace() {
        check("pid namespace", CheckState::Good, "the host's")
    } else {
        let detail = "not the host's: start with --pid=host (Docker) or hostPID: true (Kubernetes)";
        check("pid namespace", CheckState::Bad, detail)
    }
}
