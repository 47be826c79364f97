//! Looks at the machine: what tracing needs, whether it is there, and what to do if not.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::error::AttachError;
use super::features::{
    NEEDED_KERNEL, TESTED_KERNEL, in_initial_pid_namespace, is_virtual_machine, kernel_version, missing_privilege,
};
use super::kernel::Kernel as _;
use super::loaded::LoadOptions;
use super::programs::Programs;
use super::python_watch::WatchOutcome;
use super::requests::{LoadRequests, sockets_tell};
use super::trial::{try_chain, try_exceptions, try_frames, try_native, try_watch};
use crate::model::CHAIN_KERNEL;

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
    let mut checks = vec![kernel(), architecture(), capabilities(), pid_namespace()];
    checks.extend(programs());
    checks.extend([type_information(), lockdown(), perf_event_paranoid(), trace_file_system()]);
    checks
}

fn check(name: &'static str, state: CheckState, detail: impl Into<String>) -> Check {
    Check { name, state, detail: detail.into() }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Check {
    let version = kernel_version();
    let name = format!("Linux {}.{}", version.0, version.1);
    if version >= TESTED_KERNEL {
        check("kernel", CheckState::Good, format!("{name} (6.1 or newer is needed)"))
    } else if version >= NEEDED_KERNEL {
        check("kernel", CheckState::Limited, format!("{name}: ml-tracer is tested on 6.1 and newer"))
    } else {
        check("kernel", CheckState::Bad, AttachError::OldKernel { version }.to_string())
    }
}

fn architecture() -> Check {
    match std::env::consts::ARCH {
        "x86_64" => check("processor", CheckState::Good, "x86-64"),
        other => check("processor", CheckState::Bad, format!("{other}: only x86-64 is supported")),
    }
}

fn capabilities() -> Check {
    match missing_privilege() {
        None => check("capabilities", CheckState::Good, "CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE are there"),
        Some(missing) => {
            let detail = format!("{missing}: run as root (sudo ml-tracer doctor)");
            check("capabilities", CheckState::Bad, detail)
        }
    }
}

/// What the commands use, tried by the calls that use it: loaded, and placed on this very process.
fn programs() -> Vec<Check> {
    let mut programs = match Programs::load(LoadOptions { first_objects: true, ..LoadOptions::default() }) {
        Ok(programs) => programs,
        Err(error) => return vec![check("BPF", CheckState::Bad, error.to_string())],
    };
    let mut checks = vec![check("BPF", CheckState::Good, "maps and programs load")];
    let features = programs.features();
    checks.push(if features.uprobe_multi {
        check("uprobe_multi", CheckState::Good, "many probes are placed in one system call")
    } else {
        check(
            "uprobe_multi",
            CheckState::Limited,
            "not there (it came with Linux 6.6): probes are placed one by one, which takes longer",
        )
    });
    checks.push(tried("uprobes", try_native(&mut programs), "they can be placed at an entry, an exit and a return"));
    checks.push(if features.uretprobe_is_seccomp_safe {
        check("uretprobes", CheckState::Good, "safe under seccomp filters")
    } else {
        let detail =
            "Linux 6.11 to 6.13 can kill processes with a seccomp filter: each return instruction gets a probe instead";
        check("uretprobes", CheckState::Limited, detail)
    });
    // Before the watchpoint: where that is gone, the kernel patches its scheduler, which emulators do not always survive on a busy processor.
    let chain = chain();
    checks.push(watch(&programs));
    checks.push(tried("Python, frames mode", try_frames(&programs), "its probes can be placed"));
    checks.push(chain);
    checks.push(match programs.take_ring() {
        Ok(_) => check("ring buffer", CheckState::Good, "mapped"),
        Err(error) => check("ring buffer", CheckState::Bad, error.to_string()),
    });
    checks.push(requests());
    // Last, as in a session: the ring buffer is taken by then.
    checks.push(match try_exceptions(&programs) {
        Ok(()) => check("Python, exceptions", CheckState::Good, "the probe that tells their types can be placed"),
        Err(error) => {
            let detail = format!("{error}; without it, frames mode and CPython 3.11 and older do not tell their types");
            check("Python, exceptions", CheckState::Limited, detail)
        }
    });
    checks
}

fn tried(name: &'static str, outcome: Result<(), AttachError>, good: &str) -> Check {
    match outcome {
        Ok(()) => check(name, CheckState::Good, good),
        Err(error) => check(name, CheckState::Bad, error.to_string()),
    }
}

fn watch(programs: &Programs) -> Check {
    const NAME: &str = "Python, watch mode";
    match try_watch(programs) {
        Ok(WatchOutcome::Live) if is_virtual_machine() => {
            let detail = "a watchpoint can be set; in some virtual machines a hit may end the watched process with SIGTRAP, so a \
                          guard process keeps that signal from it (by ptrace: no debugger can be attached meanwhile)";
            check(NAME, CheckState::Good, detail)
        }
        Ok(WatchOutcome::Live) => check(NAME, CheckState::Good, "a watchpoint can be set; this is no virtual machine"),
        Ok(WatchOutcome::NoSlot) => {
            let detail = "no debug register is free: this program is being debugged, or another one holds them on all \
                          processors; `--python frames` needs none";
            check(NAME, CheckState::Limited, detail)
        }
        Ok(WatchOutcome::NoDescriptors { needed, limit }) => {
            let detail = format!(
                "{needed} open files are needed and {limit} are allowed: raise the limit (ulimit -n); `--python frames` needs \
                 none of them"
            );
            check(NAME, CheckState::Limited, detail)
        }
        Ok(WatchOutcome::Unguarded(reason)) => {
            let detail = format!(
                "in a virtual machine a watched process needs a guard process, which cannot begin: {reason}; `--python frames` \
                 needs none"
            );
            check(NAME, CheckState::Bad, detail)
        }
        Ok(WatchOutcome::Gone) => {
            check(NAME, CheckState::Bad, "the threads of ml-tracer itself cannot be found in /proc: is it mounted?")
        }
        Err(error) => check(NAME, CheckState::Bad, error.to_string()),
    }
}

fn chain() -> Check {
    const NAME: &str = "Python, chain mode";
    let (major, minor) = CHAIN_KERNEL;
    if kernel_version() < CHAIN_KERNEL {
        let detail = format!(
            "it needs Linux {major}.{minor}: four methods of a process are seen at one time, all of them with `--python frames`"
        );
        return check(NAME, CheckState::Limited, detail);
    }
    tried(NAME, try_chain(), "its probes can be placed")
}

fn requests() -> Check {
    const NAME: &str = "requests";
    match Programs::load(LoadOptions { requests: LoadRequests::Yes, ..LoadOptions::default() }) {
        Ok(_) if sockets_tell() => check(NAME, CheckState::Good, "sockets tell what they receive and send"),
        Ok(_) => {
            let detail = "they are seen at system calls, which makes all of the machine slower: not unless `--requests sockets` asks \
                          for it (from Linux 6.5 on, sockets tell it themselves)";
            check(NAME, CheckState::Limited, detail)
        }
        Err(error) => check(NAME, CheckState::Limited, format!("{error}; `--requests` cannot be used")),
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
        None => check("lockdown", CheckState::Good, "this kernel shows none"),
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

fn pid_namespace() -> Check {
    if in_initial_pid_namespace() {
        check("pid namespace", CheckState::Good, "the host's")
    } else {
        let detail = "not the host's: start with --pid=host (Docker) or hostPID: true (Kubernetes)";
        check("pid namespace", CheckState::Bad, detail)
    }
}
