//! The programs that see what servers read and write, and the connections that they look at: at the tracepoints of sockets where the
//! kernel has those (Linux 6.5), and at those of the system calls that do it elsewhere.
//!
//! One tracepoint at a system call costs every system call of the machine something (the kernel takes the slow way into all of them), so
//! none of these is attached where it need not be. Unix sockets do not say that they are closed: where a process listens on one, that is
//! seen at the system call.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::{RawTracePoint, TracePoint};
use aya::{Ebpf, Pod};
use rustix::time::{ClockId, clock_gettime};
use tracer_common::counters::Counter;
use tracer_common::tables::{ConnectionKey, ConnectionState, NO_INTERPRETER, SETTLING};

use super::error::{AttachError, kernel_error};
use super::features::kernel_version;
use super::object::{hash_map, map_error, per_processor, program, program_error};
use super::task_layout::TaskLayout;
use super::tracepoints::Tracepoints;
use crate::model::ServerSockets;

/// Maps that hold nothing where requests are not looked at.
pub const REQUEST_TABLES: [&str; 4] = [CONNECTIONS, "SOCKET_CALLS", "SOCKETS", LISTENED_PORTS];

/// Connections by process and descriptor, by the name of the map.
const CONNECTIONS: &str = "CONNECTIONS";

/// Ports that something listens on, likewise.
const LISTENED_PORTS: &str = "LISTENED_PORTS";

/// Processes whose connections are looked at, likewise.
const SERVERS: &str = "SERVERS";

/// Update a map's element whether it is there or not, or make it if it is not (`BPF_ANY`, `BPF_NOEXIST`, include/uapi/linux/bpf.h).
const ANY: u64 = 0;
const NO_EXIST: u64 = 1;

/// The first kernel in which everything that a socket sends passes its tracepoint, sendfile too (net/socket.c: `splice_to_socket`).
const SOCKETS_TELL: (u32, u32) = (6, 5);

/// Programs at tracepoints of sockets. What is closed is seen first, so that nothing is kept that is over.
const SOCKET_PROGRAMS: [(&str, &str); 3] = [
    ("socket_changes_state", "inet_sock_set_state"),
    ("socket_receives", "sock_recv_length"),
    ("socket_sends", "sock_send_length"),
];

/// The program that sees a descriptor closed, and its tracepoint.
const CLOSES: (&str, &[&str]) = ("socket_closes", &["sys_enter_close"]);

/// The other programs at system calls, and the tracepoints of each.
const CALL_PROGRAMS: [(&str, &[&str]); 10] = [
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
];

/// Whether the programs that see requests are to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadRequests {
    /// No.
    No,
    /// If that is possible here; nothing fails if it is not, and it is said.
    IfPossible,
    /// Yes.
    Yes,
}

/// The live programs. Dropping them takes them away.
pub struct RequestPrograms {
    calls: Vec<OwnedFd>,
    /// Empty: sockets are seen at system calls.
    sockets: Vec<RawTracePointLink>,
    /// Whether the kernel has refused to tell of closed descriptors.
    is_refused: bool,
}

impl RequestPrograms {
    /// Loads them as this says. `at_calls`: to see sockets at system calls in any case.
    ///
    /// # Errors
    /// As [`Self::load`], where they are to be loaded in any case.
    pub fn load_if_wanted(
        ebpf: &mut Ebpf,
        task: &TaskLayout,
        wanted: LoadRequests,
        at_calls: bool,
    ) -> Result<Option<Self>, AttachError> {
        if wanted == LoadRequests::No {
            return Ok(None);
        }
        match Self::load(ebpf, task, at_calls) {
            Err(error) if wanted == LoadRequests::IfPossible => {
                tracing::warn!("requests are not looked at: {error}");
                Ok(None)
            }
            loaded => loaded.map(Some),
        }
    }

    /// Loads the programs and attaches them: they do nothing until they are told of a server.
    ///
    /// # Errors
    /// Not permitted, or the kernel has no such tracepoints or cannot run the programs.
    fn load(ebpf: &mut Ebpf, task: &TaskLayout, at_calls: bool) -> Result<Self, AttachError> {
        if [task.files, task.files_table, task.table_files].contains(&0) {
            let problem = "the kernel does not tell where it keeps the files of a process (CONFIG_DEBUG_INFO_BTF)";
            return Err(no_requests(problem));
        }
        let mut programs = Self { calls: Vec::new(), sockets: Vec::new(), is_refused: false };
        if sockets_tell() && task.sockets.is_known() && !at_calls {
            for (name, tracepoint) in SOCKET_PROGRAMS {
                let program = program::<RawTracePoint>(ebpf, name)?;
                program.load().map_err(|error| program_error(&error))?;
                let link = program.attach(tracepoint).map_err(|error| program_error(&error))?;
                programs.sockets.push(program.take_link(link).map_err(|error| program_error(&error))?);
            }
        } else {
            programs.see_closes(ebpf)?;
            CALL_PROGRAMS.iter().try_for_each(|(name, places)| programs.see_calls(ebpf, (name, places)))?;
        }
        Ok(programs)
    }

    /// Descriptors are seen closed from now on, if they are not yet and a unix socket is asked over, which nothing else tells of.
    pub fn follow_unix_sockets(&mut self, ebpf: &mut Ebpf) {
        if self.calls.is_empty() && !self.is_refused && has_unix_connections(ebpf) {
            self.see_closes_if_possible(ebpf);
        }
    }

    fn see_closes_if_possible(&mut self, ebpf: &mut Ebpf) {
        if let Err(error) = self.see_closes(ebpf) {
            self.is_refused = true;
            tracing::warn!(
                "it is not seen when a unix socket is closed, which ends answers of unknown length: {error}"
            );
        }
    }

    fn see_closes(&mut self, ebpf: &mut Ebpf) -> Result<(), AttachError> {
        if self.calls.is_empty() { self.see_calls(ebpf, CLOSES) } else { Ok(()) }
    }

    fn see_calls(&mut self, ebpf: &mut Ebpf, (name, places): (&'static str, &[&str])) -> Result<(), AttachError> {
        let tracepoints = Tracepoints::find().map_err(no_requests)?;
        let program = program::<TracePoint>(ebpf, name)?;
        program.load().map_err(|error| program_error(&error))?;
        let program = program.fd().map_err(|error| program_error(&error))?;
        for place in places {
            self.calls.push(tracepoints.attach(program.as_fd(), "syscalls", place).map_err(no_requests)?);
        }
        Ok(())
    }

    /// A process has accepted these connections before.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn look_at_open(&mut self, ebpf: &mut Ebpf, process: u32, open: &ServerSockets) -> Result<(), AttachError> {
        let ServerSockets { accepted, ports: _, listens_on_unix } = open;
        if *listens_on_unix && !self.is_refused {
            self.see_closes_if_possible(ebpf);
        }
        let mut table = hash_map::<ConnectionKey, ConnectionState>(ebpf, CONNECTIONS)?;
        let now = clock_gettime(ClockId::Monotonic);
        let opened_ns = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
        for connection in accepted {
            let key = ConnectionKey { process, descriptor: connection.descriptor };
            let state =
                ConnectionState { opened_ns, was_before: 1, inode: connection.inode, ..ConnectionState::default() };
            match table.insert(key, state, NO_EXIST).map_err(|error| kernel_error(&error)) {
                Ok(()) => {}
                // It is known by now, or was closed and accepted again, meanwhile: that is known better.
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                Err(error) => return Err(map_error(CONNECTIONS, &error)),
            }
        }
        Ok(())
    }

    /// Takes them away. Before that nothing is looked at any more, all of a connection at one time: they go one after the other, and an
    /// answer would be seen whose request was not. Where a map cannot be emptied that is so.
    pub fn go(self, ebpf: &mut Ebpf) {
        empty::<u32, u32>(ebpf, SERVERS);
        empty::<ConnectionKey, ConnectionState>(ebpf, CONNECTIONS);
    }
}

/// Whether this kernel may tell of sockets themselves: requests cost nobody else anything then.
#[must_use]
pub fn sockets_tell() -> bool {
    kernel_version() >= SOCKETS_TELL
}

fn has_unix_connections(ebpf: &Ebpf) -> bool {
    let counted =
        per_processor::<u64>(ebpf, "COUNTERS").ok().and_then(|map| map.get(&(Counter::UnixConnections as u32), 0).ok());
    counted.is_some_and(|counted| counted.iter().any(|count: &u64| *count > 0))
}

fn no_requests(problem: impl ToString) -> AttachError {
    AttachError::NoRequests { problem: problem.to_string() }
}

/// Takes everything out of a map that can be taken out.
fn empty<Key: Pod, Value: Pod>(ebpf: &mut Ebpf, name: &'static str) {
    let Ok(mut map) = hash_map::<Key, Value>(ebpf, name) else { return };
    let keys: Vec<Key> = map.keys().filter_map(Result::ok).collect();
    // What is gone meanwhile is gone.
    keys.iter().for_each(|key| drop(map.remove(key)));
}

/// From now on what a process accepts is looked at, and in which context of its interpreter it answers, if that is known by the slot
/// of the process. `settling`: [`RequestPrograms::look_at_open`] has not told yet what was accepted before.
///
/// # Errors
/// The map cannot be written.
pub fn look_at(ebpf: &mut Ebpf, process: u32, slot: Option<u16>, settling: bool) -> Result<(), AttachError> {
    let settling = if settling { SETTLING } else { 0 };
    let value = slot.map_or(NO_INTERPRETER, |slot| u32::from(slot) + 1) | settling;
    hash_map::<u32, u32>(ebpf, SERVERS)?.insert(process, value, ANY).map_err(|error| map_error(SERVERS, &error))
}

/// A process listens on these ports, some of them perhaps since long ago.
///
/// # Errors
/// There is no such map.
pub fn know_ports(ebpf: &mut Ebpf, ports: &[u16]) -> Result<(), AttachError> {
    let mut listened = hash_map::<u16, u32>(ebpf, LISTENED_PORTS)?;
    for port in ports {
        // Where there is no room, requests over connections of later are not seen.
        if let Err(error) = listened.insert(port, 1, ANY) {
            tracing::debug!(%error, port, "one more port than can be known");
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
