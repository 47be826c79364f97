//! An input as what a server reads and writes, on one connection after the other.

use tracer_user::engine::{RequestOutcome, ServerRequests};
use tracer_user::model::{ConnectionId, MonotonicNs, RequestFacts, SocketAction, SocketEvent, ThreadId};

/// What follows is read, or written, until the next of these bytes.
const READ: u8 = 1;
/// See [`READ`].
const WRITTEN: u8 = 2;
/// The connection is closed, and another one has its descriptor.
const CLOSED: u8 = 3;
/// Of what comes before, so many more bytes than the next byte tells are not seen.
const UNSEEN: u8 = 4;

/// One step of a conversation.
#[derive(Clone, Copy)]
enum Step<'input> {
    Read(&'input [u8], u64),
    Written(&'input [u8], u64),
    Closed,
}

/// Follows a conversation as it is and, if all of it is seen, cut into single bytes: both must give the same.
pub fn requests(bytes: &[u8]) {
    let (steps, is_seen) = steps(bytes);
    let whole = told(&steps, usize::MAX);
    if is_seen {
        assert_eq!(whole, told(&steps, 1), "the pieces that came at once must not matter");
    }
}

fn steps(bytes: &[u8]) -> (Vec<Step<'_>>, bool) {
    let mut steps = Vec::new();
    let mut is_seen = true;
    let mut is_read = true;
    for (index, part) in bytes.split_inclusive(|byte| (READ..=UNSEEN).contains(byte)).enumerate() {
        let (mark, content) = match part.split_last() {
            Some((mark, content)) if (READ..=UNSEEN).contains(mark) => (*mark, content),
            _ => (READ, part),
        };
        let unseen = if mark == UNSEEN { index as u64 * 100 } else { 0 };
        is_seen &= unseen == 0;
        steps.push(if is_read { Step::Read(content, unseen) } else { Step::Written(content, unseen) });
        match mark {
            READ => is_read = true,
            WRITTEN => is_read = false,
            CLOSED => {
                steps.push(Step::Closed);
                is_read = true;
            }
            _ => {}
        }
    }
    (steps, is_seen)
}

/// What is told of the requests, without times.
fn told(steps: &[Step<'_>], most: usize) -> Vec<String> {
    let mut requests = ServerRequests::default();
    let mut told = Vec::new();
    let out = &mut |outcome| told.push(words(outcome));
    let mut opened = 0;
    let mut has_begun = false;
    for step in steps {
        let mut event = |action| {
            let event = SocketEvent {
                connection: ConnectionId { process: 1, descriptor: 3, opened: MonotonicNs(opened) },
                thread: ThreadId(1),
                time: MonotonicNs(opened),
                was_before: false,
                has_lost: false,
                context: None,
                waits: false,
                action,
            };
            requests.event(event, out);
        };
        if !has_begun {
            event(SocketAction::Accepted);
            has_begun = true;
        }
        match step {
            Step::Closed => event(SocketAction::Closed),
            Step::Read(bytes, unseen) | Step::Written(bytes, unseen) => {
                let parts = if bytes.is_empty() { vec![*bytes] } else { bytes.chunks(most).collect() };
                for part in parts {
                    let length = part.len() as u64 + unseen;
                    event(match step {
                        Step::Written(..) => SocketAction::Written { length, bytes: part.into() },
                        _ => SocketAction::Read { length, bytes: part.into() },
                    });
                }
            }
        }
        if matches!(step, Step::Closed) {
            opened += 1;
            has_begun = false;
        }
    }
    requests.finish(out);
    told
}

fn words(outcome: RequestOutcome) -> String {
    match outcome {
        RequestOutcome::Begins(start) => format!("{} begins", start.number),
        RequestOutcome::Answers(_, number) => format!("{number} is answered"),
        RequestOutcome::Request(request) => {
            let RequestFacts { method, path, status, trace, request_bytes, answer_bytes, .. } = request.facts;
            let ending = request.ending;
            format!("{method} {path} {status:?} {ending:?} {request_bytes} {answer_bytes:?} {trace:?}")
        }
        RequestOutcome::OutOfStep(reason) => reason.words().to_owned(),
        RequestOutcome::Other(other) => other.word().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conversations_to_begin_with_are_sound() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conversations");
        for file in std::fs::read_dir(folder).expect("there are some") {
            let path = file.expect("a file").path();
            let bytes = std::fs::read(&path).expect("it can be read");
            let (steps, _) = steps(&bytes);
            let told = told(&steps, usize::MAX);
            let is_sound =
                |words: &String| [" Some(", " begins", " is answered"].iter().any(|sound| words.contains(sound));
            assert!(told.iter().all(is_sound), "{}: {told:?}", path.display());
            requests(&bytes);
        }
    }
}
