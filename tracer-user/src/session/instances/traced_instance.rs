//! One instance of a runtime: looked at, decided for by the policy, seen as that says, and looked at again.

use std::time::Instant;

use super::super::background::Bell;
use super::super::clock::monotonic_now;
use super::super::descriptors::few_descriptors;
use super::super::drain::{Drain, OpenGap};
use super::super::error::SessionError;
use super::super::settings::PythonSettings;
use super::call_probes::CallProbes;
use super::chain_in_reserve::{ChainInReserve, Reason, UNSEEN, cost_of_chain, going_back, going_over};
use super::context::Context;
use super::contexts::see_contexts;
use super::exceptions::see_exceptions;
use super::first_count::FirstCount;
use super::looked::{Looked, Looks, look_at, time_worked};
use crate::attach::{CodeWatch, KernelProcess, Moved, WatchOutcome, measure_emulated_probe};
use crate::engine::{EngineError, RuntimeInstance, Runtimes};
use crate::memory::ReadLimit;
use crate::model::{
    InterpreterSite, MonotonicNs, NotWatched, ProcessId, ProgramImage, PythonLayout, PythonMode, RemoteAddress,
    RuntimeCoverage, Target, UnwatchedMethods,
};
use crate::plan::{Calibration, CallProfile, Counts, Others, Planner, SurveyDelta, Turn, WatchPolicy};
use crate::target::{address_space, has_ended, holder_of_registers, tracer_of};

/// One instance and what is seen of it.
pub struct TracedInstance {
    target: Target,
    instance: Box<dyn RuntimeInstance>,
    policy: WatchPolicy,
    code: CodeWatch,
    /// Where probes are used instead of watchpoints.
    probes: Option<CallProbes>,
    /// Those of chain mode, if more may come to be called than can be watched.
    reserve: Option<ChainInReserve>,
    /// What was called in watch mode, and not since chain mode began.
    called_before: Counts,
    /// Where exceptions pass in the runtime's file, once that was asked.
    exceptions: Option<Option<InterpreterSite>>,
    looks: Looks,
    /// The most code objects that were seen at one time: an interpreter that ends has none any more.
    most_seen: usize,
    /// Whether it is a command that stands still until it is seen, and has called nothing so far.
    is_command: bool,
    /// The time of a calibration, in which nothing is recorded.
    calibration: Option<OpenGap>,
    /// What was told last of methods that are not watched.
    unwatched: Option<UnwatchedMethods>,
}

impl TracedInstance {
    /// Finds the runtime of a process and looks at it. `Ok(None)` if it has none.
    ///
    /// `limit` ends it, and nothing else: what comes of it is read without one.
    pub fn find(
        target: &Target,
        runtimes: &Runtimes,
        settings: PythonSettings,
        limit: &ReadLimit,
    ) -> Result<Option<Self>, EngineError> {
        let (looks, began) = (Looks::since(Instant::now()), time_worked());
        let Some(mut instance) = runtimes.find(target, limit)? else { return Ok(None) };
        let runtime = instance.runtime().clone();
        let (mode, probes) = CallProbes::choose(&*instance, target, settings)?;
        let reserve = ChainInReserve::find(&*instance, target, settings);
        let code = CodeWatch::new(target.process, settings.told_of(instance.layout()?, mode));
        let look = (instance.look()?, time_worked().saturating_sub(began));
        let policy = WatchPolicy::new(Instant::now(), runtime, (mode, code.layout()), look);
        let instance = instance.to_look_at(&ReadLimit::default());
        Ok(Some(Self { reserve, looks, ..Self::unseen(target, instance, policy, code, probes) }))
    }

    /// An instance that has been looked at, and of which nothing is seen yet.
    fn unseen(
        target: &Target,
        instance: Box<dyn RuntimeInstance>,
        policy: WatchPolicy,
        code: CodeWatch,
        probes: Option<CallProbes>,
    ) -> Self {
        let target = target.clone();
        Self {
            target,
            instance,
            policy,
            code,
            probes,
            reserve: None,
            called_before: Counts::new(),
            exceptions: None,
            looks: Looks::since(Instant::now()),
            most_seen: 0,
            is_command: false,
            calibration: None,
            unwatched: None,
        }
    }

    /// The instance of a process that was forked by this one's and runs the same program: what is known of this one
    /// holds for it, until a look of its own, which comes soon. `None` where the file cannot be had.
    pub fn in_fork(&self, target: &Target) -> Option<Self> {
        if target.image != self.image() {
            return None;
        }
        let instance = self.instance.in_fork(target.process);
        let probes = match &self.probes {
            Some(probes) => Some(probes.in_fork(&*instance, target)?),
            None => None,
        };
        let policy = self.policy.in_fork(Instant::now(), target.process);
        let code = self.code.in_fork(target.process);
        let exceptions = self.exceptions.clone();
        let reserve = self.reserve.as_ref().and_then(|reserve| reserve.in_fork(&*instance, target));
        Some(Self { exceptions, reserve, ..Self::unseen(target, instance, policy, code, probes) })
    }

    /// The same after a look at it, for which it waits.
    pub fn looked_at(self, limit: &ReadLimit) -> Result<Self, EngineError> {
        let Looked { instance, look, took } = look_at(self.instance.to_look_at(limit));
        let policy = self.policy.looked_at(Instant::now(), look?, took);
        Ok(Self { instance: instance.to_look_at(&ReadLimit::default()), policy, ..self })
    }

    /// The same instance, found in a process that a traced one has forked.
    #[must_use]
    pub fn followed(self) -> Self {
        Self { policy: self.policy.followed(), ..self }
    }

    /// Its program has begun at this time, while the tracer was there.
    #[must_use]
    pub fn young_since(self, began: Instant) -> Self {
        Self { policy: self.policy.young_since(began), ..self }
    }

    /// It is a command that stands still until it is seen: its first calls are.
    pub fn stands_still(&mut self) {
        self.is_command = true;
    }

    /// What is known of it, and what is seen.
    pub fn policy(&self) -> &WatchPolicy {
        &self.policy
    }

    /// Code objects that are seen, or were.
    pub fn seen_count(&self) -> usize {
        self.most_seen.max(self.policy.seen().len())
    }

    /// How its calls are seen, if any are.
    pub fn mode(&self) -> Option<PythonMode> {
        self.policy.has_begun().then(|| self.policy.mode())
    }

    /// Calls of the code that is watched, since each was.
    ///
    /// # Errors
    /// The counts cannot be read.
    pub fn watched_calls(&self, kernel: &dyn KernelProcess) -> Result<u64, SessionError> {
        Ok(self.code.calls(kernel, self.policy.watched())?.values().map(|calls| calls.seen).sum())
    }

    /// Its process.
    pub fn process(&self) -> ProcessId {
        self.target.process
    }

    /// The number of its process.
    pub fn number(&self) -> u32 {
        self.target.process.pid
    }

    /// The program that it belongs to.
    pub fn image(&self) -> ProgramImage {
        self.target.image
    }

    /// The engine's side of it.
    pub fn instance(&self) -> &dyn RuntimeInstance {
        &*self.instance
    }

    /// Whether it is the instance of this process.
    pub fn is_of(&self, process: ProcessId) -> bool {
        self.target.process == process
    }

    /// Counts the calls of code that is seen so far.
    ///
    /// # Errors
    /// The counts cannot be read.
    pub fn count(&mut self, kernel: &dyn KernelProcess) -> Result<(), SessionError> {
        let counts = self.code.calls(kernel, &self.policy.seen())?;
        self.policy.note(&counts);
        Ok(())
    }

    /// From now on calls are recorded.
    ///
    /// # Errors
    /// The process map cannot be written.
    pub fn accept_entries(&mut self, context: &mut Context<'_>) -> Result<(), SessionError> {
        context.in_kernel(self.target.process)?.accept_entries(true)?;
        self.entries_are_accepted(context.drain)
    }

    /// Calls are recorded: a calibration is over.
    ///
    /// # Errors
    /// The session cannot go on.
    pub fn entries_are_accepted(&mut self, drain: &Drain) -> Result<(), SessionError> {
        self.calibration.take().map_or(Ok(()), |gap| drain.end_gap(gap))
    }

    /// Chooses what to see and makes it so, once there is something to see.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot.
    pub fn attach(
        &mut self,
        context: &mut Context<'_>,
        profile: &CallProfile,
        first_count: FirstCount,
    ) -> Result<(), SessionError> {
        if !self.policy.begins() {
            return self.policy.new_routes(self.number()).map_or(Ok(()), |names| context.drain.add_python_names(names));
        }
        if self.policy.is_followed() {
            context.drain.add_process(self.target.clone())?;
        }
        // Where a watchpoint or a probe sees the end of a call at once, it tells its exception.
        let tells_exceptions =
            self.probes.as_ref().map_or_else(|| self.code.tells_exceptions(), CallProbes::tell_exceptions);
        if !tells_exceptions {
            self.see_exceptions(context, self.probes.is_none());
        }
        // What stands still calls nothing that could be counted.
        let first_count = if self.is_command { FirstCount::Never } else { first_count };
        match self.probes.take() {
            None => self.begin_watching(context, profile, first_count),
            Some(probes) => self.begin_probing(context, probes, profile, first_count),
        }?;
        if !self.is_command {
            self.policy.is_seen(Instant::now());
        }
        see_contexts(context, &*self.instance, &self.target, self.code.layout());
        Ok(())
    }

    fn see_exceptions(&mut self, context: &mut Context<'_>, is_watched: bool) {
        let Self { target, instance, code, exceptions, .. } = self;
        see_exceptions(context, (&**instance, target), code, exceptions, is_watched);
    }

    /// Chooses what to watch and watches it; where there is more than can be watched, by what the calls in other processes
    /// have shown or else after a calibration.
    fn begin_watching(
        &mut self,
        context: &mut Context<'_>,
        profile: &CallProfile,
        first_count: FirstCount,
    ) -> Result<(), SessionError> {
        let calibration = self.policy.calibration(context.planner, profile);
        let is_unknown = calibration.is_some() && first_count != FirstCount::Never;
        let counted = calibration.filter(|_| first_count == FirstCount::Now);
        let called = counted.map_or(Ok(Counts::new()), |counted| self.calibrate(context, &counted))?;
        // Of more than can be watched nothing was called for a moment, or there is nothing to be called yet: the first request, or the first
        // cell of a notebook, is to be seen whole.
        let is_idle = (is_unknown && called.is_empty()) || self.policy.has_classes_alone();
        if let Some(reason) = self.reason_to_go_over(is_idle, &called, profile) {
            return self.go_over(context, (reason, &called), profile);
        }
        self.policy.begin(context.planner, profile, &called);
        self.put_into_force(context)?;
        if self.policy.is_beyond_slots() {
            // Fewer registers than there should be: choose again, for these.
            self.policy.begin(context.planner, profile, &called);
            self.put_into_force(context)?;
        }
        Ok(())
    }

    fn reason_to_go_over(&self, is_idle: bool, calibrated: &Counts, profile: &CallProfile) -> Option<Reason> {
        let is_too_much = || self.policy.is_too_much(&self.policy.called(calibrated, profile));
        self.reserve.as_ref()?.reason(self.is_command, is_idle, is_too_much)
    }

    /// Goes over to chain mode.
    fn go_over(
        &mut self,
        context: &mut Context<'_>,
        (reason, calibrated): (Reason, &Counts),
        profile: &CallProfile,
    ) -> Result<(), SessionError> {
        let called = self.policy.called(calibrated, profile);
        let Some(probes) = self.reserve.as_mut().and_then(ChainInReserve::take) else { return Ok(()) };
        tracing::warn!("{}", going_over(self.process(), reason));
        self.enter(PythonMode::Chain, context)?;
        if !probes.tell_exceptions() {
            self.see_exceptions(context, false);
        }
        self.begin_probing(context, probes, profile, FirstCount::Never)?;
        let passed = context.in_kernel(self.process())?.python_calls_passed()?;
        if let Some(reserve) = &mut self.reserve {
            reserve.begin_trial(Instant::now(), called, passed);
        }
        Ok(())
    }

    /// Takes everything away that sees its calls; from now on they are seen in another way.
    fn enter(&mut self, mode: PythonMode, context: &mut Context<'_>) -> Result<(), SessionError> {
        context.in_kernel(self.process())?.forget_python()?;
        let layout = PythonLayout { witnesses: u32::from(mode == PythonMode::Chain), ..*self.code.layout() };
        self.code = CodeWatch::new(self.process(), layout);
        self.policy = self.policy.in_mode(Instant::now(), (mode, self.code.layout()));
        self.policy.begins();
        Ok(())
    }

    /// Tells what chain mode costs and what it does not see, once it has been tried; where it sees nothing, goes back.
    fn end_trial(&mut self, context: &mut Context<'_>, profile: &CallProfile) -> Result<(), SessionError> {
        let kernel = context.in_kernel(self.process())?;
        let passed = kernel.python_calls_passed()?;
        let Some(reserve) = &mut self.reserve else { return Ok(()) };
        let counts = |called: &Counts| {
            let codes = if called.is_empty() { self.policy.seen() } else { called.keys().copied().collect() };
            self.code.calls_as_far_as_known(Some(kernel), &codes)
        };
        let Some((end, a_second)) = reserve.end_trial(Instant::now(), passed, counts) else { return Ok(()) };
        if !end.is_blind {
            let of_all = self.probes.as_ref().and_then(CallProbes::passed_of_all);
            tracing::warn!("{}", cost_of_chain(self.process(), a_second, of_all));
            self.called_before = end.called_before;
            return Ok(());
        }
        tracing::warn!("{}", going_back(self.process(), !end.called_before.is_empty()));
        let gap = context.drain.begin_gap(Some(self.number()))?;
        self.enter(PythonMode::Watch, context)?;
        if let (Some(reserve), Some(probes)) = (&mut self.reserve, self.probes.take()) {
            reserve.give_back(probes.anew());
        }
        if !self.code.tells_exceptions() {
            self.see_exceptions(context, true);
        }
        self.policy.begin(context.planner, profile, &end.called_before);
        self.put_into_force(context)?;
        self.accept_entries(context)?;
        context.drain.end_gap(gap)
    }

    /// Where every call passes the probes, counts calls for a moment and tells what they cost, then begins. In a process that was
    /// forked they cost what they cost in the one that forked it.
    fn begin_probing(
        &mut self,
        context: &mut Context<'_>,
        mut probes: CallProbes,
        profile: &CallProfile,
        first_count: FirstCount,
    ) -> Result<(), SessionError> {
        if first_count == FirstCount::Now && probes.are_on_every_call() {
            let calls = probes.count_for_a_moment(context, &self.code)?;
            let cost = probes.cost(self.target.process, calls, measure_emulated_probe());
            tracing::warn!("{cost}");
        }
        self.policy.begin(context.planner, profile, &Counts::new());
        self.tell(context)?;
        self.tell_unwatched(context, None)?;
        probes.turn(context, &self.code, (Turn::On, &self.policy.seen()))?;
        self.probes = Some(probes);
        Ok(())
    }

    /// Tries out what cannot all be watched. Nothing is recorded meanwhile, nor until the caller has entries accepted again.
    fn calibrate(&mut self, context: &mut Context<'_>, calibration: &Calibration) -> Result<Counts, SessionError> {
        self.code.tell(context.in_kernel(self.process())?, &calibration.tables)?;
        self.calibration = Some(context.drain.begin_gap(Some(self.number()))?);
        context.in_kernel(self.process())?.accept_entries(false)?;
        let limits = (calibration.step, calibration.enough_calls);
        Ok(self.code.try_out(context.in_kernel(self.process())?, &calibration.groups, limits)?)
    }

    /// Tells the programs and the assembler what the policy says.
    fn tell(&mut self, context: &mut Context<'_>) -> Result<(), SessionError> {
        let number = self.number();
        self.most_seen = self.most_seen.max(self.policy.seen().len());
        context.drain.add_functions(self.policy.plan().functions.clone())?;
        context.drain.add_python_names(self.policy.names(number))?;
        let kernel = context.in_kernel(self.process())?;
        if self.is_command {
            let classes = self.policy.plan().tables.classes.iter().map(|(class, _)| *class);
            kernel.knows_classes(&classes.collect::<Vec<_>>())?;
        }
        Ok(self.code.tell(kernel, &self.policy.plan().tables)?)
    }

    /// Tells the assembler which steps of containers are not watched from an instant on, or from now on, if that is new.
    fn tell_unwatched(&mut self, context: &Context<'_>, since: Option<MonotonicNs>) -> Result<(), SessionError> {
        let told = self.policy.unwatched(self.number(), since.unwrap_or_else(monotonic_now));
        if self
            .unwatched
            .as_ref()
            .is_some_and(|before| UnwatchedMethods { since: told.since, ..before.clone() } == told)
        {
            return Ok(());
        }
        self.unwatched = Some(told.clone());
        context.drain.add_unwatched(told)
    }

    /// Tells everybody what the policy says, and moves the watchpoints.
    fn put_into_force(&mut self, context: &mut Context<'_>) -> Result<(), SessionError> {
        self.tell(context)?;
        if let Some(wanted) = self.policy.to_move() {
            // Calls that are open meanwhile lack calls of code that is watched only now, or not any more.
            let gap = context.drain.begin_gap(Some(self.number()))?;
            let moved =
                self.code.move_watchpoints(context.in_kernel(self.process())?, self.policy.watched(), &wanted)?;
            let is_guarded = context.in_kernel(self.process())?.guard().is_some();
            self.take_note_of(moved, is_guarded);
            self.tell_unwatched(context, Some(gap.from()))?;
            context.drain.end_gap(gap)?;
        } else {
            self.tell_unwatched(context, None)?;
        }
        let counts = self.code.calls(context.in_kernel(self.process())?, self.policy.watched())?;
        self.policy.count_from_here(&counts);
        Ok(())
    }

    fn take_note_of(&mut self, Moved { watched, obstacle }: Moved, is_guarded: bool) {
        let process = self.process();
        self.policy.watches(watched);
        match obstacle {
            Some(WatchOutcome::NoSlot) => self.policy.limit(holder_of_registers(process, is_guarded)),
            Some(WatchOutcome::NoDescriptors { needed, limit }) => {
                tracing::warn!("process {process}: {}", few_descriptors(self.policy.watched().len(), (needed, limit)));
                self.policy.limit(format!("the limit of {limit} open files"));
            }
            Some(WatchOutcome::Unguarded(reason)) => {
                let who = tracer_of(process.pid).map(|who| format!(" ({who} traces it)")).unwrap_or_default();
                self.watch_nothing(format!("it cannot be guarded{who}: {reason}"));
            }
            Some(WatchOutcome::Gone | WatchOutcome::Live) | None => {}
        }
    }

    /// The guard of the process has gone: its watchpoints must go at once.
    ///
    /// # Errors
    /// A map cannot be written, or the session cannot go on.
    pub fn lose_guard(&mut self, context: &mut Context<'_>) -> Result<(), SessionError> {
        let gap = context.drain.begin_gap(Some(self.number()))?;
        context.in_kernel(self.process())?.unwatch_all()?;
        self.watch_nothing("its guard has been killed".to_owned());
        self.tell_unwatched(context, Some(gap.from()))?;
        context.drain.end_gap(gap)
    }

    /// From now on nothing can be watched, for a reason that is told.
    fn watch_nothing(&mut self, reason: String) {
        tracing::warn!("process {}: {}", self.process(), self.policy.watch_nothing(reason));
    }

    /// Forgets what is watched: the programs that did it are gone.
    pub fn restart(&mut self) {
        self.policy.restart();
        self.calibration = None;
    }

    /// The looks at the process: what one has found is taken up at once.
    pub fn looks(&self) -> &Looks {
        &self.looks
    }

    /// Whether it is time for another look at the process. `sharers` is the number of instances, which share the time.
    pub fn is_due(&self, now: Instant, sharers: u32) -> bool {
        !self.looks.is_under_way() && now >= self.policy.next_look(now, sharers)
    }

    /// When something is to be done for it, unless a look at it ends before. `may_look`: another look may begin.
    pub fn due(&self, now: Instant, sharers: u32, may_look: bool) -> Option<Instant> {
        let look = (may_look && !self.looks.is_under_way()).then(|| self.policy.next_look(now, sharers));
        let probes = self.probes.as_ref().filter(|_| self.policy.has_begun()).and_then(CallProbes::due);
        let trial = self.reserve.as_ref().and_then(ChainInReserve::due);
        look.into_iter().chain(self.policy.next_count(now)).chain(probes).chain(trial).min()
    }

    /// Begins another look at the process, on a thread of its own, unless it can be left out; the bell rings when it has ended.
    /// What it finds is taken up by [`Self::look_again`] then.
    pub fn begin_look(&mut self, bell: Bell) {
        let address_space = address_space(self.process());
        if address_space.is_some_and(|bytes| self.policy.leaves_out_look(Instant::now(), bytes)) {
            return;
        }
        self.looks.begin(&*self.instance, bell);
        // Where there is no thread for it, it is tried again when the next one is due.
        self.policy.look_begins(Instant::now());
    }

    /// Takes up what a look has found, if one has ended: new classes and functions become known, and a model that was loaded
    /// or replaced changes what is seen. Otherwise looks at the calls, if it is time. `may_begin`: calls are seen from now on, if none are
    /// so far.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot.
    pub fn look_again(
        &mut self,
        context: &mut Context<'_>,
        others: Others<'_>,
        may_begin: bool,
    ) -> Result<(), SessionError> {
        let looked = self.looks.take();
        if self.policy.has_begun()
            && let Some(probes) = &mut self.probes
        {
            probes.keep_time(context, &self.code, || self.policy.seen())?;
        }
        let now = Instant::now();
        if self.reserve.as_ref().and_then(ChainInReserve::due).is_some_and(|due| now >= due) {
            self.end_trial(context, others.profile)?;
        }
        let delta = match looked {
            Some(Looked { instance, look, took }) => {
                self.policy.look_ends(now, took);
                // Of a process that is ending, the next look tells.
                let Some(look) = look.ok().filter(|_| !has_ended(self.process())) else { return Ok(()) };
                self.instance = instance.to_look_at(&ReadLimit::default());
                self.policy.take_up(look)
            }
            None if self.is_to_be_counted(now) => SurveyDelta::default(),
            None => return Ok(()),
        };
        if !self.policy.has_begun() {
            if !may_begin {
                return Ok(());
            }
            let first_count = if self.policy.is_followed() { FirstCount::Never } else { FirstCount::Now };
            self.attach(context, others.profile, first_count)?;
            return self.accept_entries(context);
        }
        let counts = self.code.calls(context.in_kernel(self.process())?, &self.policy.to_count(&delta))?;
        let step = self.policy.step(now, counts, &delta, others, context.planner);
        if let Some(reason) = self.reason_to_go_over(false, &Counts::new(), others.profile) {
            let gap = context.drain.begin_gap(Some(self.number()))?;
            self.go_over(context, (reason, &Counts::new()), others.profile)?;
            self.accept_entries(context)?;
            return context.drain.end_gap(gap);
        }
        match (step.watch, &mut self.probes) {
            (None, _) => Ok(()),
            (Some(_), Some(probes)) => {
                probes.code_changed();
                self.tell(context)?;
                self.tell_unwatched(context, None)
            }
            (Some(_), None) => {
                self.put_into_force(context)?;
                self.accept_entries(context)
            }
        }
    }

    /// Between two looks at the process: whether it is time to count the calls of what is watched.
    fn is_to_be_counted(&self, now: Instant) -> bool {
        self.policy.next_count(now).is_some_and(|next| now >= next) && !has_ended(self.process())
    }

    /// What would be seen, without seeing anything.
    pub fn plan_only(&mut self, planner: &mut Planner) -> RuntimeCoverage {
        self.policy.plan_only(planner)
    }

    /// What was seen, with the calls counted.
    pub fn counted_coverage(&mut self, kernel: Option<&dyn KernelProcess>) -> RuntimeCoverage {
        // What the programs cannot be asked any more was counted a moment ago.
        let counts = self.code.calls_as_far_as_known(kernel, &self.policy.to_cover());
        let coverage = self.policy.counted_coverage(&counts, self.code.left_out(kernel));
        let live = self.probes.as_ref().and_then(CallProbes::live_share);
        let seen_percent = live.map(|share| (share * 100.0).ceil() as u32);
        let few_witnesses = self.probes.as_ref().map(CallProbes::few_functions).unwrap_or_default();
        let mut coverage = RuntimeCoverage { seen_percent, few_witnesses, ..coverage };
        let is_unseen = |code: &RemoteAddress| {
            self.called_before.contains_key(code) && counts.get(code).is_none_or(|calls| calls.seen == 0)
        };
        let unseen = self.policy.plan().watched.iter().filter(|(code, _)| is_unseen(code));
        let methods = unseen.flat_map(|(_, code)| code.methods.iter().cloned());
        coverage.not_watched.extend(methods.map(|name| NotWatched { name, reason: UNSEEN.to_owned(), is_live: true }));
        coverage
    }
}
