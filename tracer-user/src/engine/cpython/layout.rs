//! Where the structures of one CPython version keep what is read: the data files of `symbols/cpython`.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use tracer_common::python::{EntryMark, FrameStyle};

use super::error::InterpreterError;

/// The data files, oldest version first.
const FILES: &[(&str, &str)] = &[
    ("3.8", include_str!("../../../../symbols/cpython/3.8.yaml")),
    ("3.9", include_str!("../../../../symbols/cpython/3.9.yaml")),
    ("3.10", include_str!("../../../../symbols/cpython/3.10.yaml")),
    ("3.11", include_str!("../../../../symbols/cpython/3.11.yaml")),
    ("3.12", include_str!("../../../../symbols/cpython/3.12.yaml")),
    ("3.13", include_str!("../../../../symbols/cpython/3.13.yaml")),
    ("3.14", include_str!("../../../../symbols/cpython/3.14.yaml")),
    ("3.15", include_str!("../../../../symbols/cpython/3.15.yaml")),
];

/// Those that have been read.
static READ: [OnceLock<Layout>; FILES.len()] = [const { OnceLock::new() }; FILES.len()];

/// Offset in a structure, bytes.
type Offset = u32;

/// One data file. The names of the fields say what is there; the files say how CPython calls it and how it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    schema: Schema,
    version: String,
    pub(super) runtime: Runtime,
    pub(super) interpreter: InterpreterState,
    pub(super) thread: ThreadState,
    pub(super) frame: Frame,
    pub(super) object: Object,
    #[serde(rename = "type")]
    pub(super) class: Type,
    pub(super) text: Text,
    pub(super) bytes: Bytes,
    pub(super) tuple: Items,
    pub(super) list: Items,
    pub(super) dictionary: Dictionary,
    pub(super) keys: Keys,
    pub(super) attributes: Attributes,
    pub(super) function: Function,
    pub(super) method: Method,
    pub(super) cell: Cell,
    pub(super) code: Code,
    pub(super) property: Callable,
    pub(super) static_method: Callable,
    pub(super) class_method: Callable,
    pub(super) partial: Callable,
    pub(super) module: Module,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) debug_offsets: Option<DebugOffsets>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Schema {
    #[serde(rename = "ml-tracer/cpython/v2")]
    Second,
}

/// `_PyRuntimeState`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Runtime {
    pub interpreters_head: Offset,
    /// To 3.11.
    #[serde(default)]
    pub tstate_current: Option<Offset>,
}

/// `PyInterpreterState`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InterpreterState {
    pub next: Offset,
    pub threads_head: Offset,
    pub modules: Offset,
    /// From 3.12.
    #[serde(default)]
    pub ceval_gil: Option<Offset>,
    /// From 3.12: in the structure that `gil` points to.
    #[serde(default)]
    pub last_holder: Option<Offset>,
}

/// `PyThreadState`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ThreadState {
    pub next: Offset,
    pub interp: Offset,
    pub thread_id: Offset,
    /// From 3.11.
    #[serde(default)]
    pub native_thread_id: Option<Offset>,
    pub context: Offset,
    /// In a context (`PyContext`).
    pub ctx_entered: Offset,
    pub frame: Offset,
    /// 3.11 and 3.12: in the structure that `frame` points to.
    #[serde(default)]
    pub cframe_current_frame: Option<Offset>,
    /// From 3.11.
    #[serde(default)]
    pub datastack_top: Option<Offset>,
    /// From 3.11: the newest piece of the data stack.
    #[serde(default)]
    pub datastack_chunk: Option<Offset>,
    /// From 3.11: in such a piece.
    #[serde(default)]
    pub chunk_size: Option<Offset>,
    pub exception: Offset,
    pub exception_is_type: bool,
    /// Beside the type of the exception, or in the exception.
    pub exception_traceback: Offset,
    /// In a traceback.
    pub tb_frame: Offset,
}

/// `PyFrameObject` to 3.10, `_PyInterpreterFrame` from 3.11.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Frame {
    pub style: Style,
    pub previous: Offset,
    pub code: Offset,
    /// From 3.11.
    #[serde(default)]
    pub function: Option<Offset>,
    pub localsplus: Offset,
    /// To 3.10.
    #[serde(default)]
    pub f_valuestack: Option<Offset>,
    /// To 3.10.
    #[serde(default)]
    pub f_lasti: Option<Offset>,
    pub exits_are_prompt: bool,
    /// From 3.11: the pointer to the current instruction.
    #[serde(default)]
    pub instruction: Option<Offset>,
    /// From 3.11: how a frame tells that C code has entered it.
    #[serde(default)]
    pub entry: Option<EntryByte>,
    /// In the frame object (`PyFrameObject`): the frame. Heap frames are their own objects.
    #[serde(default)]
    pub f_frame: Option<Offset>,
    /// Bits of a reference that are the pointer; all where references are pointers.
    #[serde(default = "all_bits")]
    pub pointer_mask: u64,
}

fn all_bits() -> u64 {
    u64::MAX
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Style {
    Heap,
    DataStackByCframe,
    DataStack,
}

/// The byte of a frame that tells which ones C code has entered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EntryByte {
    /// 3.11: 1 in the frame that C code has entered.
    Flag(Offset),
    /// From 3.12: the owner of a frame; around the one that C code has entered stands one that the C stack owns.
    Owner(Offset),
}

impl EntryByte {
    /// Where it is.
    pub fn offset(self) -> Offset {
        match self {
            Self::Flag(offset) | Self::Owner(offset) => offset,
        }
    }

    /// How the programs call it.
    pub fn mark(self) -> EntryMark {
        match self {
            Self::Flag(_) => EntryMark::Flag,
            Self::Owner(_) => EntryMark::FrameAround,
        }
    }
}

/// `PyObject`, `PyVarObject`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Object {
    pub ob_type: Offset,
    pub ob_size: Offset,
}

/// `PyTypeObject`, `PyHeapTypeObject`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Type {
    pub tp_name: Offset,
    pub tp_basicsize: Offset,
    pub tp_itemsize: Offset,
    pub tp_flags: Offset,
    pub tp_dict: Offset,
    pub tp_dictoffset: Offset,
    pub tp_mro: Offset,
    pub ht_name: Offset,
    pub ht_qualname: Offset,
    pub ht_cached_keys: Offset,
}

/// `PyASCIIObject`, `PyCompactUnicodeObject`, `PyUnicodeObject`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Text {
    pub length: Offset,
    pub state: Offset,
    pub ascii_data: Offset,
    pub compact_data: Offset,
    pub separate_data: Offset,
    pub has_ready_bit: bool,
}

/// `PyBytesObject`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bytes {
    pub ob_sval: Offset,
}

/// `PyTupleObject`, `PyListObject`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Items {
    pub ob_item: Offset,
}

/// `PyDictObject` and `PyDictValues`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dictionary {
    pub ma_used: Offset,
    pub ma_keys: Offset,
    pub ma_values: Offset,
    pub values_items: Offset,
    /// From 3.13.
    #[serde(default)]
    pub values_valid: Option<Offset>,
}

/// `PyDictKeysObject`: either `size` (to 3.10), or the three after it (from 3.11).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    #[serde(default)]
    pub dk_size: Option<Offset>,
    #[serde(default)]
    pub dk_log2_size: Option<Offset>,
    #[serde(default)]
    pub dk_log2_index_bytes: Option<Offset>,
    #[serde(default)]
    pub dk_kind: Option<Offset>,
    pub dk_nentries: Offset,
    pub dk_indices: Offset,
}

/// Where instances keep attributes, beside `tp_dictoffset`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "snake_case")]
pub(super) enum Attributes {
    /// To 3.10: nowhere else.
    Dictionary,
    /// 3.11: a pointer to values and one to a dictionary before the object.
    ValuesPointer { values: i32, managed_dictionary: i32 },
    /// 3.12: one pointer before the object, tagged for values.
    TaggedPointer { managed_dictionary: i32 },
    /// From 3.13: values at the end of the object, and a pointer to a dictionary before it.
    InlineValues { managed_dictionary: i32 },
}

/// `PyFunctionObject`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Function {
    pub func_code: Offset,
    pub func_globals: Offset,
    pub func_closure: Offset,
    pub func_name: Offset,
    pub func_qualname: Offset,
    pub func_dict: Offset,
    pub func_module: Offset,
}

/// `PyMethodObject`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Method {
    pub im_func: Offset,
    pub im_self: Offset,
}

/// `PyCellObject`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cell {
    pub ob_ref: Offset,
}

/// `PyCodeObject`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Code {
    pub co_argcount: Offset,
    pub co_kwonlyargcount: Offset,
    pub co_flags: Offset,
    pub co_stacksize: Offset,
    pub co_firstlineno: Offset,
    pub co_name: Offset,
    pub co_filename: Offset,
    /// From 3.11.
    #[serde(default)]
    pub co_qualname: Option<Offset>,
    pub slots: Slots,
    /// From 3.11: its instructions.
    #[serde(default)]
    pub co_code_adaptive: Option<Offset>,
    /// From 3.11.
    #[serde(default)]
    pub frame_size: Option<FrameSize>,
}

/// What the slots of a frame are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Slots {
    /// To 3.10: local variables, then cells, then free variables.
    Separate { co_nlocals: Offset, co_varnames: Offset, co_cellvars: Offset, co_freevars: Offset, co_cell2arg: Offset },
    /// From 3.11: one list of names, and a byte for each that says its kind.
    Unified { co_nlocalsplus: Offset, co_localsplusnames: Offset, co_localspluskinds: Offset },
}

/// How many words a frame takes on the data stack.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FrameSize {
    /// Slots, value stack and this many words (3.11).
    BeyondSlotsAndStack(u32),
    /// The code says it (from 3.12).
    Field(Offset),
}

/// Something that holds one callable: `property`, `staticmethod`, `classmethod`, `functools.partial`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Callable {
    pub callable: Offset,
}

/// `PyModuleObject`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Module {
    pub md_dict: Offset,
}

/// Where `_Py_DebugOffsets` tells the offsets above.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DebugOffsets {
    pub free_threaded: Offset,
    /// Path of a field of the layout -> position of its offset.
    pub fields: std::collections::BTreeMap<String, Offset>,
}

impl Layout {
    /// The layout of `3.minor`, from its data file.
    ///
    /// # Errors
    /// There is none.
    pub fn of_version(major: u8, minor: u8) -> Result<Self, InterpreterError> {
        let version = format!("{major}.{minor}");
        // Reading one takes about as long as finding an interpreter with it.
        let known = FILES.iter().zip(&READ).find(|((name, _), _)| *name == version);
        let ((_, text), read) = known.ok_or(InterpreterError::UnknownVersion { version })?;
        Ok(read.get_or_init(|| serde_saphyr::from_str(text).expect("a unit test parses every data file")).clone())
    }

    /// Version as `3.11`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// All versions that there are data files for, newest first.
    pub(super) fn versions() -> impl Iterator<Item = (u8, u8)> {
        FILES.iter().rev().filter_map(|(name, _)| {
            let (major, minor) = name.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        })
    }
}

impl Style {
    /// As the programs number it.
    pub fn number(self) -> u32 {
        (match self {
            Self::Heap => FrameStyle::Heap,
            Self::DataStackByCframe => FrameStyle::DataStackByCFrame,
            Self::DataStack => FrameStyle::DataStack,
        }) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_data_file_is_read_and_is_of_its_version() {
        for (major, minor) in Layout::versions() {
            let layout = Layout::of_version(major, minor).expect("there is a file");
            assert_eq!(layout.version(), format!("{major}.{minor}"));
            assert_eq!(layout.debug_offsets.is_some(), minor >= 13);
            let heap = layout.frame.style == Style::Heap;
            assert_eq!(heap, layout.frame.f_valuestack.is_some() && layout.frame.f_lasti.is_some());
            assert_eq!(heap, layout.frame.f_frame.is_none());
            assert_eq!(heap, layout.frame.instruction.is_none() && layout.frame.entry.is_none());
            assert_eq!(heap, layout.frame.function.is_none() && layout.thread.datastack_top.is_none());
            assert_eq!(heap, layout.thread.datastack_chunk.is_none() && layout.thread.chunk_size.is_none());
            assert_eq!(heap, layout.code.co_code_adaptive.is_none());
            assert_eq!(heap, layout.code.frame_size.is_none() && matches!(layout.code.slots, Slots::Separate { .. }));
            assert_eq!(layout.keys.dk_size.is_some(), layout.keys.dk_kind.is_none());
            assert_eq!(layout.runtime.tstate_current.is_none(), layout.interpreter.last_holder.is_some());
        }
        assert_eq!(Layout::versions().count(), 8);
    }

    #[test]
    fn other_versions_are_refused() {
        for (major, minor) in [(2, 7), (3, 7), (3, 16), (4, 0)] {
            let error = Layout::of_version(major, minor).expect_err("there is no file");
            assert!(error.to_string().contains(&format!("{major}.{minor}")), "{error}");
        }
    }
}
