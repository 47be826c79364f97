//! What user space tells the programs about processes and functions, whatever language they are of.

use crate::limits::MAX_ARGUMENTS;

/// What the programs know of one traced process: a slot of the process map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProcessSlot {
    /// Process id in the initial pid namespace, 0 for a free slot.
    pub process: u32,
    /// 1 while new calls are accepted; 0 before all probes are live and while they are taken away.
    pub accepts_entries: u32,
    /// Counts the times that probes of Python code were taken away while others stayed.
    pub python_epoch: u32,
    /// Which Python calls are seen at witnesses: a [`crate::chain::WitnessWindow`]. What begins inside Python code is one, too, unless
    /// it is closed.
    pub witness_window: u32,
    /// Which witnesses there are: a [`crate::chain::WitnessDensity`].
    pub witness_density: u32,
    /// 1 if what Python code its threads are in is of interest where an outermost call of a native function begins: the context, or the
    /// span of an SDK.
    pub notes_contexts: u32,
}

/// Which arguments of a function are captured: a slot of the capture map, by function number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CaptureSpec {
    /// Arguments in use, at most [`MAX_ARGUMENTS`].
    pub count: u32,
    /// Position of each among the integer arguments, from 0; 6 and above are on the stack.
    pub positions: [u32; MAX_ARGUMENTS],
}

/// A process that is asked something has no interpreter whose contexts can be read: in the place of its slot and 1 more.
pub const NO_INTERPRETER: u32 = 0;

/// In the same place: nobody has looked yet at the connections that it has.
pub const SETTLING: u32 = 1 << 31;

/// A connection that a traced process is asked over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectionKey {
    /// The process.
    pub process: u32,
    /// The descriptor.
    pub descriptor: u32,
}

impl ConnectionKey {
    /// Both as one number.
    #[must_use]
    pub fn whole(self) -> u64 {
        u64::from(self.process) << 32 | u64::from(self.descriptor)
    }

    /// From one number.
    #[must_use]
    pub fn of(whole: u64) -> Self {
        Self { process: (whole >> 32) as u32, descriptor: whole as u32 }
    }
}

/// What the programs know of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectionState {
    /// When it was accepted, or the programs were told of it (monotonic ns).
    pub opened_ns: u64,
    /// Address of the kernel's `struct file`, which tells whether the descriptor is still the connection's; 0: not known yet.
    pub file: u64,
    /// Address of the kernel's `struct sock`, where sockets are told of themselves; 0: not known.
    pub socket: u64,
    /// The number of its inode, which tells it from a later one at the same address.
    pub inode: u64,
    /// Bytes of requests that were captured since something was written.
    pub captured: u32,
    /// 1 if it was there before the programs were told of it.
    pub was_before: u32,
    /// 1 if a record of it was lost.
    pub has_lost: u32,
    /// 1 if it was ever read without waiting.
    pub never_waits: u32,
}

const _: () = {
    assert!(size_of::<ConnectionKey>() == 8);
    assert!(size_of::<ConnectionState>() == 48);
    assert!(size_of::<ProcessSlot>() == 24);
    assert!(size_of::<CaptureSpec>() == 20);
};
