//! A command whose first calls are to be seen: it stops itself at the first object of a class that is asked for, and goes on once what
//! may be called of it is seen.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::model::{ProcessChange, ProcessEvent, ProcessId};

/// It is not kept waiting for longer, whatever is not known by then.
const LONGEST_STOP: Duration = Duration::from_secs(2);

/// For so long after its program has begun it stops: what a server makes later is seen by looking at it, and until then every object that
/// it makes passes a probe.
const STOPS_FOR: Duration = Duration::from_secs(20);

/// The command. Dropping this lets it go on.
pub struct FirstCalls {
    process: ProcessId,
    began: Instant,
    /// Whether it stops at all: its runtime is known.
    is_placed: bool,
    /// Since when it stands still.
    stopped: Option<Instant>,
    is_over: bool,
}

impl FirstCalls {
    /// It has not begun.
    pub fn of(process: ProcessId) -> Self {
        Self { process, began: Instant::now(), is_placed: false, stopped: None, is_over: false }
    }

    /// Its process.
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// Whether this process is to be stopped, and is not yet.
    pub fn is_to_be_placed(&self, process: ProcessId) -> bool {
        self.process == process && !self.is_placed && !self.is_over
    }

    /// It stops from now on.
    pub fn placed(&mut self) {
        self.is_placed = true;
    }

    /// A record tells of a process.
    pub fn take_note_of(&mut self, event: &ProcessEvent) {
        if event.process == self.process.pid && event.change == ProcessChange::Stopped {
            self.stopped.get_or_insert_with(Instant::now);
        }
    }

    /// Since when it stands still, if it does.
    pub fn stopped(&self) -> Option<Instant> {
        self.stopped
    }

    /// Lets it go on, if it is known what may be called, or it has waited for long enough. Whether it is not to be stopped again is said once.
    pub fn go_on_if(&mut self, now: Instant, is_known: bool) -> bool {
        let has_waited = self.stopped.is_some_and(|since| now >= since + LONGEST_STOP);
        if is_known || has_waited {
            self.go_on();
        }
        let ends = !self.is_over && (has_waited || now >= self.began + STOPS_FOR);
        self.is_over |= ends;
        ends
    }

    /// When it is to be asked again, at the latest.
    pub fn due(&self) -> Option<Instant> {
        let end = (!self.is_over).then(|| self.began + STOPS_FOR);
        self.stopped.map(|since| since + LONGEST_STOP).into_iter().chain(end).min()
    }

    fn go_on(&mut self) {
        if self.stopped.take().is_none() {
            return;
        }
        let pid = i32::try_from(self.process.pid).ok().and_then(Pid::from_raw);
        // It is our own child, which keeps its number until we have waited for it.
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::CONT)) {
            tracing::debug!(process = %self.process, %error, "it cannot be let go on");
        }
    }
}

impl Drop for FirstCalls {
    fn drop(&mut self) {
        self.go_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MonotonicNs;

    fn stopped(process: u32) -> ProcessEvent {
        ProcessEvent { process, time: MonotonicNs(1), change: ProcessChange::Stopped }
    }

    /// Nobody has this number.
    const NOBODY: ProcessId = ProcessId { pid: i32::MAX.cast_unsigned(), start_time: 1 };

    #[test]
    fn it_goes_on_once_it_is_known_or_has_waited() {
        let mut calls = FirstCalls::of(NOBODY);
        let now = Instant::now();
        calls.take_note_of(&stopped(7));
        assert_eq!(calls.stopped(), None, "another process");
        calls.take_note_of(&stopped(NOBODY.pid));
        assert!(calls.stopped().is_some() && calls.due().is_some_and(|due| due <= now + LONGEST_STOP * 2));
        assert!(!calls.go_on_if(now, false) && calls.stopped().is_some());
        assert!(!calls.go_on_if(now, true) && calls.stopped().is_none());
        calls.take_note_of(&stopped(NOBODY.pid));
        assert!(calls.go_on_if(now + LONGEST_STOP * 2, false), "it is never stopped again");
        assert!(calls.stopped().is_none() && !calls.is_to_be_placed(NOBODY));
        assert!(!calls.go_on_if(now + STOPS_FOR * 2, false) && calls.due().is_none(), "that is said once");
    }

    #[test]
    fn it_stops_for_a_while_only() {
        let mut calls = FirstCalls::of(NOBODY);
        assert!(calls.is_to_be_placed(NOBODY));
        calls.placed();
        assert!(!calls.is_to_be_placed(NOBODY) && !calls.go_on_if(Instant::now(), true));
        assert!(calls.go_on_if(Instant::now() + STOPS_FOR, true));
    }
}
