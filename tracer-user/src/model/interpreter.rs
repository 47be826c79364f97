//! Where a CPython interpreter can be probed so that every Python call is seen.

use std::fmt;

use serde::Serialize;

pub use tracer_common::chain::{
    DEEP_FRAMES, ProbesPassed, SPARSE_KINDS, Witness, WitnessDensity, WitnessWindow, WitnessedCalls,
};

use super::function::SkipReason;
use super::units::FileOffset;

/// Places in an interpreter's file that every call of a Python function passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterpreterSites {
    /// What passes them.
    pub style: InterpreterStyle,
    /// A call passes exactly one of these when it begins; a generator or coroutine each time it is resumed.
    pub entries: Vec<InterpreterSite>,
    /// A call that returns passes exactly one of these; one that is left by an exception passes none.
    pub returns: Vec<InterpreterSite>,
}

/// How an interpreter runs Python calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InterpreterStyle {
    /// Each call is a call of the C function `_PyEval_EvalFrameDefault` (3.8 to 3.10).
    WholeFrames,
    /// Most calls stay inside one call of that function; each runs an instruction that says so (3.11 and later).
    Opcodes,
}

/// A place in an interpreter's file that a part of all Python calls passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WitnessSite {
    /// The C function that it is in; at its entry, unless it is passed by exceptions only.
    pub function: String,
    /// Offset of the machine instruction in the file.
    pub offset: FileOffset,
    /// Whether the kernel emulates the instruction; otherwise each hit is single-stepped.
    pub emulated: bool,
    /// The machine instruction, for people.
    pub instruction: String,
    /// What passes it, as the programs number it.
    #[serde(skip)]
    pub witness: Witness,
}

impl WitnessSite {
    /// The same place as one at which something happens to the current frame.
    #[must_use]
    pub fn of_current_frame(&self) -> InterpreterSite {
        InterpreterSite {
            opcode: self.function.clone(),
            offset: self.offset,
            emulated: self.emulated,
            instruction: self.instruction.clone(),
            condition: None,
            frame: FramePlace::Current,
        }
    }
}

/// Kinds of sparse witnesses: a bit for each ([`Witness::sparse_kind`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SparseKinds(pub u8);

impl SparseKinds {
    /// Whether a witness is placed where only these are: those are that threads end and exceptions leave frames at, too.
    #[must_use]
    pub fn place(self, witness: Witness) -> bool {
        match (witness, witness.sparse_kind()) {
            (_, Some(kind)) => self.0 & 1 << kind != 0,
            (Witness::ThreadEnds | Witness::Unwinds, None) => true,
            (_, None) => false,
        }
    }
}

/// Where contexts (`contextvars.Context`) are made and freed. The kernel emulates each of the instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextSites {
    /// Each new context passes one of these, or several.
    pub made: Vec<ContextSite>,
    /// Each context passes this place before it is freed, as first argument of the function.
    pub freed: FileOffset,
}

/// A place that a new context passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContextSite {
    /// Offset of the machine instruction in the file.
    pub offset: FileOffset,
    /// The general register that the context is in, numbered as x86-64 instructions number them; it holds 0 where none is made.
    pub register: u8,
    /// Whether it is a copy of another one.
    pub is_copy: bool,
}

/// One place to probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterpreterSite {
    /// Instructions of the bytecode that it belongs to, e.g. `RESUME`; for whole frames the C function.
    pub opcode: String,
    /// Offset of the machine instruction in the file.
    pub offset: FileOffset,
    /// Whether the kernel emulates the instruction; otherwise each hit is single-stepped.
    pub emulated: bool,
    /// The machine instruction, for people.
    pub instruction: String,
    /// Low four bits of the x86 opcode of a condition: a hit counts only where it holds. Where it does not, the same call
    /// goes on to another site of the same kind.
    pub condition: Option<u8>,
    /// Where the frame of the call is found at a hit.
    pub frame: FramePlace,
}

/// Where the frame of a Python call is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FramePlace {
    /// In a general register, numbered as x86-64 instructions number them (0 `rax`, 1 `rcx`, 2 `rdx`, 3 `rbx`, 5 `rbp`,
    /// 6 `rsi`, 7 `rdi`, 8 `r8`). The thread state may name another frame as current.
    Register(u8),
    /// It is the current frame of the thread state.
    Current,
}

/// Why an interpreter cannot be probed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum NoInterpreterSites {
    /// Its version is not among those with known instruction numbers.
    UnknownVersion {
        /// Major and minor version.
        version: (u8, u8),
    },
    /// It has no table of instruction handlers with the numbers of its version.
    NoHandlerTable,
    /// Several tables look like the one of the instruction handlers.
    SeveralHandlerTables {
        /// How many.
        count: usize,
    },
    /// Each instruction handler is a function of its own (built with tail calls between them).
    SeparateHandlers,
    /// It has no function `_PyEval_EvalFrameDefault`.
    NoEvaluationFunction,
    /// It does not export the type of contexts.
    NoContextType,
    /// The code that makes or frees contexts is not understood.
    Contexts {
        /// What is wrong with it.
        problem: SkipReason,
    },
    /// The code of the interpreter loop is not understood.
    Code {
        /// What is wrong with it.
        problem: SkipReason,
    },
    /// In an instruction's handler there is no place that each of its executions passes once.
    NoPlace {
        /// The bytecode instruction.
        opcode: String,
    },
}

impl fmt::Display for NoInterpreterSites {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVersion { version: (major, minor) } => {
                write!(formatter, "the instruction numbers of CPython {major}.{minor} are not known")
            }
            Self::NoHandlerTable => {
                write!(formatter, "no table of instruction handlers was found (built without computed gotos?)")
            }
            Self::SeveralHandlerTables { count } => {
                write!(formatter, "{count} tables look like the one of the instruction handlers")
            }
            Self::SeparateHandlers => {
                write!(formatter, "each instruction handler is a function of its own (built with tail calls)")
            }
            Self::NoEvaluationFunction => write!(formatter, "the function _PyEval_EvalFrameDefault was not found"),
            Self::Contexts { problem } => {
                write!(formatter, "the functions that make and free contexts are not understood: {problem}")
            }
            Self::NoContextType => write!(formatter, "PyContext_Type was not found"),
            Self::Code { problem } => write!(formatter, "the interpreter loop is not understood: {problem}"),
            Self::NoPlace { opcode } => {
                write!(formatter, "the handler of {opcode} has no place that each execution passes once")
            }
        }
    }
}
