//! What happens to the targets of a running tracer: they map files, execute other programs, fork, and end.

use super::error::SessionError;
use super::survey::Survey;
use super::tracer::{Arrival, Tracer};
use crate::model::{Module, ProcessId, Target, TargetChange};
use crate::target::{children_are_told, has_ended};

/// Processes can be followed only where the kernel tells of their children.
pub fn prepare_to_follow() -> Result<(), SessionError> {
    if children_are_told() { Ok(()) } else { Err(SessionError::CannotFollow) }
}

impl Tracer {
    /// Adapts to a change.
    pub(super) fn take_note_of(&mut self, change: TargetChange) -> Result<(), SessionError> {
        match change {
            TargetChange::Forked { parent, target } => {
                let native = self.survey(&target, &target.modules);
                let interpreter = self.python.find_in_fork(parent, &target);
                let process = target.process;
                self.follow(Arrival { target, forked_by: Some(parent), native, interpreter })?;
                self.programs.accept_entries_of(process, true)?;
            }
            TargetChange::Executed { target, modules } => {
                tracing::debug!(process = %target.process, executable = %target.executable.display(), "another program");
                // Native probes belong to the process and its files; what was found in its memory is gone.
                self.python.forget(target.process, &mut self.programs)?;
                self.programs.let_go_of_python(target.process, true)?;
                if let Some(member) = self.roster.traced(target.process) {
                    member.executes(&target);
                }
                self.trace_more(&target, &modules)?;
            }
            TargetChange::Mapped { target, modules } => self.trace_more(&target, &modules)?,
            TargetChange::Gone(process) => {
                tracing::debug!(%process, "a target is gone");
                let python = self.python.seen_of(process);
                self.roster.end(process, python);
                self.let_go(process)?;
            }
        }
        Ok(())
    }

    /// Takes in a process that was forked. If that goes wrong, the session goes on without it.
    pub(super) fn follow(&mut self, arrival: Arrival) -> Result<(), SessionError> {
        let process = arrival.target.process;
        match self.add(arrival) {
            Ok(_) => Ok(()),
            Err(error) => self.leave(process, error),
        }
    }

    /// Leaves a followed process alone. It is said the first time, and counted every time.
    pub(super) fn leave(&mut self, process: ProcessId, error: SessionError) -> Result<(), SessionError> {
        if matches!(error, SessionError::DrainEnded) {
            return Err(error);
        }
        self.let_go(process)?;
        // Of a process that has ended in the middle nothing needs to be said.
        if !has_ended(process) && self.roster.leave(process) {
            tracing::warn!("process {process} is not followed: {error}; what else is not followed is counted");
        }
        Ok(())
    }

    fn let_go(&mut self, process: ProcessId) -> Result<(), SessionError> {
        self.python.forget(process, &mut self.programs)?;
        self.programs.let_go(process)?;
        self.planner.forget(process);
        Ok(())
    }

    /// A process has mapped files since.
    fn trace_more(&mut self, target: &Target, modules: &[Module]) -> Result<(), SessionError> {
        let Some(member) = self.roster.traced(target.process) else { return Ok(()) };
        let is_followed = member.forked_by.is_some();
        self.python.mapped(target, is_followed);
        let found = self.survey(target, modules);
        match self.place_more(target, found) {
            Ok(_) => Ok(self.programs.accept_entries_of(target.process, true)?),
            Err(error) if is_followed => self.leave(target.process, error),
            Err(error) => Err(error),
        }
    }

    fn survey(&mut self, target: &Target, modules: &[Module]) -> Survey {
        let found = Survey::of(&mut self.engine, target, modules);
        for problem in &found.unreadable {
            // It has ended meanwhile, most of the time; files that can be opened and not read were told at the start.
            tracing::debug!("{problem}");
        }
        found
    }
}
