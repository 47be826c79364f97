//! What is remembered of one thread between two of its records.

use std::sync::Arc;

use super::clock::{Clock, times_by};
use super::identity::ThreadIdentity;
use super::waiting::{LostCall, Waiting};
use crate::model::{
    ClockAnchor, Ending, ForeignCall, Join, MonotonicNs, Parent, ProcessId, Span, Subject, ThreadId, TraceId,
};

/// One thread, or one greenlet of it.
#[derive(Debug)]
pub struct Thread {
    /// Its process.
    pub process: ProcessId,
    /// Its number.
    pub thread: ThreadId,
    /// Its name, if it could be read.
    pub name: Option<Arc<str>>,
    /// When the programs first saw it.
    pub first_seen: MonotonicNs,
    /// What the ids of all threads are computed from.
    pub seed: u64,
    /// What its own ids are computed from.
    pub identity: ThreadIdentity,
    /// End of its newest record.
    pub last_end: MonotonicNs,
    /// Number of its newest record; `None` if it was forgotten once, so that the next gap means nothing.
    pub last_sequence: Option<u64>,
    /// Parents that have not come yet.
    pub waiting: Waiting,
    /// What the times of the newest tree count from, by the number of its outermost call.
    pub tree_anchor: Option<(u64, ClockAnchor)>,
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

    /// The trace of a call, given the outermost call of its tree and where that hangs.
    pub fn trace_id(&self, root_call: u64, join: Option<Join>) -> TraceId {
        match join {
            None => self.identity.trace_id(root_call),
            Some(Join { trace, .. }) => self.foreign(&trace).trace_id(trace.call),
        }
    }

    /// What a call is nested in, and the thread of that if it is another one: given the number of a call around it on its
    /// own thread, whether that is its direct parent, and where its tree hangs.
    pub fn parent(&self, around: Option<u64>, direct: bool, join: Option<Join>) -> (Parent, Option<ThreadId>) {
        match (around.map(|call| self.identity.span_id(call)), join) {
            (Some(span_id), _) if direct => (Parent::Span(span_id), None),
            (Some(span_id), _) => (Parent::Ancestor(span_id), None),
            (None, Some(Join { parent, .. })) => {
                (Parent::Span(self.foreign(&parent).span_id(parent.call)), Some(parent.thread))
            }
            (None, None) => (Parent::Root, None),
        }
    }

    /// What the times of a tree count from: the same for all of its calls, whatever has happened to the clocks between them.
    pub fn anchor(&self, root_call: u64, start: MonotonicNs, clock: &Clock) -> ClockAnchor {
        let known = self.tree_anchor.filter(|(root, _)| *root == root_call);
        known.map_or_else(|| clock.at(start), |(_, anchor)| anchor)
    }

    fn foreign(&self, call: &ForeignCall) -> ThreadIdentity {
        ThreadIdentity::new(self.seed, call.thread, call.first_seen)
    }

    /// The span that stands for a lost call.
    pub fn placeholder(&self, lost: &LostCall, clock: &Clock) -> Span {
        let (start, end) = times_by(self.anchor(lost.root, lost.start, clock), lost.start, lost.end);
        let direct = lost.around.is_some_and(|around| around.depth.checked_add(1) == Some(lost.depth));
        let (parent, parent_thread) = self.parent(lost.around.map(|around| around.call), direct, lost.join);
        Span {
            trace_id: self.trace_id(lost.root, lost.join),
            span_id: self.identity.span_id(lost.call),
            parent,
            parent_thread,
            depth: lost.depth,
            process: self.process,
            thread: self.thread,
            thread_name: self.name.clone(),
            start,
            end,
            subject: Subject::LostCall,
            ending: Ending::Lost,
            lost_before: 0,
            link: None,
            is_recorded: true,
            attributes: Vec::new(),
        }
    }
}
