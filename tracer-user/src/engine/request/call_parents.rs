//! Which request an outermost call was made for. The context in which the answer to a request is begun is the request's, and so are
//! those that were copied from it; what is not shown so is not known. Nothing here looks at a clock: the same events give the
//! same parents.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::begun_request::BegunRequest;
use super::contexts::{ContextNumber, Contexts, Owner};
use crate::model::{
    CallParent, ConnectionId, ContextChange, ContextEvent, MonotonicNs, NoParent, PythonContext, RemoteAddress,
    Request, RequestStart, ThreadId, TraceId,
};

/// How long a call waits for an answer that may show whom it was made for, nanoseconds.
const MOST_WAITING_NS: u64 = 60_000_000_000;

/// How long after its end what is done in the contexts of a request is done for it, nanoseconds.
const MOST_AFTER_END_NS: u64 = 60_000_000_000;

/// So late a call may come that has ended before, nanoseconds: the end of one is seen when its thread does something else.
const LATE_NS: u64 = 2_000_000_000;

/// Calls of one process that wait at one time.
const MOST_WAITING: usize = 4_096;

/// Answers of one thread that are remembered, and requests of one process that are over.
const MOST_ANSWERS: usize = 256;
/// See [`MOST_ANSWERS`].
const MOST_OVER: usize = 4_096;
/// Threads of one process whose answers are remembered before those that have been silent are forgotten.
const MOST_THREADS: usize = 1_024;

/// An outermost call whose request is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutermostCall {
    /// Process.
    pub process: u32,
    /// Thread.
    pub thread: ThreadId,
    /// The context that its thread was in when it began; `None`: it was not in Python code, or that was not read.
    pub context: Option<PythonContext>,
    /// When it began, or was first seen.
    pub start: MonotonicNs,
}

/// The parents of the calls of all processes that are asked something.
#[derive(Debug, Default)]
pub struct CallParents {
    processes: FxHashMap<u32, Process>,
    settled: Vec<(TraceId, CallParent)>,
}

#[derive(Debug, Default)]
struct Process {
    was_asked: bool,
    contexts: Contexts,
    /// Records of contexts that were lost so far.
    contexts_lost: u64,
    /// Requests that are not over.
    open: FxHashMap<(ConnectionId, u64), Arc<BegunRequest>>,
    /// Those among them whose answers have not begun, by when they came.
    unanswered: BTreeSet<(MonotonicNs, ConnectionId, u64)>,
    /// Requests that were over last, and until when others were that are forgotten.
    over: VecDeque<Arc<BegunRequest>>,
    forgotten_until: MonotonicNs,
    /// Answers that were begun in contexts that nothing has entered, or in none, by thread.
    answers: Answers,
    /// Answers that were begun by the threads which had waited for their requests.
    by_readers: Answers,
    /// Calls whose parents are not known yet, by when they began.
    waiting: BTreeMap<(MonotonicNs, u64), Waiting>,
    last: u64,
}

/// What threads have answered, the first one first.
#[derive(Debug, Default)]
struct Answers(FxHashMap<ThreadId, VecDeque<Answer>>);

/// An answer has begun.
#[derive(Debug)]
struct Answer {
    request: Arc<BegunRequest>,
    context: Option<RemoteAddress>,
    time: MonotonicNs,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    trace: TraceId,
    call: OutermostCall,
    context: Place,
    asked: MonotonicNs,
}

/// Where a call was made.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In a context that was entered and seen to be made.
    Context(ContextNumber),
    /// In one that was entered, and not seen to be made.
    Unseen,
    /// In one that nothing has entered, or in none: that of its thread.
    OfThread(Option<RemoteAddress>),
    /// In a thread that has no context, as far as is known.
    Thread,
}

impl CallParents {
    /// Whether a process was asked something: only then it is worth asking for parents of its calls.
    pub fn knows(&self, process: u32) -> bool {
        self.processes.get(&process).is_some_and(|process| process.was_asked)
    }

    /// Parents that have become known since this was asked last.
    pub fn take_settled(&mut self) -> Vec<(TraceId, CallParent)> {
        std::mem::take(&mut self.settled)
    }

    /// The head of a request has been read, by this thread if it had waited for it.
    pub fn begins(&mut self, start: RequestStart, reader: Option<ThreadId>) {
        let process = self.processes.entry(start.connection.process).or_default();
        process.was_asked = true;
        process.unanswered.insert((start.begun, start.connection, start.number));
        process.open.insert((start.connection, start.number), Arc::new(BegunRequest::new(start, reader)));
    }

    /// The answer to a request is begun by a thread, in this context if that was read.
    pub fn answers(
        &mut self,
        (connection, number): (ConnectionId, u64),
        (thread, context): (ThreadId, Option<PythonContext>),
        time: MonotonicNs,
    ) {
        let Some(process) = self.processes.get_mut(&connection.process) else { return };
        let Some(request) = process.open.get(&(connection, number)).cloned() else { return };
        process.unanswered.remove(&(request.start.begun, connection, number));
        let needed_since = process.needed_since(time);
        if request.reader == Some(thread) {
            process.by_readers.add(thread, Answer { request: Arc::clone(&request), context: None, time }, needed_since);
        }
        match process.place(context, time) {
            Place::Context(number) => process.contexts.answers(number, &request, needed_since),
            Place::OfThread(context) => process.answers.add(thread, Answer { request, context, time }, needed_since),
            Place::Unseen | Place::Thread => {}
        }
        process.settle(time, &mut self.settled);
    }

    /// A request is over, answered or not.
    pub fn ends(&mut self, request: &Request) {
        let (connection, number) = (request.connection, request.number);
        let Some(process) = self.processes.get_mut(&connection.process) else { return };
        let Some(begun) = process.open.remove(&(connection, number)) else { return };
        begun.is_over(request.end);
        let was_unanswered = process.unanswered.remove(&(begun.start.begun, connection, number));
        process.over.push_back(begun);
        if was_unanswered {
            process.settle(request.end, &mut self.settled);
        }
        process.forget(request.end);
    }

    /// A context was made, or is there no more.
    pub fn context(&mut self, event: &ContextEvent) {
        let process = self.processes.entry(event.process).or_default();
        if event.lost > process.contexts_lost {
            process.contexts_lost = event.lost;
            process.contexts.clear();
        }
        match event.change {
            ContextChange::Made { context, current } => process.contexts.made(context, current, event.time),
            ContextChange::Freed { context } => process.contexts.freed(context, event.time),
        }
        process.contexts.forget(process.needed_since(event.time));
    }

    /// Asks for the parent of a call that has ended; the answer comes with [`Self::take_settled`], at once if it is known.
    pub fn ask(&mut self, trace: TraceId, call: OutermostCall, now: MonotonicNs) {
        let Some(process) = self.processes.get_mut(&call.process) else {
            return self.settled.push((trace, CallParent::None(NoParent::NoRequest)));
        };
        let context = process.place(call.context, call.start);
        let waiting = Waiting { trace, call, context, asked: now };
        match process.settled(&waiting) {
            Some(parent) => self.settled.push((trace, parent)),
            None => process.waits(waiting, now, &mut self.settled),
        }
    }

    /// A process has ended, or executes another program.
    pub fn process_ended(&mut self, process: u32) {
        if let Some(mut process) = self.processes.remove(&process) {
            process.unanswered.clear();
            process.settle(MonotonicNs(0), &mut self.settled);
        }
    }

    /// The stream has ended.
    pub fn finish(&mut self) {
        let mut processes: Vec<u32> = self.processes.keys().copied().collect();
        processes.sort_unstable();
        processes.into_iter().for_each(|process| self.process_ended(process));
    }
}

impl Process {
    fn place(&self, context: Option<PythonContext>, time: MonotonicNs) -> Place {
        match context {
            None => Place::Thread,
            Some(PythonContext { address: Some(address), is_entered: true }) => {
                self.contexts.at(address, time).map_or(Place::Unseen, Place::Context)
            }
            Some(PythonContext { address, .. }) => Place::OfThread(address),
        }
    }

    /// Since when it may still be asked for what was: a call does not wait for longer, however long a request does.
    fn needed_since(&self, now: MonotonicNs) -> MonotonicNs {
        let request = self.unanswered.first().map(|(begun, ..)| *begun);
        let call = self.waiting.first_key_value().map(|((start, _), _)| *start);
        let ago = |nanoseconds: u64| MonotonicNs(now.0.saturating_sub(nanoseconds));
        let needed_since = request.into_iter().chain(call).min().unwrap_or(now);
        needed_since.min(ago(LATE_NS)).max(ago(2 * MOST_WAITING_NS))
    }

    /// Requests that are over are remembered as long as somebody may ask whether there were any.
    fn forget(&mut self, now: MonotonicNs) {
        let needed_since = self.needed_since(now);
        let is_needed = |begun: &Arc<BegunRequest>| begun.end() >= needed_since;
        while self.over.len() > MOST_OVER || self.over.front().is_some_and(|first| !is_needed(first)) {
            if let Some(first) = self.over.pop_front() {
                self.forgotten_until = self.forgotten_until.max(first.end());
            }
        }
    }

    /// Why a call has no parent: there was no request, or none can be shown to have asked for it.
    fn why_none(&self, Waiting { call, context, .. }: &Waiting) -> NoParent {
        let mut requests = self.open.values().chain(&self.over);
        let is_there = requests.any(|begun| begun.start.begun <= call.start && call.start <= begun.end());
        match (is_there || call.start <= self.forgotten_until, context) {
            (false, _) => NoParent::NoRequest,
            (true, Place::Thread) => NoParent::NotRead,
            (true, _) => NoParent::NotShown,
        }
    }

    /// A call waits for answers; those that have waited for too long, or are too many, do not wait any more.
    fn waits(&mut self, waiting: Waiting, now: MonotonicNs, settled: &mut Vec<(TraceId, CallParent)>) {
        self.last += 1;
        self.waiting.insert((waiting.call.start, self.last), waiting);
        while let Some(first) = self.waiting.first_entry() {
            let has_timed_out = now.0.saturating_sub(first.get().asked.0) > MOST_WAITING_NS;
            let why = if has_timed_out { NoParent::TimedOut } else { NoParent::TooMany };
            if !has_timed_out && self.waiting.len() <= MOST_WAITING {
                break;
            }
            settled.extend(self.waiting.pop_first().map(|(_, first)| (first.trace, CallParent::None(why))));
        }
    }

    /// Settles what can be settled now, because an answer has begun or will not come.
    fn settle(&mut self, now: MonotonicNs, settled: &mut Vec<(TraceId, CallParent)>) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|_, waiting| {
            let has_timed_out = now.0.saturating_sub(waiting.asked.0) > MOST_WAITING_NS;
            let parent = self.settled(waiting).or(has_timed_out.then_some(CallParent::None(NoParent::TimedOut)));
            let is_over = parent.is_some();
            settled.extend(parent.map(|parent| (waiting.trace, parent)));
            !is_over
        });
        self.waiting = waiting;
    }

    /// The parent of a call, if it is known by now that it has this one or none.
    fn settled(&self, waiting: &Waiting) -> Option<CallParent> {
        let may_be_answered = self.unanswered.first().is_some_and(|(begun, ..)| *begun <= waiting.call.start);
        self.parent(waiting, !may_be_answered)
    }

    /// The parent of a call; `None` where a later answer may still tell it. `is_final`: none will.
    fn parent(&self, waiting: &Waiting, is_final: bool) -> Option<CallParent> {
        let call = &waiting.call;
        let (owner, is_sure) = match waiting.context {
            Place::Context(number) => {
                let owner = self.contexts.owner(number, call.start);
                // As long as it goes on, its contexts are no other request's.
                let is_sure = matches!(&owner, Owner::Request(request) if request.end() >= call.start);
                (owner, is_sure)
            }
            Place::OfThread(Some(address)) => (self.answers.next_in(call, address), true),
            Place::OfThread(None) => (self.answers.only_one(call), false),
            Place::Thread => (self.by_readers.only_one(call), false),
            Place::Unseen => (Owner::None, false),
        };
        match owner {
            Owner::Request(request) if is_sure || is_final => {
                let is_long_over = call.start.0.saturating_sub(request.end().0) > MOST_AFTER_END_NS;
                Some(if is_long_over {
                    CallParent::None(NoParent::LongOver)
                } else {
                    CallParent::Request(Box::new(request.start.clone()))
                })
            }
            Owner::Several if is_final => Some(CallParent::None(NoParent::Several)),
            Owner::None if is_final => Some(CallParent::None(self.why_none(waiting))),
            _ => None,
        }
    }
}

impl Answers {
    /// A thread begins an answer; those that were over before `needed_since` are not asked for any more.
    fn add(&mut self, thread: ThreadId, answer: Answer, needed_since: MonotonicNs) {
        if self.0.len() >= MOST_THREADS {
            // Most of them have ended.
            self.0.retain(|_, answers| answers.back().is_some_and(|last| last.request.end() >= needed_since));
        }
        let answers = self.0.entry(thread).or_default();
        while answers.len() >= MOST_ANSWERS || answers.front().is_some_and(|first| first.request.end() < needed_since) {
            answers.pop_front();
        }
        answers.push_back(answer);
    }

    /// What a thread answers next in a context, if that had been asked when the call began; or what it has begun to answer before.
    fn next_in(&self, call: &OutermostCall, address: RemoteAddress) -> Owner {
        let answers = self.0.get(&call.thread).into_iter().flatten();
        let mut of_context =
            answers.filter(|answer| answer.context == Some(address) && answer.request.start.begun <= call.start);
        let next = of_context.clone().find(|answer| answer.time >= call.start);
        let going_on = || of_context.rfind(|answer| answer.time <= call.start && call.start <= answer.request.end());
        next.or_else(going_on).map_or(Owner::None, |answer| Owner::Request(Arc::clone(&answer.request)))
    }

    /// The one request that a thread was answering.
    fn only_one(&self, call: &OutermostCall) -> Owner {
        let answers = self.0.get(&call.thread).into_iter().flatten();
        let mut spanning = answers.filter(|Answer { request, time, .. }| {
            request.start.begun <= call.start && call.start <= request.end().max(*time)
        });
        match (spanning.next(), spanning.next()) {
            (Some(answer), None) => Owner::Request(Arc::clone(&answer.request)),
            (Some(_), Some(_)) => Owner::Several,
            (None, _) => Owner::None,
        }
    }
}

#[cfg(test)]
#[path = "call_parents_tests.rs"]
mod tests;
