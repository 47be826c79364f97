//! What one look at a process gives.

use super::python::PythonSurvey;

/// What one look at an interpreter has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// What is there.
    pub survey: PythonSurvey,
    /// Bytes of memory that the look went through.
    pub memory_read: u64,
}
