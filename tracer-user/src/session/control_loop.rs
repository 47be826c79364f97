//! The one loop of a session: it waits for messages and for the time at which something is due, until something ends it.

use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::error::SessionError;
use super::message::Message;
use super::processes::ProcessChanges;
use super::python_mode::PythonModeReport;
use super::report::Report;
use super::settings::StatusFeed;
use super::tracer::Tracer;
use crate::attach::give_memory_back;
use crate::model::ClassesInSight;

/// From one turn of the loop that nobody has asked for to the next: what is due all the time takes no processor for itself.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// Messages that are taken up in one turn.
const MOST_AT_ONCE: usize = 1_024;

/// What has stopped a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A signal with this number.
    Signal(i32),
    /// The time is over.
    Duration,
    /// Every target is gone.
    TargetsGone,
    /// Nobody reads the spans any more, at any destination.
    NobodyReads,
    /// The command that was started has ended.
    CommandEnded(ExitStatus),
}

/// How long a session lasts.
#[derive(Clone, Debug)]
pub struct Pace {
    /// The longest that it may take.
    pub duration: Option<Duration>,
    /// Whether its target is a command that it has started: the end of that is told.
    pub is_command: bool,
    /// Who is told what is seen and what not.
    pub status: Option<StatusFeed>,
}

/// A session whose probes are live. Dropping it takes them away; [`Session::finish`] also delivers everything.
pub struct Session {
    tracer: Tracer,
    pace: Pace,
    python: PythonModeReport,
    attach_ms: u64,
    /// What was new at the start.
    first_changes: Option<ProcessChanges>,
    /// Since when it runs.
    live: Option<Instant>,
    /// When it is told next what is seen and what not.
    next_status: Instant,
}

impl Session {
    /// Runs this tracer, whose probes are live. `began` is when the start of it began.
    pub(super) fn new(mut tracer: Tracer, pace: Pace, python: PythonModeReport, began: Instant) -> Self {
        let first_changes = ProcessChanges { more_functions: 0, ..tracer.changes() };
        let attach_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Self { tracer, pace, python, attach_ms, first_changes: Some(first_changes), live: None, next_status: began }
    }

    /// Functions probed so far.
    #[must_use]
    pub fn functions(&self) -> usize {
        self.tracer.functions()
    }

    /// Classes of the processes, as the look at the start has found them.
    #[must_use]
    pub fn classes_in_sight(&self) -> Vec<ClassesInSight> {
        self.tracer.classes_in_sight()
    }

    /// How Python calls are seen and what that costs, where there is something to say of it.
    #[must_use]
    pub fn python_cost(&self) -> Option<String> {
        self.python.sentence()
    }

    /// Milliseconds from the start of the tracer until all probes were live.
    #[must_use]
    pub fn attach_ms(&self) -> u64 {
        self.attach_ms
    }

    /// Runs until something stops it; may be called again after a signal. The time counts from the first call. `tell` is
    /// given what is new about the processes.
    ///
    /// # Errors
    /// The session cannot go on; [`Self::finish`] delivers what there is.
    pub fn run(
        &mut self,
        inbox: &Receiver<Message>,
        mut tell: impl FnMut(ProcessChanges),
    ) -> Result<Stop, SessionError> {
        let live = *self.live.get_or_insert_with(Instant::now);
        let end = self.pace.duration.map(|duration| live + duration);
        let mut turn = Instant::now();
        loop {
            let due = self.tracer.due(Instant::now()).max(turn + SHORTEST_PAUSE);
            let mut told = next_message(inbox, end.map_or(due, |end| end.min(due)));
            let mut taken = 0;
            // What was told by now, and then one turn for all of it.
            while let Some(message) = told {
                match message {
                    Message::Signal(number) => return Ok(Stop::Signal(number)),
                    Message::CommandEnded(status) => return Ok(Stop::CommandEnded(status)),
                    Message::Targets(changes) => self.tracer.adapt(changes)?,
                    Message::Processes(told) => self.tracer.take_note_of(told.events()),
                    Message::LookEnded => {}
                }
                taken += 1;
                told = if taken < MOST_AT_ONCE { inbox.try_recv().ok() } else { None };
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok(Stop::Duration);
            }
            turn = Instant::now();
            self.tracer.take_turn()?;
            let first = self.first_changes.take().unwrap_or_default();
            let changes = self.tracer.changes();
            if changes.has_more() {
                give_memory_back();
            }
            tell(first.and(changes));
            self.tell_status();
            if self.tracer.nobody_reads() {
                return Ok(Stop::NobodyReads);
            }
            if self.tracer.is_over() && !self.pace.is_command {
                return Ok(Stop::TargetsGone);
            }
        }
    }

    fn tell_status(&mut self) {
        if let Some(feed) = &self.pace.status
            && Instant::now() >= self.next_status
        {
            self.next_status = Instant::now() + feed.every;
            // Nobody listens any more when the program is ending.
            let _ = feed.to.send(self.tracer.what_is_seen());
        }
    }

    /// Takes all probes away, reads the books, and delivers everything.
    ///
    /// # Errors
    /// The books cannot be read; spans are delivered all the same.
    pub fn finish(self) -> Result<Report, SessionError> {
        Ok(Report { attach_ms: self.attach_ms, python_mode: Some(self.python), ..self.tracer.finish()? })
    }
}

/// The next message, or `None` when the time has come.
fn next_message(inbox: &Receiver<Message>, time: Instant) -> Option<Message> {
    let left = time.saturating_duration_since(Instant::now());
    match inbox.recv_timeout(left) {
        Ok(message) => Some(message),
        Err(RecvTimeoutError::Timeout) => None,
        // Nobody is left who could say anything.
        Err(RecvTimeoutError::Disconnected) => {
            std::thread::sleep(time.saturating_duration_since(Instant::now()));
            None
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
