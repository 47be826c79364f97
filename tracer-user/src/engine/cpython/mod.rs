//! The memory of a process that runs CPython goes in; its interpreter, modules, classes, functions, code and objects come
//! out, never a name that is not there.

mod attributes;
mod class;
mod code;
mod collections;
mod debug_offsets;
mod error;
mod function;
mod interpreter;
mod interpreter_file;
mod kernel_layout;
mod layout;
mod object;
#[cfg(test)]
mod tests;
mod text;
mod well_known;

pub use class::ClassView;
pub use code::{CodeView, SlotKind, Variable};
pub use error::{InterpreterError, ReadProblem};
pub use function::{FunctionView, MethodView};
pub use interpreter::{Interpreter, ThreadView};
pub use interpreter_file::InterpreterAddresses;
pub use layout::Layout;
pub use well_known::WellKnownTypes;
