//! Trace and span ids computed from what a record says, so that no span has to wait for its parent.

use crate::model::{ConnectionId, MonotonicNs, SpanId, ThreadId, TraceId};

/// The part of the ids that is the same for all calls of one thread.
#[derive(Clone, Copy, Debug)]
pub struct ThreadIdentity {
    keys: [u64; 4],
}

impl ThreadIdentity {
    /// Identity of a thread in the session with this random seed. The same records with the same seed give the same ids.
    pub fn new(seed: u64, thread: ThreadId, first_seen: MonotonicNs) -> Self {
        let mut state = finalize(finalize(seed) ^ first_seen.0) ^ u64::from(thread.0);
        Self {
            keys: std::array::from_fn(|_| {
                state = state.wrapping_add(GOLDEN_GAMMA);
                finalize(state)
            }),
        }
    }

    /// Identity of a connection, whose requests have ids like the calls of a thread; it is none of a thread.
    pub fn of_connection(seed: u64, connection: ConnectionId) -> Self {
        let ConnectionId { process, descriptor, opened } = connection;
        Self::new(finalize(seed ^ CONNECTIONS) ^ u64::from(process), ThreadId(descriptor), opened)
    }

    /// Id of the span of a call. Calls of one thread never share an id.
    pub fn span_id(&self, call: u64) -> SpanId {
        SpanId(at_least_one(self.mix(call, 0, 1)).to_be_bytes())
    }

    /// Id of the trace that begins with a call.
    pub fn trace_id(&self, root_call: u64) -> TraceId {
        let mut bytes = [0; 16];
        let (high, low) = bytes.split_at_mut(8);
        high.copy_from_slice(&self.mix(root_call, 2, 3).to_be_bytes());
        low.copy_from_slice(&at_least_one(self.mix(root_call, 3, 2)).to_be_bytes());
        TraceId(bytes)
    }

    /// Two rounds with two keys: with one, the ids of two threads could meet over a whole range of calls.
    fn mix(&self, call: u64, first: usize, second: usize) -> u64 {
        finalize(finalize(call.wrapping_add(self.keys[first])) ^ self.keys[second])
    }
}

/// An odd number near 2^64 divided by the golden ratio. Source: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Keeps the ids of connections apart from those of threads: "requests".
const CONNECTIONS: u64 = 0x7265_7175_6573_7473;

/// A bijection on 64 bits in which every input bit moves about half of the output bits.
/// Source of the constants: SplitMix64, variant 13 of Stafford's mixers.
fn finalize(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// W3C trace context forbids ids of zeros only.
fn at_least_one(value: u64) -> u64 {
    value.max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_stable_and_distinct() {
        let first = ThreadIdentity::new(7, ThreadId(100), MonotonicNs(5));
        let again = ThreadIdentity::new(7, ThreadId(100), MonotonicNs(5));
        assert_eq!(first.span_id(1), again.span_id(1));
        assert_eq!(first.trace_id(1), again.trace_id(1));

        let mut spans = HashSet::new();
        let mut traces = HashSet::new();
        for seed in [0, 1] {
            for thread in 0..10 {
                for first_seen in [0, 1, u64::MAX] {
                    let identity = ThreadIdentity::new(seed, ThreadId(thread), MonotonicNs(first_seen));
                    for call in 0..200 {
                        assert!(spans.insert(identity.span_id(call)));
                        assert!(traces.insert(identity.trace_id(call)));
                    }
                }
            }
        }
        assert!(!spans.contains(&SpanId([0; 8])));
    }
}
