//! A span in the form that the exporter library takes.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::super::attribute_limits::{AttributeLimits, shorten_name};
use super::super::attributes::visit_attributes;
use super::super::resource::{Resource, TRACER_NAME, TRACER_VERSION};
use super::super::value_ref::ValueRef;
use crate::model::{Parent, Span, Subject, WallClockNs};

/// The scope of all spans.
pub fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(TRACER_NAME).with_version(TRACER_VERSION).build()
}

/// The span with its own ids, parent and times.
pub fn span_data(span: &Span, scope: &InstrumentationScope, limits: AttributeLimits) -> SpanData {
    let mut attributes = Vec::with_capacity(12);
    visit_attributes(span, limits, |name, value| attributes.push(KeyValue::new(name.to_owned(), owned(value))));
    let is_request = matches!(span.subject, Subject::Request(_));
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(span.trace_id.0),
            SpanId::from_bytes(span.span_id.0),
            TraceFlags::SAMPLED,
            false,
            span.trace_state().and_then(|state| state.parse().ok()).unwrap_or(TraceState::NONE),
        ),
        parent_span_id: span.parent.named().map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.0)),
        parent_span_is_remote: matches!(span.parent, Parent::Remote(_)),
        span_kind: if is_request { SpanKind::Server } else { SpanKind::Internal },
        name: shorten_name(span.name()).to_owned().into(),
        start_time: system_time(span.start),
        end_time: system_time(span.end),
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: links(span),
        status: span.error().map_or(Status::Unset, |error| Status::error(error.message().unwrap_or_default())),
        instrumentation_scope: scope.clone(),
    }
}

fn links(span: &Span) -> SpanLinks {
    let Some(link) = span.link else { return SpanLinks::default() };
    let (trace_id, span_id) = (TraceId::from_bytes(link.trace_id.0), SpanId::from_bytes(link.span_id.0));
    let context = SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, true, TraceState::NONE);
    let mut links = SpanLinks::default();
    links.links.push(Link::new(context, Vec::new(), 0));
    links
}

/// The resource of a process.
pub fn resource_data(resource: &Resource) -> opentelemetry_sdk::Resource {
    let attributes =
        resource.attributes.iter().map(|(name, value)| KeyValue::new(name.to_string(), owned(value.into())));
    opentelemetry_sdk::Resource::builder_empty().with_attributes(attributes).build()
}

fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Integer(value) => Value::I64(value),
        ValueRef::Boolean(value) => Value::Bool(value),
        ValueRef::Text(value) => Value::from(value.to_owned()),
    }
}

fn system_time(instant: WallClockNs) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(instant.0)
}
