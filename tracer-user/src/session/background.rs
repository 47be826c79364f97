//! Work that may take long, on a thread of its own: looks at processes, above all. It reads within a limit that ends it when
//! nobody wants it any more, and nobody waits for it who has other things to do.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

use super::message::Message;
use crate::memory::ReadLimit;

/// How often whoever waits asks whether to go on waiting.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Tells the control loop that work has ended whose result it waits for.
#[derive(Clone, Default)]
pub struct Bell(Option<Sender<Message>>);

impl Bell {
    /// Rings here.
    pub fn new(tell: Sender<Message>) -> Self {
        Self(Some(tell))
    }

    fn ring(&self) {
        if let Some(tell) = &self.0 {
            // Nobody listens any more when the session is over.
            let _ = tell.send(Message::LookEnded);
        }
    }
}

struct RingsAtTheEnd(Bell);

impl Drop for RingsAtTheEnd {
    fn drop(&mut self) {
        self.0.ring();
    }
}

/// Work under way. Dropping it ends its readings and leaves its thread to itself.
pub struct Background<T> {
    limit: ReadLimit,
    result: Receiver<T>,
}

/// How far it is.
pub enum Progress<T> {
    /// It is under way.
    UnderWay,
    /// Its result.
    Done(T),
    /// It has ended without one.
    Failed,
}

impl<T: Send + 'static> Background<T> {
    /// Begins. `None` if there is no thread to be had; there may be one later.
    pub fn begin(name: &str, work: impl FnOnce(&ReadLimit) -> T + Send + 'static) -> Option<Self> {
        Self::begin_and_ring(name, Bell::default(), work)
    }

    /// The same; `bell` rings once it has ended, with a result or without.
    pub fn begin_and_ring(name: &str, bell: Bell, work: impl FnOnce(&ReadLimit) -> T + Send + 'static) -> Option<Self> {
        let limit = ReadLimit::default();
        let (done, result) = channel();
        let own = limit.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // What is made first is dropped last, whatever becomes of the work: by then it is known that there is no result.
            let _bell = RingsAtTheEnd(bell);
            let done = done;
            // Nobody waits for the result of what was dropped.
            let _ = done.send(work(&own));
        });
        match thread {
            Ok(_) => Some(Self { limit, result }),
            Err(error) => {
                tracing::debug!(%error, name, "there is no thread for work on the side");
                None
            }
        }
    }

    /// How far it is, without waiting. A result is given once.
    pub fn progress(&self) -> Progress<T> {
        match self.result.try_recv() {
            Ok(result) => Progress::Done(result),
            Err(TryRecvError::Empty) => Progress::UnderWay,
            Err(TryRecvError::Disconnected) => Progress::Failed,
        }
    }

    /// Waits for the result; `None` if `is_stopped` says so first, or if there is none.
    pub fn wait(self, is_stopped: impl Fn() -> bool) -> Option<T> {
        loop {
            match self.result.recv_timeout(ASK_EVERY) {
                Ok(result) => return Some(result),
                Err(RecvTimeoutError::Timeout) if !is_stopped() => {}
                Err(_) => return None,
            }
        }
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.limit.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;

    use super::*;

    /// Reads until it is ended, and says so.
    fn endless(ended: Sender<()>) -> Background<u32> {
        let work = move |limit: &ReadLimit| {
            while !limit.is_over() {
                std::thread::sleep(Duration::from_millis(1));
            }
            ended.send(()).expect("the test waits");
            1
        };
        Background::begin("endless", work).expect("a thread")
    }

    #[test]
    fn a_result_is_given_once() {
        let work = Background::begin("short", |_| 7).expect("a thread");
        let result = loop {
            match work.progress() {
                Progress::UnderWay => std::thread::yield_now(),
                Progress::Done(result) => break result,
                Progress::Failed => panic!("there is one"),
            }
        };
        assert_eq!(result, 7);
        // The thread may take a moment to end.
        while matches!(work.progress(), Progress::UnderWay) {
            std::thread::yield_now();
        }
        assert!(matches!(work.progress(), Progress::Failed));
        assert_eq!(Background::begin("short", |_| 8).expect("a thread").wait(|| false), Some(8));
    }

    #[test]
    fn nobody_has_to_wait_and_what_nobody_wants_ends() {
        let (ended, has_ended) = channel();
        let work = endless(ended.clone());
        assert!(matches!(work.progress(), Progress::UnderWay));
        drop(work);
        has_ended.recv().expect("it was ended");
        assert_eq!(endless(ended).wait(|| true), None);
        has_ended.recv().expect("so was this one");
    }

    #[test]
    fn the_bell_rings_once_the_result_is_there_or_will_never_be() {
        let (tell, told) = channel();
        let work = Background::begin_and_ring("short", Bell::new(tell.clone()), |_| 7).expect("a thread");
        assert!(matches!(told.recv(), Ok(Message::LookEnded)));
        assert!(matches!(work.progress(), Progress::Done(7)));
        let fails = |_: &ReadLimit| -> u32 { panic!("as a look might") };
        let work = Background::begin_and_ring("fails", Bell::new(tell), fails).expect("a thread");
        assert!(matches!(told.recv(), Ok(Message::LookEnded)));
        assert!(matches!(work.progress(), Progress::Failed));
        assert!(told.recv().is_err(), "nobody is left who could ring");
    }
}
