//! The attributes of a request, by the semantic conventions for HTTP servers (stable since 1.23).

use super::attribute_limits::AttributeLimits;
use super::value_ref::ValueRef;
use crate::model::RequestFacts;

/// What stands for the method where it is not a known one.
const OTHER_METHOD: &str = "_OTHER";

/// Calls `visit` with each attribute of a request.
pub fn visit_request_facts(facts: &RequestFacts, limits: AttributeLimits, visit: &mut impl FnMut(&str, ValueRef<'_>)) {
    let number = |value: u64| ValueRef::Integer(i64::try_from(value).unwrap_or(i64::MAX));
    let mut text = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            visit(name, ValueRef::Text(limits.shorten(value)));
        }
    };
    let known = facts.known_method();
    text("http.request.method", Some(known.unwrap_or(OTHER_METHOD)));
    text("http.request.method_original", known.is_none().then_some(&*facts.method));
    text("http.route", facts.route.as_ref().map(|route| &*route.template));
    text("url.path", Some(&facts.path));
    text("url.query", facts.query.as_deref());
    text("url.scheme", Some(&facts.scheme));
    text("network.protocol.version", Some(facts.version));
    text("server.address", facts.server.as_ref().map(|server| &*server.host));
    text("client.address", facts.client.as_deref());
    text("user_agent.original", facts.user_agent.as_deref());
    let port = facts.server.as_ref().and_then(|server| server.port).map(u64::from);
    let numbers = [
        ("server.port", port),
        ("http.response.status_code", facts.status.map(u64::from)),
        ("http.request.body.size", Some(facts.request_bytes)),
        ("http.response.body.size", facts.answer_bytes.filter(|_| facts.status.is_some())),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            visit(name, number(value));
        }
    }
}
