//! What is remembered of one thread between two of its records.

use std::sync::Arc;

use super::identity::ThreadIdentity;
use super::waiting::{LostCall, Waiting};
use crate::model::{ClockAnchor, Ending, MonotonicNs, Parent, ProcessId, Span, ThreadId};

/// One incarnation of a thread.
#[derive(Debug)]
pub struct Thread {
    /// Its process.
    pub process: ProcessId,
    /// Its number.
    pub thread: ThreadId,
    /// Its name, if it could be read.
    pub name: Option<Arc<str>>,
    /// When the programs first saw it.
    pub incarnation: MonotonicNs,
    /// What its ids are computed from.
    pub identity: ThreadIdentity,
    /// End of its newest record.
    pub last_end: MonotonicNs,
    /// Number of its newest record; `None` if it was forgotten once, so that the next gap means nothing.
    pub last_sequence: Option<u64>,
    /// Parents that have not come yet.
    pub waiting: Waiting,
}

impl Thread {
    /// Takes the number of a record; how many records are missing before it.
    pub fn missing_before(&mut self, sequence: u64) -> u64 {
        if sequence == 0 {
            return 0;
        }
        let missing = self.last_sequence.map_or(0, |last| sequence.saturating_sub(last).saturating_sub(1));
        self.last_sequence = Some(self.last_sequence.map_or(sequence, |last| last.max(sequence)));
        missing
    }

    /// What a call is nested in, given the number of a call around it and whether that is its direct parent.
    pub fn parent(&self, around: Option<u64>, direct: bool) -> Parent {
        match around.map(|call| self.identity.span_id(call)) {
            None => Parent::Root,
            Some(span_id) if direct => Parent::Span(span_id),
            Some(span_id) => Parent::Ancestor(span_id),
        }
    }

    /// The span that stands for a lost call.
    pub fn stand_in(&self, lost: &LostCall, clock: &ClockAnchor) -> Span {
        let direct = lost.around.is_some_and(|around| around.depth.checked_add(1) == Some(lost.depth));
        Span {
            trace_id: self.identity.trace_id(lost.root),
            span_id: self.identity.span_id(lost.call),
            parent: self.parent(lost.around.map(|around| around.call), direct),
            depth: lost.depth,
            function: None,
            process: self.process,
            thread: self.thread,
            thread_name: self.name.clone(),
            start: clock.wall_clock_of(lost.start),
            end: clock.wall_clock_of(lost.end.max(lost.start)),
            ending: Ending::Lost,
            thread_ended: false,
            folded_calls: 0,
            lost_before: 0,
            error: None,
            attributes: Vec::new(),
        }
    }
}
