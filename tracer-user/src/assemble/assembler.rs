//! One record, one span: names, ids, times, endings, errors and captured arguments.

use std::collections::HashMap;
use std::sync::Arc;

use super::gaps::Gaps;
use super::identity::ThreadIdentity;
use super::integer_hash::IntegerState;
use super::python::{PythonClassNames, PythonObjects};
use super::tally::Tally;
use super::thread::Thread;
use super::waiting::Waiting;
use crate::model::{
    AttributeValue, Call, CallError, ClockAnchor, Ending, Event, FunctionDescription, FunctionId, Gap, Language, Loss,
    MonotonicNs, Parent, ProcessId, PythonNames, Span, StreamTotals, ThreadId,
};

/// Gives the name of a thread when its first record arrives. Called once for each thread.
pub type ThreadNames = Box<dyn FnMut(ProcessId, ThreadId) -> Option<Arc<str>> + Send>;

/// Whom to ask for the names that no record carries. A replay answers from its tape.
pub struct Names {
    /// Of threads.
    pub threads: ThreadNames,
    /// Of Python classes.
    pub python_classes: PythonClassNames,
}

/// Threads remembered at one time: twice what the kernel side keeps ([`tracer_common::limits::MAX_THREADS`]), because
/// threads that have ended are not announced.
const MAX_TRACKED_THREADS: usize = 2 * tracer_common::limits::MAX_THREADS as usize;

/// Processes known at one time: far more than are traced at one time.
const MAX_KNOWN_PROCESSES: usize = 256 * tracer_common::limits::MAX_PROCESSES as usize;

/// What comes out of the assembler.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A call, or a stand-in for a lost one.
    Span(Span),
    /// Records of a thread are missing. The next span of that thread says so too (`lost_before`).
    Loss(Loss),
}

/// Turns events into spans. Each event gives its span at once; memory is bounded by the number of tracked threads.
pub struct Assembler {
    seed: u64,
    clock: ClockAnchor,
    thread_names: ThreadNames,
    python: PythonObjects,
    gaps: Gaps,
    functions: HashMap<FunctionId, KnownFunction, IntegerState>,
    processes: HashMap<u32, ProcessId, IntegerState>,
    /// By number and incarnation: greenlets of one thread come by turns, each as an incarnation of its own.
    threads: HashMap<(ThreadId, MonotonicNs), Thread, IntegerState>,
    max_threads: usize,
    /// Threads no younger than this may have been forgotten: where their numbers begin is not known.
    forgotten_until: Option<MonotonicNs>,
    totals: StreamTotals,
    tally: Tally,
}

struct KnownFunction {
    description: Arc<FunctionDescription>,
    attribute_names: Vec<Arc<str>>,
}

impl Assembler {
    /// An assembler for one session. `seed` is random for a live session and kept with a tape, so that a replay gives
    /// the same ids.
    #[must_use]
    pub fn new(seed: u64, clock: ClockAnchor, names: Names) -> Self {
        Self {
            seed,
            clock,
            thread_names: names.threads,
            python: PythonObjects::new(names.python_classes),
            gaps: Gaps::default(),
            functions: HashMap::default(),
            processes: HashMap::default(),
            threads: HashMap::default(),
            max_threads: MAX_TRACKED_THREADS,
            forgotten_until: None,
            totals: StreamTotals::default(),
            tally: Tally::default(),
        }
    }

    /// Makes a function known. Its calls must not arrive earlier.
    pub fn add_function(&mut self, description: Arc<FunctionDescription>) {
        let attribute_names = description.attributes.iter().map(|rule| rule.attribute.as_str().into()).collect();
        self.functions.insert(description.id, KnownFunction { description, attribute_names });
    }

    /// Makes a process known by the number that records carry. A process that is not known is shown under that number.
    pub fn add_process(&mut self, kernel_pid: u32, process: ProcessId) {
        if self.processes.len() >= MAX_KNOWN_PROCESSES {
            // Ends of processes are not announced. Those that go on are shown by their number alone from then on.
            self.processes.clear();
        }
        if self.processes.insert(kernel_pid, process).is_some_and(|before| before != process) {
            self.python.forget(kernel_pid);
            self.gaps.forget(kernel_pid);
        }
    }

    /// Makes Python classes and steps known. Records that come earlier are named without them.
    pub fn add_python_names(&mut self, names: PythonNames) {
        self.python.learn(names);
    }

    /// Not every call is seen to begin from now on, or is again. Told at its place among the records: those before had ended by
    /// then.
    pub fn add_gap(&mut self, gap: Gap) {
        self.gaps.add(gap);
    }

    /// Counts a record that could not be decoded.
    pub fn undecodable(&mut self) {
        self.totals.undecodable += 1;
    }

    /// Takes one event; its spans and losses go to `out`.
    pub fn event(&mut self, event: &Event, out: &mut impl FnMut(Output)) {
        match event {
            Event::Call(call) => self.call(call, out),
        }
    }

    /// The stream has ended: gives the stand-ins for parents that never came.
    pub fn finish(mut self, out: &mut impl FnMut(Output)) -> StreamTotals {
        let mut threads: Vec<Thread> = std::mem::take(&mut self.threads).into_values().collect();
        threads.sort_unstable_by_key(|thread| (thread.incarnation, thread.thread));
        for thread in threads {
            self.let_go(thread, out);
        }
        StreamTotals { python: self.tally.by_name(), ..self.totals }
    }

    fn call(&mut self, call: &Call, out: &mut impl FnMut(Output)) {
        let key = (call.thread, call.incarnation);
        if !self.threads.contains_key(&key) {
            self.begin_thread(call, out);
        }
        let Self { clock, functions, threads, totals, python, gaps, tally, .. } = self;
        let Some(thread) = threads.get_mut(&key) else { return };

        thread.last_end = call.end;
        let lost_before = thread.missing_before(call.sequence);
        if lost_before > 0 {
            totals.missing = totals.missing.saturating_add(lost_before);
            out(Output::Loss(Loss { process: thread.process, thread: call.thread, calls: lost_before }));
        }

        // A call that has no place among those of its thread shows nothing about them.
        if call.is_on_own_stack {
            let mut waiting = std::mem::take(&mut thread.waiting);
            waiting.arrived(call, &mut |lost| {
                totals.stand_ins += 1;
                out(Output::Span(thread.stand_in(&lost, clock)));
            });
            thread.waiting = waiting;
        }

        match call.ending {
            Ending::StillOpen if !call.let_go => totals.open += 1,
            Ending::Lost => totals.stand_ins += 1,
            Ending::Returned | Ending::Unwound | Ending::StillOpen => totals.spans += 1,
        }
        let function = functions.get(&call.function);
        let (description, class_observed) = function.map(|function| function.named_for(call, python)).unzip();
        if let Some(description) = description.as_ref().filter(|description| description.language == Language::Python) {
            tally.add(thread.process, description);
        }
        let (parent, parent_thread) = match call.is_on_own_stack {
            true => thread.parent(call.parent_call, true, call.join),
            false => (Parent::Unknown, None),
        };
        out(Output::Span(Span {
            trace_id: thread.trace_id(call.root_call, call.join),
            span_id: thread.identity.span_id(call.call),
            parent,
            parent_thread,
            depth: call.depth,
            function: description,
            class_observed: class_observed.unwrap_or(true),
            step: step_of(call, python),
            process: thread.process,
            thread: call.thread,
            thread_name: thread.name.clone(),
            start: clock.wall_clock_of(call.start),
            end: clock.wall_clock_of(call.end.max(call.start)),
            ending: call.ending,
            end_observed: call.end_observed,
            // Of what has not ended nobody takes the children for all.
            children_observed: call.ending == Ending::StillOpen || !gaps.meet(call.process, call.start, call.end),
            thread_ended: call.thread_ended,
            folded_calls: call.folded_calls,
            lost_before,
            error: error_of(call, function, python),
            attributes: function.map(|function| function.captured(call)).unwrap_or_default(),
        }));
    }

    fn begin_thread(&mut self, call: &Call, out: &mut impl FnMut(Output)) {
        if self.threads.len() >= self.max_threads {
            self.forget_oldest(out);
        }
        let process =
            self.processes.get(&call.process).copied().unwrap_or(ProcessId { pid: call.process, start_time: 0 });
        let may_be_forgotten = self.forgotten_until.is_some_and(|until| call.incarnation <= until);
        let thread = Thread {
            process,
            thread: call.thread,
            name: (self.thread_names)(process, call.thread),
            incarnation: call.incarnation,
            seed: self.seed,
            identity: ThreadIdentity::new(self.seed, call.thread, call.incarnation),
            last_end: call.end,
            last_sequence: (!may_be_forgotten).then_some(0),
            waiting: Waiting::default(),
        };
        self.threads.insert((call.thread, call.incarnation), thread);
    }

    /// Forgets the quarter of the threads that has been silent for longest.
    fn forget_oldest(&mut self, out: &mut impl FnMut(Output)) {
        let mut threads: Vec<(MonotonicNs, (ThreadId, MonotonicNs))> =
            self.threads.values().map(|thread| (thread.last_end, (thread.thread, thread.incarnation))).collect();
        threads.sort_unstable();
        for (_, key) in threads.iter().take((self.max_threads / 4).max(1)) {
            if let Some(thread) = self.threads.remove(key) {
                self.forgotten_until = self.forgotten_until.max(Some(thread.incarnation));
                self.let_go(thread, out);
            }
        }
    }

    fn let_go(&mut self, mut thread: Thread, out: &mut impl FnMut(Output)) {
        let mut waiting = std::mem::take(&mut thread.waiting);
        waiting.finish(&mut |lost| {
            self.totals.stand_ins += 1;
            out(Output::Span(thread.stand_in(&lost, &self.clock)));
        });
    }
}

/// Name of the call's object in its container. A call that nothing traced is around was not made by a container.
fn step_of(call: &Call, python: &PythonObjects) -> Option<Arc<str>> {
    let is_inside = call.parent_call.is_some() || call.join.is_some();
    call.object.filter(|_| is_inside).and_then(|object| python.step(call.process, object, call.class))
}

fn error_of(call: &Call, function: Option<&KnownFunction>, python: &mut PythonObjects) -> Option<CallError> {
    match call.ending {
        Ending::Unwound if call.thread_ended => Some(CallError::ThreadEnded),
        Ending::Unwound => {
            let exception = call.exception.and_then(|class| python.class_name(call.process, class));
            Some(CallError::Unwound { exception })
        }
        Ending::Returned => {
            let bits = call.return_value?;
            let rule = function?.description.error?;
            rule.matches(bits).then_some(CallError::Returned { bits, kind: rule.kind })
        }
        Ending::Lost | Ending::StillOpen => None,
    }
}

impl KnownFunction {
    /// The function as the call's span names it, and whether the receiver's class, if the name needs it, was seen.
    fn named_for(&self, call: &Call, python: &mut PythonObjects) -> (Arc<FunctionDescription>, bool) {
        let Some(method) = &self.description.method else { return (Arc::clone(&self.description), true) };
        let named = |class| python.named_after(call.process, class, &self.description, method);
        let named = call.class.and_then(named);
        let class_observed = named.is_some();
        (named.unwrap_or_else(|| Arc::clone(&self.description)), class_observed)
    }

    fn captured(&self, call: &Call) -> Vec<(Arc<str>, AttributeValue)> {
        let rules = self.attribute_names.iter().zip(&self.description.attributes);
        rules
            .zip(&call.arguments)
            .filter_map(|((name, rule), bits)| Some((Arc::clone(name), rule.kind.attribute((*bits)?))))
            .collect()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
#[path = "python_tests.rs"]
mod python_tests;
