//! What is known so far: the tracer adds to it while the screen looks at it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::history::{History, Second};
use super::slowest::{SlowTrace, Slowest};
use crate::export::{Delivery, MethodTotals, Resource, Sink, Summary};
use crate::model::{Loss, MethodRow, ProcessId, Span};

/// Processes that are named on the screen.
const MAX_PROCESSES: usize = 256;

/// What is known so far.
#[derive(Clone)]
pub struct Live(Arc<Mutex<State>>);

/// The end where spans come in.
pub struct LiveSink(Live);

struct State {
    began: Instant,
    methods: MethodTotals,
    history: History,
    slowest: Slowest,
    traces: u64,
    spans: u64,
    errors: u64,
    lost: u64,
    processes: Vec<(ProcessId, Arc<str>)>,
    /// Sentences about what is not seen.
    not_seen: Vec<String>,
}

/// What one picture shows.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Since when calls count.
    pub counting: Duration,
    /// The table.
    pub rows: Vec<MethodRow>,
    /// The last seconds.
    pub seconds: Vec<Second>,
    /// The slowest trace of the last minute, and how long ago it ended.
    pub slowest: Option<(SlowTrace, Duration)>,
    /// Traces.
    pub traces: u64,
    /// Traces whose outermost call failed.
    pub errors: u64,
    /// Calls whose records never arrived.
    pub lost: u64,
    /// Processes by number and service.
    pub processes: Vec<(ProcessId, Arc<str>)>,
    /// Sentences about what is not seen, and why.
    pub not_seen: Vec<String>,
}

impl Default for Live {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State::new(Instant::now()))))
    }
}

impl Live {
    /// The sink that fills it.
    #[must_use]
    pub fn sink(&self) -> LiveSink {
        LiveSink(self.clone())
    }

    /// What is not seen, and why, a sentence each.
    pub fn tell_not_seen(&self, sentences: Vec<String>) {
        self.with(|state| state.not_seen = sentences);
    }

    /// Counts from now on.
    pub(super) fn restart(&self) {
        self.with(|state| {
            let State { processes, not_seen, slowest, .. } = std::mem::replace(state, State::new(Instant::now()));
            (state.processes, state.not_seen, state.slowest) = (processes, not_seen, slowest);
        });
    }

    /// What there is now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        self.with(|state| Snapshot {
            counting: now.saturating_duration_since(state.began),
            rows: state.methods.rows(),
            seconds: state.history.seconds(now),
            slowest: state.slowest.recent(now).map(|slow| {
                let ago = now.saturating_duration_since(slow.ended);
                (slow, ago)
            }),
            traces: state.traces,
            errors: state.errors,
            lost: state.lost,
            processes: state.processes.clone(),
            not_seen: state.not_seen.clone(),
        })
    }

    fn with<Answer>(&self, work: impl FnOnce(&mut State) -> Answer) -> Answer {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            methods: MethodTotals::default(),
            history: History::new(now),
            slowest: Slowest::default(),
            traces: 0,
            spans: 0,
            errors: 0,
            lost: 0,
            processes: Vec::new(),
            not_seen: Vec::new(),
        }
    }

    fn span(&mut self, span: &Span) {
        let now = Instant::now();
        self.spans += 1;
        self.methods.span(span);
        self.slowest.span(now, span);
        if span.parent.begins_trace() {
            self.traces += 1;
            self.errors += u64::from(span.error().is_some());
            self.history.add(now, span.duration_ns());
        }
    }
}

impl Sink for LiveSink {
    fn name(&self) -> &'static str {
        "top"
    }

    fn is_for_people(&self) -> bool {
        true
    }

    fn process(&mut self, resource: &Arc<Resource>) {
        self.0.with(|state| {
            state.processes.retain(|(process, _)| process.pid != resource.process.pid);
            if state.processes.len() < MAX_PROCESSES {
                state.processes.push((resource.process, Arc::clone(&resource.service_name)));
            }
        });
    }

    fn span(&mut self, span: &Span) {
        self.0.with(|state| state.span(span));
    }

    fn loss(&mut self, loss: &Loss) {
        self.0.with(|state| state.lost = state.lost.saturating_add(loss.calls));
    }

    fn flush(&mut self) {}

    fn finish(self: Box<Self>, _summary: &Summary) -> Delivery {
        let delivered = self.0.with(|state| state.spans);
        Delivery { sink: "top", delivered, lost: 0, problem: None }
    }
}
