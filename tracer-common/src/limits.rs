//! Bounds of everything that the kernel side keeps.

/// Open calls kept for one thread. A call nested deeper is counted as lost.
/// A power of two: the programs mask indices with `MAX_DEPTH - 1`.
pub const MAX_DEPTH: usize = 64;

/// Threads with an open or finished traced call at one time.
pub const MAX_THREADS: u32 = 8192;

/// Processes that one tracer can watch at one time: slots of the tables by process, 192 bytes each in all. The cookie has 16
/// bits for the slot.
pub const MAX_PROCESSES: u32 = 1 << 9;

/// Followed processes and those that they have forked, at one time: most that a server forks run nothing that is traced.
pub const MAX_FOLLOWED: u32 = 1 << 14;

/// Connections of traced servers that are open at one time, of all processes.
pub const MAX_CONNECTIONS: u32 = 1 << 14;

/// Ports that something listens on, of all processes.
pub const MAX_LISTENED_PORTS: u32 = 1 << 12;

/// Functions that one tracer can tell apart: slots of the capture map (the cookie would hold 2^24).
pub const MAX_FUNCTIONS: u32 = 1 << 14;

/// Open calls on other stacks than their threads' own (fibers), of all processes.
pub const MAX_OTHER_STACK_CALLS: u32 = 1 << 14;

/// Arguments captured for one call.
pub const MAX_ARGUMENTS: usize = 4;

/// Bytes of the ring buffer unless told otherwise: 27,000 records, 4 MiB. User space maps it twice.
pub const RING_BYTES: u32 = 4 << 20;

/// Python code objects, functions, and listed children that the maps of the programs have room for, and classes.
pub const MAX_PYTHON_FUNCTIONS: u32 = 1 << 14;

/// Objects that a container lists, and open containers.
pub const MAX_PYTHON_MEMBERS: u32 = 1 << 14;

/// Greenlets of one thread, besides one, that have open calls at one time. A power of two.
pub const MAX_GREENLETS: usize = 64;

/// Bits of a key of the thread map that hold the process and the thread; above them is the number of the greenlet's stack
/// (Linux numbers processes to 2^22).
pub const THREAD_KEY_BITS: u32 = 56;
