//! What a session is told while it runs.

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::model::{ProcessEvent, TargetChange};

/// What a session is told while it runs.
#[derive(Debug)]
pub enum Message {
    /// A signal with this number has come for the tracer.
    Signal(i32),
    /// The command that was started has ended.
    CommandEnded(ExitStatus),
    /// Something about the targets has changed that their source has not told.
    Targets(Vec<TargetChange>),
    /// Records tell what has happened to processes.
    Processes(ProcessEvents),
    /// A look at a process, on a thread of its own, has ended: what it has found is there.
    LookEnded,
}

/// Events that are counted as waiting until this is dropped.
#[derive(Debug)]
pub struct ProcessEvents {
    events: Vec<ProcessEvent>,
    waiting: Arc<AtomicUsize>,
}

impl ProcessEvents {
    /// These events, counted here.
    pub(super) fn new(events: Vec<ProcessEvent>, waiting: Arc<AtomicUsize>) -> Self {
        waiting.fetch_add(events.len(), Ordering::Relaxed);
        Self { events, waiting }
    }

    /// The events, in their order.
    #[must_use]
    pub fn events(&self) -> &[ProcessEvent] {
        &self.events
    }
}

impl Drop for ProcessEvents {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.events.len(), Ordering::Relaxed);
    }
}
