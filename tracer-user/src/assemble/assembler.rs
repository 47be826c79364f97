//! One record, one span: names, ids, times, endings, errors and captured arguments.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::clock::{Clock, times_by};
use super::ended::EndedProcesses;
use super::gaps::Gaps;
use super::identity::ThreadIdentity;
use super::python::{PythonClassNames, PythonObjects};
use super::requests::request_span;
use super::routes::Routes;
use super::tally::Tally;
use super::thread::Thread;
use super::unwatched::Unwatched;
use super::waiting::Waiting;
use crate::model::{
    AttributeValue, Call, CallEnding, CallFacts, ClockAnchor, CurrentSpan, Ending, Event, FunctionDescription,
    FunctionId, Gap, Language, Loss, MonotonicNs, OtherProtocol, OutOfStep, Parent, ProcessChange, ProcessEvent,
    ProcessId, PythonNames, Request, RequestEnding, ReturnedError, Span, StreamTotals, Subject, ThreadEvent, ThreadId,
    UnwatchedMethods,
};

/// Threads remembered at one time: twice what the kernel side keeps ([`tracer_common::limits::MAX_THREADS`]), because
/// threads that have ended are not announced.
const MAX_TRACKED_THREADS: usize = 2 * tracer_common::limits::MAX_THREADS as usize;

/// Processes known at one time: far more than are traced at one time.
const MAX_KNOWN_PROCESSES: usize = 64 * tracer_common::limits::MAX_PROCESSES as usize;

/// What comes out of the assembler.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are spans, and each is on its way to the sinks at once")]
pub enum Output {
    /// A call, or a placeholder for a lost one.
    Span(Span),
    /// Records of a thread are missing. The next span of that thread says so too (`lost_before`).
    Loss(Loss),
}

/// Turns events into spans. Each event gives its span at once; memory is bounded by the number of tracked threads. Its tables
/// are bounded too and their keys (thread, process and function numbers) are not chosen by the traced program: a hash that
/// resists crafted keys would be paid for nothing.
pub struct Assembler {
    seed: u64,
    clock: Clock,
    /// Names of threads that no record tells.
    thread_names: FxHashMap<ThreadId, Arc<str>>,
    python: PythonObjects,
    routes: Routes,
    ended: EndedProcesses,
    gaps: Gaps,
    unwatched: Unwatched,
    functions: FxHashMap<FunctionId, KnownFunction>,
    processes: FxHashMap<u32, ProcessId>,
    /// By number and when it was first seen: greenlets of one thread come by turns, each as a thread of its own.
    threads: FxHashMap<(ThreadId, MonotonicNs), Thread>,
    max_threads: usize,
    /// Threads no younger than this may have been forgotten: where their numbers begin is not known.
    forgotten_until: Option<MonotonicNs>,
    totals: StreamTotals,
    tally: Tally,
    /// Whether requests that their callers do not record make no span.
    follows_callers: bool,
}

struct KnownFunction {
    description: Arc<FunctionDescription>,
    attribute_names: Vec<Arc<str>>,
}

impl Assembler {
    /// An assembler for one session. `seed` is random for a live session and kept with a tape, so that a replay gives
    /// the same ids. `classes` is asked for the names of Python classes that nothing else tells; a replay answers from its
    /// tape.
    #[must_use]
    pub fn new(seed: u64, anchor: ClockAnchor, classes: PythonClassNames) -> Self {
        Self {
            seed,
            clock: Clock::new(anchor),
            thread_names: FxHashMap::default(),
            python: PythonObjects::new(classes),
            routes: Routes::default(),
            ended: EndedProcesses::default(),
            gaps: Gaps::default(),
            unwatched: Unwatched::default(),
            functions: FxHashMap::default(),
            processes: FxHashMap::default(),
            threads: FxHashMap::default(),
            max_threads: MAX_TRACKED_THREADS,
            forgotten_until: None,
            totals: StreamTotals::default(),
            tally: Tally::default(),
            follows_callers: true,
        }
    }

    /// The same, for which requests that their callers do not record make spans too, or (`true`) none.
    #[must_use]
    pub fn following_callers(self, follows_callers: bool) -> Self {
        Self { follows_callers, ..self }
    }

    /// Makes a function known. Its calls must not arrive earlier.
    pub fn add_function(&mut self, description: Arc<FunctionDescription>) {
        let attribute_names = description.attributes.iter().map(|rule| rule.attribute.as_str().into()).collect();
        self.functions.insert(description.id, KnownFunction { description, attribute_names });
    }

    /// Makes a process known. The tracer runs in the initial pid namespace, so that records carry the number that it has in
    /// /proc. A process that is not known is shown under that number.
    pub fn add_process(&mut self, process: ProcessId) {
        if self.processes.len() >= MAX_KNOWN_PROCESSES {
            // Not all ends of processes are told. Those that go on are shown by their number alone from then on.
            self.processes.clear();
        }
        if self.processes.insert(process.pid, process).is_some_and(|before| before != process) {
            self.python.forget(process.pid);
            self.routes.forget(process.pid);
            self.gaps.forget(process.pid);
            self.unwatched.forget(process.pid);
        }
        self.ended.goes_on(process.pid);
    }

    /// From its instant on, times are told by this anchor: the clocks have moved apart.
    pub fn add_anchor(&mut self, anchor: ClockAnchor) {
        self.clock.add(anchor);
    }

    /// Makes the name of a thread known that no record tells.
    pub fn add_thread_name(&mut self, thread: ThreadId, name: Arc<str>) {
        if self.thread_names.len() >= self.max_threads {
            self.thread_names.clear();
        }
        self.thread_names.insert(thread, name);
    }

    /// Makes Python classes and steps known. Records that come earlier are named without them.
    pub fn add_python_names(&mut self, mut names: PythonNames) {
        // Its first thread has ended, perhaps, because another one has executed a program.
        self.ended.goes_on(names.process);
        self.routes.learn(names.process, std::mem::take(&mut names.routes));
        self.python.learn(names);
    }

    /// Not every call is seen to begin from now on, or is again. Told at its place among the records: those before had ended by
    /// then.
    pub fn add_gap(&mut self, gap: Gap) {
        self.gaps.add(gap);
    }

    /// Methods of steps of containers that are not watched from an instant on.
    pub fn add_unwatched(&mut self, unwatched: UnwatchedMethods) {
        self.unwatched.learn(unwatched);
    }

    /// Counts a record that could not be decoded.
    pub fn undecodable(&mut self) {
        self.totals.undecodable += 1;
    }

    /// Takes one event; its spans and losses go to `out`.
    pub fn event(&mut self, event: &Event, out: &mut impl FnMut(Output)) {
        match event {
            Event::Call(call) => self.call(call, out),
            Event::Process(event) => self.process_changed(event),
            Event::Thread(event) => self.thread_seen(event, out),
            // Requests are found in what connections do, and come as such.
            Event::Socket(_) | Event::Context(_) | Event::CurrentSpan(_) => {}
        }
    }

    /// Takes a request that is over, which makes a span, marked if its caller does not record it.
    /// `told_in`: the span that shows that an SDK in the process tells of it itself. If that is not recorded, nobody but this tells of it.
    pub fn request(&mut self, mut request: Request, told_in: Option<CurrentSpan>, out: &mut impl FnMut(Output)) {
        let totals = &mut self.totals.requests;
        totals.requests += 1;
        totals.unanswered += u64::from(request.ending != RequestEnding::Answered);
        let by_caller = request.facts.trace.as_ref().is_none_or(|trace| trace.is_sampled);
        let is_recorded = told_in.map_or(by_caller, |span| span.is_sampled) || !self.follows_callers;
        if !is_recorded {
            totals.not_sampled += 1;
        } else if told_in.is_some() {
            totals.told_by_sdk += 1;
            return;
        }
        let number = request.connection.process;
        request.facts.route = self.routes.taken(number, &request.facts).map(Box::new);
        let process = self.processes.get(&number).copied().unwrap_or(ProcessId { pid: number, start_time: 0 });
        let span = request_span(request, process, self.seed, &self.clock);
        out(Output::Span(Span { is_recorded, ..span }));
    }

    /// Nothing more is told of a connection, which does not fit together any more.
    pub fn out_of_step(&mut self, reason: OutOfStep) {
        *self.totals.requests.out_of_step.entry(reason).or_default() += 1;
    }

    /// A connection is not looked at, because it speaks something else.
    pub fn other_protocol(&mut self, protocol: OtherProtocol) {
        *self.totals.requests.others.entry(protocol).or_default() += 1;
    }

    /// The stream has ended: gives the placeholders for parents that never came.
    pub fn finish(mut self, out: &mut impl FnMut(Output)) -> StreamTotals {
        let mut threads: Vec<Thread> = std::mem::take(&mut self.threads).into_values().collect();
        threads.sort_unstable_by_key(|thread| (thread.first_seen, thread.thread));
        for thread in threads {
            self.end_thread(thread, out);
        }
        StreamTotals { python: self.tally.by_name(), ..self.totals }
    }

    fn call(&mut self, call: &Call, out: &mut impl FnMut(Output)) {
        let key = (call.thread, call.thread_first_seen);
        if !self.threads.contains_key(&key) {
            let name = self.thread_names.get(&call.thread).cloned();
            self.begin_thread(call.process, key, name, call.end, out);
        }
        let Self { clock, functions, threads, totals, python, gaps, unwatched, tally, .. } = self;
        let Some(thread) = threads.get_mut(&key) else { return };

        thread.last_end = call.end;
        let lost_before = thread.missing_before(call.sequence);
        if lost_before > 0 {
            totals.missing = totals.missing.saturating_add(lost_before);
            out(Output::Loss(Loss { process: thread.process, thread: call.thread, calls: lost_before }));
        }

        // A call that has no place among those of its thread shows nothing about them.
        if call.is_on_own_stack {
            thread.tree_anchor = Some((call.root_call, thread.anchor(call.root_call, call.start, clock)));
            let mut waiting = std::mem::take(&mut thread.waiting);
            waiting.arrived(call, &mut |lost| {
                totals.placeholders += 1;
                out(Output::Span(thread.placeholder(&lost, clock)));
            });
            thread.waiting = waiting;
        }

        match call.ending {
            CallEnding::Open => totals.open += 1,
            _ => totals.spans += 1,
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
        let anchor = thread.anchor(call.root_call, call.start, clock);
        let (start, end) = times_by(anchor, call.start, call.end);
        let ending = ending_of(call, function, python);
        // Of what has not ended nobody takes the children for all.
        let has_ended = !matches!(call.ending, CallEnding::Open | CallEnding::Unobserved);
        out(Output::Span(Span {
            trace_id: thread.trace_id(call.root_call, call.join),
            span_id: thread.identity.span_id(call.call),
            parent,
            parent_thread,
            depth: call.depth,
            process: thread.process,
            thread: call.thread,
            thread_name: thread.name.clone(),
            start,
            end,
            subject: Subject::Call(CallFacts {
                function: description,
                class_observed: class_observed.unwrap_or(true),
                step: step_of(call, python),
                unwatched_steps: unwatched.steps_of(call, function.and_then(KnownFunction::method), python),
                children_observed: !has_ended || !gaps.meet(call.process, call.start, call.end),
                folded_calls: call.folded_calls,
                start_uncertainty_ns: call.start_uncertainty_ns,
                may_be_several: call.may_be_several,
            }),
            ending,
            lost_before,
            link: None,
            is_recorded: true,
            attributes: function.map(|function| function.captured(call)).unwrap_or_default(),
        }));
    }

    fn thread_seen(&mut self, event: &ThreadEvent, out: &mut impl FnMut(Output)) {
        let key = (event.thread, event.first_seen);
        if !self.threads.contains_key(&key) {
            self.begin_thread(event.process, key, event.name.clone(), event.first_seen, out);
        }
    }

    /// What was read of a process that has ended is forgotten, but not at once: records of its last calls may still come.
    fn process_changed(&mut self, event: &ProcessEvent) {
        let Self { ended, python, routes, .. } = self;
        if event.change == ProcessChange::Executed {
            routes.forget(event.process);
        }
        ended.event(event, |process| {
            python.forget(process);
            routes.forget(process);
        });
    }

    fn begin_thread(
        &mut self,
        process: u32,
        key: (ThreadId, MonotonicNs),
        name: Option<Arc<str>>,
        last_end: MonotonicNs,
        out: &mut impl FnMut(Output),
    ) {
        if self.threads.len() >= self.max_threads {
            self.forget_oldest(out);
        }
        let (thread, first_seen) = key;
        let may_be_forgotten = self.forgotten_until.is_some_and(|until| first_seen <= until);
        let thread = Thread {
            process: self.processes.get(&process).copied().unwrap_or(ProcessId { pid: process, start_time: 0 }),
            thread,
            name,
            first_seen,
            seed: self.seed,
            identity: ThreadIdentity::new(self.seed, thread, first_seen),
            last_end,
            last_sequence: (!may_be_forgotten).then_some(0),
            waiting: Waiting::default(),
            tree_anchor: None,
        };
        self.threads.insert(key, thread);
    }

    /// Forgets the quarter of the threads that has been silent for longest.
    fn forget_oldest(&mut self, out: &mut impl FnMut(Output)) {
        let mut threads: Vec<(MonotonicNs, (ThreadId, MonotonicNs))> =
            self.threads.values().map(|thread| (thread.last_end, (thread.thread, thread.first_seen))).collect();
        threads.sort_unstable();
        for (_, key) in threads.iter().take((self.max_threads / 4).max(1)) {
            if let Some(thread) = self.threads.remove(key) {
                self.forgotten_until = self.forgotten_until.max(Some(thread.first_seen));
                self.end_thread(thread, out);
            }
        }
    }

    /// Parents that have not come from a thread are taken for lost.
    fn end_thread(&mut self, mut thread: Thread, out: &mut impl FnMut(Output)) {
        let mut waiting = std::mem::take(&mut thread.waiting);
        waiting.finish(&mut |lost| {
            self.totals.placeholders += 1;
            out(Output::Span(thread.placeholder(&lost, &self.clock)));
        });
    }
}

/// Name of the call's object in its container. A call that nothing traced is around was not made by a container.
fn step_of(call: &Call, python: &PythonObjects) -> Option<Arc<str>> {
    let is_inside = call.parent_call.is_some() || call.join.is_some();
    call.object.filter(|_| is_inside).and_then(|object| python.step(call.process, object, call.class))
}

/// How a call ended, with what the symbol map says of a returned value, and the name of an exception.
fn ending_of(call: &Call, function: Option<&KnownFunction>, python: &mut PythonObjects) -> Ending {
    match call.ending {
        CallEnding::Returned { value } => {
            let error = || {
                let (bits, rule) = (value?, function?.description.error?);
                rule.matches(bits).then_some(ReturnedError { bits, kind: rule.kind })
            };
            Ending::Returned { error: error() }
        }
        CallEnding::Unwound { exception, is_end_exact } => {
            let exception = exception.and_then(|class| python.class_name(call.process, class));
            Ending::Unwound { exception, is_end_exact }
        }
        CallEnding::ThreadEnded => Ending::ThreadEnded,
        CallEnding::Unobserved => Ending::Unobserved,
        CallEnding::Open => Ending::StillOpen,
        CallEnding::Vanished { uncertainty_ns } => Ending::Vanished { uncertainty_ns },
    }
}

impl KnownFunction {
    /// The method that it is of a Python class.
    fn method(&self) -> Option<&str> {
        self.description.method.as_deref()
    }

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
pub(super) mod tests;

#[cfg(test)]
#[path = "python_tests.rs"]
mod python_tests;
