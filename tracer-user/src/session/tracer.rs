//! The tracer: processes come in, change and go, each with all that belongs to it; at the end the books are read.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::drain::Drain;
use super::end::take_away;
use super::error::SessionError;
use super::findings::Findings;
use super::instances::{Context, Instances, TracedInstance};
use super::probe_load::{LookAtLoad, ProbeLoad};
use super::processes::{LeftProcess, ProcessChanges, Processes};
use super::report::Report;
use crate::attach::{Kernel, Refusal, Refused};
use crate::engine::NativeEngine;
use crate::memory::{Region, regions};
use crate::model::{
    FileNumber, Mapping, Module, PlannedFunction, ProbePlan, ProcessEvent, ProcessId, Target, TargetChange,
};
use crate::plan::Planner;
use crate::target::{TargetSource, has_ended, identify, look_at};

/// What to think of a target that was ended by a signal about its code.
pub const AFTER_SIGNAL: &str = "a fault of its own, as without probes, or one of a program that copies its own code together with \
                                probes (SIGTRAP); docs/native-engine.md, \"Programs that move their own code\", tells them apart";

/// A running tracer. Dropping it takes all probes away; [`Tracer::finish`] also delivers everything.
pub struct Tracer {
    kernel: Box<dyn Kernel>,
    drain: Drain,
    planner: Planner,
    engine: NativeEngine,
    python: Instances,
    source: Box<dyn TargetSource>,
    processes: Processes,
    load: ProbeLoad,
    functions: usize,
    /// Candidates that are not probed.
    skipped: usize,
    /// What has gone wrong with processes that go on and are left alone.
    failures: Vec<Failure>,
    /// When it asks next for what nobody tells it.
    asks: Instant,
}

/// A process that begins to be traced, and what was found in it.
pub struct NewProcess {
    /// The process.
    pub target: Target,
    /// The process that has forked it, if it was not named.
    pub forked_by: Option<ProcessId>,
    /// Native functions.
    pub native: Findings,
    /// Its interpreter, if it has one.
    pub interpreter: Option<TracedInstance>,
}

/// What has gone wrong with a process that is left alone since.
struct Failure {
    process: ProcessId,
    error: SessionError,
    /// Whether it was said.
    is_told: bool,
}

/// How often the tracer asks for what nobody tells it: files that are written to, guards that have gone, readers that have, the
/// log of the programs.
const ASK_EVERY: Duration = Duration::from_millis(100);

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

impl Tracer {
    /// Traces nothing yet.
    pub fn new(
        kernel: Box<dyn Kernel>,
        drain: Drain,
        engine: NativeEngine,
        python: Instances,
        source: Box<dyn TargetSource>,
    ) -> Self {
        Self {
            planner: Planner::new(kernel.features()),
            kernel,
            drain,
            engine,
            python,
            source,
            processes: Processes::default(),
            load: ProbeLoad::new(),
            functions: 0,
            skipped: 0,
            failures: Vec::new(),
            asks: Instant::now(),
        }
    }

    /// The same, where the native probes of a process may take this share of one processor.
    #[must_use]
    pub fn within(self, max_overhead: Option<f64>) -> Self {
        Self { load: self.load.within(max_overhead), ..self }
    }

    /// Functions probed so far.
    #[must_use]
    pub fn functions(&self) -> usize {
        self.functions + self.python.seen_in_all()
    }

    /// Native ones alone.
    pub fn native_functions(&self) -> usize {
        self.functions
    }

    /// Code objects that are seen, or were in processes that have ended.
    pub fn python_functions(&self) -> usize {
        self.python.seen_in_all()
    }

    /// What is new since this was asked last: followed processes, and functions of others.
    pub fn changes(&mut self) -> ProcessChanges {
        let Self { processes, python, .. } = self;
        processes.changes(Instant::now(), |process| python.settled_of(process))
    }

    /// Whether no span can reach any destination any more, because the readers of all have gone.
    #[must_use]
    pub fn nobody_reads(&self) -> bool {
        self.drain.nobody_reads()
    }

    /// Whether every target is gone and none is to come.
    pub fn is_over(&self) -> bool {
        self.source.is_over()
    }

    /// Takes in the processes to begin with, whose calls are recorded from then on. Gives the first function of a named one
    /// that was refused, and the file that it is in.
    ///
    /// # Errors
    /// The session cannot go on.
    pub fn begin(&mut self, arriving: Vec<NewProcess>) -> Result<Option<(PathBuf, Refused)>, SessionError> {
        for arrival in &arriving {
            self.kernel.tell_of(arrival.target.process)?;
        }
        if self.kernel.forks_are_told() {
            self.source.forks_are_told();
        }
        let mut first_refused = None;
        for arrival in arriving {
            for file in &arrival.native.being_written {
                self.source.forget(arrival.target.process, *file);
            }
            let module = arrival.native.requests.first().map(|request| request.module.path.clone());
            let (process, is_named) = (arrival.target.process, arrival.forked_by.is_none());
            match self.add(arrival) {
                Ok(refused) if is_named => first_refused = first_refused.or(module.zip(refused.into_iter().next())),
                Ok(_) => {}
                Err(error) => self.leave(process, error)?,
            }
        }
        Ok(first_refused)
    }

    /// From now on the calls of all processes are recorded.
    ///
    /// # Errors
    /// The session cannot go on.
    pub fn accept_entries(&mut self) -> Result<(), SessionError> {
        // Everything at once, so that the first traces are as whole as the later ones.
        for (process, error) in self.processes.accept_entries(true) {
            self.leave(process, error.into())?;
        }
        self.python.entries_are_accepted(&self.drain)
    }

    /// Adapts to what has changed about the targets.
    ///
    /// # Errors
    /// The session cannot go on.
    pub fn adapt(&mut self, changes: Vec<TargetChange>) -> Result<(), SessionError> {
        changes.into_iter().try_for_each(|change| self.adapt_to(change))
    }

    /// Records tell what has happened to processes.
    pub fn take_note_of(&mut self, events: &[ProcessEvent]) {
        events.iter().for_each(|event| self.source.take_note_of(event));
    }

    /// When the next turn is to be taken, if nothing is told before.
    #[must_use]
    pub fn due(&self, now: Instant) -> Instant {
        let looks = self.python.due(now);
        self.asks.min(self.source.next_look()).min(looks.unwrap_or(self.asks))
    }

    /// Does what is due: traces what the targets have mapped, executed or forked since, and looks at what is traced.
    ///
    /// # Errors
    /// The session cannot go on, or there is nothing left that it could trace because of what went wrong.
    pub fn take_turn(&mut self) -> Result<(), SessionError> {
        let now = Instant::now();
        let is_asking = now >= self.asks;
        if is_asking {
            self.asks = now + ASK_EVERY;
            self.ask()?;
        }
        let changes = self.source.changes();
        self.adapt(changes)?;
        let Self { processes, drain, planner, python, .. } = self;
        let mut context = Context { processes, planner, drain };
        let failed = if is_asking { python.ask_for_guards(&mut context) } else { Vec::new() };
        let failed = failed.into_iter().chain(python.look_again(&mut context)).collect::<Vec<_>>();
        for (process, error) in failed {
            self.leave(process, error)?;
        }
        self.go_on()
    }

    /// Asks for what nobody tells.
    fn ask(&mut self) -> Result<(), SessionError> {
        self.kernel.forward_log();
        let LookAtLoad { sentences, files } = self.load.look(&*self.kernel)?;
        sentences.iter().for_each(|sentence| tracing::warn!("{sentence}"));
        for (process, file) in files {
            let placed = self.place_again(process, file);
            self.or_leave(process, placed)?;
        }
        self.follow_writers();
        Ok(())
    }

    /// Takes all probes away, reads the books, and delivers everything.
    ///
    /// # Errors
    /// The books cannot be read; spans are delivered all the same.
    pub fn finish(self) -> Result<Report, SessionError> {
        let functions = self.functions();
        let Self { mut kernel, drain, mut python, skipped, mut processes, source, .. } = self;
        let unseen = kernel.unseen_forks();
        let report = take_away(&mut *kernel, &mut processes, drain)?;
        let told = processes.report(|process| python.seen_of(process));
        let not_followed = processes.not_followed() + unseen.unwrap_or_else(|| source.left_out());
        let python = python.coverage(&mut processes);
        Ok(Report { functions, python, processes: told, not_followed, skipped, ..report })
    }

    /// Takes a process in, at the start or later: the one way in. Its calls are recorded once entries are accepted.
    fn add(&mut self, arrival: NewProcess) -> Result<Vec<Refused>, SessionError> {
        let NewProcess { target, forked_by, native, interpreter } = arrival;
        self.processes.add(&target, forked_by, self.kernel.process(target.process));
        let refused = self.place_more(&target, native)?;
        let Self { processes, drain, planner, python, .. } = self;
        match interpreter {
            Some(interpreter) => python.take(interpreter),
            None if forked_by.is_some() => python.mapped(&target, true),
            None => {}
        }
        python.attach(target.process, &mut Context { processes, planner, drain })?;
        Ok(refused)
    }

    /// Adapts to a change. What goes wrong with a process stays with it.
    fn adapt_to(&mut self, change: TargetChange) -> Result<(), SessionError> {
        match change {
            TargetChange::Forked { parent, target } => {
                let native = self.survey(&target, &target.modules);
                let interpreter = self.python.find_in_fork(parent, &target);
                let process = target.process;
                let arrived = self.add(NewProcess { target, forked_by: Some(parent), native, interpreter });
                let accepted = arrived.and_then(|_| {
                    let Self { processes, drain, planner, python, .. } = self;
                    python.accept_entries(process, &mut Context { processes, planner, drain })
                });
                self.have_told_of(process);
                self.or_leave(process, accepted)
            }
            TargetChange::Executed { target, modules } => {
                tracing::debug!(process = %target.process, executable = %target.executable.display(), "another program");
                // Native probes belong to the process and its files; what was found in its memory is gone.
                self.python.forget(target.process, &mut self.processes);
                let kernel = self.processes.in_kernel(target.process);
                let forgotten = kernel.map_or(Ok(()), |kernel| kernel.forget_python());
                if let Some(process) = self.processes.traced(target.process) {
                    process.executes(&target);
                }
                // If another thread than the first one has executed it, the end of the first one was told.
                self.have_told_of(target.process);
                let traced = forgotten.map_err(SessionError::from).and_then(|()| self.trace_more(&target, &modules));
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
                if let Some(signal) = self.processes.ended_by(process) {
                    tracing::warn!(
                        "process {process} was ended by {signal} while its functions were probed: {AFTER_SIGNAL}"
                    );
                }
                let python = self.python.seen_of(process);
                self.forget(process);
                self.processes.end(process, python);
                if !self.processes.has_number(process.pid) {
                    self.kernel.tell_no_more_of(process);
                }
                self.failures.retain(|failure| failure.process != process);
                Ok(())
            }
        }
    }

    /// Has the kernel tell what becomes of a process: one that was forked has been noticed. If it is over by now, the kernel has
    /// counted it as one that was not seen.
    fn have_told_of(&mut self, process: ProcessId) {
        if has_ended(process) {
            return;
        }
        if let Err(error) = self.kernel.tell_of(process) {
            tracing::debug!(%process, %error, "what becomes of it is found by looking at it");
        }
        // Its number may be that of another one soon.
        if has_ended(process) {
            self.kernel.tell_no_more_of(process);
        }
    }

    /// Leaves a process alone if something has gone wrong with it.
    fn or_leave(&mut self, process: ProcessId, result: Result<(), SessionError>) -> Result<(), SessionError> {
        result.or_else(|error| self.leave(process, error))
    }

    /// Leaves a process alone, and the session goes on without it. Of followed ones it is said the first time, and counted
    /// every time.
    ///
    /// # Errors
    /// The session cannot go on.
    fn leave(&mut self, process: ProcessId, error: SessionError) -> Result<(), SessionError> {
        if matches!(error, SessionError::DrainEnded) {
            return Err(error);
        }
        // Its probes go one after the other while it runs; what is open then lacks calls.
        if self.processes.in_kernel(process).is_some_and(|kernel| kernel.is_known()) {
            self.drain.begin_gap(Some(process.pid))?;
        }
        self.forget(process);
        self.processes.let_go(process);
        // Of a process that has ended in the middle nothing needs to be said.
        if has_ended(process) || (error.is_about_the_end() && ends_in_a_moment(process)) {
            return Ok(());
        }
        let left = self.processes.leave(process, error.to_string());
        self.have_told_of(process);
        match left {
            LeftProcess::Named => {}
            LeftProcess::FirstFollowed => {
                tracing::warn!("process {process} is not followed: {error}; what else is not followed is counted");
            }
            LeftProcess::Followed => tracing::debug!(%process, %error, "not followed"),
            LeftProcess::Unknown => return Ok(()),
        }
        self.failures.push(Failure { process, error, is_told: left != LeftProcess::Named });
        Ok(())
    }

    /// Says what has gone wrong with named processes, if the session can go on without them.
    ///
    /// # Errors
    /// Nothing is left that could be traced, and this is why.
    pub fn go_on(&mut self) -> Result<(), SessionError> {
        let last = if self.failures.is_empty() || self.processes.is_any_traced() {
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

    /// Forgets what was found in a process. What the kernel holds for it goes with its owner.
    fn forget(&mut self, process: ProcessId) {
        self.python.forget(process, &mut self.processes);
        self.planner.forget(process);
        self.load.forget(process);
    }

    /// Takes the probes of a file away and places those that may stay.
    fn place_again(&mut self, process: ProcessId, file: FileNumber) -> Result<(), SessionError> {
        // Its number may be that of another process by now.
        let Some(target) = look_at(process.pid).ok().filter(|target| target.process == process) else { return Ok(()) };
        let Some(kernel) = self.processes.in_kernel(process) else { return Ok(()) };
        // Calls that are open meanwhile lack those into this file.
        let gap = self.drain.begin_gap(Some(process.pid))?;
        kernel.replaced(file);
        let gone = self.load.forget_file(process, file);
        self.functions = self.functions.saturating_sub(gone);
        if let Some(process) = self.processes.traced(process) {
            process.native = process.native.saturating_sub(gone);
        }
        let modules: Vec<Module> = target.modules.iter().filter(|module| module.number() == file).cloned().collect();
        self.trace_more(&target, &modules)?;
        self.drain.end_gap(gap)
    }

    /// Places probes on what was found in a process.
    fn place_more(&mut self, target: &Target, mut found: Findings) -> Result<Vec<Refused>, SessionError> {
        let Some(process) = self.processes.traced(target.process) else { return Ok(Vec::new()) };
        self.skipped += found.requests.extract_if(.., |request| self.load.is_left_out(request)).count();
        if found.requests.is_empty() {
            self.skipped += found.skipped.len();
            return Ok(Vec::new());
        }
        if process.is_to_be_described() {
            self.drain.add_process(target.clone())?;
        }
        let added = self.planner.plan(found.requests, found.skipped);
        self.apply(target, added)
    }

    fn apply(&mut self, target: &Target, mut added: ProbePlan) -> Result<Vec<Refused>, SessionError> {
        // A process that has executed something since maps its files elsewhere. Its probes are placed all the same: they belong
        // to the process and the files.
        if identify(target.process.pid).is_none_or(|(_, image)| image != target.image) {
            added.functions.iter_mut().for_each(|function| function.request.module.mappings.clear());
        }
        self.drain.add_functions(added.functions.iter().map(PlannedFunction::description).collect())?;
        let Some(kernel) = self.processes.in_kernel(target.process) else { return Ok(Vec::new()) };
        let refused = kernel.place(&added)?;
        tell_refused(&added.functions, &refused);
        let is_being_written = |function: &&PlannedFunction| {
            refused.iter().any(|refusal| refusal.function == function.id && refusal.why == Refusal::BeingWritten)
        };
        for function in added.functions.iter().filter(is_being_written) {
            self.source.forget(target.process, function.request.module.number);
        }
        let is_placed = |function: &&PlannedFunction| !refused.iter().any(|refusal| refusal.function == function.id);
        self.load.add(added.functions.iter().filter(is_placed));
        let placed = added.functions.len() - refused.len();
        self.functions += placed;
        if let Some(process) = self.processes.traced(target.process) {
            process.native += placed;
        }
        self.skipped += added.skipped.len();
        Ok(refused)
    }

    /// A process has mapped files no more, or they have become others. Probes stay only where nobody can write to the file
    /// unnoticed.
    fn lose(&mut self, target: &Target, modules: &[Module]) {
        let process = target.process;
        let is_still_mapped = |module: &Module| target.modules.iter().any(|mapped| mapped.number() == module.number());
        let Some(kernel) = self.processes.in_kernel(process) else { return };
        for module in modules {
            if is_still_mapped(module) {
                kernel.replaced(module.number());
            } else if kernel.is_placed(module.number()) {
                if has_moved(target, module) {
                    kernel.replaced(module.number());
                    tracing::warn!(
                        "process {process} has moved the code of {} into memory of its own: its calls are not seen any more; \
                         probes that were copied with the code may end the process with SIGTRAP (docs/native-engine.md, \
                         \"Programs that move their own code\")",
                        module.path.display()
                    );
                } else {
                    kernel.unmapped(module.number());
                }
            }
        }
    }

    /// Files that somebody has begun to write to have lost their probes: they are looked at again until that is over.
    fn follow_writers(&mut self) {
        for (process, file) in self.kernel.written() {
            tracing::debug!(%process, inode = file.inode, "a probed file is being written to");
            self.source.forget(process, file);
        }
    }

    /// A process has mapped files since.
    fn trace_more(&mut self, target: &Target, modules: &[Module]) -> Result<(), SessionError> {
        let Some(process) = self.processes.traced(target.process) else { return Ok(()) };
        self.python.mapped(target, process.forked_by.is_some());
        let Some(kernel) = self.processes.in_kernel(target.process) else { return Ok(()) };
        // Probes of a file that was unmapped for a while may still be there.
        let is_new = |module: &&Module| !kernel.is_placed(module.number());
        let modules: Vec<Module> = modules.iter().filter(is_new).cloned().collect();
        // What is planned again may have been planned before: for the same file, which was unmapped since.
        for module in &modules {
            self.planner.forget_file(target.process, module.number());
        }
        let found = self.survey(target, &modules);
        // Calls that are open meanwhile lack those into the new files.
        let gap = (!found.requests.is_empty()).then(|| self.drain.begin_gap(Some(target.process.pid))).transpose()?;
        self.place_more(target, found)?;
        if let Some(kernel) = self.processes.in_kernel(target.process) {
            kernel.accept_entries(true)?;
        }
        gap.map_or(Ok(()), |gap| self.drain.end_gap(gap))
    }

    fn survey(&mut self, target: &Target, modules: &[Module]) -> Findings {
        let found = Findings::of(&mut self.engine, target, modules);
        for problem in &found.unreadable {
            // It has ended meanwhile, most of the time; files that can be opened and not read were told at the start.
            tracing::debug!("{problem}");
        }
        for file in &found.being_written {
            self.source.forget(target.process, *file);
        }
        found
    }
}

/// Says which functions of a file are not probed and why, once for each reason.
fn tell_refused(functions: &[PlannedFunction], refused: &[Refused]) {
    let mut reasons: Vec<(&Path, &str, &str, usize)> = Vec::new();
    let function_of = |refusal: &Refused| functions.iter().find(|function| function.id == refusal.function);
    for (function, refusal) in refused.iter().filter_map(|refusal| Some((function_of(refusal)?, refusal))) {
        let request = &function.request;
        // Of a process that has ended in the middle nothing needs to be said.
        if refusal.why == Refusal::ProcessIsEnding || has_ended(request.module.process) {
            continue;
        }
        let path = request.module.path.as_path();
        let is_it = |(known, _, problem, _): &&mut (&Path, &str, &str, usize)| {
            (*known, *problem) == (path, refusal.problem.as_str())
        };
        match reasons.iter_mut().find(is_it) {
            Some((.., count)) => *count += 1,
            None => reasons.push((path, &request.span_name, &refusal.problem, 1)),
        }
    }
    for (path, first, problem, count) in reasons {
        let others = if count > 1 { format!(" and {} others", count - 1) } else { String::new() };
        tracing::warn!("not probed: {first}{others} in {}: {problem}", path.display());
    }
}

/// Whether memory without a file is where the code of a module was.
fn has_moved(target: &Target, module: &Module) -> bool {
    let Ok(regions) = regions(target.process.pid) else { return false };
    let overlaps = |region: &Region, mapping: &Mapping| region.start < mapping.end && mapping.start < region.end;
    let is_there = |region: &Region| module.mappings.iter().any(|mapping| overlaps(region, mapping));
    regions.iter().any(|region| region.executable && region.file.is_none() && is_there(region))
}
