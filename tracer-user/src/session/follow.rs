//! What happens to the targets of a running tracer: they map files, execute other programs, fork, and end.

use rustix::process::{Resource, getrlimit, setrlimit};

use super::error::SessionError;
use super::survey::Survey;
use super::tracer::{Arrival, Tracer};
use crate::memory::{Region, regions};
use crate::model::{Mapping, Module, ProcessId, Target, TargetChange};
use crate::target::{children_are_told, has_ended};

/// Many processes need many file descriptors: one for each watchpoint on each thread.
pub fn prepare_to_follow() -> Result<(), SessionError> {
    if !children_are_told() {
        return Err(SessionError::CannotFollow);
    }
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused, what finds no descriptor is told.
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
    Ok(())
}

/// What to think of a target that was ended by a signal about its code.
pub const AFTER_SIGNAL: &str = "a fault of its own, as without probes, or one of a program that copies its own code together with \
                                probes (SIGTRAP); docs/native-engine.md, \"Programs that move their own code\", tells them apart";

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
                // If it is over by now, it is counted as one that was not seen.
                if !has_ended(process) {
                    self.programs.notice_fork(process);
                }
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
            TargetChange::Unmapped { target, modules } => self.lose(&target, &modules),
            TargetChange::Gone(process) => {
                tracing::debug!(%process, "a target is gone");
                if let Some(signal) = self.roster.ended_by(process) {
                    tracing::warn!(
                        "process {process} was ended by {signal} while its functions were probed: {AFTER_SIGNAL}"
                    );
                }
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
        if has_ended(process) {
            return Ok(());
        }
        let is_first = self.roster.leave(process);
        self.programs.notice_fork(process);
        if is_first {
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

    /// A process has mapped files no more, or they have become others. Probes stay only where nobody can write to the file
    /// unnoticed.
    fn lose(&mut self, target: &Target, modules: &[Module]) {
        let process = target.process;
        let is_still_mapped = |module: &Module| target.modules.iter().any(|mapped| mapped.number() == module.number());
        for module in modules {
            if is_still_mapped(module) {
                self.programs.replaced(process, module.number());
            } else if self.programs.is_placed(process, module.number()) {
                if has_moved(target, module) {
                    self.programs.replaced(process, module.number());
                    tracing::warn!(
                        "process {process} has moved the code of {} into memory of its own: its calls are not seen any more; \
                         probes that were copied with the code may end the process with SIGTRAP (docs/native-engine.md, \
                         \"Programs that move their own code\")",
                        module.path.display()
                    );
                } else {
                    self.programs.unmapped(process, module.number());
                }
            }
        }
    }

    /// Files that somebody has begun to write to have lost their probes: they are looked at again until that is over.
    pub(super) fn follow_writers(&mut self) {
        for (process, file) in self.programs.written() {
            tracing::debug!(%process, inode = file.inode, "a probed file is being written to");
            self.watcher.forget(process, file);
        }
    }

    /// A process has mapped files since.
    fn trace_more(&mut self, target: &Target, modules: &[Module]) -> Result<(), SessionError> {
        let Some(member) = self.roster.traced(target.process) else { return Ok(()) };
        let is_followed = member.forked_by.is_some();
        self.python.mapped(target, is_followed);
        // Probes of a file that was unmapped for a while may still be there.
        let is_new = |module: &&Module| !self.programs.is_placed(target.process, module.number());
        let modules: Vec<Module> = modules.iter().filter(is_new).cloned().collect();
        // What is planned again may have been planned before: for the same file, which was unmapped since.
        for module in &modules {
            self.planner.forget_file(target.process, module.number());
        }
        let found = self.survey(target, &modules);
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
        for file in &found.being_written {
            self.watcher.forget(target.process, *file);
        }
        found
    }
}

/// Whether memory without a file is where the code of a module was.
fn has_moved(target: &Target, module: &Module) -> bool {
    let Ok(regions) = regions(target.process.pid) else { return false };
    let overlaps = |region: &Region, mapping: &Mapping| region.start < mapping.end && mapping.start < region.end;
    let is_there = |region: &Region| module.mappings.iter().any(|mapping| overlaps(region, mapping));
    regions.iter().any(|region| region.executable && region.file.is_none() && is_there(region))
}
