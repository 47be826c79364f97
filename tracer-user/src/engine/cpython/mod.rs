//! The memory of a process that runs CPython goes in; its interpreter, modules, classes, functions, code and objects come
//! out, never a name that is not there.

mod attributes;
mod builtin_types;
mod class;
mod code;
mod collections;
mod cpython_engine;
mod cpython_instance;
mod debug_offsets;
mod error;
mod find_types;
mod frame_sites;
mod function;
mod interpreter;
mod interpreter_file;
mod kernel_layout;
mod layout;
mod loops;
mod object;
mod remarks;
mod survey;
#[cfg(test)]
mod tests;
mod text;
mod type_facts;

pub use builtin_types::BuiltinTypes;
pub use class::ClassView;
pub use code::{CodeView, SlotKind, Variable};
pub use cpython_engine::CpythonEngine;
pub use cpython_instance::{CpythonError, CpythonInstance};
pub use error::{InterpreterError, ReadProblem};
pub use function::{FunctionView, MethodView};
pub use interpreter::{Interpreter, ThreadView};
pub use interpreter_file::{InterpreterAddresses, InterpreterFile};
pub use layout::Layout;
pub use remarks::{left_out, remarks};
pub use survey::Surveyor;
