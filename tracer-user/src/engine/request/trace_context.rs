//! The caller's trace from the headers of a request (W3C Trace Context, level 2).

use std::sync::Arc;

use crate::model::{CallersTrace, SpanId, TraceId};

/// Length of `traceparent` in version 00.
const LENGTH: usize = 55;

/// Longest `tracestate` that is passed on: what the specification asks everybody to keep.
const LONGEST_STATE: usize = 512;

/// The caller's trace, if its headers name exactly one and name it well; the values of all headers with these names.
pub fn callers_trace(parents: &[&[u8]], states: &[&[u8]]) -> Option<CallersTrace> {
    let [parent] = parents else { return None };
    let parent = std::str::from_utf8(parent).ok()?.trim_matches([' ', '\t']);
    let version = lower_hexadecimal::<1>(parent.get(..2)?)?[0];
    let is_ended = match version {
        0xff => return None,
        0 => parent.len() == LENGTH,
        // A later version may say more behind it.
        _ => parent.len() == LENGTH || parent.as_bytes().get(LENGTH) == Some(&b'-'),
    };
    let fields = parent.get(..LENGTH).filter(|_| is_ended)?;
    let mut fields = fields.split('-').skip(1);
    let trace_id = lower_hexadecimal::<16>(fields.next()?)?;
    let span_id = lower_hexadecimal::<8>(fields.next()?)?;
    let [flags] = lower_hexadecimal::<1>(fields.next()?)?;
    if fields.next().is_some() || trace_id == [0; 16] || span_id == [0; 8] {
        return None;
    }
    let state = states.iter().map(|state| std::str::from_utf8(state)).collect::<Result<Vec<_>, _>>().ok();
    let state = state.map(|states| states.join(",")).filter(|state| !state.trim().is_empty());
    Some(CallersTrace {
        trace_id: TraceId(trace_id),
        parent: SpanId(span_id),
        is_sampled: flags & 1 == 1,
        state: state.filter(|state| state.len() <= LONGEST_STATE).map(Arc::from),
    })
}

fn lower_hexadecimal<const BYTES: usize>(digits: &str) -> Option<[u8; BYTES]> {
    let is_lower = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if digits.len() != 2 * BYTES || !is_lower {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(parents: &[&str], states: &[&str]) -> Option<CallersTrace> {
        let [parents, states] = [parents, states].map(|values| values.iter().map(|value| value.as_bytes()));
        callers_trace(&parents.collect::<Vec<_>>(), &states.collect::<Vec<_>>())
    }

    #[test]
    fn one_sound_parent_is_taken() {
        let trace = read(&[SOUND], &["a=1", "b=2"]).expect("sound");
        assert_eq!(trace.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((trace.parent.to_string().as_str(), trace.is_sampled), ("00f067aa0ba902b7", true));
        assert_eq!(trace.state.as_deref(), Some("a=1,b=2"));
        let not_sampled = read(&[&SOUND.replace("-01", "-00")], &[]).expect("sound");
        assert_eq!((not_sampled.is_sampled, not_sampled.state), (false, None));
        assert!(read(&[&format!(" {SOUND}\t")], &[]).is_some(), "white space around a value is none of it");
        assert!(read(&[&format!("01{}-what-comes", &SOUND[2..])], &[]).is_some(), "a later version may say more");
    }

    #[test]
    fn everything_else_is_none() {
        let broken = [
            SOUND.to_uppercase(),
            format!("ff{}", &SOUND[2..]),
            format!("{SOUND}-more"),
            format!("01{}more", &SOUND[2..]),
            SOUND[..54].to_owned(),
            SOUND.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            SOUND.replace("00f067aa0ba902b7", &"0".repeat(16)),
            SOUND.replace('-', "_"),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa-0ba902b7-1".to_owned(),
            String::new(),
            "0é".to_owned(),
        ];
        for broken in broken {
            assert_eq!(read(&[&broken], &[]), None, "{broken}");
        }
        assert_eq!(read(&[SOUND, SOUND], &[]), None, "two of them contradict each other even if they are the same");
        assert_eq!(read(&[], &["a=1"]), None);
        let long = "a".repeat(600);
        assert_eq!(read(&[SOUND], &[&long]).expect("sound").state, None);
    }
}
