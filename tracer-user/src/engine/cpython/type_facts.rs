//! What is needed of a type to read its instances.

/// Bits of `tp_flags`, the same in CPython 3.8 to 3.15 where they exist (Include/object.h, `Py_TPFLAGS_*`).
pub(super) mod flag {
    /// `INLINE_VALUES`, from 3.13: the values of attributes follow the object.
    pub const INLINE_VALUES: u64 = 1 << 2;
    /// `MANAGED_DICT`, from 3.11: a pointer to the attributes precedes the object.
    pub const MANAGED_DICTIONARY: u64 = 1 << 4;
    /// `HEAPTYPE`: made at run time, by a class statement or `PyType_FromSpec`.
    pub const HEAP_TYPE: u64 = 1 << 9;
    /// `READY`: the type is complete.
    pub const READY: u64 = 1 << 12;
    /// `LONG_SUBCLASS`.
    pub const INTEGER: u64 = 1 << 24;
    /// `LIST_SUBCLASS`.
    pub const LIST: u64 = 1 << 25;
    /// `TUPLE_SUBCLASS`.
    pub const TUPLE: u64 = 1 << 26;
    /// `BYTES_SUBCLASS`.
    pub const BYTES: u64 = 1 << 27;
    /// `UNICODE_SUBCLASS`.
    pub const TEXT: u64 = 1 << 28;
    /// `DICT_SUBCLASS`.
    pub const DICTIONARY: u64 = 1 << 29;
    /// `TYPE_SUBCLASS`: its instances are types.
    pub const TYPE: u64 = 1 << 31;
}

/// What is needed of a type to read its instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypeFacts {
    pub flags: u64,
    pub basic_size: u64,
    pub item_size: u64,
    /// `tp_dictoffset`, which may be negative.
    pub dictionary_offset: i64,
}

impl TypeFacts {
    pub fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}
