//! What the programs keep of the frames of one thread, where Python calls are seen at witnesses: places that a part of all
//! Python calls passes. What has begun or ended is found by comparing the frames at one witness with those at the last one.

/// Frames of one thread that are remembered, outermost first. A power of two.
pub const MAX_CHAIN: usize = 256;

/// Frames that are walked at one witness. A power of two.
pub const MAX_WALK: usize = 128;

/// Bytes that are read of a frame: what every version has before the variables.
pub const HEADER_BYTES: u32 = 80;

/// Bytes of a data stack that are read at once, at most: frames stand there one after the other, and each reading is dear.
pub const BLOCK_BYTES: u32 = 8112;

/// As many are read where it is not known how far out the frames begin.
pub const USUAL_BLOCK_BYTES: u32 = 1536;

/// Words that have been read: a block, and after it the beginning of a frame that is not in it. A power of two.
pub const READ_WORDS: usize = 1024;

/// In place of the number of a call: an exception has left the frame, and its call with it. It may be there for a while, but does not
/// run any more.
pub const LEFT: u64 = u64::MAX;

/// In [`Chain::standing`]: see there.
pub const NOT_ASKED: u32 = u32::MAX;

/// What a witness is: the place of its cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Witness {
    /// C code enters the frame in the second argument, on the thread whose state is the first (3.9 and later).
    EntersSecond = 0,
    /// C code enters the frame in the first argument (3.8).
    EntersFirst = 1,
    /// The thread whose state is the argument goes on.
    OfThread = 2,
    /// The thread that has the interpreter's lock gives it away: until it goes on it runs no Python code.
    GivesLockAway = 3,
    /// The thread whose state is the argument runs no Python code any more.
    ThreadEnds = 4,
    /// The innermost frame of the thread that has the interpreter's lock is left by an exception (3.11 and later).
    Unwinds = 5,
    /// The thread that has the interpreter's lock copies a dictionary. This one and the next are for [`WitnessDensity::Sparse`].
    CopiesDictionary = 6,
    /// It calls a method of an object, from C code.
    CallsMethod = 7,
    /// It asks for a context variable: numpy does for each of its universal functions.
    AsksContext = 8,
}

/// Numbers of witnesses, see [`Witness`]. A power of two.
pub const WITNESS_PLACES: usize = 16;

/// Kinds of witnesses that may stay where not all are needed: a bit each in what a call has passed ([`Witness::sparse_kind`]).
pub const SPARSE_KINDS: usize = 4;

impl Witness {
    /// Its kind among those that may stay where not all are needed.
    #[must_use]
    pub const fn sparse_kind(self) -> Option<usize> {
        match self {
            Self::OfThread | Self::GivesLockAway => Some(0),
            Self::CopiesDictionary => Some(1),
            Self::CallsMethod => Some(2),
            Self::AsksContext => Some(3),
            Self::EntersSecond | Self::EntersFirst | Self::ThreadEnds | Self::Unwinds => None,
        }
    }
}

/// Which witnesses there are in a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum WitnessDensity {
    /// All calls through C code are among them: what C code enters is seen to begin.
    #[default]
    Dense = 0,
    /// The same, and it is counted by which of the others each call would have been seen.
    Counted = 1,
    /// Only others: any frame may have gone since the last one.
    Sparse = 2,
}

/// Probes passed: the value of the map of passed probes, by process slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProbesPassed {
    /// By the number of the [`Witness`]; all of one kind at 0 where there are none. At [`DEEP_FRAMES`]: witnesses with more frames than
    /// can be walked everywhere.
    pub by_place: [u64; WITNESS_PLACES],
}

/// In [`ProbesPassed::by_place`]: see there.
pub const DEEP_FRAMES: usize = WITNESS_PLACES - 1;

/// A thread with more frames may come to have more than can be walked at once.
pub const MANY_FRAMES: u32 = MAX_WALK as u32 - 32;

/// How many calls of a code object have passed which kinds of sparse witnesses: value of the map of witnessed calls, by the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WitnessedCalls {
    /// By the kinds that they have passed, a bit each; 0: none, such a call would not have been seen without the others.
    pub by_kinds: [u32; 1 << SPARSE_KINDS],
}

/// Which calls may begin at the witnesses of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum WitnessWindow {
    /// None: there are no witnesses.
    #[default]
    Closed = 0,
    /// All.
    Open = 1,
    /// Those that no call is around whose beginning was not seen: whole trees.
    OpenForWhole = 2,
    /// Those inside calls that are open: no tree begins any more.
    Closing = 3,
}

/// A frame that was there at the last witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ChainFrame {
    /// Its address.
    pub frame: u64,
    /// Its function object; for heap frames its code.
    pub identity: u64,
    /// Its instruction.
    pub instruction: u64,
    /// Its instruction when it was found.
    pub first_instruction: u64,
    /// Number of its call on its thread, 0 if it is none that is seen; or [`LEFT`].
    pub call: u64,
    /// Of a frame that C code has entered: the frame around it that is none, 0 if there is none or it was not met yet.
    pub around: u64,
    /// Place of the frame that C code has entered and that this one runs in.
    pub base: u32,
    /// 1 if a call of it may begin at this witness.
    pub is_new: u32,
}

/// A frame that is there at this witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WalkedFrame {
    /// Its address.
    pub frame: u64,
    /// As in [`ChainFrame`].
    pub identity: u64,
    /// Its instruction.
    pub instruction: u64,
    /// Its code.
    pub code: u64,
    /// 1 if C code has entered it.
    pub is_entry: u64,
}

/// The frames of one thread, or of one greenlet: the value of the map of chains, by the key of its stack of calls.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Chain {
    /// The key.
    pub key: u64,
    /// Address of the `PyThreadState`.
    pub python_thread: u64,
    /// The oldest piece of the data stack, see [`crate::thread_stack::ThreadStack::root_chunk`].
    pub root_chunk: u64,
    /// When the last witness was, 0 before the first.
    pub last_ns: u64,
    /// When this witness is.
    pub now_ns: u64,
    /// The time between the last witness and this one; 0 at the first.
    pub since_last_ns: u64,
    /// The native stack pointer at this witness.
    pub stack_pointer: u64,
    /// The frame that is being walked.
    pub walking: u64,
    /// The address of the block that has been read, 0 if there is none.
    pub block: u64,
    /// The frame that is none around the outermost frame that was walked, 0 if there is none.
    pub around: u64,
    /// The frame that is entered at this witness, 0 if none is.
    pub entering: u64,
    /// Its code, 0 if it has not been read.
    pub entering_code: u64,
    /// Slot of the process.
    pub process_slot: u32,
    /// 1 if calls may begin.
    pub accepts: u32,
    /// 1 if nothing of what is remembered runs any more.
    pub is_over: u32,
    /// Frames that are remembered.
    pub length: u32,
    /// Frames walked at this witness.
    pub walked: u32,
    /// Place of the outermost walked frame among those that are remembered.
    pub base: u32,
    /// Frames that are remembered and go on.
    pub kept: u32,
    /// Of the chain of a thread: the number of the greenlet that was seen last.
    pub greenlet: u32,
    /// The place, from 1, of the innermost frame that goes on and has repeated an instruction or gone back; 0 if none has.
    pub repeated: u32,
    /// Word at which the frame that is being walked begins.
    pub at: u32,
    /// Bytes of the block that has been read.
    pub block_bytes: u32,
    /// A [`WitnessWindow`].
    pub window: u32,
    /// The place, from 1, of the outermost frame of wanted code whose beginning was not seen; 0 if there is none. Kept only where whole
    /// trees are wanted.
    pub unseen: u32,
    /// A [`WitnessDensity`].
    pub density: u32,
    /// 1 if the last look was at a sparse witness: any frame may have gone since.
    pub was_sparse: u32,
    /// 1 if the thread has given the interpreter's lock away at the last witness.
    pub is_away: u32,
    /// Witnesses so far, where they are counted.
    pub hits: u32,
    /// Which of them was the last one of each kind, where they are counted; 0: none so far.
    pub passed_at: [u32; SPARSE_KINDS],
    /// Frames around the first invocation that was met again which are called from where they were; [`NOT_ASKED`] before one was met.
    pub standing: u32,
    /// What has been read.
    pub read: [u64; READ_WORDS],
    /// Frames at this witness, innermost first; only `walked` of them hold anything.
    pub walk: [WalkedFrame; MAX_WALK],
    /// Frames at the last witness, outermost first; only `length` of them hold anything.
    pub frames: [ChainFrame; MAX_CHAIN],
}

const _: () = {
    assert!(size_of::<ChainFrame>() == 56);
    assert!(size_of::<WalkedFrame>() == 40);
    assert!(size_of::<Chain>() == 184 + 8 * READ_WORDS + 40 * MAX_WALK + 56 * MAX_CHAIN);
    assert!(size_of::<ProbesPassed>() == 128 && size_of::<WitnessedCalls>() == 64);
    assert!(WITNESS_PLACES.is_power_of_two());
    assert!(MAX_CHAIN.is_power_of_two() && MAX_WALK.is_power_of_two());
    assert!((BLOCK_BYTES + HEADER_BYTES) as usize <= 8 * READ_WORDS && READ_WORDS.is_power_of_two());
};
