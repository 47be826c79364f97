//! What servers of many kinds do with contexts, and whose calls theirs are.

use super::*;
use crate::model::{RequestEnding, RequestFacts};

const PROCESS: u32 = 7;
/// The thread of the event loop, and one of a pool.
const LOOP: ThreadId = ThreadId(7);
const POOL: ThreadId = ThreadId(8);
/// What the event loop runs in otherwise.
const BASE: u64 = 0x10;

/// A server as records tell of it.
#[derive(Default)]
struct Server {
    parents: CallParents,
    /// Which call is of which request, by their numbers; `None`: of none.
    found: BTreeMap<u64, Result<u64, NoParent>>,
}

fn connection(descriptor: u32) -> ConnectionId {
    ConnectionId { process: PROCESS, descriptor, opened: MonotonicNs(1) }
}

fn entered(context: u64) -> Option<PythonContext> {
    Some(PythonContext { address: Some(RemoteAddress(context)), is_entered: true })
}

fn of_thread(context: u64) -> Option<PythonContext> {
    Some(PythonContext { address: (context != 0).then_some(RemoteAddress(context)), is_entered: false })
}

impl Server {
    fn new() -> Self {
        let mut server = Self::default();
        server.made(0, BASE, 0);
        server
    }

    fn made(&mut self, time: u64, context: u64, current: u64) {
        let (context, current) = (RemoteAddress(context), (current != 0).then_some(RemoteAddress(current)));
        self.context(time, ContextChange::Made { context, current }, 0);
    }

    fn freed(&mut self, time: u64, context: u64) {
        self.context(time, ContextChange::Freed { context: RemoteAddress(context) }, 0);
    }

    fn context(&mut self, time: u64, change: ContextChange, lost: u64) {
        self.parents.context(&ContextEvent { process: PROCESS, time: MonotonicNs(time), lost, change });
    }

    /// The head of a request has come over the connection with its number.
    fn asked(&mut self, time: u64, request: u32) {
        self.asked_on(time, request, 1);
    }

    fn asked_on(&mut self, time: u64, descriptor: u32, number: u64) {
        let begun = MonotonicNs(time);
        self.parents.begins(RequestStart { connection: connection(descriptor), number, begun, trace: None }, None);
    }

    fn answers(&mut self, time: u64, request: u32, by: (ThreadId, Option<PythonContext>)) {
        self.parents.answers((connection(request), 1), by, MonotonicNs(time));
        self.take();
    }

    fn over(&mut self, time: u64, descriptor: u32, number: u64) {
        let facts = RequestFacts::plain("GET", "/", 200);
        self.parents.ends(&Request {
            connection: connection(descriptor),
            number,
            thread: LOOP,
            start: MonotonicNs(0),
            end: MonotonicNs(time),
            ending: RequestEnding::Answered,
            facts,
        });
        self.take();
    }

    /// A call begins at this time, which is its number too, and ends one later.
    fn calls(&mut self, time: u64, thread: ThreadId, context: Option<PythonContext>) {
        let call = OutermostCall { process: PROCESS, thread, context, start: MonotonicNs(time) };
        self.parents.ask(TraceId(u128::from(time).to_be_bytes()), call, MonotonicNs(time + 1));
        self.take();
    }

    fn take(&mut self) {
        for (trace, parent) in self.parents.take_settled() {
            let parent = match parent {
                CallParent::Request(start) => Ok(u64::from(start.connection.descriptor) * 100 + start.number),
                CallParent::None(why) => Err(why),
            };
            assert_eq!(self.found.insert(u128::from_be_bytes(trace.0) as u64, parent), None, "it is settled once");
        }
    }

    fn finish(mut self) -> Vec<(u64, Result<u64, NoParent>)> {
        self.parents.finish();
        self.take();
        self.found.into_iter().collect()
    }
}

#[test]
fn tasks_of_an_event_loop_and_what_they_hand_on() {
    let mut server = Server::new();
    // Two at once; each task copies the context of the loop, and one hands its call to a thread, with a copy.
    server.asked(10, 1);
    server.made(11, 0x100, BASE);
    server.asked(12, 2);
    server.made(13, 0x200, BASE);
    server.calls(20, LOOP, entered(0x200));
    server.made(21, 0x110, 0x100);
    server.calls(22, POOL, entered(0x110));
    server.freed(24, 0x110);
    assert!(server.found.is_empty(), "no answer has come so far");
    server.answers(30, 2, (LOOP, entered(0x200)));
    // The answer of the first one may still show something of the second one's call; not the other way round.
    server.answers(40, 1, (LOOP, entered(0x100)));
    // A call after the answer was begun, and a task in the background.
    server.calls(41, LOOP, entered(0x100));
    server.made(42, 0x120, 0x100);
    server.over(45, 1, 1);
    server.freed(46, 0x100);
    server.calls(50, LOOP, entered(0x120));
    // The memory of a context is used again for one of nobody.
    server.made(60, 0x100, BASE);
    server.over(61, 2, 1);
    server.calls(70, LOOP, entered(0x100));
    let expected = [(20, Ok(201)), (22, Ok(101)), (41, Ok(101)), (50, Ok(101)), (70, Err(NoParent::NoRequest))];
    assert_eq!(server.finish(), expected);
}

#[test]
fn a_task_that_serves_a_whole_connection() {
    let mut server = Server::new();
    server.made(5, 0x100, BASE);
    server.asked_on(10, 1, 1);
    server.calls(12, LOOP, entered(0x100));
    // A copy from the first request goes on while the second one is answered.
    server.made(13, 0x110, 0x100);
    server.answers(20, 1, (LOOP, entered(0x100)));
    server.over(21, 1, 1);
    server.asked_on(30, 1, 2);
    server.calls(32, LOOP, entered(0x100));
    server.calls(33, LOOP, entered(0x110));
    server.parents.answers((connection(1), 2), (LOOP, entered(0x100)), MonotonicNs(40));
    server.over(41, 1, 2);
    server.calls(50, LOOP, entered(0x100));
    let expected = [(12, Ok(101)), (32, Ok(102)), (33, Ok(101)), (50, Err(NoParent::NoRequest))];
    assert_eq!(server.finish(), expected);
}

#[test]
fn threads_and_greenlets_without_contexts_of_their_own() {
    let mut server = Server::new();
    server.asked(10, 1);
    server.calls(12, POOL, of_thread(0));
    server.answers(20, 1, (POOL, of_thread(0)));
    server.over(25, 1, 1);
    // Two greenlets of one thread, each with a context that nothing enters.
    server.asked(30, 2);
    server.asked(31, 3);
    server.calls(33, LOOP, of_thread(0x300));
    server.calls(34, LOOP, of_thread(0x200));
    server.answers(40, 3, (LOOP, of_thread(0x300)));
    server.answers(41, 2, (LOOP, of_thread(0x200)));
    server.over(42, 3, 1);
    server.over(43, 2, 1);
    // The same without contexts: it cannot be told.
    server.asked(50, 4);
    server.asked(51, 5);
    server.calls(53, LOOP, of_thread(0));
    server.answers(60, 4, (LOOP, of_thread(0)));
    server.answers(61, 5, (LOOP, of_thread(0)));
    let expected = [(12, Ok(101)), (33, Ok(301)), (34, Ok(201)), (53, Err(NoParent::Several))];
    assert_eq!(server.finish(), expected);
}

#[test]
fn threads_that_wait_for_requests_and_answer_them() {
    let mut server = Server::default();
    let asked = |server: &mut Server, time: u64, descriptor: u32, reader: Option<ThreadId>| {
        let begun = MonotonicNs(time);
        let start = RequestStart { connection: connection(descriptor), number: 1, begun, trace: None };
        server.parents.begins(start, reader);
    };
    asked(&mut server, 10, 1, Some(POOL));
    asked(&mut server, 11, 2, Some(LOOP));
    server.calls(12, POOL, None);
    server.calls(13, LOOP, None);
    server.answers(20, 2, (LOOP, None));
    server.answers(21, 1, (POOL, None));
    server.over(22, 1, 1);
    server.over(23, 2, 1);
    // One that is told when there is something to read, and one that hands its requests to others.
    asked(&mut server, 30, 3, None);
    asked(&mut server, 31, 4, Some(LOOP));
    server.calls(32, LOOP, None);
    server.calls(33, POOL, None);
    server.answers(40, 3, (LOOP, None));
    server.answers(41, 4, (POOL, None));
    let why = Err(NoParent::NotRead);
    assert_eq!(server.finish(), [(12, Ok(101)), (13, Ok(201)), (32, why), (33, why)]);
}

#[test]
fn what_no_request_has_asked_for_is_joined_to_none() {
    let mut server = Server::new();
    server.made(1, 0x50, BASE);
    server.asked(10, 1);
    server.made(11, 0x100, BASE);
    // A task that was there before, a thread, and what was not read.
    server.calls(12, LOOP, entered(0x50));
    server.calls(13, POOL, of_thread(0x900));
    server.calls(14, POOL, None);
    server.calls(15, LOOP, entered(0x7777));
    server.calls(16, LOOP, entered(0x100));
    server.answers(20, 1, (LOOP, entered(0x100)));
    let why = Err(NoParent::NotShown);
    let expected = [(12, why), (13, why), (14, Err(NoParent::NotRead)), (15, why), (16, Ok(101))];
    assert_eq!(server.finish(), expected);
}

#[test]
fn pipelined_requests_whose_contexts_come_from_one_another() {
    let mut server = Server::new();
    server.asked_on(10, 1, 1);
    server.asked_on(10, 1, 2);
    server.made(11, 0x100, BASE);
    server.calls(12, LOOP, entered(0x100));
    server.parents.answers((connection(1), 1), (LOOP, entered(0x100)), MonotonicNs(20));
    // The second one is begun where the first one is answered.
    server.made(21, 0x200, 0x100);
    server.over(22, 1, 1);
    server.calls(25, LOOP, entered(0x200));
    server.parents.answers((connection(1), 2), (LOOP, entered(0x200)), MonotonicNs(30));
    server.over(31, 1, 2);
    assert_eq!(server.finish(), [(12, Ok(101)), (25, Ok(102))]);
}

#[test]
fn lost_records_and_answers_that_never_come_give_no_parent() {
    let mut server = Server::new();
    server.asked(10, 1);
    server.made(11, 0x100, BASE);
    // The end of a context, and the beginning of another one at its address, were lost.
    server.context(12, ContextChange::Made { context: RemoteAddress(0x300), current: None }, 2);
    server.calls(13, LOOP, entered(0x100));
    server.answers(20, 1, (LOOP, entered(0x100)));
    server.over(21, 1, 1);
    // Nobody answers this one for more than a minute, while others are answered.
    server.asked(30, 2);
    server.made(31, 0x400, BASE);
    server.calls(32, LOOP, entered(0x400));
    let later = 32 + MOST_WAITING_NS + 10;
    server.asked(later, 3);
    server.made(later + 1, 0x500, BASE);
    server.answers(later + 2, 3, (LOOP, entered(0x500)));
    assert_eq!(server.finish(), [(13, Err(NoParent::NotShown)), (32, Err(NoParent::TimedOut))]);
}

#[test]
fn a_call_whose_end_is_seen_late_was_made_in_the_context_of_then() {
    let mut server = Server::new();
    server.asked(10, 1);
    server.made(11, 0x100, BASE);
    server.answers(20, 1, (LOOP, entered(0x100)));
    server.over(21, 1, 1);
    server.freed(22, 0x100);
    // The same memory for another request.
    server.asked(30, 2);
    server.made(31, 0x100, BASE);
    server.calls(12, POOL, entered(0x100));
    server.calls(25, POOL, entered(0x100));
    server.calls(32, LOOP, entered(0x100));
    server.answers(40, 2, (LOOP, entered(0x100)));
    assert_eq!(server.finish(), [(12, Ok(101)), (25, Err(NoParent::NoRequest)), (32, Ok(201))]);
}

#[test]
fn what_is_done_long_after_a_request_is_not_inside_it() {
    let mut server = Server::new();
    server.asked(10, 1);
    server.made(11, 0x100, BASE);
    server.answers(20, 1, (LOOP, entered(0x100)));
    server.over(30, 1, 1);
    server.calls(31 + MOST_AFTER_END_NS, LOOP, entered(0x100));
    server.calls(29 + MOST_AFTER_END_NS, LOOP, entered(0x100));
    let expected = [(29 + MOST_AFTER_END_NS, Ok(101)), (31 + MOST_AFTER_END_NS, Err(NoParent::LongOver))];
    assert_eq!(server.finish(), expected);
}

#[test]
fn a_chain_of_contexts_does_not_grow() {
    let mut server = Server::new();
    // A timer that sets itself again and again.
    for number in 1..10_000 {
        server.made(number, BASE + 0x10 * number, BASE + 0x10 * (number - 1));
        server.freed(number, BASE + 0x10 * (number - 1));
    }
    server.freed(LATE_NS + 20_000, 0x7777);
    assert!(server.parents.processes[&PROCESS].contexts.len() < 4);
}
