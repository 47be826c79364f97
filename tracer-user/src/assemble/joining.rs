//! Trees of calls wait here until it is known which request they were made for, and take their place inside it.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::requests::RequestIdentity;
use crate::model::{AttributeValue, CallParent, JoinedCalls, NoParent, Parent, Span, Subject, TraceId};

/// Spans that wait at one time, of all trees.
const MOST_HELD: usize = 50_000;

/// Trees whose parents are known and whose late spans, of other threads, may still come.
const MOST_DECIDED: usize = 4_096;

/// The trees that wait, by the trace that they begin, and what became of others.
#[derive(Debug)]
pub struct Joining {
    seed: u64,
    /// Whether requests that their callers do not record make no spans, nor do the calls inside them.
    follows_callers: bool,
    held: FxHashMap<TraceId, Vec<Span>>,
    /// The trees that wait, the first one first; some of them wait no more.
    order: VecDeque<TraceId>,
    count: usize,
    decided: FxHashMap<TraceId, Decision>,
    decided_in_order: VecDeque<TraceId>,
    totals: JoinedCalls,
}

#[derive(Clone, Copy, Debug)]
enum Decision {
    /// It is inside this request.
    Joined(RequestIdentity),
    /// It makes no spans.
    NotSampled,
    /// It begins a trace of its own, for this reason.
    OwnRoot(NoParent),
}

impl Joining {
    /// Nothing waits yet. `seed` is the one of the session's ids.
    pub fn new(seed: u64, follows_callers: bool) -> Self {
        Self {
            seed,
            follows_callers,
            held: FxHashMap::default(),
            order: VecDeque::new(),
            count: 0,
            decided: FxHashMap::default(),
            decided_in_order: VecDeque::new(),
            totals: JoinedCalls::default(),
        }
    }

    /// A span of a process that is asked something: waits with its tree, unless that has been settled.
    pub fn span(&mut self, span: Span, out: &mut impl FnMut(Span)) {
        let trace = span.trace_id;
        if let Some(decision) = self.decided.get(&trace) {
            return decision.apply(span, out);
        }
        let is_lost_root = span.parent == Parent::Root && matches!(span.subject, Subject::LostCall);
        // What was made on another stack stands for itself.
        let stands_alone = span.parent == Parent::Unknown;
        let tree = self.held.entry(trace).or_default();
        if tree.is_empty() {
            self.order.push_back(trace);
        }
        tree.push(span);
        self.count += 1;
        if is_lost_root {
            self.decide(trace, Decision::OwnRoot(NoParent::Lost), out);
        } else if stands_alone {
            self.decide(trace, Decision::OwnRoot(NoParent::NotRead), out);
        }
        while self.count > MOST_HELD
            && let Some(oldest) = self.order.pop_front()
        {
            self.decide(oldest, Decision::OwnRoot(NoParent::TooMany), out);
        }
    }

    /// Whether a tree waits here, or its place is known.
    pub fn has(&self, trace: TraceId) -> bool {
        self.decided.contains_key(&trace) || self.held.contains_key(&trace)
    }

    /// The parent of a tree's outermost call is known.
    pub fn settle(&mut self, trace: TraceId, parent: &CallParent, out: &mut impl FnMut(Span)) {
        let decision = match parent {
            CallParent::None(why) => Decision::OwnRoot(*why),
            CallParent::Request(start) => {
                let is_sampled = start.trace.as_ref().is_none_or(|trace| trace.is_sampled);
                match is_sampled || !self.follows_callers {
                    true => Decision::Joined(RequestIdentity::new(self.seed, start)),
                    false => Decision::NotSampled,
                }
            }
        };
        self.decide(trace, decision, out);
    }

    /// The stream has ended: of what still waits the outermost call never came.
    pub fn finish(mut self, out: &mut impl FnMut(Span)) -> JoinedCalls {
        for trace in std::mem::take(&mut self.order) {
            self.decide(trace, Decision::OwnRoot(NoParent::Lost), out);
        }
        self.totals
    }

    fn decide(&mut self, trace: TraceId, decision: Decision, out: &mut impl FnMut(Span)) {
        let Some(tree) = self.held.remove(&trace) else { return };
        self.count -= tree.len();
        match decision {
            Decision::Joined(_) => self.totals.joined += 1,
            Decision::NotSampled => self.totals.not_sampled += 1,
            Decision::OwnRoot(why) => *self.totals.own_root.entry(why).or_default() += 1,
        }
        tree.into_iter().for_each(|span| decision.apply(span, out));
        while self.order.front().is_some_and(|first| !self.held.contains_key(first)) {
            self.order.pop_front();
        }
        if self.decided.insert(trace, decision).is_none() {
            self.decided_in_order.push_back(trace);
        }
        if self.decided_in_order.len() > MOST_DECIDED
            && let Some(oldest) = self.decided_in_order.pop_front()
        {
            self.decided.remove(&oldest);
        }
    }
}

impl Decision {
    fn apply(&self, span: Span, out: &mut impl FnMut(Span)) {
        match self {
            Self::Joined(request) => {
                let parent = match span.parent {
                    Parent::Root => Parent::Span(request.span_id),
                    other => other,
                };
                out(Span { trace_id: request.trace_id, parent, ..span });
            }
            Self::NotSampled => {}
            // That no request was there is no reason to say anything.
            Self::OwnRoot(NoParent::NoRequest) => out(span),
            Self::OwnRoot(why) => {
                let mut span = span;
                if span.parent == Parent::Root {
                    let unknown = [("ml.parent", "unknown"), ("ml.parent_reason", why.word())];
                    let attributes = unknown.map(|(name, value)| (Arc::from(name), AttributeValue::Text(value.into())));
                    span.attributes.extend(attributes);
                }
                out(span);
            }
        }
    }
}

#[cfg(test)]
#[path = "joining_tests.rs"]
mod tests;
