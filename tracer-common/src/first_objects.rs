//! How the programs tell the first object of a class that is asked for.

/// Bytes of a class's name that are compared, the 0 at its end among them; what is longer is cut off.
pub const CLASS_NAME_BYTES: usize = 32;

/// Names that may be asked for.
pub const MAX_CLASS_NAMES: u32 = 1 << 10;

/// Classes of all processes that are told apart. An application with all its libraries has some ten thousand.
pub const MAX_CLASSES: u32 = 1 << 16;

/// Bases of a class that are looked at, itself among them.
pub const MAX_BASES: u64 = 24;

/// Offsets of `tp_name` and `tp_mro` in a `PyTypeObject` (Include/cpython/object.h, the same from CPython 3.8 to 3.14, unless it is built
/// without the global interpreter lock).
pub const NAME: u64 = 24;
/// See [`NAME`].
pub const MRO: u64 = 344;

/// Offsets of the number of items and of the items in a `PyTupleObject` (Include/cpython/tupleobject.h; from CPython 3.14 on
/// `ob_hash` stands before the items).
pub const ITEM_COUNT: u64 = 16;
/// See [`ITEM_COUNT`].
pub const ITEMS: u64 = 24;

/// `SIGSTOP` (include/uapi/asm-generic/signal.h, Linux 6.18).
pub const STOP: u32 = 19;
