//! One look at an interpreter, taken on whatever thread has the time for it.

use std::time::Duration;

use crate::engine::cpython::{CpythonEngine, CpythonError};
use crate::model::PythonSurvey;

/// What a look has found.
pub struct Looked {
    /// The interpreter, with what was learned about it.
    pub engine: CpythonEngine,
    /// What is there.
    pub survey: Result<PythonSurvey, CpythonError>,
    /// Processor time that it took.
    pub took: Duration,
}

impl Looked {
    /// Takes a look.
    pub fn at(mut engine: CpythonEngine) -> Self {
        let began = time_worked();
        let survey = engine.survey();
        Self { engine, survey, took: time_worked().saturating_sub(began) }
    }
}

/// Processor time that this thread has taken: a look costs no more where the machine is busy with other things.
pub fn time_worked() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
