//! The attributes of a span: made here once, for all sinks. docs/attributes.md explains each.

use super::attribute_limits::AttributeLimits;
use super::request_attributes::visit_request_facts;
use super::value_ref::ValueRef;
use crate::model::{CallFacts, Ending, Parent, Span, Subject};

/// Calls `visit` with each attribute that all calls of the span's function share.
pub fn visit_function_attributes(
    span: &Span,
    limits: AttributeLimits,
    mut visit: impl FnMut(&'static str, ValueRef<'_>),
) {
    let text = |text| ValueRef::Text(limits.shorten(text));
    if let Some(function) = span.function() {
        visit("code.function.name", text(&function.path));
        if let Some((file, line)) = &function.source {
            visit("code.file.path", text(file));
            visit("code.line.number", ValueRef::Integer(i64::from(*line)));
        }
        visit("ml.library", text(&function.library));
        visit("ml.language", ValueRef::Text(function.language.word()));
        visit("ml.module", text(&function.module));
        if let Some(others) = &function.shared_code {
            visit("ml.shared_code", text(others));
        }
    }
}

/// Calls `visit` with each attribute of the span's thread.
pub fn visit_thread_attributes(
    span: &Span,
    limits: AttributeLimits,
    mut visit: impl FnMut(&'static str, ValueRef<'_>),
) {
    visit("thread.id", ValueRef::Integer(i64::from(span.thread.0)));
    if let Some(name) = &span.thread_name {
        visit("thread.name", ValueRef::Text(limits.shorten(name)));
    }
}

/// Calls `visit` with each attribute of this one call.
pub fn visit_call_attributes(span: &Span, limits: AttributeLimits, mut visit: impl FnMut(&str, ValueRef<'_>)) {
    visit("ml.ending", ValueRef::Text(span.ending.as_str()));
    let start_uncertainty = span.start_uncertainty_ns();
    if span.ending == Ending::Lost || start_uncertainty.is_some() {
        visit("ml.start_observed", ValueRef::Boolean(false));
    }
    if !span.ending.is_end_observed() {
        visit("ml.end_observed", ValueRef::Boolean(false));
    }
    let uncertainties =
        [("ml.start_uncertainty", start_uncertainty), ("ml.end_uncertainty", span.ending.uncertainty_ns())];
    for (name, uncertainty) in uncertainties {
        if let Some(nanoseconds) = uncertainty {
            visit(name, ValueRef::Integer(i64::try_from(nanoseconds).unwrap_or(i64::MAX)));
        }
    }
    if let Parent::Ancestor(_) | Parent::Unknown = span.parent {
        visit("ml.parent_observed", ValueRef::Boolean(false));
    }
    let mut folded_calls = 0;
    match &span.subject {
        Subject::Call(call) => {
            visit_call_facts(call, limits, &mut visit);
            folded_calls = call.folded_calls;
        }
        Subject::Request(facts) => visit_request_facts(facts, limits, &mut visit),
        Subject::LostCall => {}
    }
    if span.ending == Ending::ThreadEnded {
        visit("ml.thread_ended", ValueRef::Boolean(true));
    }
    for (name, count) in [("ml.folded_calls", folded_calls), ("ml.lost_before", span.lost_before)] {
        if count > 0 {
            visit(name, ValueRef::Integer(i64::try_from(count).unwrap_or(i64::MAX)));
        }
    }
    for (name, value) in &span.attributes {
        visit(
            name,
            match value.into() {
                ValueRef::Text(value) => ValueRef::Text(limits.shorten(value)),
                other => other,
            },
        );
    }
    if let Some(error) = span.error() {
        visit("error.type", ValueRef::Text(limits.shorten(&error.kind())));
    }
}

fn visit_call_facts(call: &CallFacts, limits: AttributeLimits, visit: &mut impl FnMut(&str, ValueRef<'_>)) {
    if call.may_be_several {
        visit("ml.calls_merged", ValueRef::Text("unknown"));
    }
    if let Some(step) = &call.step {
        visit("ml.step", ValueRef::Text(limits.shorten(step)));
    }
    if !call.unwatched_steps.is_empty() {
        visit("ml.unwatched_steps", ValueRef::Text(limits.shorten(&call.unwatched_steps.text())));
    }
    for (name, is_observed) in
        [("ml.children_observed", call.children_observed), ("ml.class_observed", call.class_observed)]
    {
        if !is_observed {
            visit(name, ValueRef::Boolean(false));
        }
    }
}

/// Calls `visit` with every attribute of the span.
pub fn visit_attributes(span: &Span, limits: AttributeLimits, mut visit: impl FnMut(&str, ValueRef<'_>)) {
    visit_function_attributes(span, limits, &mut visit);
    visit_thread_attributes(span, limits, &mut visit);
    visit_call_attributes(span, limits, visit);
}
