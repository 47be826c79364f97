//! The instances of all targets: found at the start, when a target begins to run a runtime, or taken over by a forked process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::background::{Background, Bell, Progress};
use super::super::drain::Drain;
use super::super::error::SessionError;
use super::super::processes::Processes;
use super::super::settings::PythonSettings;
use super::context::Context;
use super::cost::{self, Measured};
use super::first_count::FirstCount;
use super::meanings::KnownInstances;
use super::traced_instance::TracedInstance;
use crate::attach::KernelProcess;
use crate::engine::{FirstObjects, Runtimes};
use crate::memory::ReadLimit;
use crate::model::{ClassesInSight, ProcessId, RuntimeCoverage, SymbolMap, Target};
use crate::plan::{CallProfile, LookTurns, Others, Planner, PythonCost, StartSchedule};
use crate::target::{has_ended, look_at};

/// Followed processes that are watched for a moment before they begin, where nothing is known of their calls: an idle server
/// has many.
const MOST_CALIBRATED: usize = 3;

/// After so much time at the start, further processes that were forked are looked at while the others are traced.
const MOST_FOR_FORKED: Duration = Duration::from_secs(2);

/// For so long what calls have shown is not asked again.
const SHARED_FOR: Duration = Duration::from_millis(200);

/// What a look for an instance counts for that could not begin.
const NO_THREAD: Duration = Duration::from_millis(1);

/// Ended processes whose coverage is remembered for the summary.
const MOST_ENDED: usize = 1_024;

/// The instances of the targets.
pub struct Instances {
    settings: PythonSettings,
    runtimes: Runtimes,
    traced: Vec<TracedInstance>,
    /// Processes that may have a runtime soon.
    starting: Vec<Starting>,
    /// What was covered of processes that have ended.
    ended: VecDeque<RuntimeCoverage>,
    /// What the calls in them have shown.
    profile: CallProfile,
    /// The same with what calls in the others show, as it was a moment ago.
    shared: Option<(Instant, Arc<CallProfile>)>,
    /// Code objects that were seen in them.
    seen_before: usize,
    /// Whose turn it is to be looked at again.
    turns: LookTurns,
    /// For those who read names.
    known: KnownInstances,
    /// Instances that were watched for a moment to see what is called.
    calibrated: usize,
    /// A command whose first calls are to be seen.
    command: Option<Command>,
    /// Whether it was said of a followed process why it cannot be read.
    has_told_of_followed: bool,
    /// Rings when a look has ended.
    bell: Bell,
}

/// A command that stops at the first object of each class that is asked for.
#[derive(Clone, Copy, Debug)]
struct Command {
    process: ProcessId,
    /// Since when it stands still, if it does.
    stopped: Option<Instant>,
    /// Whether there is nothing to be called before it stops for the first time: while it imports its libraries nothing needs to be
    /// seen.
    is_idle: bool,
}

struct Starting {
    target: Target,
    is_followed: bool,
    has_just_begun: bool,
    schedule: StartSchedule,
    /// A look for its runtime, on a thread of its own.
    look: Option<Background<Finding>>,
}

/// The instance of a process that has mapped a runtime, and how long looking for it took.
struct Finding {
    instance: Result<Option<TracedInstance>, String>,
    took: Duration,
}

impl Instances {
    /// None so far.
    pub fn new(maps: &[SymbolMap], settings: PythonSettings) -> Self {
        Self {
            settings,
            runtimes: Runtimes::new(maps).reading_routes(settings.joins_requests),
            traced: Vec::new(),
            starting: Vec::new(),
            ended: VecDeque::new(),
            profile: CallProfile::default(),
            shared: None,
            seen_before: 0,
            turns: LookTurns::default(),
            known: KnownInstances::default(),
            calibrated: 0,
            command: None,
            has_told_of_followed: false,
            bell: Bell::default(),
        }
    }

    /// The same, which has this bell ring when a look at a process has ended.
    #[must_use]
    pub fn ringing(self, bell: Bell) -> Self {
        Self { bell, ..self }
    }

    /// The same, which sees the first calls of this process.
    #[must_use]
    pub fn of_command(self, command: Option<ProcessId>) -> Self {
        Self { command: command.map(|process| Command { process, stopped: None, is_idle: false }), ..self }
    }

    /// The command stands still since then, and waits to be looked at; `None`: it does not.
    pub fn command_stopped(&mut self, since: Option<Instant>) {
        if let Some(command) = &mut self.command {
            command.stopped = since;
            command.is_idle &= since.is_none();
            let process = command.process;
            let begins = |instance: &&mut TracedInstance| instance.is_of(process) && !instance.policy().has_begun();
            let still = self.traced.iter_mut().filter(|_| since.is_some());
            still.filter(begins).for_each(TracedInstance::stands_still);
        }
    }

    /// Nothing is called in the command before it stops for the first time.
    pub fn command_is_idle(&mut self) {
        if let Some(command) = &mut self.command {
            command.is_idle = true;
        }
    }

    /// The command is a process like others from now on.
    pub fn command_stops_no_more(&mut self) {
        self.command = None;
    }

    /// Whether there is nothing to be called in a process so far.
    fn is_idle(&self, process: ProcessId) -> bool {
        self.command.is_some_and(|command| command.process == process && command.is_idle)
    }

    /// Where an interpreter was compiled so that it makes objects in other places as well, the command may not stop for the first one: then
    /// it is seen as any process that has just begun.
    fn ask_whether_idle(&mut self) {
        let Some(command) = self.command.as_mut().filter(|command| command.is_idle) else { return };
        let process = command.process;
        command.is_idle =
            !self.traced.iter().any(|instance| instance.is_of(process) && instance.policy().has_objects());
    }

    /// Where a process makes the first objects of the classes that are asked for.
    pub fn first_objects(&self, target: &Target) -> Option<FirstObjects> {
        self.runtimes.first_objects(target)
    }

    /// Whether all that may be called in a process was looked for since this time, and is seen as far as it can be.
    pub fn has_looked_since(&self, process: ProcessId, since: Instant) -> bool {
        let is_starting = self.starting.iter().any(|starting| starting.target.process == process);
        let mut of_process = self.traced.iter().filter(|instance| instance.is_of(process));
        !is_starting && of_process.all(|instance| instance.looks().have_seen_since(since))
    }

    /// None so far, and what would be taken in: the instance of each of these processes, given with who has forked it,
    /// if it has one that can be read; and what cannot be read.
    pub fn find_all(
        arriving: &[(Option<ProcessId>, Target)],
        maps: &[SymbolMap],
        settings: PythonSettings,
        limit: &ReadLimit,
    ) -> (Self, Vec<Option<TracedInstance>>, Vec<String>) {
        let mut instances = Self::new(maps, settings);
        let mut problems = Vec::new();
        let mut found: Vec<Option<TracedInstance>> = Vec::new();
        let began = Instant::now();
        for (forked_by, target) in arriving {
            if forked_by.is_some() && began.elapsed() > MOST_FOR_FORKED {
                instances.find_later(target, true, false);
                found.push(None);
                continue;
            }
            // What is in its file is known already if it runs the program of the one that forked it.
            let kin = forked_by.and_then(|parent| found.iter().flatten().find(|instance| instance.is_of(parent)));
            let instance = match kin.and_then(|kin| kin.in_fork(target)) {
                Some(fork) => fork.looked_at(limit).map(Some).map_err(|error| error.to_string()),
                None => instances.find(target, limit),
            };
            let instance = instance.unwrap_or_else(|problem| {
                instances.mapped(target, forked_by.is_some());
                // One that was not named may end, or begin, in this very moment: if it lasts, it is told later.
                if forked_by.is_none() {
                    problems.push(problem);
                }
                None
            });
            found.push(instance.map(|found| if forked_by.is_some() { found.followed() } else { found }));
        }
        (instances, found, problems)
    }

    /// Looks for the instance of a process; what cannot be read is a problem to be told, not an error.
    /// Waits for the look at it, which `limit` ends.
    pub fn find(&self, target: &Target, limit: &ReadLimit) -> Result<Option<TracedInstance>, String> {
        TracedInstance::find(target, &self.runtimes, self.settings, limit).map_err(|error| error.to_string())
    }

    /// The instance of a process that was forked from a traced one and runs the same program.
    pub fn find_in_fork(&self, parent: ProcessId, target: &Target) -> Option<TracedInstance> {
        self.traced.iter().find(|instance| instance.is_of(parent))?.in_fork(target)
    }

    /// Takes an instance in; it is seen from the next [`Self::attach`] on.
    pub fn take(&mut self, mut instance: TracedInstance) {
        if self.command.is_some_and(|command| instance.is_of(command.process) && command.stopped.is_some()) {
            instance.stands_still();
        }
        self.known.add(instance.number(), (instance.process(), instance.image()), instance.instance());
        self.traced.push(instance);
    }

    /// The instances, for those who read names.
    pub fn known(&self) -> KnownInstances {
        self.known.clone()
    }

    /// Classes of the processes, as far as they were looked at.
    pub fn classes_in_sight(&self) -> Vec<ClassesInSight> {
        self.traced.iter().map(|instance| instance.policy().classes_in_sight()).collect()
    }

    /// Code objects that are seen now, and that were seen in processes that have ended.
    pub fn seen_in_all(&self) -> usize {
        self.seen_before + self.seen()
    }

    /// Code objects that are seen now.
    pub fn seen(&self) -> usize {
        self.traced.iter().map(|instance| instance.seen_count()).sum()
    }

    /// Those of one process.
    pub fn seen_of(&self, process: ProcessId) -> usize {
        let of_process = self.traced.iter().filter(|instance| instance.is_of(process));
        of_process.map(|instance| instance.seen_count()).sum()
    }

    /// Whether a process has code to see, or may come to have some in a moment.
    pub fn may_be_seen_in(&self, process: ProcessId) -> bool {
        let now = Instant::now();
        let may_be_seen = |instance: &TracedInstance| {
            instance.is_of(process) && (instance.policy().has_begun() || instance.policy().is_settling(now))
        };
        self.starting.iter().any(|starting| starting.target.process == process) || self.traced.iter().any(may_be_seen)
    }

    /// Those of one process, once no more are expected in the next moments.
    pub fn settled_of(&self, process: ProcessId) -> Option<usize> {
        let now = Instant::now();
        let is_settling = |instance: &TracedInstance| {
            instance.is_of(process) && instance.policy().has_begun() && instance.policy().is_settling(now)
        };
        (!self.traced.iter().any(is_settling)).then(|| self.seen_of(process))
    }

    /// Counts for a moment what the probes and watchpoints come to that are live, before anything is recorded: what they cost.
    /// That of watchpoints is asked for only where the time of a hit is known.
    pub fn costs(&self, context: &mut Context<'_>, measured: Measured) -> Vec<PythonCost> {
        cost::of_a_moment(&self.traced, context, measured)
    }

    /// What would be seen, without seeing anything.
    pub fn plan_only(&mut self, planner: &mut Planner) -> Vec<RuntimeCoverage> {
        self.traced.iter_mut().map(|instance| instance.plan_only(planner)).collect()
    }

    /// Chooses what to see of the instances of one process, and makes it so. Calls are seen once its entries are accepted.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot.
    pub fn attach(&mut self, process: ProcessId, context: &mut Context<'_>) -> Result<(), SessionError> {
        self.begin(process, FirstCount::Now, context)
    }

    /// `first_count`: how a followed process begins; calls are counted in the first ones alone.
    fn begin(
        &mut self,
        process: ProcessId,
        first_count: FirstCount,
        context: &mut Context<'_>,
    ) -> Result<(), SessionError> {
        let is_waiting = |instance: &TracedInstance| instance.is_of(process) && !instance.policy().has_begun();
        if self.is_idle(process) || !self.traced.iter().any(is_waiting) {
            return Ok(());
        }
        let profile = self.profile();
        // Of several workers, the first one shows what is called; the server may call nothing itself.
        let is_first = profile.is_empty() && self.calibrated < MOST_CALIBRATED;
        self.calibrated += usize::from(is_first);
        for instance in self.traced.iter_mut().filter(|instance| is_waiting(instance)) {
            let first_count = match first_count {
                _ if !instance.policy().is_followed() => FirstCount::Now,
                FirstCount::Now if !is_first => FirstCount::InOthers,
                asked => asked,
            };
            instance.attach(context, &profile, first_count)?;
        }
        Ok(())
    }

    /// Forgets what is watched: the programs that did it are gone.
    pub fn restart(&mut self) {
        self.traced.iter_mut().for_each(TracedInstance::restart);
    }

    /// A process has mapped files: perhaps a runtime is among them.
    pub fn mapped(&mut self, target: &Target, is_followed: bool) {
        self.find_later(target, is_followed, true);
    }

    /// The same of a process that is not looked at now. `has_just_begun`: its program.
    fn find_later(&mut self, target: &Target, is_followed: bool, has_just_begun: bool) {
        let is_known = |process: ProcessId| {
            self.traced.iter().any(|instance| instance.is_of(process))
                || self.starting.iter().any(|starting| starting.target.process == process)
        };
        if Runtimes::may_be_in(target) && !is_known(target.process) {
            let schedule = StartSchedule::new(Instant::now());
            self.starting.push(Starting { target: target.clone(), is_followed, has_just_begun, schedule, look: None });
        }
    }

    /// A process has ended, runs another program, or is not to be traced any more: what was known of its instance is of
    /// the past. Nothing of it may be asked of the programs afterwards.
    pub fn forget(&mut self, process: ProcessId, processes: &mut Processes) {
        self.starting.retain(|starting| starting.target.process != process);
        let kernel = processes.in_kernel(process);
        let kernel = kernel.as_deref();
        for mut instance in self.traced.extract_if(.., |instance| instance.is_of(process)) {
            // A worker may have lived from one look at the calls to the next: what it has called serves those after it.
            if let Err(error) = kernel.map_or(Ok(()), |kernel| instance.count(kernel)) {
                tracing::debug!(%error, %process, "its calls cannot be counted");
            }
            self.known.remove(instance.number());
            instance.policy().add_to(&mut self.profile);
            self.seen_before += instance.seen_count();
            if !is_worth_telling(&instance) || instance.policy().has_passed_by(Instant::now()) {
                continue;
            }
            if self.ended.len() >= MOST_ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back(instance.counted_coverage(kernel));
        }
    }

    /// Takes up what looks have found, and does for each instance what is due. Gives the processes with which that went wrong: the session goes on
    /// without them.
    #[must_use]
    pub fn look_again(&mut self, context: &mut Context<'_>) -> Vec<(ProcessId, SessionError)> {
        let mut failed = Vec::new();
        for (process, first_count) in self.look_for_begun() {
            let begun = self.begin(process, first_count, context).and_then(|()| self.accept_entries(process, context));
            failed.extend(begun.err().map(|error| (process, error)));
        }
        self.begin_looks();
        let profile = self.shared_profile();
        let others = Others { profile: &profile, sharers: self.sharers() };
        self.ask_whether_idle();
        let idle = self.command.filter(|command| command.is_idle).map(|command| command.process);
        for instance in &mut self.traced {
            let result = instance.look_again(context, others, idle.is_none_or(|idle| !instance.is_of(idle)));
            failed.extend(result.err().map(|error| (instance.process(), error)));
        }
        failed
    }

    /// Whether a guard has gone: the watchpoints of its process go at once. Gives the processes with which that went wrong.
    #[must_use]
    pub fn ask_for_guards(&mut self, context: &mut Context<'_>) -> Vec<(ProcessId, SessionError)> {
        let mut failed = Vec::new();
        for instance in &mut self.traced {
            let process = instance.process();
            let has_lost_guard = context.processes.in_kernel(process).is_some_and(KernelProcess::has_lost_guard);
            if has_lost_guard && !has_ended(process) {
                failed.extend(instance.lose_guard(context).err().map(|error| (process, error)));
            }
        }
        failed
    }

    /// When something is to be done for an instance, unless a look ends before.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let (sharers, may_look) = (self.sharers(), self.turns.is_any_free(self.under_way()));
        let starting = self.starting.iter().filter(|starting| starting.look.is_none());
        let starting = starting.map(|starting| starting.schedule.due());
        let traced = self.traced.iter().filter_map(|instance| instance.due(now, sharers, may_look));
        starting.chain(traced).min()
    }

    /// From now on the calls of a process are recorded.
    ///
    /// # Errors
    /// The process map cannot be written.
    pub fn accept_entries(&mut self, process: ProcessId, context: &mut Context<'_>) -> Result<(), SessionError> {
        context.in_kernel(process)?.accept_entries(true)?;
        let mut instances = self.traced.iter_mut().filter(|instance| instance.is_of(process));
        instances.try_for_each(|instance| instance.entries_are_accepted(context.drain))
    }

    /// The calls of all processes are recorded.
    ///
    /// # Errors
    /// The session cannot go on.
    pub fn entries_are_accepted(&mut self, drain: &Drain) -> Result<(), SessionError> {
        self.traced.iter_mut().try_for_each(|instance| instance.entries_are_accepted(drain))
    }

    /// What the calls in all processes have shown so far, or had a moment ago.
    fn shared_profile(&mut self) -> Arc<CallProfile> {
        match &self.shared {
            Some((since, shared)) if since.elapsed() < SHARED_FOR => Arc::clone(shared),
            _ => {
                let shared = Arc::new(self.profile());
                self.shared = Some((Instant::now(), Arc::clone(&shared)));
                shared
            }
        }
    }

    /// Instances that share the time for looks.
    fn sharers(&self) -> u32 {
        u32::try_from(self.traced.len()).unwrap_or(u32::MAX)
    }

    /// Looks that are under way.
    fn under_way(&self) -> usize {
        self.traced.iter().filter(|instance| instance.looks().is_under_way()).count()
    }

    /// Begins looks at the instances for which it is time, in turns.
    fn begin_looks(&mut self) {
        let (now, sharers) = (Instant::now(), self.sharers());
        if let Some(Command { process, stopped: Some(since), .. }) = self.command {
            let is_awaited = |instance: &&mut TracedInstance| {
                instance.is_of(process) && !instance.looks().is_under_way() && !instance.looks().have_seen_since(since)
            };
            self.traced.iter_mut().filter(is_awaited).for_each(|instance| instance.begin_look(self.bell.clone()));
        }
        loop {
            let under_way = self.under_way();
            let Self { turns, traced, .. } = self;
            let is_due = |index: usize| traced.get(index).is_some_and(|instance| instance.is_due(now, sharers));
            let next = turns.next(under_way, traced.len(), is_due);
            let Some(instance) = next.and_then(|index| traced.get_mut(index)) else { return };
            instance.begin_look(self.bell.clone());
        }
    }

    /// Takes in the instances that have been set up meanwhile; gives their processes, and how these begin.
    fn look_for_begun(&mut self) -> Vec<(ProcessId, FirstCount)> {
        let mut begun = Vec::new();
        for mut starting in std::mem::take(&mut self.starting) {
            let process = starting.target.process;
            let Some(look) = starting.look.take() else {
                let now = Instant::now();
                let is_it = |command: Command| command.process == process && command.stopped.is_some();
                if self.command.is_some_and(is_it) || starting.schedule.is_due(now) {
                    starting.look = self.begin_finding(process);
                    // Where there is no thread for it, it is tried again in a while.
                    starting.schedule.tried(now, NO_THREAD);
                }
                self.starting.push(starting);
                continue;
            };
            let Finding { instance, took } = match look.progress() {
                Progress::UnderWay => {
                    self.starting.push(Starting { look: Some(look), ..starting });
                    continue;
                }
                Progress::Done(finding) => finding,
                Progress::Failed => Finding { instance: Ok(None), took: Duration::ZERO },
            };
            let is_over = starting.schedule.is_over(Instant::now());
            match instance {
                Ok(Some(instance)) => {
                    let since = starting.schedule.since();
                    let instance = if starting.has_just_begun { instance.young_since(since) } else { instance };
                    let instance = if starting.is_followed { instance.followed() } else { instance };
                    self.take(instance);
                    let is_new = starting.has_just_begun;
                    begun.push((process, if is_new { FirstCount::Never } else { FirstCount::InOthers }));
                    continue;
                }
                Err(problem) if is_over && !has_ended(process) => {
                    // A server may have many helpers of a kind.
                    if starting.is_followed && std::mem::replace(&mut self.has_told_of_followed, true) {
                        tracing::debug!("{problem}");
                    } else {
                        tracing::warn!("{problem}");
                    }
                }
                _ => {}
            }
            if !is_over && !has_ended(process) {
                starting.schedule.tried(Instant::now(), took);
                self.starting.push(starting);
            }
        }
        begun
    }

    /// Begins to look for the instance of a process, on a thread of its own.
    fn begin_finding(&self, process: ProcessId) -> Option<Background<Finding>> {
        let (runtimes, settings) = (self.runtimes.clone(), self.settings);
        Background::begin_and_ring("find", self.bell.clone(), move |limit| {
            let began = Instant::now();
            let target = look_at(process.pid).ok().filter(|target| target.process == process);
            let find = |target: Target| {
                TracedInstance::find(&target, &runtimes, settings, limit).map_err(|error| error.to_string())
            };
            Finding { instance: target.map_or(Ok(None), find), took: began.elapsed() }
        })
    }

    fn profile(&self) -> CallProfile {
        let mut profile = self.profile.clone();
        self.traced.iter().for_each(|instance| instance.policy().add_to(&mut profile));
        profile
    }

    /// What was covered and what not, with the calls counted so far.
    pub fn coverage(&mut self, processes: &mut Processes) -> Vec<RuntimeCoverage> {
        let mut coverage: Vec<_> = self.ended.drain(..).collect();
        coverage.extend(self.coverage_now(processes));
        coverage
    }

    /// The same of the processes that are there.
    pub fn coverage_now(&mut self, processes: &mut Processes) -> Vec<RuntimeCoverage> {
        let mut coverage = Vec::new();
        for instance in self.traced.iter_mut().filter(|instance| is_worth_telling(instance)) {
            let kernel = processes.in_kernel(instance.process());
            coverage.push(instance.counted_coverage(kernel.as_deref()));
        }
        coverage
    }
}

/// Of a forked process in which nothing was ever found, nothing needs to be said: a server has many of those.
fn is_worth_telling(instance: &TracedInstance) -> bool {
    instance.policy().has_begun() || !instance.policy().is_followed()
}
