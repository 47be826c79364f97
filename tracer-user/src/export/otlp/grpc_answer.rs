//! What a collector answers over gRPC: the library tells of refused spans in an event of its own log only.

use std::fmt;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber, dispatcher};

use super::outcome::{Answer, Outcome};

/// Name of the event and of its fields (opentelemetry-otlp, src/exporter/tonic/trace.rs, 0.33).
const EVENT: &str = "TonicTracesClient.PartialSuccess";
const REFUSED: &str = "rejected_spans";
const REASON: &str = "error_message";

/// Takes note of refused spans on the thread that sends them, and passes all other events on to where they would have gone.
pub struct GrpcAnswers {
    next: Dispatch,
    outcome: Arc<Outcome>,
}

impl GrpcAnswers {
    /// In front of the subscriber that this thread has now.
    pub fn new(outcome: Arc<Outcome>) -> Self {
        Self { next: dispatcher::get_default(Clone::clone), outcome }
    }
}

fn is_answer(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && metadata.name() == EVENT
}

impl Subscriber for GrpcAnswers {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match is_answer(metadata) {
            true => Interest::always(),
            false => self.next.register_callsite(metadata),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_answer(metadata) || self.next.enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::current().max(LevelFilter::WARN))
    }

    fn event(&self, event: &Event<'_>) {
        if is_answer(event.metadata()) {
            let mut partial = PartialSuccess::default();
            event.record(&mut partial);
            self.outcome.note_answer(Answer::partial(partial.refused, &partial.reason));
        }
        if self.next.enabled(event.metadata()) {
            self.next.event(event);
        }
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.next.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.next.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.next.record_follows_from(span, follows);
    }

    fn enter(&self, span: &Id) {
        self.next.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.next.exit(span);
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.next.clone_span(span)
    }

    fn try_close(&self, span: Id) -> bool {
        self.next.try_close(span)
    }
}

#[derive(Default)]
struct PartialSuccess {
    refused: i64,
    reason: String,
}

impl Visit for PartialSuccess {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == REFUSED {
            self.refused = value;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == REASON {
            value.clone_into(&mut self.reason);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}
