//! At detach: tells calls that were left without a return, which no later event of their thread has shown, from calls that are
//! open.
//!
//! A frame that lies below the thread's stack pointer is gone. The look must be taken while exit probes are live: a call that
//! returned before it is off the stack then, so one that is still there afterwards was left some other way.

use std::collections::HashSet;

use tracer_common::records::RecordEnding;

use crate::model::{LossCounts, OpenCall, RemoteAddress, ThreadId};

/// Calls that had been left when the look was taken.
#[derive(Debug, Default)]
pub struct LeftCalls(HashSet<Key>);

/// A thread, when it was first seen, and the number of a call on it.
type Key = (u32, u64, u64);

impl LeftCalls {
    /// Takes the look. `stack_pointer` gives the stack pointer of a thread (process, thread); `None` while it runs.
    pub fn look(open: &[OpenCall], stack_pointer: impl Fn(u32, ThreadId) -> Option<RemoteAddress>) -> Self {
        let mut last = None;
        let left = open.iter().filter(|call| !call.is_python).filter(|call| {
            let record = &call.record.call;
            let known = match last {
                Some((thread, known)) if thread == record.thread => known,
                _ => stack_pointer(record.process, ThreadId(record.thread)),
            };
            last = Some((record.thread, known));
            known.is_some_and(|known| call.same_stack.contains(&known) && known.0 > record.stack_pointer)
        });
        Self(left.map(key).collect())
    }

    /// Gives those of the calls that are open to the last their true ending, and counts them as spans.
    pub fn settle(&self, open: &mut [OpenCall], counts: &mut LossCounts) {
        for call in open.iter_mut().filter(|call| self.0.contains(&key(call))) {
            call.record.call.ending = RecordEnding::Unwound as u32;
            counts.open = counts.open.saturating_sub(1);
            counts.spans += 1;
        }
    }
}

fn key(call: &OpenCall) -> Key {
    let record = &call.record.call;
    (record.thread, record.thread_first_seen_ns, record.call)
}

#[cfg(test)]
mod tests {
    use tracer_common::records::{CallRecord, WideCallRecord};

    use super::*;

    const OPEN: u32 = RecordEnding::Open as u32;
    const UNWOUND: u32 = RecordEnding::Unwound as u32;

    fn open_call(call: u64, stack_pointer: u64) -> OpenCall {
        let call = CallRecord { process: 7, thread: 8, ending: OPEN, call, stack_pointer, ..CallRecord::default() };
        OpenCall {
            record: WideCallRecord { call, ..WideCallRecord::default() },
            is_python: false,
            same_stack: RemoteAddress(0)..RemoteAddress(u64::MAX),
        }
    }

    #[test]
    fn frames_below_the_stack_pointer_are_gone() {
        let mut open = vec![open_call(2, 0x1000), open_call(1, 0x3000)];
        let left = LeftCalls::look(&open, |process, thread| {
            assert_eq!((process, thread), (7, ThreadId(8)));
            Some(RemoteAddress(0x2000))
        });
        let mut counts = LossCounts { entries: 2, open: 2, ..LossCounts::default() };
        left.settle(&mut open, &mut counts);
        assert_eq!([open[0].record.call.ending, open[1].record.call.ending], [UNWOUND, OPEN]);
        assert_eq!((counts.spans, counts.open), (1, 1));
        assert_eq!(counts.entries, counts.spans + counts.folded + counts.lost_total() + counts.open);
    }

    #[test]
    fn stack_pointers_of_different_stacks_are_not_compared() {
        let address = RemoteAddress;
        for (same_stack, ending) in [
            (address(0)..address(0x3000), UNWOUND),
            (address(0)..address(0x1800), OPEN),
            (address(0)..address(0), OPEN),
        ] {
            let mut open = vec![OpenCall { same_stack: same_stack.clone(), ..open_call(1, 0x1000) }];
            let left = LeftCalls::look(&open, |_, _| Some(address(0x2000)));
            left.settle(&mut open, &mut LossCounts { entries: 1, open: 1, ..LossCounts::default() });
            assert_eq!(open[0].record.call.ending, ending, "{same_stack:?}");
        }
    }

    #[test]
    fn of_a_running_thread_and_of_python_calls_nothing_is_known() {
        let mut open = vec![open_call(1, 0x1000)];
        LeftCalls::look(&open, |_, _| None).settle(&mut open, &mut LossCounts::default());
        assert_eq!(open[0].record.call.ending, OPEN);
        open[0].is_python = true;
        LeftCalls::look(&open, |_, _| Some(RemoteAddress(0x2000))).settle(&mut open, &mut LossCounts::default());
        assert_eq!(open[0].record.call.ending, OPEN);
    }
}
