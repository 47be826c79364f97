//! The caller's trace from Jaeger's header (jaegertracing.io, "Client libraries: propagation format").

use super::digits::identity;
use crate::model::{CallersTrace, SpanId, TraceId};

/// Its name.
pub const HEADER: &str = "uber-trace-id";

/// The bit of the flags that says that the caller is recorded.
const SAMPLED: u8 = 1;

/// The caller's trace, if there is one such header and it names one: `{trace}:{span}:{parent}:{flags}`, in numbers without leading zeros.
pub fn callers_trace(headers: &[&[u8]]) -> Option<CallersTrace> {
    let [header] = headers else { return None };
    // Some clients encode it as in a URL.
    let header = std::str::from_utf8(header).ok()?.trim().replace("%3A", ":").replace("%3a", ":");
    let [trace_id, span_id, parent, flags] = header.split(':').collect::<Vec<_>>()[..] else { return None };
    let is_any = |length: usize| length > 0;
    // 0 where there is none: the field is kept for older clients.
    let is_parent = u64::from_str_radix(parent, 16).is_ok();
    let flags = u8::from_str_radix(flags, 16).ok().filter(|_| is_parent)?;
    Some(CallersTrace {
        trace_id: TraceId(identity(trace_id, is_any)?),
        parent: SpanId(identity(span_id, is_any)?),
        is_sampled: flags & SAMPLED != 0,
        state: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Option<(String, String, bool)> {
        let trace = callers_trace(&[header.as_bytes()])?;
        Some((trace.trace_id.to_string(), trace.parent.to_string(), trace.is_sampled))
    }

    #[test]
    fn one_sound_header_is_taken() {
        let told = |trace: &str, span: &str, is_sampled| Some((trace.to_owned(), span.to_owned(), is_sampled));
        let (trace, span) = ("80f198ee56343ba864fe8b2a57d3eff7", "e457b5a2e4d86bd1");
        assert_eq!(read(&format!("{trace}:{span}:0:1")), told(trace, span, true));
        assert_eq!(read(&format!("{trace}%3A{span}%3a0%3A3")), told(trace, span, true));
        assert_eq!(read("1f:2:0:0"), told(&format!("{:0>32}", "1f"), "0000000000000002", false));
    }

    #[test]
    fn everything_else_is_none() {
        for broken in
            ["", "1:2:0", "1:2:0:1:5", "0:2:0:1", "1:0:0:1", "x:2:0:1", "1:2:x:1", "1:2:0:x", ":2:0:1", "+1:2:0:1"]
        {
            assert_eq!(read(broken), None, "{broken}");
        }
        assert_eq!(read(&format!("{}:2:0:1", "1".repeat(33))), None);
        assert_eq!(
            callers_trace(&[b"1:2:0:1", b"1:2:0:1"]),
            None,
            "two of them contradict each other even if they are the same"
        );
    }
}
