//! Trees of calls wait here until it is known which request they were made for, and take their place inside it.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::current_spans::{ToldRequests, TreesInSpans};
use super::identity::ThreadIdentity;
use super::requests::RequestIdentity;
use crate::model::{
    AttributeValue, CallParent, ConnectionId, CurrentSpan, CurrentSpanEvent, JoinedCalls, NoParent, Parent, Request,
    RequestStart, Span, SpanLink, Subject, TraceId,
};

/// Spans that wait at one time, of all trees.
const MOST_HELD: usize = 50_000;

/// Trees whose parents are known and whose late spans, of other threads, may still come.
const MOST_DECIDED: usize = 4_096;

/// The trees that wait, by the trace that they begin, and what became of others. Those that begin in spans of an SDK wait for nothing.
#[derive(Debug)]
pub struct Joining {
    seed: u64,
    /// Whether the calls inside requests and spans that are not recorded are not recorded either.
    follows_callers: bool,
    held: FxHashMap<TraceId, Vec<Span>>,
    /// The trees that wait, the first one first; some of them wait no more.
    order: VecDeque<TraceId>,
    count: usize,
    decided: FxHashMap<TraceId, Decision>,
    decided_in_order: VecDeque<TraceId>,
    in_spans: TreesInSpans,
    /// Their outermost calls, as long as it is not known for which request they were made.
    held_in_spans: FxHashMap<TraceId, Span>,
    told_requests: ToldRequests,
    totals: JoinedCalls,
}

#[derive(Clone, Copy, Debug)]
enum Decision {
    /// It is inside this span of this trace.
    Joined(TraceId, Parent),
    /// Likewise; the trace is not recorded.
    NotSampled(TraceId, Parent),
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
            in_spans: TreesInSpans::default(),
            held_in_spans: FxHashMap::default(),
            told_requests: ToldRequests::default(),
            totals: JoinedCalls::default(),
        }
    }

    /// An outermost call begins in a span of an SDK: its tree belongs into that.
    pub fn begins_in(&mut self, event: &CurrentSpanEvent, call: u64) {
        let identity = ThreadIdentity::new(self.seed, event.thread, event.thread_first_seen);
        self.in_spans.begins((event.thread, event.thread_first_seen), identity.trace_id(call), event.span);
    }

    /// The answer to a request is begun in a span of an SDK.
    pub fn answered_in(&mut self, request: (ConnectionId, u64), span: CurrentSpan) {
        self.told_requests.answered_in(request, span);
    }

    /// The span that shows that an SDK in the process tells of a request itself.
    pub fn told_in(&self, request: &Request) -> Option<CurrentSpan> {
        let number = (request.connection, request.number);
        self.told_requests.shown_by(&number, request.facts.trace.as_ref())
    }

    /// A span of a process that is asked something: waits with its tree, unless that has been settled.
    pub fn span(&mut self, span: Span, out: &mut impl FnMut(Span)) {
        let trace = span.trace_id;
        if let Some(current) = self.local_span(trace) {
            let span = self.inside(span, current);
            if !matches!(span.parent, Parent::Sdk(_)) {
                return out(span);
            }
            if self.held_in_spans.len() >= MOST_HELD {
                self.held_in_spans.drain().for_each(|(_, span)| out(span));
            }
            self.held_in_spans.insert(trace, span);
            return;
        }
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

    /// A span of a process that is asked nothing, as far as is known: waits for nothing, but may belong to a tree that waits, or
    /// whose place is known.
    pub fn span_alone(&mut self, span: Span, out: &mut impl FnMut(Span)) {
        let trace = span.trace_id;
        if let Some(current) = self.in_spans.of(trace) {
            out(self.inside(span, current));
        } else if self.decided.contains_key(&trace) || self.held.contains_key(&trace) {
            self.span(span, out);
        } else {
            out(span);
        }
    }

    /// The span of an SDK that a tree began in, if that was begun in this process: where only the caller's is known, the request is
    /// between that and the tree.
    fn local_span(&self, trace: TraceId) -> Option<CurrentSpan> {
        self.in_spans.of(trace).filter(|current| !current.is_remote)
    }

    /// A span of a tree that began in a span of an SDK, at its place.
    fn inside(&mut self, mut span: Span, current: CurrentSpan) -> Span {
        let is_outermost = span.parent == Parent::Root;
        let is_sampled = current.is_sampled || !self.follows_callers;
        if is_outermost {
            *(if is_sampled { &mut self.totals.in_spans } else { &mut self.totals.not_sampled }) += 1;
        }
        span.trace_id = current.trace_id;
        span.is_recorded = is_sampled;
        if is_outermost && may_be_inside(current, &span) {
            // Its trace is the right one all the same: that of whatever is around both.
            let link = Some(SpanLink { trace_id: current.trace_id, span_id: current.span_id });
            return Span { link, ..unknown(span, NoParent::MayBeInside) };
        }
        if is_outermost {
            span.parent = parent_in(current);
        }
        span
    }

    /// The parent of a tree's outermost call is known.
    pub fn settle(&mut self, trace: TraceId, parent: &CallParent, out: &mut impl FnMut(Span)) {
        if let Some(current) = self.local_span(trace) {
            if let CallParent::Request(start) = parent {
                self.told_requests.called_in((start.connection, start.number), current);
            }
            if let Some(span) = self.held_in_spans.remove(&trace) {
                out(self.linked(span, current, parent));
            }
            return;
        }
        let decision = match parent {
            CallParent::None(why) => self.in_spans.of(trace).map_or(Decision::OwnRoot(*why), |current| {
                match current.is_sampled || !self.follows_callers {
                    true => Decision::Joined(current.trace_id, parent_in(current)),
                    false => Decision::NotSampled(current.trace_id, parent_in(current)),
                }
            }),
            CallParent::Request(start) => {
                let is_sampled = start.trace.as_ref().is_none_or(|trace| trace.is_sampled);
                match (is_sampled || !self.follows_callers, self.inside_request(start)) {
                    (false, Decision::Joined(trace, parent)) => Decision::NotSampled(trace, parent),
                    (_, decision) => decision,
                }
            }
        };
        self.decide(trace, decision, out);
    }

    /// The place of a tree that was made for a request, and began in no span of an SDK.
    fn inside_request(&self, start: &RequestStart) -> Decision {
        match self.told_requests.shown_by(&(start.connection, start.number), start.trace.as_ref()) {
            None => {
                let RequestIdentity { trace_id, span_id } = RequestIdentity::new(self.seed, start);
                Decision::Joined(trace_id, Parent::Span(span_id))
            }
            Some(span) if span.is_server => Decision::Joined(span.trace_id, Parent::Sdk(span.span_id)),
            // Which of the SDK's spans is the one of the request is not known: then the caller's is around it.
            Some(_) => match &start.trace {
                Some(trace) => Decision::Joined(trace.trace_id, Parent::Remote(trace.parent)),
                None => Decision::OwnRoot(NoParent::ToldElsewhere),
            },
        }
    }

    /// An outermost call inside a span of an SDK, with a link to the request that it was made for if that is part of another trace.
    fn linked(&mut self, span: Span, current: CurrentSpan, parent: &CallParent) -> Span {
        let CallParent::Request(start) = parent else { return span };
        let shown = self.told_requests.shown_by(&(start.connection, start.number), start.trace.as_ref());
        let (trace_id, span_id) = match (&start.trace, shown) {
            (Some(trace), _) => (trace.trace_id, trace.parent),
            (None, Some(shown)) => (shown.trace_id, shown.span_id),
            (None, None) => {
                let RequestIdentity { trace_id, span_id } = RequestIdentity::new(self.seed, start);
                (trace_id, span_id)
            }
        };
        if trace_id == current.trace_id {
            return span;
        }
        // Where nothing but the trace that it would begin itself speaks against it, nothing does.
        self.totals.contradicted += u64::from(start.trace.is_some() || shown.is_some());
        Span { link: Some(SpanLink { trace_id, span_id }), ..span }
    }

    /// The stream has ended: of what still waits the outermost call never came.
    pub fn finish(mut self, out: &mut impl FnMut(Span)) -> JoinedCalls {
        for trace in std::mem::take(&mut self.order) {
            self.decide(trace, Decision::OwnRoot(NoParent::Lost), out);
        }
        self.held_in_spans.drain().for_each(|(_, span)| out(span));
        self.totals
    }

    fn decide(&mut self, trace: TraceId, decision: Decision, out: &mut impl FnMut(Span)) {
        let Some(tree) = self.held.remove(&trace) else { return };
        self.count -= tree.len();
        match decision {
            Decision::Joined(..) => self.totals.joined += 1,
            Decision::NotSampled(..) => self.totals.not_sampled += 1,
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
            Self::Joined(trace_id, around) | Self::NotSampled(trace_id, around) => {
                let parent = if span.parent == Parent::Root { *around } else { span.parent };
                let is_recorded = matches!(self, Self::Joined(..));
                out(Span { trace_id: *trace_id, parent, is_recorded, ..span });
            }
            // That no request was there is no reason to say anything.
            Self::OwnRoot(NoParent::NoRequest) => out(span),
            Self::OwnRoot(why) if span.parent == Parent::Root => out(unknown(span, *why)),
            Self::OwnRoot(_) => out(span),
        }
    }
}

/// An outermost call, which says why it is not known what it was made for.
fn unknown(mut span: Span, why: NoParent) -> Span {
    let unknown = [("ml.parent", "unknown"), ("ml.parent_reason", why.word())];
    let attributes = unknown.map(|(name, value)| (Arc::from(name), AttributeValue::Text(value.into())));
    span.attributes.extend(attributes);
    span
}

/// Whether a call that was not seen to begin may have begun the span in which it was seen first.
fn may_be_inside(current: CurrentSpan, call: &Span) -> bool {
    let (Some(uncertainty), Some(started)) = (call.start_uncertainty_ns(), current.started) else { return false };
    started.0 >= call.start.0.saturating_sub(uncertainty)
}

/// What is named as the parent of an outermost call inside a span of an SDK.
fn parent_in(current: CurrentSpan) -> Parent {
    if current.is_remote { Parent::Remote(current.span_id) } else { Parent::Sdk(current.span_id) }
}

#[cfg(test)]
#[path = "joining_tests.rs"]
mod tests;
