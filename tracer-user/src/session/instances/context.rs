//! What the tracer works with, lent to its instances.

use super::super::drain::Drain;
use crate::attach::Programs;
use crate::plan::Planner;

/// What the tracer works with.
pub struct Context<'tracer> {
    /// The programs in the kernel.
    pub programs: &'tracer mut Programs,
    /// Chooses and numbers.
    pub planner: &'tracer mut Planner,
    /// What must know functions and names before their first record.
    pub drain: &'tracer Drain,
}
