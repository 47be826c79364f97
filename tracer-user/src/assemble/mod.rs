//! Decoded events go in; spans with ids, parents, wall-clock times and honest endings come out, and what is known to be
//! missing.

mod assembler;
mod clock;
mod current_spans;
mod ended;
mod gaps;
mod identity;
mod joining;
mod python;
mod requests;
mod routes;
mod tally;
mod thread;
mod unwatched;
mod waiting;

pub use assembler::{Assembler, Output};
pub use joining::Joining;
pub use python::PythonClassNames;
