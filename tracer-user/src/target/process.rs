//! One look at one process.

use std::fs;
use std::path::{Path, PathBuf};

use procfs::ProcError;
use procfs::process::{ProcState, Process, Stat};

use super::application::service_of;
use super::error::TargetError;
use super::modules;
use crate::model::{ProcessId, ProgramImage, RemoteAddress, Target};

/// Flag of a kernel thread in /proc/PID/stat (`PF_KTHREAD`, include/linux/sched.h, Linux 6.18).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Threads that may end one after another while a process is looked at through them.
const MOST_THREADS: usize = 64;

/// Looks at a process: who it is and which files it has mapped to run code from.
///
/// # Errors
/// There is no such process, it has no user code, or looking is not permitted.
pub fn look_at(pid: u32) -> Result<Target, TargetError> {
    let failed = |error| TargetError::from_proc(pid, error);
    let number = i32::try_from(pid).map_err(|_| TargetError::NoSuchProcess { pid })?;
    let process = Process::new(number).map_err(failed)?;
    let stat = process.stat().map_err(failed)?;
    if stat.flags & KERNEL_THREAD != 0 {
        return Err(TargetError::KernelThread { pid, name: stat.comm });
    }
    let status = process.status().map_err(failed)?;
    if status.tgid != number {
        return Err(TargetError::Thread { tid: pid, pid: status.tgid.unsigned_abs() });
    }
    let identity = ProcessId { pid, start_time: stat.starttime };
    let (mut process, mut stat) = (process, stat);
    for _ in 0..MOST_THREADS {
        let Some((thread, seen)) = with_memory(process, stat) else {
            return Err(TargetError::Zombie { pid, name: status.name });
        };
        let target = look_through(&thread, &seen, identity);
        // What it had mapped is gone from sight when a thread ends: then another one shows it.
        if thread.stat().is_ok_and(|now| !has_no_memory(&now)) {
            return target.map_err(failed);
        }
        process = Process::new(number).map_err(failed)?;
        stat = process.stat().map_err(failed)?;
        if stat.starttime != identity.start_time {
            break;
        }
    }
    Err(TargetError::NoSuchProcess { pid })
}

/// What a process has mapped, as one of its threads shows it.
fn look_through(thread: &Process, stat: &Stat, process: ProcessId) -> Result<Target, ProcError> {
    let executable = thread.exe()?;
    let command_line = thread.cmdline().unwrap_or_default();
    Ok(Target {
        process,
        service: service_of(thread, &command_line),
        command_line,
        modules: modules::of(thread, &executable)?,
        executable: without_deleted_mark(&executable),
        container_id: container_id(thread),
        image: image(stat),
    })
}

/// What can be said of a process at little cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Glance {
    /// The process.
    pub process: ProcessId,
    /// Its program.
    pub image: ProgramImage,
    /// Bytes of address space: another number says that something was mapped or unmapped.
    pub mapped_bytes: u64,
    /// Whether nothing of it runs any more.
    pub has_ended: bool,
}

/// A glance at a process.
pub(super) fn glance(pid: u32) -> Result<Glance, TargetError> {
    let failed = |error| TargetError::from_proc(pid, error);
    let number = i32::try_from(pid).map_err(|_| TargetError::NoSuchProcess { pid })?;
    let process = Process::new(number).map_err(failed)?;
    let stat = process.stat().map_err(failed)?;
    let identity = ProcessId { pid, start_time: stat.starttime };
    let seen = with_memory(process, stat);
    let (image, mapped_bytes) = seen.as_ref().map_or_else(Default::default, |(_, stat)| (image(stat), stat.vsize));
    Ok(Glance { process: identity, image, mapped_bytes, has_ended: seen.is_none() })
}

/// Who has a number now, and which program it runs; `None` if nobody has.
#[must_use]
pub fn identify(pid: u32) -> Option<(ProcessId, ProgramImage)> {
    glance(pid).ok().filter(|glance| !glance.has_ended).map(|glance| (glance.process, glance.image))
}

fn image(stat: &Stat) -> ProgramImage {
    ProgramImage { code: stat.startcode, stack: stat.startstack }
}

/// A thread of a process that has not ended and is no thread of the kernel, as [`with_memory`] has it.
pub(super) fn user_thread(number: i32) -> Option<(Process, Stat)> {
    let process = Process::new(number).ok()?;
    let stat = process.stat().ok()?;
    if stat.flags & KERNEL_THREAD != 0 { None } else { with_memory(process, stat) }
}

/// A thread of a process that has not ended, with its figures: the first one, or where that has ended
/// (`pthread_exit` in `main`) one of those that go on. What the process has mapped can be seen through them only, by the
/// number of the thread. `None` if none is left.
fn with_memory(process: Process, stat: Stat) -> Option<(Process, Stat)> {
    if !has_no_memory(&stat) {
        return Some((process, stat));
    }
    process.tasks().ok()?.find_map(|task| {
        let thread = Process::new(task.ok()?.tid).ok()?;
        let stat = thread.stat().ok().filter(|stat| !has_no_memory(stat))?;
        Some((thread, stat))
    })
}

/// Whether a thread has ended. One that is ending has no memory any more, a moment before it is a zombie.
fn has_no_memory(stat: &Stat) -> bool {
    matches!(stat.state(), Ok(ProcState::Zombie | ProcState::Dead)) || stat.vsize == 0
}

/// Whether a process has ended; its number may belong to another one by now.
#[must_use]
pub fn has_ended(process: ProcessId) -> bool {
    let Ok(number) = i32::try_from(process.pid) else { return true };
    match Process::new(number).and_then(|found| Ok((found.stat()?, found))) {
        Ok((stat, found)) => stat.starttime != process.start_time || with_memory(found, stat).is_none(),
        // What cannot be looked at is there all the same.
        Err(error) => matches!(TargetError::from_proc(process.pid, error), TargetError::NoSuchProcess { .. }),
    }
}

/// Whether a process was started by this one.
#[must_use]
pub fn is_our_child(pid: u32) -> bool {
    let stat = i32::try_from(pid).ok().and_then(|number| Process::new(number).ok()?.stat().ok());
    stat.is_some_and(|stat| stat.ppid.unsigned_abs() == std::process::id())
}

/// Who traces a process with ptrace(2), for people: `gdb (process 77)`. `None` if nobody does.
#[must_use]
pub fn tracer_of(pid: u32) -> Option<String> {
    let status = Process::new(i32::try_from(pid).ok()?).ok()?.status().ok()?;
    let tracer = status.tracerpid;
    let name = Process::new(tracer).ok()?.stat().ok()?.comm;
    (tracer != 0).then(|| format!("{name} (process {tracer})"))
}

/// Who may hold debug registers of a process, for people. `is_guarded`: our own guard traces it, and has set no more than it was asked to.
#[must_use]
pub fn holder_of_registers(process: ProcessId, is_guarded: bool) -> String {
    let tracer = if is_guarded { None } else { tracer_of(process.pid) };
    tracer.unwrap_or_else(|| "another tool (a debugger, perf, or a second ml-tracer: who is not known)".to_owned())
}

/// Bytes of address space of a process; `None` once it has ended.
#[must_use]
pub fn address_space(process: ProcessId) -> Option<u64> {
    let seen = glance(process.pid).ok().filter(|seen| seen.process == process && !seen.has_ended)?;
    Some(seen.mapped_bytes)
}

/// Stack pointer of a thread that waits in the kernel; `None` while it runs, and once it has ended.
#[must_use]
pub fn stack_pointer(pid: u32, tid: u32) -> Option<RemoteAddress> {
    // The last two words are the stack pointer and the instruction pointer (proc(5), /proc/pid/syscall).
    let words = fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).ok()?;
    let word = words.split_whitespace().rev().nth(1)?;
    u64::from_str_radix(word.strip_prefix("0x")?, 16).ok().map(RemoteAddress)
}

/// /proc marks a file that was deleted or replaced after it was mapped.
pub(super) fn without_deleted_mark(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    text.strip_suffix(" (deleted)").map_or_else(|| path.to_path_buf(), PathBuf::from)
}

/// The container id is the last part of the control group's path that has 64 hexadecimal digits.
fn container_id(process: &Process) -> Option<String> {
    let groups = process.cgroups().ok()?;
    groups.into_iter().find_map(|group| container_id_in(&group.pathname))
}

fn container_id_in(path: &str) -> Option<String> {
    path.rsplit(['/', '-', ':', '.'])
        .find(|part| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_with_its_executable_first() {
        let target = look_at(std::process::id()).expect("this process can be looked at");
        assert_eq!(target.executable, std::env::current_exe().expect("a path"));
        let first = target.modules.first().expect("it runs code from a file");
        assert_eq!(first.path, target.executable);
        assert!(first.mappings.iter().all(|mapping| mapping.start < mapping.end));
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(matches!(look_at(u32::MAX), Err(TargetError::NoSuchProcess { .. })));
        assert!(matches!(look_at(4_194_304), Err(TargetError::NoSuchProcess { .. })));
    }

    #[test]
    fn a_waiting_thread_shows_its_stack_pointer() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
        let pid = child.id();
        // It runs for a moment before it waits.
        let shown = (0..1000).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            stack_pointer(pid, pid)
        });
        child.kill().expect("our own child");
        child.wait().expect("our own child");
        assert!(shown.is_some_and(|address| address.0 > 0x1000), "{shown:?}");
        assert_eq!(stack_pointer(pid, pid), None, "it has ended");
    }

    #[test]
    fn an_ended_process_is_known_by_number_and_start() {
        let here = look_at(std::process::id()).expect("this process can be looked at").process;
        assert!(!has_ended(here));
        assert!(has_ended(ProcessId { start_time: here.start_time + 1, ..here }), "the number belongs to another one");
        assert!(has_ended(ProcessId { pid: u32::MAX, start_time: 0 }));
    }

    #[test]
    fn kernel_threads_are_told_apart() {
        if let Ok(stat) = Process::new(2).and_then(|process| process.stat())
            && stat.comm == "kthreadd"
        {
            assert!(matches!(look_at(2), Err(TargetError::KernelThread { .. })));
        }
    }

    #[test]
    fn container_ids_are_found_in_the_usual_paths() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        assert_eq!(container_id_in(&format!("/docker/{id}")).as_deref(), Some(id));
        assert_eq!(container_id_in(&format!("/kubepods.slice/cri-containerd-{id}.scope")).as_deref(), Some(id));
        assert_eq!(container_id_in("/user.slice/session-1.scope"), None);
    }
}
