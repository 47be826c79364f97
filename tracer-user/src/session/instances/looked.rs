//! Looks at a process, and the time that they take.

use std::time::{Duration, Instant};

use super::super::background::{Background, Bell, Progress};
use crate::engine::{EngineError, RuntimeInstance};
use crate::memory::ReadLimit;
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

/// Looks at one process, one after the other, each on a thread of its own.
pub struct Looks {
    under_way: Option<Background<Looked>>,
    /// When the one under way began.
    began: Instant,
    /// When the last one began that has ended.
    seen: Instant,
}

impl Looks {
    /// One has ended, which began at this time.
    pub fn since(began: Instant) -> Self {
        Self { under_way: None, began, seen: began }
    }

    /// Begins one; the bell rings when it has ended. Where there is no thread for it, nothing is under way.
    pub fn begin(&mut self, instance: &dyn RuntimeInstance, bell: Bell) {
        let instance = instance.to_look_at(&ReadLimit::default());
        self.began = Instant::now();
        self.under_way = Background::begin_and_ring("look", bell, move |limit| look_at(instance.to_look_at(limit)));
    }

    /// Whether one is under way.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// What one has found, if one has ended.
    pub fn take(&mut self) -> Option<Looked> {
        let looked = match self.under_way.as_ref()?.progress() {
            Progress::UnderWay => return None,
            Progress::Done(looked) => Some(looked),
            Progress::Failed => None,
        };
        (self.under_way, self.seen) = (None, self.began);
        looked
    }

    /// Whether one has begun since this time and ended.
    pub fn have_seen_since(&self, since: Instant) -> bool {
        self.under_way.is_none() && self.seen >= since
    }
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
