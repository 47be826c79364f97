//! What the programs must know to read a CPython interpreter: offsets, the watched code, its functions and classes.
//!
//! Every offset is in bytes and comes from user space, which takes it from `symbols/cpython` or from the interpreter's
//! own `_Py_DebugOffsets`. The programs know no version.

use crate::records::Join;

/// How an interpreter keeps its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FrameStyle {
    /// `PyFrameObject` on the heap, linked from `PyThreadState.frame` (3.8 to 3.10).
    Heap = 0,
    /// `_PyInterpreterFrame` on the thread's data stack, found through `PyThreadState.cframe` (3.11, 3.12).
    DataStackByCFrame = 1,
    /// The same, found through `PyThreadState.current_frame` (3.13 and later).
    DataStack = 2,
}

/// Offsets of one interpreter: the value of the layout map, by process slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PythonLayout {
    /// Address of the word that holds the `PyThreadState` of the thread that runs Python code now.
    pub current_thread: u64,
    /// ANDed with what a frame holds to get a pointer: tagged references (3.14) carry flags in their low bits.
    pub pointer_mask: u64,
    /// A [`FrameStyle`].
    pub style: u32,
    /// 1 if the end of a call always drops the frame's reference to its code at once (3.12 and later); 0 if a frame that
    /// a traceback holds keeps it (3.11 and before).
    pub exits_are_prompt: u32,
    /// In `PyThreadState`: `frame` (heap), `cframe` or `current_frame`.
    pub thread_frame: u32,
    /// In `_PyCFrame`: `current_frame`.
    pub cframe_frame: u32,
    /// In `PyThreadState`: `datastack_top`.
    pub thread_datastack_top: u32,
    /// In `PyThreadState`: `datastack_chunk`, the newest piece of the data stack.
    pub thread_datastack_chunk: u32,
    /// In such a piece (`_PyStackChunk`): its size in bytes. It begins with a pointer to the piece before it.
    pub chunk_size: u32,
    /// In a code: the words that its frames take on the data stack; 0 if it does not say.
    pub code_frame_words: u32,
    /// Where it does not: the slots of a frame, the depth of its value stack, and the words beyond both.
    pub code_slots: u32,
    /// As above.
    pub code_stack_depth: u32,
    /// As above.
    pub frame_words_beyond: u32,
    /// In `PyThreadState`: the exception being raised: its type (`curexc_type`, to 3.11) or the exception itself
    /// (`current_exception`).
    pub thread_exception: u32,
    /// 1 if `thread_exception` is the type.
    pub exception_is_type: u32,
    /// In a frame: its code.
    pub frame_code: u32,
    /// In a frame: its function object (not in heap frames).
    pub frame_function: u32,
    /// In a frame: the frame that called it.
    pub frame_previous: u32,
    /// In a frame: its first local variable.
    pub frame_locals: u32,
    /// In a frame object: the frame (not for heap frames, which are their own objects).
    pub frame_object_frame: u32,
    /// 1 if exceptions are seen passing through frames: a call that was left without one was left by none.
    pub exceptions_are_seen: u32,
    /// In a heap frame: where its value stack begins (a pointer).
    pub frame_value_stack: u32,
    /// In a heap frame: the last instruction, 32 bits.
    pub frame_last_instruction: u32,
    /// In an object: its type.
    pub object_type: u32,
    /// In a function: its code.
    pub function_code: u32,
    /// In a bound method: the function; the object follows.
    pub method_function: u32,
    /// In a cell: its content.
    pub cell_content: u32,
    /// In a tuple: its first item.
    pub tuple_items: u32,
    /// The traceback of the exception being raised: in `PyThreadState` if `exception_is_type`, else in the exception.
    pub exception_traceback: u32,
    /// In a traceback: the frame object.
    pub traceback_frame: u32,
    /// Address of `PyTuple_Type`.
    pub tuple_type: u64,
    /// Address of `PyFunction_Type`.
    pub function_type: u64,
    /// In a frame on a data stack: the pointer to its current instruction.
    pub frame_instruction: u32,
    /// In a frame on a data stack: the byte that tells frames that C code has entered, see [`EntryMark`].
    pub frame_entry: u32,
    /// An [`EntryMark`].
    pub entry_mark: u32,
    /// 1 if calls are seen at witnesses, so that a frame that is not seen any more has ended.
    pub witnesses: u32,
    /// In a code: its instructions (not for heap frames).
    pub code_instructions: u32,
    /// In `PyThreadState`: `context`; 0 where contexts are not asked for.
    pub thread_context: u32,
    /// In a context (`PyContext`): `ctx_entered`, 32 bits.
    pub context_entered: u32,
    /// In `PyThreadState`: `thread_id`, the thread pointer.
    pub thread_pointer: u32,
    /// In `PyThreadState`: `next`.
    pub thread_next: u32,
    /// Always 0.
    pub reserved: u32,
    /// Address of the word that holds the first `PyThreadState` of the main interpreter.
    pub threads: u64,
    /// Address of `PyCell_Type`, 0 if not known.
    pub cell_type: u64,
    /// Address of the type of numpy's arrays, 0 if not known.
    pub array_type: u64,
}

/// Where objects keep their attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AttributeForm {
    /// In a dictionary, whose place in the object the type tells (to 3.10).
    Dictionary = 0,
    /// Before the object: a pointer to values, and one to a dictionary (3.11).
    ValuesPointer = 1,
    /// Before the object: one pointer, whose lowest bit is set for values (3.12).
    TaggedPointer = 2,
    /// At the end of the object, or in a dictionary to which a pointer before the object leads (from 3.13).
    InlineValues = 3,
}

/// How the current span of OpenTelemetry's SDK is read in one interpreter: the value of the map of current spans, by process slot.
/// Offsets are in bytes; user space takes them from `symbols/cpython`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CurrentSpanLayout {
    /// Address of the context variable that holds the SDK's context; 0: there is no SDK.
    pub variable: u64,
    /// Address of the key of the current span in that.
    pub span_key: u64,
    /// Address of `SpanKind.SERVER`, 0 if not known.
    pub server_kind: u64,
    /// Addresses of the names of attributes of a span: `_context`, `_kind`, `_parent` and `_start_time`; 0 if not known.
    pub context_name: u64,
    /// See above.
    pub kind_name: u64,
    /// See above.
    pub parent_name: u64,
    /// See above.
    pub start_name: u64,
    /// Hash of the variable, folded to 32 bits as mappings of contexts do it (`hamt_hash`, Python/hamt.c, CPython 3.8 to 3.15).
    pub hash: u32,
    /// In `PyThreadState`: `context`.
    pub thread_context: u32,
    /// In a dictionary: its keys, and its values if they lie apart.
    pub dictionary_keys: u32,
    /// See above.
    pub dictionary_values: u32,
    /// In the values of a dictionary or object: the first one; and the byte that is 0 if they do not count.
    pub values_items: u32,
    /// See above.
    pub values_valid: u32,
    /// In a table of keys: how many entries it has, where its indices begin, and how many bytes they take: the byte with the logarithm
    /// (from 3.11), or where their number stands (to 3.10).
    pub keys_entries: u32,
    /// See above.
    pub keys_indices: u32,
    /// See above; 0 to 3.10.
    pub keys_log2_index_bytes: u32,
    /// See above; 0 from 3.11.
    pub keys_size: u32,
    /// In a table of keys: the byte that is 0 where entries begin with a hash (from 3.11).
    pub keys_kind: u32,
    /// An [`AttributeForm`].
    pub attribute_form: u32,
    /// Before an object: its values, and its dictionary: bytes back from it.
    pub values_before: u32,
    /// See above.
    pub dictionary_before: u32,
    /// In a type: its name, the size of its objects, its flags, where the dictionary is in them, and the keys of their attributes.
    pub type_name: u32,
    /// See above.
    pub type_basic_size: u32,
    /// See above.
    pub type_flags: u32,
    /// See above.
    pub type_dictionary_offset: u32,
    /// See above.
    pub type_cached_keys: u32,
    /// In an object: its type.
    pub object_type: u32,
    /// In a tuple: its first item.
    pub tuple_items: u32,
    /// What the word before an integer's digits is shifted by to give how many there are.
    pub digits_shift: u32,
}

/// How a frame tells that C code has entered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EntryMark {
    /// Each is entered by C code (3.8 to 3.10).
    Always = 0,
    /// Its own byte is not 0 (3.11).
    Flag = 1,
    /// A frame that is none stands around it, whose byte is [`FIRST_OWNER_IN_C`] or more (3.12 and later).
    FrameAround = 2,
}

/// The owner of frames that are none: `FRAME_OWNED_BY_CSTACK` (3.12, 3.13), `FRAME_OWNED_BY_INTERPRETER` (3.14), and what comes
/// after it (`enum _frameowner`, Include/internal/pycore_frame.h, in 3.14 pycore_interpframe_structs.h).
pub const FIRST_OWNER_IN_C: u64 = 3;

/// Words of the map of the bits that code objects have which may be wanted, by process slot.
pub const WANTED_WORDS: usize = 256;

/// The bit of a code object in that map, which has a power of two of them: objects lie at multiples of 16.
#[must_use]
#[inline(always)]
pub const fn wanted_bit(code: u64) -> u64 {
    (code >> 4 ^ code >> 18) & (64 * WANTED_WORDS as u64 - 1)
}

/// Bits of the code objects of a process that may be wanted: value of the map of wanted code, by process slot. Looking into the
/// table of code for each frame would be dear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PythonWanted {
    /// See [`wanted_bit`].
    pub bits: [u64; WANTED_WORDS],
}

/// Loops of one code object that are told apart; of more than that, some count as one.
pub const MAX_LOOPS: usize = 8;

/// The parts of a code object's instructions that may run more than once in one call: value of the map of loops, by the address
/// of the code. What is in none of them runs once at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PythonLoops {
    /// How many there are.
    pub count: u32,
    /// Always 0.
    pub reserved: u32,
    /// Where each begins, and where it ends, the last offset not included: bytes from the first instruction.
    pub loops: [[u32; 2]; MAX_LOOPS],
}

/// Where the receiver (`self`) of a call is among the local variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Receiver {
    /// There is none, or it is not known where.
    None = 0,
    /// The local variable itself.
    Local = 1,
    /// In a cell that the local variable holds: a closure inside the function uses it.
    Cell = 2,
    /// First item of the tuple that the local variable holds (`*args`).
    FirstOfTuple = 3,
}

/// Instructions of an interpreter that take a reference to the code of a frame that they push, as learned: value of the map
/// of push sites, by process slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PythonPushSites {
    /// Their addresses; 0: free.
    pub instructions: [u64; 8],
}

/// Key of the Python maps: an address in one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct PythonKey {
    /// An address.
    pub address: u64,
    /// Process id in the initial pid namespace.
    pub process: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A code object whose calls are seen: value of the code map, by its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PythonCodeRule {
    /// Slot of the process.
    pub process_slot: u32,
    /// Bytes that a frame takes on the data stack (not for heap frames).
    pub frame_bytes: u32,
    /// Offset of the local variable of the receiver from the first one, in bytes.
    pub receiver_offset: u32,
    /// A [`Receiver`].
    pub receiver: u32,
    /// Number of the function if only one runs this code, else [`NO_FUNCTION`].
    pub only_function: u32,
    /// 1 if the only function is of a class with listed children, see [`PythonFunctionRule::of_container`].
    pub of_container: u32,
    /// Where the argument after the receiver is: a [`Receiver`].
    pub argument: u32,
    /// Offset of its local variable from the first one, in bytes.
    pub argument_offset: u32,
    /// It is there as long as no instruction from this offset in bytes on has run.
    pub argument_until: u32,
    /// Always 0.
    pub reserved: u32,
}

/// "Several functions run this code": the function object tells which.
pub const NO_FUNCTION: u32 = u32::MAX;

/// What is counted of a watched code object: value of the count map, by its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PythonCount {
    /// Its reference count when it was last seen.
    pub references: u64,
    /// Calls of functions that a map asks for, whether they were recorded or not.
    pub calls: u64,
    /// Those of them that made no span because they were folded into a call around them, or are of an excluded class.
    pub folded: u64,
}

/// Debug registers of an x86-64 processor: as much code can be watched at one time.
pub const DEBUG_REGISTERS: usize = 4;

/// The code that is watched in a process: value of the map of watched code, by the number of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PythonWatched {
    /// Addresses of the code objects; 0: free.
    pub codes: [u64; DEBUG_REGISTERS],
}

/// A function object that runs watched code: value of the function map, by its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PythonFunctionRule {
    /// Its number, or [`NO_FUNCTION`] if no map asks for it: its calls are as if they were not there.
    pub function: u32,
    /// 1 if it is found on a class whose instances list their children.
    pub of_container: u32,
    /// Address of its code.
    pub code: u64,
}

/// What is known of a class: value of the class map, by its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PythonClassRule {
    /// 1 if matching calls inside its calls become spans of their own.
    pub nests: u32,
    /// 1 if the map excludes it: its calls are as if they were not there.
    pub excluded: u32,
    /// 1 if its instances list their children.
    pub is_container: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Open calls on a container, as calls of other threads on its children look for them: value of the map of open
/// containers, by the address of the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct OpenContainer {
    /// Where calls of other threads hang: the call that began last, and the trace that it is part of; empty if it has ended.
    pub join: Join,
    /// Calls that are open.
    pub calls: u32,
    /// 1 once calls of two threads were open at the same time: which of them a child belongs to is not known.
    pub is_contested: u32,
}

/// A call of a container's method that has begun on a thread and whose receiver has not been read yet: a slot of the
/// array of waiting containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WaitingContainer {
    /// Process, 0 for a free slot.
    pub process: u32,
    /// Slot of the process.
    pub process_slot: u32,
    /// The Python frame.
    pub frame: u64,
    /// Its code.
    pub code: u64,
    /// A [`Receiver`].
    pub receiver: u32,
    /// Offset of the receiver's variable.
    pub receiver_offset: u32,
    /// As in [`OpenContainer`].
    pub join: Join,
}

/// Slots of the array of waiting containers. A power of two: a thread begins to look for a free one at its number masked.
pub const WAITING_CONTAINERS: u32 = 64;

const _: () = {
    assert!(size_of::<PythonLayout>() == 2 * 8 + 28 * 4 + 2 * 8 + 10 * 4 + 3 * 8);
    assert!(size_of::<CurrentSpanLayout>() == 7 * 8 + 22 * 4);
    assert!(size_of::<PythonLoops>() == 8 + 8 * MAX_LOOPS);
    assert!(size_of::<PythonWanted>() == 8 * WANTED_WORDS);
    assert!(WANTED_WORDS.is_power_of_two());
    assert!(size_of::<PythonKey>() == 16);
    assert!(size_of::<PythonCodeRule>() == 40);
    assert!(size_of::<PythonCount>() == 24);
    assert!(size_of::<PythonWatched>() == 32);
    assert!(size_of::<PythonFunctionRule>() == 16);
    assert!(size_of::<PythonClassRule>() == 16);
    assert!(size_of::<OpenContainer>() == 48);
    assert!(size_of::<WaitingContainer>() == 72);
    assert!(WAITING_CONTAINERS.is_power_of_two());
};
