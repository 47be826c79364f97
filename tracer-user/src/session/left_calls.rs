//! At detach: tells calls that were left without a return, which no later event of their thread has shown, from calls that are
//! open.
//!
//! A frame that lies below the thread's stack pointer is gone. The look must be taken while exit probes are live: a call that
//! returned before it is off the stack then, so one that is still there afterwards was left some other way.

use std::collections::HashSet;

use crate::model::{Call, Ending, LossCounts, MonotonicNs, RemoteAddress, ThreadId};

/// Calls that had been left when the look was taken.
#[derive(Debug, Default)]
pub struct LeftCalls(HashSet<(ThreadId, MonotonicNs, u64)>);

impl LeftCalls {
    /// Takes the look. `stack_pointer` gives the stack pointer of a thread (process, thread); `None` while it runs.
    pub fn look(open: &[Call], stack_pointer: impl Fn(u32, ThreadId) -> Option<RemoteAddress>) -> Self {
        let mut last = None;
        let left = open.iter().filter(|call| !call.is_python).filter(|call| {
            let known = match last {
                Some((thread, known)) if thread == call.thread => known,
                _ => stack_pointer(call.process, call.thread),
            };
            last = Some((call.thread, known));
            known.is_some_and(|stack_pointer| {
                let is_comparable = call.same_stack.as_ref().is_none_or(|range| range.contains(&stack_pointer));
                is_comparable && stack_pointer > call.stack_pointer
            })
        });
        Self(left.map(key).collect())
    }

    /// Gives those of the calls that are open to the last their true ending, and books them as spans.
    pub fn settle(&self, open: &mut [Call], counts: &mut LossCounts) {
        for call in open.iter_mut().filter(|call| self.0.contains(&key(call))) {
            call.ending = Ending::Unwound;
            counts.open = counts.open.saturating_sub(1);
            counts.spans += 1;
        }
    }
}

fn key(call: &Call) -> (ThreadId, MonotonicNs, u64) {
    (call.thread, call.incarnation, call.call)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FunctionId;

    fn open_call(call: u64, stack_pointer: u64) -> Call {
        Call {
            process: 7,
            thread: ThreadId(8),
            function: FunctionId(0),
            ending: Ending::StillOpen,
            thread_ended: false,
            depth: 0,
            incarnation: MonotonicNs(1),
            sequence: call,
            call,
            parent_call: None,
            root_call: call,
            start: MonotonicNs(2),
            end: MonotonicNs(3),
            end_observed: false,
            let_go: false,
            is_on_own_stack: true,
            same_stack: None,
            is_python: false,
            stack_pointer: RemoteAddress(stack_pointer),
            object: None,
            return_value: None,
            folded_calls: 0,
            arguments: [None; 4],
            class: None,
            exception: None,
            join: None,
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
        assert_eq!([open[0].ending, open[1].ending], [Ending::Unwound, Ending::StillOpen]);
        assert_eq!((counts.spans, counts.open), (1, 1));
        assert_eq!(counts.entries, counts.spans + counts.folded + counts.lost_total() + counts.open);
    }

    #[test]
    fn stack_pointers_of_different_stacks_are_not_compared() {
        let address = RemoteAddress;
        for (same_stack, is_left) in [
            (None, true),
            (Some(address(0)..address(0x3000)), true),
            (Some(address(0)..address(0x1800)), false),
            (Some(address(0)..address(0)), false),
        ] {
            let mut open = vec![Call { same_stack: same_stack.clone(), ..open_call(1, 0x1000) }];
            let left = LeftCalls::look(&open, |_, _| Some(address(0x2000)));
            left.settle(&mut open, &mut LossCounts { entries: 1, open: 1, ..LossCounts::default() });
            assert_eq!(open[0].ending == Ending::Unwound, is_left, "{same_stack:?}");
        }
    }

    #[test]
    fn of_a_running_thread_nothing_is_known() {
        let mut open = vec![open_call(1, 0x1000)];
        let left = LeftCalls::look(&open, |_, _| None);
        left.settle(&mut open, &mut LossCounts::default());
        assert_eq!(open[0].ending, Ending::StillOpen);
    }
}
