//! The system calls by which servers read and write, at their tracepoints: for kernels that do not tell of sockets themselves (before
//! Linux 6.5), and to see a unix socket closed.
//!
//! They run at these system calls of every process of the machine, and look up one number in one table, which is all that it costs a
//! process that is not traced, and what is no connection of one that is. One of them alone makes the kernel take the slow way into every
//! system call of the machine.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_ns},
    macros::{map, tracepoint},
    maps::HashMap,
    programs::TracePointContext,
};
use tracer_common::{counters::Counter, limits::MAX_THREADS, records::SocketAction, tables::ConnectionState};

use crate::{
    maps::{copy_of, count},
    sockets::{
        BESIDES_THE_STREAM, CONNECTIONS, NO_BUFFER, NONBLOCKING_CALL, SERVERS, SocketCall, connection_of, file_of,
        forget_closed, lose, parts_of_message, tell_parts, tell_socket,
    },
};

/// What a thread is in the middle of, by the value of `bpf_get_current_pid_tgid`.
#[map]
static SOCKET_CALLS: HashMap<u64, SocketCall> =
    HashMap::with_max_entries(MAX_THREADS, aya_ebpf::bindings::BPF_F_NO_PREALLOC);

/// Offsets in the context of a system call's tracepoints (events/syscalls/*/format in tracefs): its arguments, or its result.
const ARGUMENTS: usize = 16;

/// An argument of the system call that begins, or its result.
#[inline(always)]
fn word(context: &TracePointContext, index: usize) -> u64 {
    // SAFETY: the verifier compares the offset with the context of each tracepoint at which the program is attached.
    unsafe { core::ptr::read_volatile(context.as_ptr().byte_add(ARGUMENTS + 8 * index).cast()) }
}

/// Bytes are read into a buffer: read.
#[tracepoint]
pub fn socket_read(context: TracePointContext) -> i32 {
    begin(&context, SocketAction::Read, |context| (word(context, 1), 0))
}

/// The same with flags: recvfrom.
#[tracepoint]
pub fn socket_receive(context: TracePointContext) -> i32 {
    if word(&context, 3) & BESIDES_THE_STREAM != 0 {
        return 0;
    }
    if word(&context, 3) & NONBLOCKING_CALL != 0 {
        note_never_waits(word(&context, 0) as u32);
    }
    begin(&context, SocketAction::Read, |context| (word(context, 1), 0))
}

/// Bytes are read into several buffers: readv.
#[tracepoint]
pub fn socket_read_parts(context: TracePointContext) -> i32 {
    begin(&context, SocketAction::Read, |context| (word(context, 1), word(context, 2)))
}

/// The same, named by a message: recvmsg.
#[tracepoint]
pub fn socket_receive_message(context: TracePointContext) -> i32 {
    if word(&context, 2) & BESIDES_THE_STREAM != 0 {
        return 0;
    }
    if word(&context, 2) & NONBLOCKING_CALL != 0 {
        note_never_waits(word(&context, 0) as u32);
    }
    begin(&context, SocketAction::Read, |context| parts_of_message(word(context, 1)))
}

/// Bytes are written from a buffer: write, sendto.
#[tracepoint]
pub fn socket_write(context: TracePointContext) -> i32 {
    begin(&context, SocketAction::Written, |context| (word(context, 1), 0))
}

/// Bytes are written from several buffers: writev.
#[tracepoint]
pub fn socket_write_parts(context: TracePointContext) -> i32 {
    begin(&context, SocketAction::Written, |context| (word(context, 1), word(context, 2)))
}

/// The same, named by a message: sendmsg.
#[tracepoint]
pub fn socket_send_message(context: TracePointContext) -> i32 {
    begin(&context, SocketAction::Written, |context| parts_of_message(word(context, 1)))
}

/// Bytes of a file are written: sendfile.
#[tracepoint]
pub fn socket_send_file(context: TracePointContext) -> i32 {
    begin(&context, SocketAction::Written, |_| (0, NO_BUFFER))
}

/// Any of these returns.
#[tracepoint]
pub fn socket_call_returns(context: TracePointContext) -> i32 {
    let key = bpf_get_current_pid_tgid();
    let Some(call) = copy_of(&SOCKET_CALLS, &key) else { return 0 };
    let _ = SOCKET_CALLS.remove(key);
    let result = word(&context, 0) as i64;
    if result > 0 {
        tell_parts(&call, result as u64);
    }
    0
}

/// A connection is accepted: accept, accept4.
#[tracepoint]
pub fn socket_accepted(context: TracePointContext) -> i32 {
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    let result = word(&context, 0) as i64;
    if result < 0 || SERVERS.get_ptr(process).is_none() {
        return 0;
    }
    let descriptor = result as u32;
    let state = ConnectionState {
        // SAFETY: a helper without arguments.
        opened_ns: unsafe { bpf_ktime_get_ns() },
        file: file_of(descriptor),
        ..ConnectionState::default()
    };
    if CONNECTIONS.insert(connection_of(descriptor), state, 0).is_err() {
        count(Counter::LostConnections, 1);
        return 0;
    }
    tell_socket(connection_of(descriptor).whole(), SocketAction::Accepted as u32, 0, 0);
    0
}

/// A descriptor is closed. Told before it is: another thread may be given the same one before this call has returned.
#[tracepoint]
pub fn socket_closes(context: TracePointContext) -> i32 {
    let descriptor = word(&context, 0) as u32;
    let connection = connection_of(descriptor);
    if CONNECTIONS.get_ptr(connection).is_some() {
        forget_closed(connection);
    }
    0
}

/// A thread has ended, perhaps in the middle of a system call. Tables that hold nothing cost a look.
#[inline(always)]
pub fn forget(thread: u64) {
    let _ = SOCKET_CALLS.remove(thread);
}

/// A read or write begins; `buffers` gives where.
#[inline(always)]
fn begin(
    context: &TracePointContext,
    action: SocketAction,
    buffers: impl FnOnce(&TracePointContext) -> (u64, u64),
) -> i32 {
    let descriptor = word(context, 0) as u32;
    let Some(state) = CONNECTIONS.get_ptr_mut(connection_of(descriptor)) else { return 0 };
    if !is_still_open(state, descriptor) {
        return 0;
    }
    let (buffer, parts) = buffers(context);
    let call = SocketCall { buffer, parts, descriptor, action: action as u32 };
    if SOCKET_CALLS.insert(bpf_get_current_pid_tgid(), call, 0).is_err() {
        lose(state);
    }
    0
}

/// Whether a descriptor is still that of its connection: dup2, close_range and execve take one away without a word.
#[inline(always)]
fn is_still_open(state: *mut ConnectionState, descriptor: u32) -> bool {
    let file = file_of(descriptor);
    // SAFETY: a checked map value; the field is written once by whoever comes first, and by all with the same value.
    let known = unsafe { (*state).file };
    if known == file {
        return true;
    }
    if known == 0 {
        // SAFETY: as above.
        unsafe { (*state).file = file };
        return true;
    }
    forget_closed(connection_of(descriptor));
    false
}

/// A thread reads from a connection and does not wait for it.
#[inline(always)]
fn note_never_waits(descriptor: u32) {
    if let Some(state) = CONNECTIONS.get_ptr_mut(connection_of(descriptor)) {
        // SAFETY: a checked map value; whoever writes to the field writes the same.
        unsafe { (*state).never_waits = 1 };
    }
}
