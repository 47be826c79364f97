//! Numbered counters kept by the BPF programs. Numbers are never reused.
//!
//! Living threads count in their own [`crate::thread_stack::ThreadStack`]; the counter map holds what ended threads left and
//! what belongs to no thread.

/// What one slot of the counter map counts. Losses keep `entries = spans + folded + lost + open` true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Counter {
    /// Entries seen on threads that have ended, and on threads that got no stack.
    Entries = 0,
    /// Records submitted by threads that have ended.
    Spans = 1,
    /// Calls folded into their caller by the recursion map, on threads that have ended.
    Folded = 2,
    /// A record found no room in the ring buffer.
    LostRingFull = 3,
    /// A call was nested deeper than [`crate::limits::MAX_DEPTH`].
    LostStackFull = 4,
    /// More threads than [`crate::limits::MAX_THREADS`] made traced calls, or more greenlets of one than
    /// [`crate::limits::MAX_GREENLETS`].
    LostThreadTableFull = 5,
    /// A return for which no call was open. Not a loss: the call began before the probes were live, was folded, or
    /// the thread switched stacks.
    ReturnsWithoutEntry = 6,
    /// A Python function that was not known yet ran watched code.
    LostUnknownFunction = 7,
    /// Changes of a watched reference count for which the kernel was not told that a watchpoint was hit, and which were
    /// recognised all the same. Not a loss.
    HitsWithoutCause = 8,
    /// A Python call that could not be told from a reference that somebody else has taken.
    LostUnclear = 9,
    /// More than [`crate::limits::MAX_OTHER_STACK_CALLS`] calls were open on other stacks than their threads' own.
    LostOtherStacksFull = 10,
    /// Records of what was done with connections that found no room in the ring buffer, or whose thread found none in its table. No
    /// call is lost with them.
    LostSocketRecords = 11,
    /// Connections for which there was no room, see [`crate::limits::MAX_CONNECTIONS`]. No call is lost with them.
    LostConnections = 12,
    /// Records of contexts of Python code that found no room in the ring buffer. No call is lost with them.
    LostContextRecords = 13,
    /// Records of the spans of an SDK that calls and answers are in, which found no room in the ring buffer. Likewise.
    LostSpanRecords = 14,
    /// Connections of unix sockets that are told of. Not a loss: that they are closed has to be seen otherwise.
    UnixConnections = 15,
}

impl Counter {
    /// Slots of the counter map.
    pub const COUNT: u32 = 16;

    /// Every counter, in the order of its number.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::Entries,
        Self::Spans,
        Self::Folded,
        Self::LostRingFull,
        Self::LostStackFull,
        Self::LostThreadTableFull,
        Self::ReturnsWithoutEntry,
        Self::LostUnknownFunction,
        Self::HitsWithoutCause,
        Self::LostUnclear,
        Self::LostOtherStacksFull,
        Self::LostSocketRecords,
        Self::LostConnections,
        Self::LostContextRecords,
        Self::LostSpanRecords,
        Self::UnixConnections,
    ];

    /// Whether the counter counts calls whose span is lost.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        matches!(
            self,
            Self::LostRingFull
                | Self::LostStackFull
                | Self::LostThreadTableFull
                | Self::LostUnknownFunction
                | Self::LostUnclear
                | Self::LostOtherStacksFull
        )
    }
}
