//! What the tracer works with, lent to its instances.

use super::super::drain::Drain;
use super::super::error::SessionError;
use super::super::processes::Processes;
use crate::attach::KernelProcess;
use crate::model::ProcessId;
use crate::plan::Planner;

/// What the tracer works with.
pub struct Context<'tracer> {
    /// What the kernel holds for each process.
    pub processes: &'tracer mut Processes,
    /// Chooses and numbers.
    pub planner: &'tracer mut Planner,
    /// What must know functions and names before their first record.
    pub drain: &'tracer Drain,
}

impl Context<'_> {
    /// What the kernel holds for a process.
    ///
    /// # Errors
    /// It is not traced any more.
    pub fn in_kernel(&mut self, process: ProcessId) -> Result<&mut (dyn KernelProcess + 'static), SessionError> {
        self.processes.in_kernel(process).ok_or(SessionError::NotTraced { process })
    }
}
