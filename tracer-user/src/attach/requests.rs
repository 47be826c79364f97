//! The programs that see what servers read and write, at the tracepoints of the system calls that do it, and the connections that they
//! look at.
//!
//! One tracepoint at a system call costs every system call of the machine something (the kernel takes the slow way into all of them), so
//! nothing is attached unless it is asked for.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::TracePoint;
use aya::{Ebpf, Pod};
use rustix::time::{ClockId, clock_gettime};
use tracer_common::tables::{ConnectionKey, ConnectionState, NO_INTERPRETER};

use super::error::{AttachError, kernel_error};
use super::object::{hash_map, map_error, program, program_error};
use super::task_layout::TaskLayout;
use super::tracepoints::Tracepoints;

/// Maps that hold nothing where requests are not looked at.
pub const REQUEST_TABLES: [&str; 2] = [CONNECTIONS, "SOCKET_CALLS"];

/// Connections by process and descriptor, by the name of the map.
const CONNECTIONS: &str = "CONNECTIONS";

/// Processes whose connections are looked at, likewise.
const SERVERS: &str = "SERVERS";

/// Update a map's element whether it is there or not, or make it if it is not (`BPF_ANY`, `BPF_NOEXIST`, include/uapi/linux/bpf.h).
const ANY: u64 = 0;
const NO_EXIST: u64 = 1;

/// Each program, and the tracepoints that it sees.
const PROGRAMS: [(&str, &[&str]); 11] = [
    ("socket_read", &["sys_enter_read"]),
    ("socket_receive", &["sys_enter_recvfrom"]),
    ("socket_read_parts", &["sys_enter_readv"]),
    ("socket_receive_message", &["sys_enter_recvmsg"]),
    ("socket_write", &["sys_enter_write", "sys_enter_sendto"]),
    ("socket_write_parts", &["sys_enter_writev"]),
    ("socket_send_message", &["sys_enter_sendmsg"]),
    ("socket_send_file", &["sys_enter_sendfile64"]),
    (
        "socket_call_returns",
        &[
            "sys_exit_read",
            "sys_exit_recvfrom",
            "sys_exit_readv",
            "sys_exit_recvmsg",
            "sys_exit_write",
            "sys_exit_sendto",
            "sys_exit_writev",
            "sys_exit_sendmsg",
            "sys_exit_sendfile64",
        ],
    ),
    ("socket_accepted", &["sys_exit_accept", "sys_exit_accept4"]),
    ("socket_closes", &["sys_enter_close"]),
];

/// The live programs. Dropping them takes them away.
pub struct RequestPrograms {
    _events: Vec<OwnedFd>,
}

impl RequestPrograms {
    /// Loads the programs and attaches them: they do nothing until they are told of a server.
    ///
    /// # Errors
    /// Not permitted, or the kernel has no such tracepoints or cannot run the programs.
    pub fn load(ebpf: &mut Ebpf, task: &TaskLayout) -> Result<Self, AttachError> {
        if [task.files, task.files_table, task.table_files].contains(&0) {
            let problem = "the kernel does not tell where it keeps the files of a process (CONFIG_DEBUG_INFO_BTF)";
            return Err(AttachError::NoRequests { problem: problem.to_owned() });
        }
        let missing = |error: io::Error| AttachError::NoRequests { problem: error.to_string() };
        let tracepoints = Tracepoints::find().map_err(missing)?;
        let mut events = Vec::new();
        for (name, places) in PROGRAMS {
            let program = program::<TracePoint>(ebpf, name)?;
            program.load().map_err(|error| program_error(&error))?;
            let program = program.fd().map_err(|error| program_error(&error))?;
            for place in places {
                events.push(tracepoints.attach(program.as_fd(), "syscalls", place).map_err(missing)?);
            }
        }
        Ok(Self { _events: events })
    }

    /// Takes them away. Before that nothing is looked at any more, all of a connection at one time: they go one after the other, and an
    /// answer would be seen whose request was not. Where a map cannot be emptied that is so.
    pub fn go(self, ebpf: &mut Ebpf) {
        empty::<u32, u32>(ebpf, SERVERS);
        empty::<ConnectionKey, ConnectionState>(ebpf, CONNECTIONS);
    }
}

/// Takes everything out of a map that can be taken out.
fn empty<Key: Pod, Value: Pod>(ebpf: &mut Ebpf, name: &'static str) {
    let Ok(mut map) = hash_map::<Key, Value>(ebpf, name) else { return };
    let keys: Vec<Key> = map.keys().filter_map(Result::ok).collect();
    // What is gone meanwhile is gone.
    keys.iter().for_each(|key| drop(map.remove(key)));
}

/// From now on what a process accepts is looked at, and in which context of its interpreter it answers, if that is known by the slot
/// of the process.
///
/// # Errors
/// The map cannot be written.
pub fn look_at(ebpf: &mut Ebpf, process: u32, slot: Option<u16>) -> Result<(), AttachError> {
    let value = slot.map_or(NO_INTERPRETER, |slot| u32::from(slot) + 1);
    hash_map::<u32, u32>(ebpf, SERVERS)?.insert(process, value, ANY).map_err(|error| map_error(SERVERS, &error))
}

/// The same for connections that it has accepted before, by their descriptors.
///
/// # Errors
/// The map cannot be written.
pub fn look_at_open(ebpf: &mut Ebpf, process: u32, open: &[u32]) -> Result<(), AttachError> {
    let mut table = hash_map::<ConnectionKey, ConnectionState>(ebpf, CONNECTIONS)?;
    let now = clock_gettime(ClockId::Monotonic);
    let opened_ns = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
    let state = ConnectionState { opened_ns, was_before: 1, ..ConnectionState::default() };
    for descriptor in open {
        let key = ConnectionKey { process, descriptor: *descriptor };
        match table.insert(key, state, NO_EXIST).map_err(|error| kernel_error(&error)) {
            Ok(()) => {}
            // It was closed, and accepted again, meanwhile: that is known better.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(error) => return Err(map_error(CONNECTIONS, &error)),
        }
    }
    Ok(())
}

/// Nothing of a process is looked at any more.
///
/// # Errors
/// A map cannot be read.
pub fn leave(ebpf: &mut Ebpf, process: u32) -> Result<(), AttachError> {
    // It is not there, perhaps.
    let _ = hash_map::<u32, u32>(ebpf, SERVERS)?.remove(&process);
    let mut table = hash_map::<ConnectionKey, ConnectionState>(ebpf, CONNECTIONS)?;
    let its_own: Vec<_> = table.keys().filter_map(Result::ok).filter(|key| key.process == process).collect();
    for key in its_own {
        // Closed meanwhile.
        let _ = table.remove(&key);
    }
    Ok(())
}
