//! What records tell of processes, on its way from the thread that empties the ring buffer to the control loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use super::message::{Message, ProcessEvents};
use crate::model::ProcessEvent;

/// Events that wait for the control loop. With more it is told nothing until it has taken some: what is not told is found by
/// looking at /proc, later.
const MOST_WAITING: usize = 1 << 16;

/// Tells the control loop what has happened to processes.
#[derive(Clone)]
pub struct ProcessNews {
    tell: Sender<Message>,
    waiting: Arc<AtomicUsize>,
}

impl ProcessNews {
    /// Tells it here.
    pub fn new(tell: Sender<Message>) -> Self {
        Self { tell, waiting: Arc::default() }
    }

    /// Tells these events, in their order.
    pub fn tell(&self, events: Vec<ProcessEvent>) {
        if self.waiting.load(Ordering::Relaxed) >= MOST_WAITING {
            tracing::debug!(events = events.len(), "there is too much to be told of processes");
            return;
        }
        let events = ProcessEvents::new(events, Arc::clone(&self.waiting));
        // Nobody listens any more when the session is over.
        let _ = self.tell.send(Message::Processes(events));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::model::{MonotonicNs, ProcessChange};

    #[test]
    fn what_nobody_takes_does_not_grow_without_bound() {
        let (tell, inbox) = channel();
        let news = ProcessNews::new(tell);
        let event = ProcessEvent { process: 7, time: MonotonicNs(1), change: ProcessChange::Executed };
        news.tell(vec![event; MOST_WAITING]);
        news.tell(vec![event]);
        let Ok(Message::Processes(told)) = inbox.try_recv() else { panic!("it was told") };
        assert_eq!(told.events().len(), MOST_WAITING);
        assert!(inbox.try_recv().is_err(), "there was no room");
        drop(told);
        news.tell(vec![event]);
        assert!(matches!(inbox.try_recv(), Ok(Message::Processes(told)) if told.events() == [event]));
    }
}
