//! The tracer: processes come in, change and go, each with all that belongs to it; at the end the books are read.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::drain::Drain;
use super::end::take_away;
use super::error::SessionError;
use super::failures::{Failures, ends_in_a_moment};
use super::findings::Findings;
use super::first_calls::FirstCalls;
use super::instances::{Context, Instances, Measured, TracedInstance};
use super::native_probes::{NativeProbes, lose};
use super::processes::{LeftProcess, ProcessChanges, Processes};
use super::report::Report;
use crate::attach::{AttachError, Kernel, KernelProcess, Refused};
use crate::engine::{FirstObjects, Runtimes};
use crate::model::{ClassesInSight, Module, ProcessEvent, ProcessId, ProgramImage, Target, TargetChange, counted};
use crate::plan::{Planner, PythonCost};
use crate::target::{TargetSource, has_ended, identify, server_sockets};

/// What to think of a target that was ended by a signal about its code.
pub const AFTER_SIGNAL: &str = "a fault of its own, as without probes, or one of a program that copies its own code together with \
                                probes (SIGTRAP); docs/native-engine.md, \"Programs that move their own code\", tells them apart";

/// A running tracer. Dropping it takes all probes away; [`Tracer::finish`] also delivers everything.
pub struct Tracer {
    kernel: Box<dyn Kernel>,
    drain: Drain,
    planner: Planner,
    native: NativeProbes,
    instances: Instances,
    source: Box<dyn TargetSource>,
    processes: Processes,
    failures: Failures,
    /// Whether it goes on for what is forked later, however little there is to trace.
    awaits_forks: bool,
    /// Whether it looks at what the processes are asked over their connections.
    sees_requests: bool,
    /// Forked processes that were noticed, and that the kernel has counted as not seen.
    counted_twice: u64,
    /// The command that it has started, if its first calls are to be seen.
    first_calls: Option<FirstCalls>,
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
    pub found: Findings,
    /// Its runtime, if it has one.
    pub instance: Option<TracedInstance>,
}

/// How often the tracer asks for what nobody tells it: files that are written to, guards that have gone, readers that have, the
/// log of the programs.
const ASK_EVERY: Duration = Duration::from_millis(100);

impl Tracer {
    /// Traces nothing yet.
    pub fn new(
        kernel: Box<dyn Kernel>,
        drain: Drain,
        native: NativeProbes,
        instances: Instances,
        source: Box<dyn TargetSource>,
    ) -> Self {
        Self {
            planner: Planner::new(kernel.features()),
            kernel,
            drain,
            native,
            instances,
            source,
            processes: Processes::default(),
            failures: Failures::default(),
            awaits_forks: false,
            sees_requests: false,
            counted_twice: 0,
            first_calls: None,
            asks: Instant::now(),
        }
    }

    /// The same, which goes on for what is forked later, however little there is to trace.
    #[must_use]
    pub fn awaiting_forks(self, awaits_forks: bool) -> Self {
        Self { awaits_forks, ..self }
    }

    /// The same, which looks at what the processes are asked over their connections.
    #[must_use]
    pub fn seeing_requests(self, sees_requests: bool) -> Self {
        Self { sees_requests, ..self }
    }

    /// The same, which sees the first calls of this process: a command that has not begun.
    #[must_use]
    pub fn seeing_first_calls(self, command: Option<ProcessId>) -> Self {
        let instances = self.instances.of_command(command);
        Self { first_calls: command.map(FirstCalls::of), instances, ..self }
    }

    /// Functions probed so far.
    #[must_use]
    pub fn functions(&self) -> usize {
        self.native.functions() + self.instances.seen_in_all()
    }

    /// Native ones alone.
    pub fn native_functions(&self) -> usize {
        self.native.functions()
    }

    /// Classes of the processes.
    pub fn classes_in_sight(&self) -> Vec<ClassesInSight> {
        self.instances.classes_in_sight()
    }

    /// What is seen now and what not, and why, a sentence each.
    pub fn what_is_seen(&mut self) -> Vec<String> {
        let coverage = self.instances.coverage_now(&mut self.processes);
        let mut sentences = Runtimes::remarks(&coverage, |_| Vec::new());
        sentences.extend(Runtimes::left_out(&coverage));
        let (probed, skipped) = (self.native.functions(), self.native.skipped());
        if probed > 0 || skipped > 0 {
            let probed = counted(probed as u64, "native function is probed", "native functions are probed");
            sentences.push(match skipped {
                0 => probed,
                _ => format!("{probed}, {skipped} cannot be: `ml-tracer symbols --pid PID` says which and why"),
            });
        }
        sentences
    }

    /// Code that is seen in runtimes, or was in processes that have ended.
    pub fn seen_in_runtimes(&self) -> usize {
        self.instances.seen_in_all()
    }

    /// What is new since this was asked last: followed processes, and functions of others.
    pub fn changes(&mut self) -> ProcessChanges {
        let goes_on = self.is_any_of_interest();
        let Self { processes, instances, .. } = self;
        processes.changes(Instant::now(), goes_on, |process| instances.settled_of(process))
    }

    /// Whether no span can reach any destination any more, because the readers of all have gone.
    #[must_use]
    pub fn nobody_reads(&self) -> bool {
        self.drain.nobody_reads()
    }

    /// Whether every target is gone and none is to come. What is left of those that were forked, and has nothing to trace, does
    /// not count: a helper may outlive its server.
    pub fn is_over(&self) -> bool {
        self.source.is_over() || !(self.is_any_of_interest() || self.source.is_expecting())
    }

    /// Whether a process goes on for which it is worth while.
    fn is_any_of_interest(&self) -> bool {
        let Self { processes, instances, .. } = self;
        match self.awaits_forks {
            true => processes.is_any_traced(),
            false => processes.is_any_of_interest(Instant::now(), |process| instances.may_be_seen_in(process)),
        }
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
            for file in &arrival.found.being_written {
                self.source.forget(arrival.target.process, *file);
            }
            let module = arrival.found.requests.first().map(|request| request.module.path.clone());
            let (process, is_named) = (arrival.target.process, arrival.forked_by.is_none());
            match self.add(arrival) {
                Ok(refused) if is_named => first_refused = first_refused.or(module.zip(refused.into_iter().next())),
                Ok(_) => {}
                Err(error) => self.leave(process, error)?,
            }
        }
        Ok(first_refused)
    }

    /// Counts for a moment what the probes and watchpoints come to that are live in runtimes, before anything is recorded: what
    /// they cost. `hit_ns`: what a hit of a watchpoint takes, if that is to be told.
    pub fn costs(&mut self, hit_ns: Option<f64>) -> Vec<PythonCost> {
        let measured = Measured { probe_ns: self.kernel.empty_probe_ns(), hit_ns };
        let Self { processes, drain, planner, instances, .. } = self;
        instances.costs(&mut Context { processes, planner, drain }, measured)
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
        self.instances.entries_are_accepted(&self.drain)?;
        // What a request calls is seen from its beginning on, and what was found in the process tells how to name it.
        if self.sees_requests {
            for (process, error) in self.processes.in_each(look_at_requests) {
                self.leave(process, error.into())?;
            }
        }
        Ok(())
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
        for event in events {
            self.source.take_note_of(event);
            if let Some(command) = &mut self.first_calls {
                command.take_note_of(event);
                self.instances.command_stopped(command.stopped());
            }
        }
    }

    /// When the next turn is to be taken, if nothing is told before.
    #[must_use]
    pub fn due(&self, now: Instant) -> Instant {
        let looks = self.instances.due(now);
        let command = self.first_calls.as_ref().and_then(FirstCalls::due);
        looks.into_iter().chain(command).fold(self.asks.min(self.source.next_look()), Instant::min)
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
        let Self { processes, drain, planner, instances, .. } = self;
        let mut context = Context { processes, planner, drain };
        let failed = if is_asking { instances.ask_for_guards(&mut context) } else { Vec::new() };
        let failed = failed.into_iter().chain(instances.look_again(&mut context)).collect::<Vec<_>>();
        for (process, error) in failed {
            self.leave(process, error)?;
        }
        self.let_command_go_on();
        self.go_on()
    }

    /// Lets the command go on once what may be called in it is seen.
    fn let_command_go_on(&mut self) {
        let Self { first_calls: Some(command), instances, processes, .. } = self else { return };
        let process = command.process();
        let is_known = command.stopped().is_some_and(|since| instances.has_looked_since(process, since));
        let stops_no_more = command.go_on_if(Instant::now(), is_known);
        instances.command_stopped(command.stopped());
        if stops_no_more {
            instances.command_stops_no_more();
            processes.in_kernel(process).into_iter().for_each(|kernel| kernel.stop_no_more());
        }
    }

    /// Has the command stop at the first objects of the classes that are asked for, if it runs a runtime that is known, or will.
    fn see_first_calls(&mut self, target: &Target) {
        let Self { first_calls: Some(command), instances, processes, .. } = self else { return };
        if !command.is_to_be_placed(target.process) || !Runtimes::may_be_in(target) {
            return;
        }
        let Some(FirstObjects { file, site, classes, are_all }) = instances.first_objects(target) else {
            return;
        };
        let Some(kernel) = processes.in_kernel(target.process) else { return };
        let stops = kernel.stop_at_first_objects(&file, &site, &classes);
        command.placed();
        match stops {
            Ok(()) if are_all => instances.command_is_idle(),
            Ok(()) => {}
            Err(error) => tracing::warn!("the first calls of the command may not be seen: {error}"),
        }
    }

    /// Asks for what nobody tells.
    fn ask(&mut self) -> Result<(), SessionError> {
        self.kernel.forward_log();
        self.kernel.follow_unix_sockets();
        for (process, file) in self.native.look_at_load(&*self.kernel)? {
            let Self { processes, drain, planner, native, source, .. } = self;
            let mut context = Context { processes, planner, drain };
            let placed = native.place_again((process, file), &mut context, &mut **source);
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
        let Self { mut kernel, drain, mut instances, native, mut processes, source, counted_twice, .. } = self;
        let unseen = kernel.unseen_forks().map(|unseen| unseen.saturating_sub(counted_twice));
        let report = take_away(&mut *kernel, &mut processes, drain)?;
        let told = processes.report(|process| instances.seen_of(process));
        let not_followed = processes.not_followed() + unseen.unwrap_or_else(|| source.left_out());
        let coverage = instances.coverage(&mut processes);
        let told_of_runtimes = Runtimes::remarks(&coverage, |process| report.spans_of(process));
        let (left_out, skipped) = (Runtimes::left_out(&coverage), native.skipped());
        Ok(Report { functions, coverage, told_of_runtimes, left_out, processes: told, not_followed, skipped, ..report })
    }

    /// Takes a process in, at the start or later: the one way in. Its calls are recorded once entries are accepted.
    fn add(&mut self, arrival: NewProcess) -> Result<Vec<Refused>, SessionError> {
        let NewProcess { target, forked_by, found, instance } = arrival;
        self.processes.add(&target, forked_by, self.kernel.process(target.process));
        let Self { processes, drain, planner, native, instances, source, .. } = self;
        let mut context = Context { processes, planner, drain };
        let refused = native.place(&target, found, &mut context, &mut **source)?;
        match instance {
            Some(instance) => instances.take(instance),
            None if forked_by.is_some() => instances.mapped(&target, true),
            None => {}
        }
        instances.attach(target.process, &mut context)?;
        self.see_first_calls(&target);
        Ok(refused)
    }

    /// Adapts to a change. What goes wrong with a process stays with it.
    fn adapt_to(&mut self, change: TargetChange) -> Result<(), SessionError> {
        match change {
            TargetChange::Forked { parent, target } => {
                let found = self.native.survey(&target, &target.modules, &mut *self.source);
                let instance = self.instances.find_in_fork(parent, &target);
                let (process, image) = (target.process, target.image);
                let arrived = self.add(NewProcess { target, forked_by: Some(parent), found, instance });
                let accepted = arrived.and_then(|_| {
                    let Self { processes, drain, planner, instances, .. } = self;
                    instances.accept_entries(process, &mut Context { processes, planner, drain })?;
                    let kernel = self.processes.in_kernel(process).filter(|_| self.sees_requests);
                    Ok(kernel.map_or(Ok(()), |kernel| look_at_requests(process, kernel))?)
                });
                self.take_notice_of(process);
                if let Err(error) = &accepted
                    && runs_another_program(process, image)
                {
                    // What was to be placed went to a program that it does not run any more; the other one is told next.
                    tracing::debug!(%process, %error, "another program meanwhile");
                    self.instances.forget(process, &mut self.processes);
                    let kernel = self.processes.in_kernel(process);
                    let forgotten = kernel.map_or(Ok(()), forget_program);
                    return self.or_leave(process, forgotten.map_err(SessionError::from));
                }
                self.or_leave(process, accepted)
            }
            TargetChange::Executed { target, modules } => {
                tracing::debug!(process = %target.process, executable = %target.executable.display(), "another program");
                // Native probes belong to the process and its files; what was found in its memory is gone.
                self.instances.forget(target.process, &mut self.processes);
                let kernel = self.processes.in_kernel(target.process);
                let forgotten = kernel.map_or(Ok(()), forget_program);
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
                let Self { processes, drain, planner, .. } = self;
                lose(&target, &modules, &mut Context { processes, planner, drain });
                Ok(())
            }
            TargetChange::Gone(process) => {
                tracing::debug!(%process, "a target is gone");
                if let Some(signal) = self.processes.ended_by(process) {
                    tracing::warn!(
                        "process {process} was ended by {signal} while its functions were probed: {AFTER_SIGNAL}"
                    );
                }
                let seen = self.instances.seen_of(process);
                self.forget(process);
                self.processes.end(process, seen);
                if !self.processes.has_number(process.pid) {
                    self.kernel.tell_no_more_of(process);
                }
                self.failures.forget(process);
                Ok(())
            }
        }
    }

    /// A process that was forked has been noticed. One that had ended by then is counted by the kernel as not seen, although it is among
    /// those that are told of if anything in it is traced.
    fn take_notice_of(&mut self, process: ProcessId) {
        if self.kernel.forks_are_told() {
            match self.kernel.take_notice_of(process) {
                Ok(true) => return,
                Ok(false) => {
                    let is_traced = self.processes.traced(process).is_some_and(|known| known.native > 0)
                        || self.instances.seen_of(process) > 0;
                    self.counted_twice += u64::from(is_traced);
                }
                Err(error) => tracing::debug!(%process, %error, "it is counted as one that was not seen"),
            }
        }
        self.have_told_of(process);
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
                tracing::warn!(
                    "process {process} is not followed: {error}; others that cannot be followed are counted at the end"
                );
            }
            LeftProcess::Followed => tracing::debug!(%process, %error, "not followed"),
            LeftProcess::Unknown => return Ok(()),
        }
        self.failures.add(process, error, left != LeftProcess::Named);
        Ok(())
    }

    /// Forgets what was found in a process. What the kernel holds for it goes with its owner.
    fn forget(&mut self, process: ProcessId) {
        self.instances.forget(process, &mut self.processes);
        self.planner.forget(process);
        self.native.forget(process);
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
        self.instances.mapped(target, process.forked_by.is_some());
        self.see_first_calls(target);
        let Self { processes, drain, planner, native, source, .. } = self;
        native.place_more(target, modules, &mut Context { processes, planner, drain }, &mut **source)
    }

    /// Says what has gone wrong with named processes, if the session can go on without them.
    ///
    /// # Errors
    /// Nothing is left that could be traced, and this is why.
    pub fn go_on(&mut self) -> Result<(), SessionError> {
        self.failures.go_on(self.is_any_of_interest())
    }
}

/// Has the requests of a process told, those on the connections that it has accepted before too.
fn look_at_requests(process: ProcessId, kernel: &mut dyn KernelProcess) -> Result<(), AttachError> {
    kernel.look_at_requests(&mut || server_sockets(process))
}

/// A process runs another program: what was found in the memory of the other one is gone.
fn forget_program(kernel: &mut (dyn KernelProcess + 'static)) -> Result<(), AttachError> {
    kernel.forget_contexts().and(kernel.forget_python())
}

/// Whether a process has executed another program than this one, and goes on.
fn runs_another_program(process: ProcessId, image: ProgramImage) -> bool {
    identify(process.pid).is_some_and(|(now, program)| now == process && program != image)
}
