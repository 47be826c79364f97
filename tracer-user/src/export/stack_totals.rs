//! Spans go in; how much time was spent in each stack of calls comes out, whatever process and thread it was on.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::covered::Covered;
use crate::model::{Span, SpanId, Subject, TraceId};

/// Names that are told apart.
const MAX_FRAMES: usize = 16_384;
/// Different stacks that are kept, and as many again of calls whose outermost call has not ended.
const MAX_STACKS: usize = 65_536;
/// Calls around which calls have ended, while they have not.
const MAX_WAITING: usize = 20_000;
/// Calls inside each other: a tree that is deeper stands beside the others in pieces.
const MAX_DEPTH: u32 = 512;
/// The name of what is beyond.
const OTHERS: &str = "(other calls)";

/// A name on a stack.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Span name: `{Class}.{method}`.
    pub name: Arc<str>,
    /// File and line of the function, if all functions of this name have the same.
    pub source: Option<(Arc<str>, u32)>,
}

/// The time of all calls that had one stack, and of those inside them.
#[derive(Debug, Default)]
struct Branch {
    /// Nanoseconds in which no call inside was running.
    self_ns: u64,
    /// By the number of their frame; few of them.
    inside: Vec<(usize, Branch)>,
    /// Calls inside each other at most.
    height: u32,
}

/// What has ended inside a call that has not.
#[derive(Debug, Default)]
struct Inside {
    covered: Covered,
    branch: Branch,
}

/// What was spent.
#[derive(Debug, Default)]
pub struct StackTotals {
    frames: Vec<Frame>,
    numbers: FxHashMap<Arc<str>, usize>,
    whole: Branch,
    /// Stacks in `whole`.
    stacks: usize,
    waiting: FxHashMap<TraceId, FxHashMap<SpanId, Inside>>,
    /// Calls in `waiting`, and stacks.
    waiting_calls: usize,
    waiting_stacks: usize,
}

impl StackTotals {
    /// Counts a call. Its time of its own is that in which no call inside was running, on whatever thread.
    pub fn span(&mut self, span: &Span) {
        let frame = self.frame(span);
        let Inside { covered, mut branch } = self.take_inside(span);
        self.waiting_stacks -= branch.count();
        let own = span.duration_ns().saturating_sub(covered.within(span));
        // Of a call that was lost nothing is known but its children.
        branch.self_ns = if matches!(span.subject, Subject::LostCall) { 0 } else { own };
        branch.height += 1;
        match span.parent.span_id() {
            Some(parent) if branch.height < MAX_DEPTH => {
                let trace = self.waiting.entry(span.trace_id).or_default();
                let around = trace.entry(parent).or_insert_with(|| {
                    self.waiting_calls += 1;
                    Inside::default()
                });
                around.covered.add(span);
                self.waiting_stacks += around.branch.add(frame, branch);
                self.make_room();
            }
            _ => self.add_to_whole(frame, branch),
        }
    }

    /// No more calls come: what waits for a call around it stands by itself.
    pub fn end(&mut self) {
        for (_, trace) in std::mem::take(&mut self.waiting) {
            self.add_trace(trace);
        }
    }

    /// Each name that is on a stack.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Calls `visit` with each stack that took time of its own, as numbers of frames, the outermost first, and with that time in
    /// nanoseconds. Stacks with the same beginning come one after the other.
    pub fn visit(&self, mut visit: impl FnMut(&[usize], u64)) {
        let mut stack = Vec::new();
        self.whole.visit(&mut stack, &mut visit);
    }

    fn frame(&mut self, span: &Span) -> usize {
        let source = span.function().and_then(|function| function.source.as_ref());
        if let Some(number) = self.numbers.get(span.name()) {
            let known = &mut self.frames[*number].source;
            if known.as_ref() != source {
                *known = None;
            }
            return *number;
        }
        let (name, source) = match self.frames.len() {
            0..MAX_FRAMES => (span.name(), source.cloned()),
            _ => (OTHERS, None),
        };
        self.number(name, source)
    }

    fn number(&mut self, name: &str, source: Option<(Arc<str>, u32)>) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let name: Arc<str> = name.into();
        self.frames.push(Frame { name: Arc::clone(&name), source });
        self.numbers.insert(name, self.frames.len() - 1);
        self.frames.len() - 1
    }

    fn take_inside(&mut self, span: &Span) -> Inside {
        let Some(trace) = self.waiting.get_mut(&span.trace_id) else { return Inside::default() };
        let inside = trace.remove(&span.span_id);
        self.waiting_calls -= usize::from(inside.is_some());
        if trace.is_empty() {
            self.waiting.remove(&span.trace_id);
        }
        inside.unwrap_or_default()
    }

    /// Too much is waiting: what is known of the biggest trace stands by itself. The calls around it are still to come, and
    /// their time counts as their own.
    fn make_room(&mut self) {
        while self.waiting_calls > MAX_WAITING || self.waiting_stacks > MAX_STACKS {
            let biggest = self.waiting.iter().max_by_key(|(_, trace)| trace.len()).map(|(trace, _)| *trace);
            let Some(trace) = biggest.and_then(|trace| self.waiting.remove(&trace)) else { return };
            self.waiting_calls -= trace.len();
            self.waiting_stacks -= trace.values().map(|inside| inside.branch.count()).sum::<usize>();
            self.add_trace(trace);
        }
    }

    fn add_trace(&mut self, trace: FxHashMap<SpanId, Inside>) {
        let branches = trace.into_values().flat_map(|inside| inside.branch.inside);
        branches.for_each(|(frame, branch)| self.add_to_whole(frame, branch));
    }

    fn add_to_whole(&mut self, frame: usize, branch: Branch) {
        let room = MAX_STACKS.saturating_sub(self.stacks);
        if room < branch.count() + 1 && !self.whole.has_all(frame, &branch) {
            let others = self.number(OTHERS, None);
            let time = branch.total();
            self.stacks += self.whole.add(others, Branch { self_ns: time, ..Branch::default() });
            return;
        }
        self.stacks += self.whole.add(frame, branch);
    }
}

impl Branch {
    /// Stacks below it.
    fn count(&self) -> usize {
        self.inside.iter().map(|(_, branch)| 1 + branch.count()).sum()
    }

    /// Nanoseconds of it and of all below it.
    fn total(&self) -> u64 {
        self.inside.iter().fold(self.self_ns, |sum, (_, branch)| sum.saturating_add(branch.total()))
    }

    /// Whether each of these stacks is known below this one.
    fn has_all(&self, frame: usize, branch: &Self) -> bool {
        let own = self.inside.iter().find(|(known, _)| *known == frame);
        own.is_some_and(|(_, own)| branch.inside.iter().all(|(frame, branch)| own.has_all(*frame, branch)))
    }

    /// Takes in what was spent inside. Gives how many stacks are new.
    fn add(&mut self, frame: usize, branch: Self) -> usize {
        self.height = self.height.max(branch.height);
        let Some((_, own)) = self.inside.iter_mut().find(|(known, _)| *known == frame) else {
            let new = 1 + branch.count();
            self.inside.push((frame, branch));
            return new;
        };
        own.self_ns = own.self_ns.saturating_add(branch.self_ns);
        own.height = own.height.max(branch.height);
        branch.inside.into_iter().map(|(frame, branch)| own.add(frame, branch)).sum()
    }

    fn visit(&self, stack: &mut Vec<usize>, visit: &mut impl FnMut(&[usize], u64)) {
        if self.self_ns > 0 && !stack.is_empty() {
            visit(stack, self.self_ns);
        }
        for (frame, branch) in &self.inside {
            stack.push(*frame);
            branch.visit(stack, visit);
            stack.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::model::{Parent, ThreadId};

    fn call(number: u8, parent: Parent, method: &str, times: (u64, u64)) -> Span {
        let function = samples::function(u32::from(number), "M", method);
        samples::span(number, parent, 0, Some(&function), times)
    }

    /// The stacks, times in microseconds.
    fn stacks(totals: &StackTotals) -> Vec<String> {
        let mut stacks = Vec::new();
        totals.visit(|stack, time| {
            let names: Vec<&str> = stack.iter().map(|frame| &*totals.frames()[*frame].name).collect();
            stacks.push(format!("{} {}", names.join(";"), time / 1_000));
        });
        stacks
    }

    fn of(spans: &[Span]) -> StackTotals {
        let mut totals = StackTotals::default();
        spans.iter().for_each(|span| totals.span(span));
        totals.end();
        totals
    }

    #[test]
    fn calls_with_one_stack_are_added_up_whatever_their_thread() {
        let parent = Parent::Span(samples::id(1));
        let mut spans = vec![
            call(2, parent, "step", (100, 300)),
            call(3, parent, "step", (300, 600)),
            call(1, Parent::Root, "predict", (0, 1_000)),
        ];
        let again: Vec<Span> = spans.iter().map(|span| Span { thread: ThreadId(9), ..span.clone() }).collect();
        spans.extend(again);
        spans.push(call(2, Parent::Root, "step", (0, 7)));
        let totals = of(&spans);
        assert_eq!(stacks(&totals), ["M.predict 1000", "M.predict;M.step 1000", "M.step 7"]);
        assert_eq!((totals.waiting_calls, totals.waiting_stacks), (0, 0));
    }

    #[test]
    fn what_runs_at_the_same_time_is_taken_off_the_call_around_once() {
        let parent = Parent::Span(samples::id(1));
        let totals = of(&[
            call(2, parent, "left", (100, 300)),
            call(3, parent, "right", (200, 400)),
            call(1, Parent::Root, "predict", (0, 1_000)),
        ]);
        assert_eq!(stacks(&totals), ["M.predict 700", "M.predict;M.left 200", "M.predict;M.right 200"]);
    }

    #[test]
    fn a_call_around_that_never_comes_leaves_those_inside_by_themselves() {
        let totals = of(&[call(2, Parent::Span(samples::id(1)), "step", (100, 300))]);
        assert_eq!(stacks(&totals), ["M.step 200"]);
        // Nothing of a lost call is known but its children.
        let mut lost = call(1, Parent::Root, "", (0, 500));
        lost.subject = Subject::LostCall;
        let totals = of(&[call(2, Parent::Span(samples::id(1)), "step", (100, 300)), lost]);
        assert_eq!(stacks(&totals), ["(lost);M.step 200"]);
    }

    #[test]
    fn functions_of_one_name_and_different_files_have_none() {
        let python = |file: &str| {
            let mut function = samples::python_function(1, "M", "predict").as_ref().clone();
            function.source = Some((file.into(), 7));
            samples::span(1, Parent::Root, 0, Some(&Arc::new(function)), (0, 10))
        };
        assert!(of(&[python("a.py"), python("a.py")]).frames()[0].source.is_some());
        assert_eq!(of(&[python("a.py"), python("b.py"), python("a.py")]).frames()[0].source, None);
    }

    #[test]
    fn names_stacks_and_depths_without_end_are_bounded_and_no_time_is_lost() {
        let mut totals = StackTotals::default();
        let mut spent = 0;
        for number in 0..100_000_u64 {
            let parent = if number % 2 == 0 { Parent::Span(samples::id(1)) } else { Parent::Root };
            let mut span = call(2, parent, &format!("m{}", number % 90_000), (number, number + 1));
            span.trace_id.0[..8].copy_from_slice(&number.to_be_bytes());
            spent += span.duration_ns();
            totals.span(&span);
        }
        assert!(totals.waiting_calls <= MAX_WAITING && totals.waiting_stacks <= MAX_STACKS);
        totals.end();
        assert!(totals.frames.len() <= MAX_FRAMES + 1 && totals.whole.count() <= MAX_STACKS + 1);
        assert_eq!(totals.stacks, totals.whole.count());
        assert_eq!(totals.whole.total(), spent);

        let mut totals = StackTotals::default();
        for level in 0..10_000_u64 {
            let mut span = call(1, Parent::Root, "recurse", (10_000 - level, 10_000 + level));
            span.span_id.0 = (level + 1).to_be_bytes();
            span.parent = Parent::Span(crate::model::SpanId((level + 2).to_be_bytes()));
            totals.span(&span);
        }
        totals.end();
        assert!(totals.whole.height <= MAX_DEPTH, "{}", totals.whole.height);
    }
}
