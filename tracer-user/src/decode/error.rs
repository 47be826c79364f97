//! Why bytes are no record.

/// Why bytes are no record. The bytes come from the kernel or from a tape, and neither is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the record says or needs.
    #[error("a record of {found} bytes is too short, {needed} are needed; is the tape cut off?")]
    TooShort {
        /// Bytes there.
        found: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// The record, or its first part, ends in the middle of a field.
    #[error("a record of kind {kind} says that it has {found} bytes, but fields end at multiples of 8")]
    OddSize {
        /// Kind of the record.
        kind: u16,
        /// Size that it states.
        found: u32,
    },
    /// A kind that this version does not know.
    #[error("records of kind {kind} are not known to this version; was the tape made by a newer one?")]
    UnknownKind {
        /// Kind of the record.
        kind: u16,
    },
    /// Something that this version does not know has happened to a process.
    #[error("change {change} of a process is not known to this version; was the tape made by a newer one?")]
    UnknownChange {
        /// Number of the change.
        change: u32,
    },
    /// An ending that this version does not know.
    #[error("a call that ended in way {ending} is not known to this version; was the tape made by a newer one?")]
    UnknownEnding {
        /// Number of the ending.
        ending: u32,
    },
    /// Something that this version does not know was done with a connection.
    #[error("action {action} on a connection is not known to this version; was the tape made by a newer one?")]
    UnknownAction {
        /// Number of the action.
        action: u32,
    },
    /// A state of a context that this version does not know.
    #[error("state {state} of a context is not known to this version; was the tape made by a newer one?")]
    UnknownContextState {
        /// Number of the state.
        state: u32,
    },
    /// Fields of the record of a connection contradict each other.
    #[error("a record of the connection with descriptor {descriptor} contradicts itself: {problem}")]
    OddConnection {
        /// Its descriptor.
        descriptor: u32,
        /// What does not fit.
        problem: &'static str,
    },
    /// Fields that contradict each other.
    #[error("the record of call {call} contradicts itself: {problem}")]
    Contradiction {
        /// Number of the call.
        call: u64,
        /// What does not fit.
        problem: &'static str,
    },
}
