//! The targets that run CPython go in; watchpoints and probes on their Python code, kept up to date, and what is covered by
//! them come out.

mod coverage;
mod experience;
mod frames;
mod interpreter;
mod lives;
mod look;
mod names;
mod targets;
mod watching;

pub use interpreter::Interpreter;
pub use names::python_class_names;
pub use targets::{Means, PythonTargets, may_run_python};
