//! Requests, surveys and kernel features go in, a `ProbePlan` or a `PythonPlan` comes out, with every candidate that was
//! left out and the reason; pure, so that `--dry-run` prints exactly what a run would do.

mod choose;
mod python;
mod python_choice;

pub use choose::{MOST_PYTHON, Planner};
pub use python::PythonBudget;
pub use python_choice::only_trains;
