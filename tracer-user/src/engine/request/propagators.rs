//! Whose headers a caller's trace is read from: the formats that `OTEL_PROPAGATORS` names.

use super::{b3, jaeger, trace_context};
use crate::model::CallersTrace;

/// What is read where `OTEL_PROPAGATORS` names nothing (OpenTelemetry specification 1.50, "General SDK Configuration").
const DEFAULT: &str = "tracecontext";

/// A format of such headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Propagator {
    /// W3C Trace Context.
    TraceContext,
    /// B3, in one header or in several.
    B3,
    /// Jaeger's `uber-trace-id`.
    Jaeger,
}

/// Formats that are read: of several that name a trace the last one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Propagators(Vec<Propagator>);

impl Default for Propagators {
    fn default() -> Self {
        Self(vec![Propagator::TraceContext])
    }
}

impl Propagators {
    /// Those in a list of names with commas between them, and names in it that are not read here. `baggage` names no trace.
    pub fn named(list: Option<&str>) -> (Self, Vec<String>) {
        let list = list.filter(|list| !list.trim().is_empty()).unwrap_or(DEFAULT);
        let (mut propagators, mut others) = (Vec::new(), Vec::new());
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "tracecontext" => propagators.push(Propagator::TraceContext),
                "b3" | "b3multi" => propagators.push(Propagator::B3),
                "jaeger" => propagators.push(Propagator::Jaeger),
                "none" | "baggage" => {}
                other => others.push(other.to_owned()),
            }
        }
        (Self(propagators), others)
    }

    /// The caller's trace, given the values of all headers of a name.
    pub fn callers_trace<'head>(&self, values: impl Fn(&str) -> Vec<&'head [u8]>) -> Option<CallersTrace> {
        let read = |propagator: &Propagator| match propagator {
            Propagator::TraceContext => trace_context::callers_trace(&values("traceparent"), &values("tracestate")),
            Propagator::B3 => b3::callers_trace(&values),
            Propagator::Jaeger => jaeger::callers_trace(&values(jaeger::HEADER)),
        };
        self.0.iter().rev().find_map(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W3C: (&str, &str) = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    const B3: (&str, &str) = ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");
    const JAEGER: (&str, &str) = ("uber-trace-id", "5af7183fb1d4cf5f:6c9a4b2c6d8e0f11:0:1");

    fn trace(list: Option<&str>, headers: &[(&str, &'static str)]) -> Option<String> {
        let values = |name: &str| {
            let named = headers.iter().filter(|(header, _)| *header == name);
            named.map(|(_, value)| value.as_bytes()).collect()
        };
        Propagators::named(list).0.callers_trace(values).map(|trace| trace.trace_id.to_string())
    }

    #[test]
    fn what_is_named_is_read_and_the_last_one_counts() {
        let all = [W3C, B3, JAEGER];
        for list in [None, Some(""), Some(" "), Some("tracecontext,baggage"), Some("b3,tracecontext")] {
            assert_eq!(trace(list, &all).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"), "{list:?}");
        }
        for list in ["b3", "b3multi", "tracecontext, b3"] {
            assert_eq!(trace(Some(list), &all).as_deref(), Some("80f198ee56343ba864fe8b2a57d3eff7"), "{list}");
        }
        let short = trace(Some("b3,jaeger"), &all);
        assert_eq!(short.as_deref(), Some("00000000000000005af7183fb1d4cf5f"));
        assert_eq!(trace(Some("jaeger"), &[W3C, B3]), None);
        assert_eq!(trace(Some("none"), &all), None);
        assert_eq!(trace(Some("jaeger,tracecontext"), &[JAEGER, ("traceparent", "broken")]), short);
    }

    #[test]
    fn other_names_are_told() {
        let (propagators, others) = Propagators::named(Some("xray, tracecontext,,ottrace"));
        assert_eq!((propagators, others), (Propagators::default(), vec!["xray".to_owned(), "ottrace".to_owned()]));
    }
}
