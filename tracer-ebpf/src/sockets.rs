//! What traced servers read from the connections that they are asked over, and write to them: the first bytes, and how many. The
//! programs know no protocol; user space finds requests in what they tell.
//!
//! They run at these system calls of every process of the machine, and look up one number in one table, which is all that it costs a
//! process that is not traced, and what is no connection of one that is.

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel, bpf_probe_read_user,
        generated::{bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_probe_read_user as read_user_bytes},
    },
    macros::{map, tracepoint},
    maps::{HashMap, PerCpuArray},
    programs::TracePointContext,
};
use tracer_common::{
    counters::Counter,
    limits::{MAX_CONNECTIONS, MAX_PROCESSES, MAX_THREADS},
    records::{
        ContextState, HAS_LOST, MAX_CAPTURED, NEVER_WAITS, RecordHeader, RecordKind, SocketAction, SocketRecord,
        WAS_BEFORE,
    },
    tables::{ConnectionKey, ConnectionState, NO_INTERPRETER},
};

use crate::{
    maps::{NO_WAKEUP, RECORDS, copy_of, count},
    python_contexts::context_of_answer,
};

/// Processes whose connections are looked at, each with its slot and 1 more once contexts of its interpreter can be read, or
/// [`NO_INTERPRETER`].
#[map]
static SERVERS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_PROCESSES, aya_ebpf::bindings::BPF_F_NO_PREALLOC);

/// The connections that they are asked over.
#[map]
static CONNECTIONS: HashMap<ConnectionKey, ConnectionState> =
    HashMap::with_max_entries(MAX_CONNECTIONS, aya_ebpf::bindings::BPF_F_NO_PREALLOC);

/// What a thread is in the middle of, by the value of `bpf_get_current_pid_tgid`.
#[map]
static SOCKET_CALLS: HashMap<u64, SocketCall> =
    HashMap::with_max_entries(MAX_THREADS, aya_ebpf::bindings::BPF_F_NO_PREALLOC);

/// Where a record is put together: it is too large for the program's own stack. No other program comes between on its processor.
#[map]
static SOCKET_RECORD: PerCpuArray<Captured> = PerCpuArray::with_max_entries(1, 0);

/// Where a task keeps its files, `struct files_struct` its table, and `struct fdtable` the files in it; user space sets it before
/// loading, from the kernel's type information.
#[unsafe(no_mangle)]
static TASK_FILES_OFFSET: u64 = 0;
#[unsafe(no_mangle)]
static FILES_TABLE_OFFSET: u64 = 0;
#[unsafe(no_mangle)]
static TABLE_FILES_OFFSET: u64 = 0;
/// And `struct file` its flags.
#[unsafe(no_mangle)]
static FILE_FLAGS_OFFSET: u64 = 0;

/// Bytes of one request that are captured: its head is no longer, as long as servers take it.
const MOST_OF_REQUEST: u32 = 32 << 10;

/// Bytes of one write that are captured.
const MOST_OF_ANSWER: u32 = 1 << 10;

/// Parts of one read or write that are told of with their bytes: pieces of [`MAX_CAPTURED`], or what `iovec`s name.
const MOST_PARTS: u64 = 8;

/// `MSG_OOB`, `MSG_PEEK` and `MSG_ERRQUEUE` (include/linux/socket.h, Linux 6.18): what is read so is no part of the stream, or is read
/// again.
const BESIDES_THE_STREAM: u64 = 0x1 | 0x2 | 0x2000;

/// Where in `struct user_msghdr` the `iovec`s are (include/linux/socket.h, Linux 6.18), and how long one is.
const MESSAGE_PARTS: u64 = 16;
const PART_BYTES: u64 = 16;

/// `O_NONBLOCK` (include/uapi/asm-generic/fcntl.h) and `MSG_DONTWAIT` (include/linux/socket.h, Linux 6.18).
const NONBLOCKING_FILE: u32 = 0o4000;
const NONBLOCKING_CALL: u64 = 0x40;

/// Offsets in the context of a system call's tracepoints (events/syscalls/*/format in tracefs): its arguments, or its result.
const ARGUMENTS: usize = 16;

/// A read or write that has not returned.
#[derive(Clone, Copy)]
#[repr(C)]
struct SocketCall {
    buffer: u64,
    /// `iovec`s at `buffer`; 0: it is a buffer, and [`NO_BUFFER`]: there is none.
    parts: u64,
    descriptor: u32,
    action: u32,
}

/// Bytes go between files inside the kernel.
const NO_BUFFER: u64 = u64::MAX;

/// A record with room for the bytes behind it, and for a word more: the verifier does not see that what is rounded up still fits.
#[repr(C)]
struct Captured {
    record: SocketRecord,
    bytes: [u8; MAX_CAPTURED + 8],
}

/// An argument of the system call that begins, or its result.
#[inline(always)]
fn word(context: &TracePointContext, index: usize) -> u64 {
    // SAFETY: the verifier compares the offset with the context of each tracepoint at which the program is attached.
    unsafe { core::ptr::read_volatile(context.as_ptr().byte_add(ARGUMENTS + 8 * index).cast()) }
}

#[inline(always)]
fn read_user(address: u64) -> u64 {
    // SAFETY: the helper checks the address; a bad one is an error, not a fault.
    unsafe { bpf_probe_read_user(address as *const u64).unwrap_or(0) }
}

#[inline(always)]
fn connection_of(descriptor: u32) -> ConnectionKey {
    ConnectionKey { process: (bpf_get_current_pid_tgid() >> 32) as u32, descriptor }
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
    begin(&context, SocketAction::Read, parts_of_message)
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
    begin(&context, SocketAction::Written, parts_of_message)
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
        captured: 0,
        was_before: 0,
        has_lost: 0,
        never_waits: 0,
    };
    if CONNECTIONS.insert(connection_of(descriptor), state, 0).is_err() {
        count(Counter::LostConnections, 1);
        return 0;
    }
    tell_socket(descriptor, SocketAction::Accepted as u32, 0, 0);
    0
}

/// A descriptor is closed. Told before it is: another thread may be given the same one before this call has returned.
#[tracepoint]
pub fn socket_closes(context: TracePointContext) -> i32 {
    let descriptor = word(&context, 0) as u32;
    let connection = connection_of(descriptor);
    if CONNECTIONS.get_ptr(connection).is_some() {
        tell_socket(descriptor, SocketAction::Closed as u32, 0, 0);
        let _ = CONNECTIONS.remove(connection);
    }
    0
}

/// A thread has ended, perhaps in the middle of a system call. Tables that hold nothing cost a look.
#[inline(always)]
pub fn forget(thread: u64) {
    let _ = SOCKET_CALLS.remove(thread);
}

/// The buffers that the message of a system call names.
#[inline(always)]
fn parts_of_message(context: &TracePointContext) -> (u64, u64) {
    let message = word(context, 1);
    (read_user(message + MESSAGE_PARTS), read_user(message + MESSAGE_PARTS + 8))
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
    tell_socket(descriptor, SocketAction::Closed as u32, 0, 0);
    let _ = CONNECTIONS.remove(connection_of(descriptor));
    false
}

/// Address of the kernel's file behind a descriptor of this process.
#[inline(always)]
fn file_of(descriptor: u32) -> u64 {
    // SAFETY: statics of this program, volatile because user space writes them before loading; the helper checks each address.
    unsafe {
        let read = |address: u64| bpf_probe_read_kernel(address as *const u64).unwrap_or(0);
        let files = read(bpf_get_current_task_btf() as u64 + core::ptr::read_volatile(&raw const TASK_FILES_OFFSET));
        let table = read(files + core::ptr::read_volatile(&raw const FILES_TABLE_OFFSET));
        let first = read(table + core::ptr::read_volatile(&raw const TABLE_FILES_OFFSET));
        read(first + 8 * u64::from(descriptor))
    }
}

/// A thread reads from a connection and does not wait for it.
#[inline(always)]
fn note_never_waits(descriptor: u32) {
    if let Some(state) = CONNECTIONS.get_ptr_mut(connection_of(descriptor)) {
        // SAFETY: a checked map value; whoever writes to the field writes the same.
        unsafe { (*state).never_waits = 1 };
    }
}

/// Whether nobody waits in a read from this file of the kernel, or it is not known.
#[inline(always)]
fn may_not_wait(file: u64) -> bool {
    // SAFETY: a static of this program, volatile because user space writes it before loading; the helper checks the address.
    unsafe {
        let offset = core::ptr::read_volatile(&raw const FILE_FLAGS_OFFSET);
        let flags = bpf_probe_read_kernel((file + offset) as *const u32);
        offset == 0 || flags.is_err() || flags.unwrap_or(0) & NONBLOCKING_FILE != 0
    }
}

/// Tells of so many bytes that were read or written.
#[inline(always)]
fn tell_parts(call: &SocketCall, length: u64) {
    let SocketCall { buffer, parts, descriptor, action } = *call;
    let mut left = length;
    if parts != NO_BUFFER {
        for index in 0..MOST_PARTS {
            let (start, room) = match parts {
                0 if action == SocketAction::Written as u32 => (buffer, left),
                0 => (buffer + index * MAX_CAPTURED as u64, MAX_CAPTURED as u64),
                _ if index >= parts => break,
                _ => (read_user(buffer + index * PART_BYTES), read_user(buffer + index * PART_BYTES + 8)),
            };
            let of_part = if room < left { room } else { left };
            if of_part > 0 {
                tell_socket(descriptor, action, start, of_part);
                left -= of_part;
            }
            if left == 0 {
                return;
            }
        }
    }
    tell_socket(descriptor, action, 0, left);
}

/// Tells user space what was done with a connection, with the first of its bytes if they are somewhere. A global function, see
/// `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_socket(descriptor: u32, action: u32, buffer: u64, length: u64) -> u64 {
    let Some(state) = CONNECTIONS.get_ptr_mut(connection_of(descriptor)) else { return 0 };
    let Some(captured) = SOCKET_RECORD.get_ptr_mut(0) else { return 0 };
    // SAFETY: checked map values. The first is shared with other threads of the process, none of which needs the others; the second belongs to this processor, and the helper writes no more than it is told.
    unsafe {
        let mut size = if buffer == 0 { 0 } else { most_captured(state, action) };
        if u64::from(size) > length {
            size = length as u32;
        }
        if size > MAX_CAPTURED as u32 {
            size = MAX_CAPTURED as u32;
        }
        let bytes = (&raw mut (*captured).bytes).cast();
        if size > 0 && read_user_bytes(bytes, size, buffer as *const _) != 0 {
            size = 0;
        }
        if action == SocketAction::Read as u32 {
            (*state).captured += size;
        }
        let record = &raw mut (*captured).record;
        let whole = (size_of::<SocketRecord>() as u32 + size + 7) & !7;
        (*record).header = RecordHeader {
            kind: RecordKind::Request as u16,
            first_part: size_of::<SocketRecord>() as u16,
            size: whole,
        };
        let key = bpf_get_current_pid_tgid();
        (*record).process = (key >> 32) as u32;
        (*record).thread = key as u32;
        (*record).descriptor = descriptor;
        (*record).action = action;
        (*record).time_ns = bpf_ktime_get_ns();
        (*record).opened_ns = (*state).opened_ns;
        (*record).length = length;
        (*record).captured = size;
        if action == SocketAction::Read as u32 && may_not_wait((*state).file) {
            (*state).never_waits = 1;
        }
        (*record).flags =
            (*state).was_before * WAS_BEFORE | (*state).has_lost * HAS_LOST | (*state).never_waits * NEVER_WAITS;
        (*record).context_state = ContextState::NotRead as u32;
        (*record).context = 0;
        (*record).reserved = 0;
        if action == SocketAction::Written as u32 && size >= 5 && begins_answer(&raw const (*captured).bytes) {
            let server = copy_of(&SERVERS, &(*record).process).unwrap_or(NO_INTERPRETER);
            if server != NO_INTERPRETER {
                ((*record).context_state, (*record).context) = context_of_answer(server - 1);
            }
        }
        let told = core::slice::from_raw_parts(captured.cast::<u8>(), whole as usize);
        if RECORDS.output::<[u8]>(told, NO_WAKEUP).is_err() {
            lose(state);
        }
    }
    0
}

/// Whether bytes begin like the status line of an answer, whose rest user space looks at: "HTTP/".
///
/// # Safety
/// `bytes` must be those of a checked map value.
#[inline(always)]
unsafe fn begins_answer(bytes: *const [u8; MAX_CAPTURED + 8]) -> bool {
    // SAFETY: promised by the caller.
    unsafe {
        let first = core::ptr::read_volatile(bytes.cast::<u32>());
        first == u32::from_le_bytes(*b"HTTP") && core::ptr::read_volatile(bytes.cast::<u8>().add(4)) == b'/'
    }
}

/// How many bytes of a read or write are captured.
///
/// # Safety
/// `state` is a checked map value.
#[inline(always)]
unsafe fn most_captured(state: *mut ConnectionState, action: u32) -> u32 {
    // SAFETY: promised by the caller; no exact figure is needed where several threads read from one connection.
    unsafe {
        if action == SocketAction::Written as u32 {
            (*state).captured = 0;
            MOST_OF_ANSWER
        } else if (*state).captured < MOST_OF_REQUEST {
            MAX_CAPTURED as u32
        } else {
            0
        }
    }
}

/// Something that was done with a connection is not told: everything that is told of it later says so.
#[inline(always)]
fn lose(state: *mut ConnectionState) {
    // SAFETY: a checked map value; whoever writes to the field writes the same.
    unsafe { (*state).has_lost = 1 };
    count(Counter::LostSocketRecords, 1);
}
