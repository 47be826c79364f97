//! Events of many connections, in the order in which they come.

use super::*;
use crate::model::{Request, ThreadId};

const GET: &[u8] = b"GET /a HTTP/1.1\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn read() -> SocketAction {
    SocketAction::Read { length: GET.len() as u64, bytes: GET.into() }
}

fn written() -> SocketAction {
    SocketAction::Written { length: OK.len() as u64, bytes: OK.into() }
}

fn event(opened: u64, time: u64, action: SocketAction) -> SocketEvent {
    SocketEvent {
        connection: ConnectionId { process: 7, descriptor: 5, opened: MonotonicNs(opened) },
        thread: ThreadId(7),
        time: MonotonicNs(time),
        was_before: false,
        has_lost: false,
        context: None,
        waits: true,
        action,
    }
}

fn endings(outcomes: &[Outcome]) -> Vec<RequestEnding> {
    let ending = |outcome: &Outcome| match outcome {
        Outcome::Request(Request { ending, .. }) => Some(*ending),
        _ => None,
    };
    outcomes.iter().filter_map(ending).collect()
}

/// Keeps what is over.
fn keep(outcomes: &mut Vec<Outcome>, outcome: Outcome) {
    if !matches!(outcome, Outcome::Begins(_) | Outcome::Answers(..)) {
        outcomes.push(outcome);
    }
}

fn play(events: Vec<SocketEvent>) -> Vec<Outcome> {
    let mut requests = ServerRequests::default();
    let mut outcomes = Vec::new();
    for event in events {
        requests.event(event, &mut |outcome| keep(&mut outcomes, outcome));
    }
    requests.finish(&mut |outcome| keep(&mut outcomes, outcome));
    assert_eq!(requests.connections.len(), 0);
    outcomes
}

#[test]
fn a_lost_record_is_the_end_of_what_is_told_of_its_connection() {
    let lossy = |event: SocketEvent| SocketEvent { has_lost: true, ..event };
    let outcomes = play(vec![
        event(1, 1, SocketAction::Accepted),
        event(1, 2, read()),
        lossy(event(1, 4, written())),
        lossy(event(1, 5, read())),
        lossy(event(1, 6, written())),
        lossy(event(1, 7, SocketAction::Closed)),
        event(9, 9, SocketAction::Accepted),
        event(9, 9, read()),
        event(9, 9, written()),
    ]);
    assert_eq!(endings(&outcomes), [RequestEnding::OutOfStep, RequestEnding::Answered]);
    assert_eq!(outcomes[1], Outcome::OutOfStep(OutOfStep::LostRecord));
    assert_eq!(outcomes.len(), 3);
    // The one that tells that it was accepted.
    assert_eq!(play(vec![lossy(event(1, 2, read()))]), [Outcome::OutOfStep(OutOfStep::LostRecord)]);
}

#[test]
fn of_a_connection_whose_beginning_was_not_told_nobody_knows_where_it_is() {
    let rest = || SocketAction::Read { length: 4, bytes: b"rest".as_slice().into() };
    let outcomes = play(vec![event(1, 1, rest()), event(1, 2, written()), event(1, 3, read()), event(1, 4, written())]);
    assert_eq!(endings(&outcomes), [RequestEnding::Answered]);
    assert_eq!(outcomes.len(), 1);
}

#[test]
fn a_descriptor_that_is_used_again_is_another_connection() {
    let outcomes = play(vec![
        event(1, 1, SocketAction::Accepted),
        event(1, 2, read()),
        // Its end was lost.
        event(4, 4, SocketAction::Accepted),
        event(4, 5, read()),
        // Late, of the one before.
        event(1, 3, written()),
        event(4, 6, written()),
        event(4, 7, SocketAction::Closed),
    ]);
    assert_eq!(endings(&outcomes), [RequestEnding::Closed, RequestEnding::Answered]);
}

#[test]
fn what_is_open_at_the_end_says_what_ended() {
    let open = vec![event(1, 1, SocketAction::Accepted), event(1, 2, read())];
    assert_eq!(endings(&play(open.clone())), [RequestEnding::StillOpen]);
    let mut requests = ServerRequests::default();
    let mut outcomes = Vec::new();
    for event in open {
        requests.event(event, &mut |outcome| keep(&mut outcomes, outcome));
    }
    requests.process_ended(8, MonotonicNs(3), &mut |outcome| keep(&mut outcomes, outcome));
    assert!(outcomes.is_empty());
    requests.process_ended(7, MonotonicNs(4), &mut |outcome| keep(&mut outcomes, outcome));
    let [Outcome::Request(request)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((request.ending, request.end), (RequestEnding::ProcessEnded, MonotonicNs(4)));
}

#[test]
fn nothing_grows_without_bound() {
    let mut requests = ServerRequests { most: 8, ..ServerRequests::default() };
    let mut lost = 0;
    for descriptor in 0..100 {
        let mut accepted = event(1, u64::from(descriptor), SocketAction::Accepted);
        accepted.connection.descriptor = descriptor;
        requests.event(accepted, &mut |outcome| lost += usize::from(outcome == Outcome::OutOfStep(OutOfStep::TooMany)));
    }
    assert_eq!((requests.connections.len(), lost), (8, 92));
}
