//! A look at a process, and the time that it takes.

use std::time::Duration;

use crate::engine::{EngineError, RuntimeInstance};
use crate::model::Look;

/// What a look gives.
pub struct Looked {
    /// The instance, with what it has learned.
    pub instance: Box<dyn RuntimeInstance>,
    /// What it has found.
    pub look: Result<Look, EngineError>,
    /// Processor time that it took.
    pub took: Duration,
}

/// Takes a look, and measures the processor time that it takes: it takes no more where the machine is busy with other things.
pub fn look_at(mut instance: Box<dyn RuntimeInstance>) -> Looked {
    let began = time_worked();
    let look = instance.look();
    Looked { instance, look, took: time_worked().saturating_sub(began) }
}

/// Processor time that this thread has taken.
pub fn time_worked() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
