//! A function that the symbol room has found: where it begins, how it is left, and why it may not be probed.

use std::fmt;

use serde::Serialize;
pub use tracer_common::cookie::ObjectLocation;

use super::language::Language;
use super::units::{FileOffset, VirtualAddress};

/// The names of a function.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct FunctionName {
    /// Symbol as the file has it.
    pub symbol: String,
    /// Demangled path without parameters and return type, e.g. `ml::Pipeline::predict`.
    pub path: String,
    /// Last component of the path before the method, template arguments removed, e.g. `Pipeline`; `None` for a free
    /// function.
    pub class: Option<String>,
    /// Path of the class with namespaces, template arguments removed, e.g. `ml::Pipeline`.
    pub class_path: Option<String>,
    /// Last component, template arguments removed, e.g. `predict`.
    pub method: String,
    /// Language that the symbol was mangled by.
    pub language: Language,
}

/// A function with everything that a probe needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedFunction {
    /// Its names; further symbols at the same address are in `aliases`.
    pub name: FunctionName,
    /// Other symbols at the same address (identical code folding, C1/C2 constructors).
    pub aliases: Vec<String>,
    /// Address of its first instruction in the file's own terms.
    pub address: VirtualAddress,
    /// Bytes of code.
    pub size: u64,
    /// Where the entry probe goes.
    pub entry: EntrySite,
    /// How the return is seen.
    pub returns: ReturnMethod,
    /// Where the object of a call is, as far as it is proved.
    pub object: ObjectLocation,
}

/// Where an entry probe goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntrySite {
    /// Offset of the instruction in the file.
    pub offset: FileOffset,
    /// Bytes the stack pointer is below its value at the first instruction; a multiple of 8.
    pub stack_delta: u16,
    /// Whether the kernel emulates the instruction; otherwise each hit is single-stepped.
    pub emulated: bool,
    /// The instruction, for people.
    pub instruction: String,
}

/// How the return of a function is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReturnMethod {
    /// A probe at every instruction that leaves the function. Safe under exceptions.
    ReturnSites {
        /// The instructions.
        sites: Vec<ReturnSite>,
    },
    /// The kernel's return trampoline, because no unwinding can pass the function. Placed at the entry site.
    Uretprobe {
        /// Why that is known.
        proof: UnwindProof,
        /// The instructions that leave the function, for kernels whose trampoline is not safe to use.
        sites: Vec<ReturnSite>,
    },
}

/// One instruction that leaves a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ReturnSite {
    /// Offset of the instruction in the file.
    pub offset: FileOffset,
    /// For a conditional jump out of the function: the low four bits of its x86 opcode.
    pub condition: Option<u8>,
    /// Whether it is a jump to another function rather than a return.
    pub tail_jump: bool,
}

/// Why no exception, thread cancellation or `pthread_exit` can unwind through a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnwindProof {
    /// It calls nothing and makes no system call.
    CallsNothing,
    /// Everything that it calls, all within its own file and without cycles, calls nothing else.
    CallsOnlyProven,
}

/// A candidate that is not probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The candidate.
    pub name: FunctionName,
    /// File that holds it, as the process names it.
    pub module: String,
    /// Why not.
    pub reason: SkipReason,
}

/// Why a candidate is not probed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum SkipReason {
    /// Its address is chosen at load time by a resolver function.
    IndirectFunction,
    /// The symbol has no code (size 0 and no unwind entry, or outside every executable segment).
    NoCode,
    /// No instruction that leaves the function was found.
    NoReturnSite,
    /// Bytes in the function do not decode as instructions.
    Undecodable {
        /// Where.
        address: VirtualAddress,
    },
    /// An indirect jump may leave the function or stay inside it.
    AmbiguousJump {
        /// Where.
        address: VirtualAddress,
    },
    /// Entry and exit are the same instruction: the function only jumps to another.
    JumpThunk,
    /// The kernel refuses probes on an instruction that had to be probed.
    ForbiddenInstruction {
        /// Where.
        address: VirtualAddress,
    },
    /// A jump inside leads back to its first instruction: turns of a loop could not be told from calls.
    LoopsToEntry {
        /// The jump.
        address: VirtualAddress,
    },
    /// It is the rest of a function whose beginning was copied into its callers; the whole function is in the file too,
    /// and counts each call once.
    PartOf {
        /// Symbol of the whole function.
        symbol: String,
    },
    /// It makes a coroutine or a future, and what its name promises is done later, piece by piece, where that is resumed or
    /// polled.
    MakesCoroutine,
    /// The symbol holds a word that was asked for, but its mangled name cannot be understood.
    NameNotUnderstood,
    /// Its calls cannot be told apart by thread and stack, because its runtime moves both while they run.
    MovingStack {
        /// Which runtime.
        runtime: String,
    },
    /// The file was compiled for another processor.
    ForeignArchitecture,
    /// The map excludes it.
    Excluded {
        /// The pattern.
        pattern: String,
    },
    /// The program copies the code of this file to other memory, and would take probes along without their meaning.
    MovesItsCode {
        /// The function that does it.
        symbol: String,
    },
    /// Only the generic maps ask for it, and it is in a library that is not the program's own.
    OfOthers {
        /// Who has brought the library.
        owner: LibraryOwner,
    },
    /// There are more functions than one tracer can tell apart, or than the budget allows.
    OverBudget,
}

/// Who has brought a library that is not the program's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LibraryOwner {
    /// The distribution.
    Distribution,
    /// An installed Python package.
    Package,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IndirectFunction => {
                write!(formatter, "its address is chosen at load time (ifunc)")
            }
            Self::NoCode => write!(formatter, "the symbol has no code in this file"),
            Self::NoReturnSite => write!(formatter, "no instruction that leaves the function was found"),
            Self::Undecodable { address } => {
                write!(formatter, "the bytes at {address} are no instruction")
            }
            Self::AmbiguousJump { address } => {
                write!(formatter, "the jump at {address} may leave the function or stay inside it")
            }
            Self::JumpThunk => write!(formatter, "it only jumps to another function"),
            Self::ForbiddenInstruction { address } => {
                write!(formatter, "the kernel takes no probe on the instruction at {address}")
            }
            Self::LoopsToEntry { address } => {
                write!(formatter, "the jump at {address} leads back to its first instruction")
            }
            Self::PartOf { symbol } => write!(formatter, "it is the rest of `{symbol}`"),
            Self::MakesCoroutine => {
                write!(
                    formatter,
                    "it only makes a coroutine or future; the work is done later, where that is resumed or polled"
                )
            }
            Self::NameNotUnderstood => write!(formatter, "its mangled name cannot be understood"),
            Self::MovingStack { runtime } => {
                write!(formatter, "{runtime} moves its calls between threads and stacks while they run")
            }
            Self::ForeignArchitecture => {
                write!(formatter, "the file was compiled for another processor")
            }
            Self::Excluded { pattern } => write!(formatter, "excluded by `{pattern}`"),
            Self::MovesItsCode { symbol } => write!(
                formatter,
                "`{symbol}` of this file moves its code to other memory, where a probe would end the program; \
                 `--probe-moving-code` probes it all the same"
            ),
            Self::OfOthers { owner } => write!(
                formatter,
                "it is in a library {} that no map names; a map with `module: FILE` traces it",
                match owner {
                    LibraryOwner::Distribution => "of the distribution",
                    LibraryOwner::Package => "of an installed package",
                }
            ),
            Self::OverBudget => write!(formatter, "too many functions"),
        }
    }
}

impl fmt::Display for UnwindProof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CallsNothing => write!(formatter, "calls nothing"),
            Self::CallsOnlyProven => {
                write!(formatter, "calls only functions that call nothing else")
            }
        }
    }
}

impl FunctionName {
    /// Span name: `{Class}.{method}`, or the method alone for a free function.
    #[must_use]
    pub fn span_name(&self) -> String {
        match &self.class {
            Some(class) => format!("{class}.{}", self.method),
            None => self.method.clone(),
        }
    }
}
