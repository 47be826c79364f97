//! What sockets tell themselves: at the kernel's tracepoints that say how much was received and sent, and at changes of the state of a
//! connection of TCP (Linux 6.5). System calls of others do not pass them; where the bytes are is in the registers that the thread has
//! entered the kernel with.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel,
        generated::{bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_task_pt_regs},
    },
    macros::{map, raw_tracepoint},
    maps::HashMap,
    programs::RawTracePointContext,
};
use tracer_common::{
    counters::Counter,
    limits::{MAX_CONNECTIONS, MAX_LISTENED_PORTS},
    records::{HAS_LOST, NEVER_WAITS, RecordHeader, RecordKind, SocketAction, SocketRecord, WAS_BEFORE},
    tables::{ConnectionKey, ConnectionState, SETTLING},
};

use crate::{
    maps::{NO_WAKEUP, RECORDS, copy_of, count},
    sockets::{
        BESIDES_THE_STREAM, CONNECTIONS, NO_BUFFER, NONBLOCKING_CALL, SERVERS, SocketCall, connection_of, file_of,
        forget_closed, lose, parts_of_message, tell_parts, tell_socket,
    },
};

/// The connections by their sockets, addresses of `struct sock`: to know whose one is that changes its state.
#[map]
static SOCKETS: HashMap<u64, ConnectionKey> =
    HashMap::with_max_entries(MAX_CONNECTIONS, aya_ebpf::bindings::BPF_F_NO_PREALLOC);

/// Ports of TCP that something listens on, or has: a connection with one of them at this end was accepted.
#[map]
static LISTENED_PORTS: HashMap<u16, u32> =
    HashMap::with_max_entries(MAX_LISTENED_PORTS, aya_ebpf::bindings::BPF_F_NO_PREALLOC);

/// Where the kernel keeps what is read of a socket; user space sets it before loading, from the kernel's type information: in
/// `struct file` the socket, in `struct sock` its kind, family, port and `struct socket`, from `struct socket` to the number of its inode,
/// and in `struct unix_sock` its name.
#[unsafe(no_mangle)]
static FILE_PRIVATE_OFFSET: u64 = 0;
#[unsafe(no_mangle)]
static SOCK_TYPE_OFFSET: u64 = 0;
#[unsafe(no_mangle)]
static SOCK_FAMILY_OFFSET: u64 = 0;
#[unsafe(no_mangle)]
static SOCK_PORT_OFFSET: u64 = 0;
#[unsafe(no_mangle)]
static SOCK_SOCKET_OFFSET: u64 = 0;
#[unsafe(no_mangle)]
static SOCKET_INODE_OFFSET: u64 = 0;
#[unsafe(no_mangle)]
static UNIX_NAME_OFFSET: u64 = 0;

/// `SOCK_STREAM` (include/linux/net.h), `AF_UNIX`, `AF_INET` and `AF_INET6` (include/linux/socket.h, Linux 6.18).
const STREAM: u16 = 1;
const UNIX: u16 = 1;
const INET: u16 = 2;
const INET6: u16 = 10;

/// `TCP_FIN_WAIT1`, `TCP_CLOSE`, `TCP_LAST_ACK` and `TCP_LISTEN` (include/net/tcp_states.h, Linux 6.18).
const FIN_WAIT1: i32 = 4;
const CLOSE: i32 = 7;
const LAST_ACK: i32 = 9;
const LISTEN: i32 = 10;

/// Offsets in `struct pt_regs` (arch/x86/include/asm/ptrace.h, Linux 6.18): the first three arguments of a system call, and its number.
const ARGUMENT_1: u64 = 112;
const ARGUMENT_2: u64 = 104;
const ARGUMENT_3: u64 = 96;
const SYSTEM_CALL: u64 = 120;

/// Numbers of system calls (arch/x86/entry/syscalls/syscall_64.tbl, Linux 6.18).
const READ: u64 = 0;
const WRITE: u64 = 1;
const READV: u64 = 19;
const WRITEV: u64 = 20;
const SENDFILE: u64 = 40;
const SENDTO: u64 = 44;
const RECVFROM: u64 = 45;
const SENDMSG: u64 = 46;
const RECVMSG: u64 = 47;

/// A socket has received: `TP_PROTO` in include/trace/events/sock.h is the socket, how much or an error, and flags.
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn socket_receives(context: RawTracePointContext) -> i32 {
    let flags: u64 = context.arg(2);
    if flags & BESIDES_THE_STREAM == 0 {
        moved(&context, SocketAction::Read, flags & NONBLOCKING_CALL != 0);
    }
    0
}

/// A socket has sent, likewise.
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn socket_sends(context: RawTracePointContext) -> i32 {
    moved(&context, SocketAction::Written, false);
    0
}

/// A socket of TCP changes its state: `TP_PROTO` in include/trace/events/sock.h is the socket, the old state, and the new one. Whoever
/// runs on this processor need not have to do with it.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn socket_changes_state(context: RawTracePointContext) -> i32 {
    let socket: u64 = context.arg(0);
    let state: i32 = context.arg(2);
    match state {
        LISTEN => {
            // Where there is no room, its connections are not known for such.
            let _ = LISTENED_PORTS.insert(read_half(socket + offset(&raw const SOCK_PORT_OFFSET)), 1, 0);
        }
        FIN_WAIT1 | LAST_ACK | CLOSE => closes(socket),
        _ => {}
    }
    0
}

/// The value of a static of this program.
#[inline(always)]
fn offset(of: *const u64) -> u64 {
    // SAFETY: it is one; volatile because user space writes it before loading.
    unsafe { core::ptr::read_volatile(of) }
}

#[inline(always)]
fn read(address: u64) -> u64 {
    // SAFETY: the helper checks the address; a bad one is an error, not a fault.
    unsafe { bpf_probe_read_kernel(address as *const u64).unwrap_or(0) }
}

#[inline(always)]
fn read_half(address: u64) -> u16 {
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel(address as *const u16).unwrap_or(0) }
}

/// Bytes were received or sent, or none were.
#[inline(always)]
fn moved(context: &RawTracePointContext, action: SocketAction, never_waits: bool) {
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(server) = copy_of(&SERVERS, &process) else { return };
    let socket: u64 = context.arg(0);
    let length: i32 = context.arg(1);
    let call = call_of_thread(action);
    let file = file_of(call.descriptor);
    let structure = read(socket + offset(&raw const SOCK_SOCKET_OFFSET));
    if read(file + offset(&raw const FILE_PRIVATE_OFFSET)) != structure {
        // Not by one of these calls, on this descriptor (splice, io_uring): something is missing from then on.
        if length > 0 {
            lose_step(socket);
        }
        return;
    }
    let inode = read(structure + offset(&raw const SOCKET_INODE_OFFSET));
    let seen = Seen { key: connection_of(call.descriptor), file, socket, inode };
    if !seen.is_known() && (length <= 0 || !is_accepted(socket) || !seen.begin(server & SETTLING != 0)) {
        return;
    }
    if never_waits && let Some(state) = CONNECTIONS.get_ptr_mut(seen.key) {
        // SAFETY: a checked map value; whoever writes to the field writes the same.
        unsafe { (*state).never_waits = 1 };
    }
    if length > 0 {
        tell_parts(&call, length as u64);
    }
}

/// The call that the running thread has entered the kernel with: an impossible descriptor if it is none of those that read and write.
#[inline(always)]
fn call_of_thread(action: SocketAction) -> SocketCall {
    // SAFETY: helpers without side effects; the kernel gives the registers that the thread has entered with.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    let (descriptor, second, third) =
        (read(registers + ARGUMENT_1), read(registers + ARGUMENT_2), read(registers + ARGUMENT_3));
    let buffers = match (action, read(registers + SYSTEM_CALL)) {
        (SocketAction::Read, READ | RECVFROM) | (SocketAction::Written, WRITE | SENDTO) => Some((second, 0)),
        (SocketAction::Read, READV) | (SocketAction::Written, WRITEV) => Some((second, third)),
        (SocketAction::Read, RECVMSG) | (SocketAction::Written, SENDMSG) => Some(parts_of_message(second)),
        (SocketAction::Written, SENDFILE) => Some((0, NO_BUFFER)),
        _ => None,
    };
    let (buffer, parts) = buffers.unwrap_or((0, NO_BUFFER));
    let descriptor = if buffers.is_some() { descriptor as u32 } else { u32::MAX };
    SocketCall { buffer, parts, descriptor, action: action as u32 }
}

/// A socket that a descriptor leads to.
struct Seen {
    key: ConnectionKey,
    file: u64,
    socket: u64,
    inode: u64,
}

impl Seen {
    /// Whether it is known as the connection with this descriptor. What was known under it before and is not there any more is over.
    #[inline(always)]
    fn is_known(&self) -> bool {
        let Some(state) = CONNECTIONS.get_ptr_mut(self.key) else { return false };
        // SAFETY: a checked map value; the fields are written by whoever comes first, and by all with the same values.
        unsafe {
            if (*state).socket == self.socket && (*state).inode == self.inode {
                return true;
            }
            if (*state).socket == 0 && (*state).inode == self.inode {
                // User space has found it.
                ((*state).file, (*state).socket) = (self.file, self.socket);
                let _ = SOCKETS.insert(self.socket, self.key, 0);
                return true;
            }
        }
        forget_closed(self.key);
        false
    }

    /// It is one from now on. `was_before`: it may have been one for long.
    #[inline(always)]
    fn begin(&self, was_before: bool) -> bool {
        // What another process has begun with is in the middle of something.
        let is_shared = SOCKETS.get_ptr(self.socket).is_some();
        let state = ConnectionState {
            // SAFETY: a helper without arguments.
            opened_ns: unsafe { bpf_ktime_get_ns() },
            file: self.file,
            socket: self.socket,
            inode: self.inode,
            was_before: u32::from(was_before || is_shared),
            ..ConnectionState::default()
        };
        if CONNECTIONS.insert(self.key, state, 0).is_err() || SOCKETS.insert(self.socket, self.key, 0).is_err() {
            let _ = CONNECTIONS.remove(self.key);
            count(Counter::LostConnections, 1);
            return false;
        }
        if read_half(self.socket + offset(&raw const SOCK_FAMILY_OFFSET)) == UNIX {
            count(Counter::UnixConnections, 1);
        }
        tell_socket(self.key.whole(), SocketAction::Accepted as u32, 0, 0);
        true
    }
}

/// Whether a socket is an end of a connection that was accepted: it has the port, or the name, of one that is listened on.
#[inline(always)]
fn is_accepted(socket: u64) -> bool {
    if read_half(socket + offset(&raw const SOCK_TYPE_OFFSET)) != STREAM {
        return false;
    }
    match read_half(socket + offset(&raw const SOCK_FAMILY_OFFSET)) {
        INET | INET6 => LISTENED_PORTS.get_ptr(read_half(socket + offset(&raw const SOCK_PORT_OFFSET))).is_some(),
        UNIX => read(socket + offset(&raw const UNIX_NAME_OFFSET)) != 0,
        _ => false,
    }
}

/// What was done with a socket is not told.
#[inline(always)]
fn lose_step(socket: u64) {
    let Some(key) = copy_of(&SOCKETS, &socket) else { return };
    if let Some(state) = CONNECTIONS.get_ptr_mut(key) {
        lose(state);
    }
}

/// A connection is closed at this end, or broken off.
#[inline(always)]
fn closes(socket: u64) {
    let Some(key) = copy_of(&SOCKETS, &socket) else { return };
    let _ = SOCKETS.remove(socket);
    let Some(state) = CONNECTIONS.get_ptr_mut(key) else { return };
    // SAFETY: a checked map value.
    if unsafe { (*state).socket } != socket {
        return;
    }
    // The kernel does this between the instructions of whatever runs on this processor, so that nothing of a program's that
    // may run there is used: a record of its own.
    if let Some(mut entry) = RECORDS.reserve::<SocketRecord>(0) {
        // SAFETY: a checked map value.
        let flags = unsafe {
            (*state).was_before * WAS_BEFORE | (*state).has_lost * HAS_LOST | (*state).never_waits * NEVER_WAITS
        };
        let size = size_of::<SocketRecord>();
        entry.write(SocketRecord {
            header: RecordHeader { kind: RecordKind::Request as u16, first_part: size as u16, size: size as u32 },
            process: key.process,
            thread: key.process,
            descriptor: key.descriptor,
            action: SocketAction::Closed as u32,
            // SAFETY: a helper without arguments, and a checked map value.
            time_ns: unsafe { bpf_ktime_get_ns() },
            opened_ns: unsafe { (*state).opened_ns },
            flags,
            ..SocketRecord::default()
        });
        entry.submit(NO_WAKEUP);
    } else {
        count(Counter::LostSocketRecords, 1);
    }
    let _ = CONNECTIONS.remove(key);
}
