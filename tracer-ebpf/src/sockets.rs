//! What traced servers read from the connections that they are asked over, and write to them: the first bytes, and how many. The
//! programs know no protocol; user space finds requests in what they tell.
//!
//! `socket_events` sees it at the tracepoints of sockets, `socket_calls` at those of system calls. Here is what they tell.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel, bpf_probe_read_user,
        generated::{bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_probe_read_user as read_user_bytes},
    },
    macros::map,
    maps::{HashMap, PerCpuArray},
};
use tracer_common::{
    counters::Counter,
    limits::{MAX_CONNECTIONS, MAX_PROCESSES},
    records::{
        ContextState, HAS_LOST, MAX_CAPTURED, NEVER_WAITS, RecordHeader, RecordKind, SocketAction, SocketRecord,
        WAS_BEFORE,
    },
    tables::{ConnectionKey, ConnectionState, NO_INTERPRETER, SETTLING},
};

use crate::{
    maps::{NO_WAKEUP, RECORDS, copy_of, count},
    python_contexts::context_of_answer,
};

/// Processes whose connections are looked at, each with its slot and 1 more once contexts of its interpreter can be read, or
/// [`NO_INTERPRETER`]; and [`SETTLING`].
#[map]
pub static SERVERS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_PROCESSES, aya_ebpf::bindings::BPF_F_NO_PREALLOC);

/// The connections that they are asked over.
#[map]
pub static CONNECTIONS: HashMap<ConnectionKey, ConnectionState> =
    HashMap::with_max_entries(MAX_CONNECTIONS, aya_ebpf::bindings::BPF_F_NO_PREALLOC);

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
pub const BESIDES_THE_STREAM: u64 = 0x1 | 0x2 | 0x2000;

/// Where in `struct user_msghdr` the `iovec`s are (include/linux/socket.h, Linux 6.18), and how long one is.
const MESSAGE_PARTS: u64 = 16;
const PART_BYTES: u64 = 16;

/// Room for the bytes of a record: a power of two, above what a whole record takes.
const MOST_BYTES: usize = 2 * MAX_CAPTURED;

/// `O_NONBLOCK` (include/uapi/asm-generic/fcntl.h) and `MSG_DONTWAIT` (include/linux/socket.h, Linux 6.18).
const NONBLOCKING_FILE: u32 = 0o4000;
pub const NONBLOCKING_CALL: u64 = 0x40;

/// A read or write that has not returned.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SocketCall {
    /// Where the bytes are, or what names where.
    pub buffer: u64,
    /// `iovec`s at `buffer`; 0: it is a buffer, and [`NO_BUFFER`]: there is none.
    pub parts: u64,
    /// The descriptor.
    pub descriptor: u32,
    /// A [`SocketAction`].
    pub action: u32,
}

/// Bytes go between files inside the kernel.
pub const NO_BUFFER: u64 = u64::MAX;

/// A record with room for the bytes behind it, and for more: see [`bounded`].
#[repr(C)]
struct Captured {
    record: SocketRecord,
    bytes: [u8; MOST_BYTES],
}

#[inline(always)]
fn read_user(address: u64) -> u64 {
    // SAFETY: the helper checks the address; a bad one is an error, not a fault.
    unsafe { bpf_probe_read_user(address as *const u64).unwrap_or(0) }
}

#[inline(always)]
pub fn connection_of(descriptor: u32) -> ConnectionKey {
    ConnectionKey { process: (bpf_get_current_pid_tgid() >> 32) as u32, descriptor }
}

/// The buffers that a message (`struct user_msghdr`) names.
#[inline(always)]
pub fn parts_of_message(message: u64) -> (u64, u64) {
    (read_user(message + MESSAGE_PARTS), read_user(message + MESSAGE_PARTS + 8))
}

/// A connection has been closed, or its descriptor is another one's: the end of it is told.
#[inline(always)]
pub fn forget_closed(connection: ConnectionKey) {
    tell_socket(connection.whole(), SocketAction::Closed as u32, 0, 0);
    let _ = CONNECTIONS.remove(connection);
}

/// Address of the kernel's file behind a descriptor of this process.
#[inline(always)]
pub fn file_of(descriptor: u32) -> u64 {
    // SAFETY: statics of this program, volatile because user space writes them before loading; the helper checks each address.
    unsafe {
        let read = |address: u64| bpf_probe_read_kernel(address as *const u64).unwrap_or(0);
        let files = read(bpf_get_current_task_btf() as u64 + core::ptr::read_volatile(&raw const TASK_FILES_OFFSET));
        let table = read(files + core::ptr::read_volatile(&raw const FILES_TABLE_OFFSET));
        let first = read(table + core::ptr::read_volatile(&raw const TABLE_FILES_OFFSET));
        read(first + 8 * u64::from(descriptor))
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
pub fn tell_parts(call: &SocketCall, length: u64) {
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
                tell_socket(connection_of(descriptor).whole(), action, start, of_part);
                left -= of_part;
            }
            if left == 0 {
                return;
            }
        }
    }
    tell_socket(connection_of(descriptor).whole(), action, 0, left);
}

/// Tells user space what was done with a connection, with the first of its bytes if they are somewhere. A global function, see
/// `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_socket(connection: u64, action: u32, buffer: u64, length: u64) -> u64 {
    let key = ConnectionKey::of(connection);
    let Some(state) = CONNECTIONS.get_ptr_mut(key) else { return 0 };
    let Some(captured) = SOCKET_RECORD.get_ptr_mut(0) else { return 0 };
    // SAFETY: checked map values. The first is shared with other threads of the process, none of which needs the others; the second belongs to this processor, and the helper writes no more than it is told.
    unsafe {
        let mut size = if buffer == 0 { 0 } else { u64::from(most_captured(state, action)) };
        if size > length {
            size = length;
        }
        if size > MAX_CAPTURED as u64 {
            size = MAX_CAPTURED as u64;
        }
        size = bounded(size);
        let bytes = (&raw mut (*captured).bytes).cast();
        if size > 0 && read_user_bytes(bytes, size as u32, buffer as *const _) != 0 {
            size = 0;
        }
        if action == SocketAction::Read as u32 {
            (*state).captured += size as u32;
        }
        let record = &raw mut (*captured).record;
        let whole = bounded((size_of::<SocketRecord>() as u64 + size + 7) & !7);
        (*record).header = RecordHeader {
            kind: RecordKind::Request as u16,
            first_part: size_of::<SocketRecord>() as u16,
            size: whole as u32,
        };
        (*record).process = key.process;
        (*record).thread = bpf_get_current_pid_tgid() as u32;
        (*record).descriptor = key.descriptor;
        (*record).action = action;
        (*record).time_ns = bpf_ktime_get_ns();
        (*record).opened_ns = (*state).opened_ns;
        (*record).length = length;
        (*record).captured = size as u32;
        if action == SocketAction::Read as u32 && may_not_wait((*state).file) {
            (*state).never_waits = 1;
        }
        (*record).flags =
            (*state).was_before * WAS_BEFORE | (*state).has_lost * HAS_LOST | (*state).never_waits * NEVER_WAITS;
        (*record).context_state = ContextState::NotRead as u32;
        (*record).context = 0;
        (*record).reserved = 0;
        if action == SocketAction::Written as u32 && size >= 5 && begins_answer(&raw const (*captured).bytes) {
            let server = copy_of(&SERVERS, &key.process).unwrap_or(NO_INTERPRETER) & !SETTLING;
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

/// A number that is below [`MOST_BYTES`] already: the verifier of Linux 6.1 believes a mask alone, and the compiler would leave out one
/// that does nothing.
#[inline(always)]
fn bounded(number: u64) -> u64 {
    // SAFETY: a value on the stack.
    unsafe { core::ptr::read_volatile(&raw const number) & (MOST_BYTES as u64 - 1) }
}

/// Whether bytes begin like the status line of an answer, whose rest user space looks at: "HTTP/".
///
/// # Safety
/// `bytes` must be those of a checked map value.
#[inline(always)]
unsafe fn begins_answer(bytes: *const [u8; MOST_BYTES]) -> bool {
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
pub fn lose(state: *mut ConnectionState) {
    // SAFETY: a checked map value; whoever writes to the field writes the same.
    unsafe { (*state).has_lost = 1 };
    count(Counter::LostSocketRecords, 1);
}
