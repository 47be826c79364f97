//! What happens to the targets of a running tracer: they map files, execute other programs, fork, and end.

use std::time::{Duration, Instant};

use super::error::SessionError;
use super::findings::Findings;
use super::instances::Context;
use super::roster::Left;
use super::tracer::{Arrival, Tracer};
use crate::memory::{Region, regions};
use crate::model::{Mapping, Module, ProcessId, Target, TargetChange};
use crate::target::{children_are_told, has_ended};

/// Processes can be followed only where the kernel tells of their children.
pub fn prepare_to_follow() -> Result<(), SessionError> {
    if children_are_told() { Ok(()) } else { Err(SessionError::CannotFollow) }
}

/// What has gone wrong with a process that is left alone since.
pub(super) struct Failure {
    pub process: ProcessId,
    pub error: SessionError,
    /// Whether it was said.
    is_told: bool,
}

/// How long a process that is said to be ending may take for it.
const ENDING: Duration = Duration::from_millis(20);

/// Whether a process that has no memory any more comes to its end.
fn ends_in_a_moment(process: ProcessId) -> bool {
    let asked = Instant::now();
    while asked.elapsed() < ENDING {
        std::thread::sleep(ENDING / 10);
        if has_ended(process) {
            return true;
        }
    }
    false
}

/// What to think of a target that was ended by a signal about its code.
pub const AFTER_SIGNAL: &str = "a fault of its own, as without probes, or one of a program that copies its own code together with \
                                probes (SIGTRAP); docs/native-engine.md, \"Programs that move their own code\", tells them apart";

impl Tracer {
    /// Adapts to a change. What goes wrong with a process stays with it.
    ///
    /// # Errors
    /// The session cannot go on.
    pub(super) fn take_note_of(&mut self, change: TargetChange) -> Result<(), SessionError> {
        match change {
            TargetChange::Forked { parent, target } => {
                let native = self.survey(&target, &target.modules);
                let interpreter = self.python.find_in_fork(parent, &target);
                let process = target.process;
                let arrived = self.add(Arrival { target, forked_by: Some(parent), native, interpreter });
                let accepted = arrived.and_then(|_| {
                    let Self { programs, drain, planner, python, .. } = self;
                    python.accept_entries(process, &mut Context { programs, planner, drain })
                });
                // If it is over by now, it is counted as one that was not seen.
                if !has_ended(process) {
                    self.programs.notice_fork(process);
                }
                self.or_leave(process, accepted)
            }
            TargetChange::Executed { target, modules } => {
                tracing::debug!(process = %target.process, executable = %target.executable.display(), "another program");
                // Native probes belong to the process and its files; what was found in its memory is gone.
                self.python.forget(target.process, &mut self.programs);
                let let_go = self.programs.let_go_of_python(target.process, true);
                if let Some(member) = self.roster.traced(target.process) {
                    member.executes(&target);
                }
                let traced = let_go.map_err(SessionError::from).and_then(|()| self.trace_more(&target, &modules));
                self.or_leave(target.process, traced)
            }
            TargetChange::Mapped { target, modules } => {
                let traced = self.trace_more(&target, &modules);
                self.or_leave(target.process, traced)
            }
            TargetChange::Unmapped { target, modules } => {
                self.lose(&target, &modules);
                Ok(())
            }
            TargetChange::Gone(process) => {
                tracing::debug!(%process, "a target is gone");
                if let Some(signal) = self.roster.ended_by(process) {
                    tracing::warn!(
                        "process {process} was ended by {signal} while its functions were probed: {AFTER_SIGNAL}"
                    );
                }
                let python = self.python.seen_of(process);
                self.roster.end(process, python);
                self.failures.retain(|failure| failure.process != process);
                self.let_go(process);
                Ok(())
            }
        }
    }

    /// Leaves a process alone if something has gone wrong with it.
    pub(super) fn or_leave(
        &mut self,
        process: ProcessId,
        result: Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        result.or_else(|error| self.leave(process, error))
    }

    /// Leaves a process alone, and the session goes on without it. Of followed ones it is said the first time, and counted
    /// every time.
    ///
    /// # Errors
    /// The session cannot go on.
    pub(super) fn leave(&mut self, process: ProcessId, error: SessionError) -> Result<(), SessionError> {
        if matches!(error, SessionError::DrainEnded) {
            return Err(error);
        }
        // Its probes go one after the other while it runs; what is open then lacks calls.
        if let Some(number) = self.programs.kernel_pid(process) {
            self.drain.begin_gap(Some(number))?;
        }
        self.let_go(process);
        // Of a process that has ended in the middle nothing needs to be said.
        if has_ended(process) || (error.is_about_the_end() && ends_in_a_moment(process)) {
            return Ok(());
        }
        let left = self.roster.leave(process, error.to_string());
        self.programs.notice_fork(process);
        match left {
            Left::Named => {}
            Left::FirstFollowed => {
                tracing::warn!("process {process} is not followed: {error}; what else is not followed is counted");
            }
            Left::Followed => tracing::debug!(%process, %error, "not followed"),
            Left::Unknown => return Ok(()),
        }
        self.failures.push(Failure { process, error, is_told: left != Left::Named });
        Ok(())
    }

    /// Says what has gone wrong with named processes, if the session can go on without them.
    ///
    /// # Errors
    /// Nothing is left that could be traced, and this is why.
    pub(super) fn go_on(&mut self) -> Result<(), SessionError> {
        let last = if self.failures.is_empty() || self.roster.is_any_traced() {
            None
        } else {
            Some(self.failures.remove(0).error)
        };
        for Failure { process, error, is_told } in &mut self.failures {
            if !std::mem::replace(is_told, true) {
                tracing::warn!("process {process} is not traced any more: {error}");
            }
        }
        last.map_or(Ok(()), Err)
    }

    /// Whatever goes wrong with a part of it, the rest is let go.
    fn let_go(&mut self, process: ProcessId) {
        self.python.forget(process, &mut self.programs);
        if let Err(error) = self.programs.let_go(process) {
            tracing::debug!(%process, %error, "not all of what belongs to it could be taken away");
        }
        self.planner.forget(process);
        self.load.forget(process);
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
        // Calls that are open meanwhile lack those into the new files.
        let gap = (!found.requests.is_empty()).then(|| self.drain.begin_gap(Some(target.kernel_pid))).transpose()?;
        self.place_more(target, found)?;
        self.programs.accept_entries_of(target.process, true)?;
        gap.map_or(Ok(()), |gap| self.drain.end_gap(gap))
    }

    fn survey(&mut self, target: &Target, modules: &[Module]) -> Findings {
        let found = Findings::of(&mut self.engine, target, modules);
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
