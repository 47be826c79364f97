//! Spans go in; how many calls of each method there were and how long they took comes out.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;

use super::covered::Covered;
use crate::model::{Ending, MethodRow, Span, SpanId, Subject, TraceId};

/// Methods that are counted by themselves; all others are one row.
const MAX_METHODS: usize = 1_024;

/// The row of what is beyond.
const OTHERS: &str = "(other methods)";

/// Names of steps that are kept of one method.
const MAX_STEPS: usize = 8;

/// Traces whose outermost call has not ended; what is beyond is forgotten, and the time of its calls counts as their own.
const MAX_TRACES: usize = 4_096;

/// Digits of a duration that the quantiles keep.
const DIGITS: u8 = 2;

/// What was counted.
#[derive(Default)]
pub struct MethodTotals {
    /// Where the numbers of a method stand in `methods`: each span looks this up once.
    places: HashMap<Arc<str>, usize>,
    methods: Vec<Method>,
    /// What the calls that have ended cover of the calls around them, which have not. The ids are the tracer's own.
    covered: FxHashMap<TraceId, FxHashMap<SpanId, Covered>>,
}

struct Method {
    calls: u64,
    errors: u64,
    max_ns: u64,
    total_ns: u64,
    self_ns: u64,
    durations: Histogram<u32>,
    unwatched_steps: BTreeSet<Arc<str>>,
}

impl MethodTotals {
    /// Counts a call that has ended. What has not ended, and what stands for a lost call, is no call whose time is known.
    pub fn span(&mut self, span: &Span) {
        let inside = self.take_covered(span);
        if !matches!(span.subject, Subject::Call(_)) || matches!(span.ending, Ending::StillOpen | Ending::Lost) {
            return;
        }
        let duration = span.duration_ns();
        let method = self.method(span.name());
        method.calls += 1;
        method.errors += u64::from(span.error().is_some());
        method.max_ns = method.max_ns.max(duration);
        method.total_ns = method.total_ns.saturating_add(duration);
        method.self_ns = method.self_ns.saturating_add(duration.saturating_sub(inside));
        if let Subject::Call(call) = &span.subject {
            let new = call.unwatched_steps.names().iter().filter(|name| !method.unwatched_steps.contains(*name));
            let new: Vec<_> = new.take(MAX_STEPS.saturating_sub(method.unwatched_steps.len())).cloned().collect();
            method.unwatched_steps.extend(new);
        }
        // It grows as far as durations go.
        let _ = method.durations.record(duration);
    }

    /// Nanoseconds of a call in which calls inside were running; what it covers of the call around it is kept.
    fn take_covered(&mut self, span: &Span) -> u64 {
        let Some(parent) = span.parent.span_id() else {
            let trace = self.covered.remove(&span.trace_id);
            return trace.and_then(|mut trace| trace.remove(&span.span_id)).map_or(0, |it| it.within(span));
        };
        if self.covered.len() >= MAX_TRACES && !self.covered.contains_key(&span.trace_id) {
            self.covered.clear();
        }
        let trace = self.covered.entry(span.trace_id).or_default();
        let inside = trace.remove(&span.span_id).map_or(0, |it| it.within(span));
        trace.entry(parent).or_default().add(span);
        inside
    }

    fn method(&mut self, name: &str) -> &mut Method {
        let place = match self.places.get(name) {
            Some(place) => *place,
            None => self.new_place(name),
        };
        &mut self.methods[place]
    }

    fn new_place(&mut self, name: &str) -> usize {
        let name = if self.methods.len() < MAX_METHODS { name } else { OTHERS };
        *self.places.entry(name.into()).or_insert_with(|| {
            self.methods.push(Method::new());
            self.methods.len() - 1
        })
    }

    /// The rows, the method with the most time of its own first.
    #[must_use]
    pub fn rows(&self) -> Vec<MethodRow> {
        let mut rows: Vec<MethodRow> = self.places.iter().map(|(name, place)| self.methods[*place].row(name)).collect();
        rows.sort_by(|one, other| (other.self_ns, &one.method).cmp(&(one.self_ns, &other.method)));
        rows
    }
}

impl Method {
    fn new() -> Self {
        let durations = Histogram::new(DIGITS).expect("the crate takes 0 to 5 digits");
        let unwatched_steps = BTreeSet::new();
        Self { calls: 0, errors: 0, max_ns: 0, total_ns: 0, self_ns: 0, durations, unwatched_steps }
    }

    fn row(&self, name: &Arc<str>) -> MethodRow {
        // The histogram rounds up: no call took longer than the longest.
        let quantile = |share| self.durations.value_at_quantile(share).min(self.max_ns);
        MethodRow {
            method: Arc::clone(name),
            calls: self.calls,
            errors: self.errors,
            p50_ns: quantile(0.5),
            p95_ns: quantile(0.95),
            max_ns: self.max_ns,
            total_ns: self.total_ns,
            self_ns: self.self_ns,
            unwatched_steps: self.unwatched_steps.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::model::{Parent, WallClockNs};

    fn call(number: u8, parent: Parent, method: &str, times: (u64, u64)) -> Span {
        let function = samples::function(u32::from(number), "Model", method);
        samples::span(number, parent, 0, Some(&function), times)
    }

    fn rows(spans: &[Span]) -> Vec<MethodRow> {
        let mut totals = MethodTotals::default();
        spans.iter().for_each(|span| totals.span(span));
        totals.rows()
    }

    #[test]
    fn time_inside_is_taken_off_once_however_many_run_at_the_same_time() {
        let parent = Parent::Span(samples::id(1));
        let rows = rows(&[
            call(2, parent, "left", (100, 300)),
            call(3, parent, "right", (200, 400)),
            call(4, parent, "later", (700, 2_000)),
            call(1, Parent::Root, "predict", (0, 1_000)),
        ]);
        let predict = rows.iter().find(|row| &*row.method == "Model.predict").expect("a row");
        assert_eq!((predict.total_ns, predict.self_ns), (1_000_000, 400_000), "300 by two, 300 to its own end");
        assert_eq!(&*rows[0].method, "Model.later", "the most time of its own comes first");
    }

    #[test]
    fn steps_that_were_not_watched_are_kept_once_and_not_all() {
        let mut totals = MethodTotals::default();
        for number in 0..100 {
            let mut span = call(1, Parent::Root, "predict", (0, 1_000));
            let facts = samples::facts(&mut span);
            [format!("step{number}").as_str(), "rf"].into_iter().for_each(|name| facts.unwatched_steps.add(name));
            totals.span(&span);
        }
        let steps = &totals.rows()[0].unwatched_steps;
        assert_eq!((steps.len(), steps.iter().filter(|name| &***name == "rf").count()), (MAX_STEPS, 1));
    }

    #[test]
    fn quantiles_are_right_to_one_per_cent() {
        let spans: Vec<Span> =
            (1..=1_000).map(|number| call(1, Parent::Root, "predict", (0, number * 1_000))).collect();
        let rows = rows(&spans);
        let row = &rows[0];
        assert_eq!((row.calls, row.errors, row.max_ns), (1_000, 0, 1_000_000_000));
        for (found, expected) in [(row.p50_ns, 500_000_000_u64), (row.p95_ns, 950_000_000)] {
            assert!(found.abs_diff(expected) * 100 <= expected, "{found} of {expected}");
        }
    }

    #[test]
    fn what_has_not_ended_is_not_counted_and_keeps_nothing() {
        let mut totals = MethodTotals::default();
        let mut open = call(1, Parent::Root, "predict", (0, 1_000));
        open.ending = Ending::StillOpen;
        totals.span(&call(2, Parent::Span(samples::id(1)), "step", (100, 300)));
        totals.span(&open);
        assert_eq!(totals.rows().len(), 1);
        assert!(totals.covered.is_empty());
    }

    #[test]
    fn parents_that_never_come_and_names_without_end_are_bounded() {
        let mut totals = MethodTotals::default();
        for number in 0..10_000_u64 {
            let mut span = call(2, Parent::Span(samples::id(1)), &format!("m{number}"), (number, number + 1));
            span.trace_id.0[..8].copy_from_slice(&number.to_be_bytes());
            (span.start, span.end) = (WallClockNs(number), WallClockNs(number + 1));
            totals.span(&span);
        }
        assert!(totals.covered.len() <= MAX_TRACES);
        let rows = totals.rows();
        assert_eq!(rows.len(), MAX_METHODS + 1);
        assert_eq!(rows.iter().map(|row| row.calls).sum::<u64>(), 10_000);
    }
}
