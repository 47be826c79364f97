//! Where a guard lives: apart from the tracer, so that what pauses, stops or starves that one leaves the guard alone.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::{AsFd as _, BorrowedFd};

use procfs::process::{MountInfo, Process};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{getppid, setsid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_name};

/// Name of the process, as `ps` and `/proc/PID/comm` show it: 15 bytes are kept.
const NAME: &CStr = c"ml-tracer-guard";

/// Name of the control group namespace of the machine (`PROC_CGROUP_INIT_INO`, include/linux/proc_ns.h, Linux 6.18).
const FIRST_NAMESPACE: &str = "cgroup:[4026531835]";

/// Where memory is short, the guard goes first: the kernel then lets its process go.
const GOES_FIRST: &str = "1000";

/// The lowest priority of a real-time scheduler is above that of everything else.
const PRIORITY: i32 = 1;
const NICEST_TO_US: i32 = -20;

/// Moves there. What is refused is done without.
pub fn isolate() {
    let _ = set_name(NAME);
    // The signals of a terminal go to its session.
    let _ = setsid();
    close_all_but_standard();
    let _ = fs::write("/proc/self/oom_score_adj", GOES_FIRST);
    leave_control_groups();
    take_priority();
    // Pages are locked as they are used: few are.
    let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT);
}

/// Whether the tracer's control group can be paused, and this process with it.
pub fn is_confined() -> bool {
    let of = |process: &str| fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    let parent = getppid().map(|parent| of(&parent.as_raw_nonzero().to_string())).unwrap_or_default();
    let is_root_free = fs::read_link("/proc/self/ns/cgroup").is_ok_and(|space| space.as_os_str() == FIRST_NAMESPACE);
    shares_freezer(&of("self"), &parent, is_root_free)
}

/// Whether two processes, told by their `/proc/PID/cgroup`, are in one control group that can be frozen. Nothing freezes
/// the root, but what is shown as the root may be that of a container.
fn shares_freezer(own: &str, other: &str, is_root_free: bool) -> bool {
    let group = |text: &str, of_freezer: fn(&str) -> bool| {
        let mut fields = text.lines().map(|line| line.splitn(3, ':').skip(1));
        fields.find_map(|mut fields| (of_freezer(fields.next()?)).then(|| fields.next().map(str::to_owned)))?
    };
    let is_freezer = |controllers: &str| controllers.split(',').any(|name| name == "freezer");
    let is_unified = |controllers: &str| controllers.is_empty();
    let shares = |of_freezer: fn(&str) -> bool| {
        let own = group(own, of_freezer).filter(|group| group != "/" || !is_root_free);
        own.is_some() && own == group(other, of_freezer)
    };
    shares(is_freezer) || shares(is_unified)
}

/// The process goes through our hands: nothing else of the tracer's may be held open by us.
fn close_all_but_standard() {
    // SAFETY: nothing in this process has opened a descriptor yet that it would use again.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Moves to the root of each hierarchy that can pause or starve its members: nothing pauses the root. It is the first
/// process's root: that of a container is paused with the container.
fn leave_control_groups() {
    if let Ok(space) = File::open("/proc/1/ns/cgroup") {
        let _ = move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::ControlGroup));
    }
    // Its folders are the first process's; where these may not be entered, our own may lead there.
    for (process, root) in [(Process::new(1), "/proc/1/root"), (Process::myself(), "")] {
        let Ok(mounts) = process.and_then(|process| process.mountinfo()) else { continue };
        for mount in mounts.0.iter().filter(|mount| can_hold_up(mount)) {
            let _ = fs::write(format!("{root}{}/cgroup.procs", mount.mount_point.display()), "0");
        }
    }
}

fn can_hold_up(mount: &MountInfo) -> bool {
    let holds = |name: &str| mount.super_options.contains_key(name);
    match mount.fs_type.as_str() {
        "cgroup2" => true,
        "cgroup" => ["freezer", "cpu"].into_iter().any(holds),
        _ => false,
    }
}

fn take_priority() {
    // The kernel's `sched_param` is this number alone. It is asked itself: musl's `sched_setscheduler` refuses whatever it is told.
    let priority = PRIORITY;
    // SAFETY: the number outlives the call; 0 is this thread, the only one.
    let taken = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_RR, &raw const priority) };
    if taken != 0 {
        let _ = rustix::process::setpriority_process(None, NICEST_TO_US);
    }
}

/// The program of the watchpoints, which the tracer hands over as the standard output.
pub fn program() -> BorrowedFd<'static> {
    rustix::stdio::stdout()
}

/// The line to the tracer, which it hands over as the standard input.
pub fn line() -> BorrowedFd<'static> {
    rustix::stdio::stdin()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_confined_if_what_pauses_the_tracer_pauses_it() {
        let container = "6:freezer:/docker/ab\n0::/docker/ab\n";
        assert!(shares_freezer(container, container, true));
        assert!(shares_freezer("6:freezer:/docker/ab\n0::/\n", container, true));
        assert!(shares_freezer("0::/system.slice/a\n", "0::/system.slice/a\n", true));
        assert!(!shares_freezer("6:freezer:/\n0::/\n", container, true));
        assert!(!shares_freezer("0::/\n", "0::/\n", true), "nothing pauses the root");
        assert!(!shares_freezer("4:cpu,cpuacct:/docker/ab\n0::/\n", container, true));
        assert!(shares_freezer("0::/\n", "0::/\n", false), "the root of a container");
        assert!(!shares_freezer("", "", true));
    }
}
