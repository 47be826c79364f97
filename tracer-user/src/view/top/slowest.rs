//! Keeps the spans of the slowest trace of the last minute.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{Span, TraceId};

/// For so long a trace is a recent one.
const RECENT: Duration = Duration::from_secs(60);
/// Spans of traces whose outermost call has not ended.
const MAX_WAITING: usize = 20_000;
/// Traces of which one is the slowest in some minute to come.
const MAX_SLOW: usize = 32;

/// A whole trace.
#[derive(Clone, Debug)]
pub struct SlowTrace {
    /// When its outermost call was seen to end.
    pub ended: Instant,
    /// How long that took, nanoseconds.
    pub nanoseconds: u64,
    /// Its spans, the outermost call last.
    pub spans: Arc<Vec<Span>>,
    /// Calls that are not among them: there were too many.
    pub left_out: u64,
}

/// Traces that are slower than all that came after them.
#[derive(Default)]
pub struct Slowest {
    waiting: HashMap<TraceId, (Vec<Span>, u64)>,
    spans: usize,
    slow: VecDeque<SlowTrace>,
}

impl Slowest {
    /// Takes a span.
    pub fn span(&mut self, now: Instant, span: &Span) {
        if !span.parent.begins_trace() {
            let (spans, _) = self.waiting.entry(span.trace_id).or_default();
            spans.push(span.clone());
            self.spans += 1;
            if self.spans > MAX_WAITING {
                self.make_room();
            }
            return;
        }
        let (mut spans, left_out) = self.waiting.remove(&span.trace_id).unwrap_or_default();
        self.spans -= spans.len();
        let nanoseconds = span.duration_ns();
        while self.slow.back().is_some_and(|slow| slow.nanoseconds <= nanoseconds) {
            self.slow.pop_back();
        }
        if self.slow.len() < MAX_SLOW {
            spans.push(span.clone());
            self.slow.push_back(SlowTrace { ended: now, nanoseconds, spans: Arc::new(spans), left_out });
        }
    }

    /// The slowest of the last minute.
    pub fn recent(&mut self, now: Instant) -> Option<SlowTrace> {
        while self.slow.front().is_some_and(|slow| now.saturating_duration_since(slow.ended) > RECENT) {
            self.slow.pop_front();
        }
        self.slow.front().cloned()
    }

    /// Of the biggest trace nothing but the outermost call will be shown.
    fn make_room(&mut self) {
        if let Some((spans, left_out)) = self.waiting.values_mut().max_by_key(|(spans, _)| spans.len()) {
            *left_out += spans.len() as u64;
            self.spans -= spans.len();
            spans.clear();
        }
        // Those whose outermost call was lost never come to an end.
        if self.waiting.len() > MAX_WAITING {
            self.waiting.clear();
            self.spans = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Ending, Parent, ProcessId, SpanId, Subject, ThreadId, WallClockNs};

    fn call(trace: u64, number: u64, parent: Parent, nanoseconds: u64) -> Span {
        let mut id = [1; 16];
        id[..8].copy_from_slice(&trace.to_be_bytes());
        Span {
            trace_id: TraceId(id),
            span_id: SpanId(number.to_be_bytes()),
            parent,
            parent_thread: None,
            depth: 0,
            process: ProcessId { pid: 1, start_time: 1 },
            thread: ThreadId(1),
            thread_name: None,
            start: WallClockNs(0),
            end: WallClockNs(nanoseconds),
            subject: Subject::LostCall,
            ending: Ending::Returned { error: None },
            lost_before: 0,
            link: None,
            is_recorded: true,
            attributes: Vec::new(),
        }
    }

    #[test]
    fn the_slowest_of_the_last_minute_is_known_whatever_came_in_which_order() {
        let began = Instant::now();
        let mut slowest = Slowest::default();
        // Seconds at which traces end, and how long they took.
        for (second, nanoseconds) in [(0, 900), (10, 100), (20, 500), (30, 300), (50, 200)] {
            let now = began + Duration::from_secs(second);
            slowest.span(now, &call(second, 2, Parent::Span(SpanId(1_u64.to_be_bytes())), 10));
            slowest.span(now, &call(second, 1, Parent::Root, nanoseconds));
        }
        for (second, expected) in [(50, Some(900)), (61, Some(500)), (81, Some(300)), (100, Some(200)), (111, None)] {
            let recent = slowest.recent(began + Duration::from_secs(second));
            assert_eq!(recent.map(|slow| (slow.nanoseconds, slow.spans.len())), expected.map(|it| (it, 2)), "{second}");
        }
        assert_eq!(slowest.spans, 0);
    }

    #[test]
    fn traces_without_end_are_bounded() {
        let now = Instant::now();
        let mut slowest = Slowest::default();
        for number in 0..50_000 {
            slowest.span(now, &call(1, number, Parent::Span(SpanId(7_u64.to_be_bytes())), 1));
            slowest.span(now, &call(number + 2, number, Parent::Span(SpanId(7_u64.to_be_bytes())), 1));
            assert!(slowest.spans <= MAX_WAITING && slowest.waiting.len() <= MAX_WAITING + 1);
        }
        slowest.span(now, &call(1, 7, Parent::Root, 5));
        let recent = slowest.recent(now).expect("it has ended");
        assert!(recent.spans.len() as u64 + recent.left_out <= 50_001);
        (0..1_000).for_each(|number| slowest.span(now, &call(number, 1, Parent::Root, 1_000 - number)));
        assert!(slowest.slow.len() <= MAX_SLOW);
    }
}
