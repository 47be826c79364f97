//! The caller's trace from B3 headers (github.com/openzipkin/b3-propagation): one header, or one for each part.

use super::digits::identity;
use crate::model::{CallersTrace, SpanId, TraceId};

/// The caller's trace, if its headers name one; given the values of all headers of a name. The single header counts where both are there.
pub fn callers_trace<'head>(values: &impl Fn(&str) -> Vec<&'head [u8]>) -> Option<CallersTrace> {
    let value = |name: &str| match values(name)[..] {
        [value] => std::str::from_utf8(value).ok().map(str::trim),
        _ => None,
    };
    single(value("b3")).or_else(|| {
        let is_debugged = value("x-b3-flags") == Some("1");
        let sampled = if is_debugged { Some("d") } else { value("x-b3-sampled") };
        trace(value("x-b3-traceid")?, value("x-b3-spanid")?, sampled)
    })
}

/// `{trace}-{span}-{sampled}-{parent}`, of which the last two may be missing.
fn single(header: Option<&str>) -> Option<CallersTrace> {
    let mut fields = header?.split('-');
    let (trace_id, span_id, sampled) = (fields.next()?, fields.next()?, fields.next());
    let is_parent = |parent: &str| identity::<8>(parent, |length| length == 16).is_some();
    let is_ended = fields.next().is_none_or(is_parent) && fields.next().is_none();
    if is_ended { trace(trace_id, span_id, sampled) } else { None }
}

/// Where the caller leaves it to us whether it is recorded, it is.
fn trace(trace_id: &str, span_id: &str, sampled: Option<&str>) -> Option<CallersTrace> {
    let is_sampled = match sampled {
        None | Some("1" | "d" | "true") => true,
        Some("0" | "false") => false,
        Some(_) => return None,
    };
    Some(CallersTrace {
        trace_id: TraceId(identity(trace_id, |length| length == 16 || length == 32)?),
        parent: SpanId(identity(span_id, |length| length == 16)?),
        is_sampled,
        state: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SPAN: &str = "e457b5a2e4d86bd1";

    fn read(headers: &[(&str, &str)]) -> Option<(String, String, bool)> {
        let values = |name: &str| {
            let named = headers.iter().filter(|(header, _)| *header == name);
            named.map(|(_, value)| value.as_bytes()).collect()
        };
        let trace = callers_trace(&values)?;
        assert_eq!(trace.state, None);
        Some((trace.trace_id.to_string(), trace.parent.to_string(), trace.is_sampled))
    }

    fn told(trace: &str, is_sampled: bool) -> Option<(String, String, bool)> {
        Some((trace.to_owned(), SPAN.to_owned(), is_sampled))
    }

    #[test]
    fn one_header_is_read() {
        let parent = "05e3ac9a4f6e3b90";
        for (end, is_sampled) in [("", true), ("-1", true), ("-d", true), ("-0", false)] {
            assert_eq!(read(&[("b3", &format!("{TRACE}-{SPAN}{end}"))]), told(TRACE, is_sampled), "{end}");
        }
        assert_eq!(read(&[("b3", &format!("{TRACE}-{SPAN}-1-{parent}"))]), told(TRACE, true));
        let short = read(&[("b3", &format!("{}-{SPAN}-1", &TRACE[16..]))]);
        assert_eq!(short, told("000000000000000064fe8b2a57d3eff7", true));
    }

    #[test]
    fn several_headers_are_read() {
        let of = |more: &[(&'static str, &'static str)]| {
            read(&[&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)], more].concat())
        };
        assert_eq!(of(&[]), told(TRACE, true));
        assert_eq!(of(&[("x-b3-sampled", "0")]), told(TRACE, false));
        assert_eq!(of(&[("x-b3-sampled", "0"), ("x-b3-flags", "1")]), told(TRACE, true), "a debug flag is a decision");
        let other = "aaaabbbbccccddddaaaabbbbccccdddd";
        assert_eq!(read(&[("b3", &format!("{other}-{SPAN}-0")), ("x-b3-traceid", TRACE)]), told(other, false));
    }

    #[test]
    fn everything_else_is_none() {
        let broken = ["0", "", TRACE, &format!("{TRACE}-{SPAN}-2"), &format!("{TRACE}-{SPAN}-1-x"), "0-0-1"];
        for broken in broken {
            assert_eq!(read(&[("b3", broken)]), None, "{broken}");
        }
        let zero = "0".repeat(32);
        assert_eq!(read(&[("b3", &format!("{zero}-{SPAN}-1"))]), None);
        assert_eq!(read(&[("b3", &format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90-1"))]), None);
        assert_eq!(read(&[("x-b3-traceid", TRACE)]), None);
        let twice = format!("{TRACE}-{SPAN}-1");
        assert_eq!(read(&[("b3", &twice), ("b3", &twice)]), None);
    }
}
