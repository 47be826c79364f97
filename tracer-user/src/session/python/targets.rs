//! The interpreters of all targets: found at the start, when a target begins to run one, or taken over by a forked process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::background::{Background, Progress};
use super::super::drain::Drain;
use super::super::error::SessionError;
use super::super::processes::Processes;
use super::super::settings::PythonSettings;
use super::experience::Experience;
use super::interpreter::Interpreter;
use super::names::KnownEngines;
use crate::attach::KernelProcess;
use crate::memory::ReadLimit;
use crate::model::{ProcessId, PythonCoverage, SymbolMap, Target};
use crate::plan::Planner;
use crate::target::{has_ended, look_at};

/// How long a process that has mapped an interpreter may take to set it up.
const MOST_FOR_START: Duration = Duration::from_secs(30);

/// Looking for an interpreter that is still being set up may take this share of the time.
const PART_OF_TIME: u32 = 20;

/// Looks at one time: one that takes long leaves room for others.
const MOST_LOOKS: usize = 2;

/// Followed processes that are watched for a moment before they begin, where nothing is known of their calls: an idle server
/// has many.
const MOST_CALIBRATED: usize = 3;

/// For so long what calls have shown is not asked again.
const SHARED_FOR: Duration = Duration::from_millis(200);

/// Ended processes whose coverage is remembered for the summary.
const MOST_ENDED: usize = 1_024;

/// The interpreters of the targets.
pub struct PythonTargets {
    settings: PythonSettings,
    maps: Arc<[SymbolMap]>,
    interpreters: Vec<Interpreter>,
    /// Processes that may have an interpreter soon.
    starting: Vec<Starting>,
    /// What was covered of processes that have ended.
    ended: VecDeque<PythonCoverage>,
    /// What the calls in them have shown.
    experience: Experience,
    /// The same with what calls in the others show, as it was a moment ago.
    shared: Option<(Instant, Arc<Experience>)>,
    /// Code objects that were seen in them.
    seen_before: usize,
    /// Whose turn it is to be looked at again.
    next: usize,
    /// For those who read names.
    engines: KnownEngines,
    /// Interpreters that were watched for a moment to see what is called.
    calibrated: usize,
}

struct Starting {
    target: Target,
    is_followed: bool,
    since: Instant,
    due: Instant,
    /// A look for its interpreter, on a thread of its own.
    look: Option<Background<Finding>>,
}

/// The interpreter of a process that has mapped one, and how long looking for it took.
struct Finding {
    interpreter: Result<Option<Interpreter>, String>,
    took: Duration,
}

/// What the tracer works with, lent to its Python side.
pub struct Means<'tracer> {
    /// What the kernel holds for each process.
    pub processes: &'tracer mut Processes,
    /// Chooses and numbers.
    pub planner: &'tracer mut Planner,
    /// What must know functions and names before their first record.
    pub drain: &'tracer Drain,
}

impl Means<'_> {
    /// What the kernel holds for a process.
    ///
    /// # Errors
    /// It is not traced any more.
    pub fn in_kernel(&mut self, process: ProcessId) -> Result<&mut (dyn KernelProcess + 'static), SessionError> {
        self.processes.in_kernel(process).ok_or(SessionError::NotTraced { process })
    }
}

impl PythonTargets {
    /// None so far.
    pub fn new(maps: &[SymbolMap], settings: PythonSettings) -> Self {
        Self {
            settings,
            maps: maps.into(),
            interpreters: Vec::new(),
            starting: Vec::new(),
            ended: VecDeque::new(),
            experience: Experience::default(),
            shared: None,
            seen_before: 0,
            next: 0,
            engines: KnownEngines::default(),
            calibrated: 0,
        }
    }

    /// None so far, and what would be taken in: the interpreter of each of these processes, given with who has forked it,
    /// if it has one that can be read; and what cannot be read.
    pub fn find_all(
        arriving: &[(Option<ProcessId>, Target)],
        maps: &[SymbolMap],
        settings: PythonSettings,
        limit: &ReadLimit,
    ) -> (Self, Vec<Option<Interpreter>>, Vec<String>) {
        let mut targets = Self::new(maps, settings);
        let mut problems = Vec::new();
        let mut found: Vec<Option<Interpreter>> = Vec::new();
        for (forked_by, target) in arriving {
            // What is in its file is known already if it runs the program of the one that forked it.
            let kin = forked_by.and_then(|parent| found.iter().flatten().find(|interpreter| interpreter.is_of(parent)));
            let interpreter = match kin.and_then(|kin| kin.in_fork(target)) {
                Some(fork) => fork.looked_at(limit).map(Some),
                None => targets.find(target, limit),
            };
            let interpreter = interpreter.unwrap_or_else(|problem| {
                targets.mapped(target, forked_by.is_some());
                // One that was not named may end, or begin, in this very moment: if it lasts, it is told later.
                if forked_by.is_none() {
                    problems.push(problem);
                }
                None
            });
            found.push(interpreter.map(|found| if forked_by.is_some() { found.followed() } else { found }));
        }
        (targets, found, problems)
    }

    /// Looks for the interpreter of a process; what cannot be read is a problem to be told, not an error.
    /// Waits for the look at it, which `limit` ends.
    pub fn find(&self, target: &Target, limit: &ReadLimit) -> Result<Option<Interpreter>, String> {
        Interpreter::find(target, &self.maps, self.settings, limit)
    }

    /// The interpreter of a process that was forked from a traced one and runs the same program.
    pub fn find_in_fork(&self, parent: ProcessId, target: &Target) -> Option<Interpreter> {
        self.interpreters.iter().find(|interpreter| interpreter.is_of(parent))?.in_fork(target)
    }

    /// Takes an interpreter in; it is seen from the next [`Self::attach`] on.
    pub fn take(&mut self, interpreter: Interpreter) {
        let (process, number) = interpreter.process;
        self.engines.add(number, (process, interpreter.image()), &interpreter.engine);
        self.interpreters.push(interpreter);
    }

    /// The interpreters, for those who read names.
    pub fn engines(&self) -> KnownEngines {
        self.engines.clone()
    }

    /// Code objects that are seen now, and that were seen in processes that have ended.
    pub fn seen_in_all(&self) -> usize {
        self.seen_before + self.seen()
    }

    /// Code objects that are seen now.
    pub fn seen(&self) -> usize {
        self.interpreters.iter().map(Interpreter::seen).sum()
    }

    /// Those of one process.
    pub fn seen_of(&self, process: ProcessId) -> usize {
        self.interpreters.iter().filter(|interpreter| interpreter.is_of(process)).map(Interpreter::seen).sum()
    }

    /// Those of one process, once no more are expected in the next moments.
    pub fn settled_of(&self, process: ProcessId) -> Option<usize> {
        let begins = |interpreter: &Interpreter| interpreter.has_begun() && interpreter.is_settling();
        let is_settling = |interpreter: &Interpreter| interpreter.is_of(process) && begins(interpreter);
        (!self.interpreters.iter().any(is_settling)).then(|| self.seen_of(process))
    }

    /// What would be seen, without seeing anything.
    pub fn plan_only(&mut self, planner: &mut Planner) -> Vec<PythonCoverage> {
        self.interpreters.iter_mut().map(|interpreter| interpreter.plan_only(planner)).collect()
    }

    /// Chooses what to see of the interpreters of one process, and makes it so. Calls are seen once its entries are accepted.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot.
    pub fn attach(&mut self, process: ProcessId, means: &mut Means<'_>) -> Result<(), SessionError> {
        self.begin(process, true, means)
    }

    /// `may_wait`: a followed process may be watched for a moment before it begins, if it is the first.
    fn begin(&mut self, process: ProcessId, may_wait: bool, means: &mut Means<'_>) -> Result<(), SessionError> {
        let is_waiting = |interpreter: &Interpreter| interpreter.is_of(process) && !interpreter.has_begun();
        if !self.interpreters.iter().any(is_waiting) {
            return Ok(());
        }
        let experience = self.experience();
        // Of several workers, the first one shows what is called; the server may call nothing itself.
        let is_first = experience.is_empty() && self.calibrated < MOST_CALIBRATED;
        self.calibrated += usize::from(is_first);
        for interpreter in self.interpreters.iter_mut().filter(|interpreter| is_waiting(interpreter)) {
            let may_wait = !interpreter.is_followed() || (may_wait && is_first);
            interpreter.attach(means, &experience, may_wait)?;
        }
        Ok(())
    }

    /// Forgets what is watched: the programs that did it are gone.
    pub fn let_go(&mut self) {
        self.interpreters.iter_mut().for_each(Interpreter::let_go);
    }

    /// A process has mapped files: perhaps an interpreter is among them.
    pub fn mapped(&mut self, target: &Target, is_followed: bool) {
        let is_known = |process: ProcessId| {
            self.interpreters.iter().any(|interpreter| interpreter.is_of(process))
                || self.starting.iter().any(|starting| starting.target.process == process)
        };
        if may_run_python(target) && !is_known(target.process) {
            let now = Instant::now();
            self.starting.push(Starting { target: target.clone(), is_followed, since: now, due: now, look: None });
        }
    }

    /// A process has ended, runs another program, or is not to be traced any more: what was known of its interpreter is of
    /// the past. Nothing of it may be asked of the programs afterwards.
    pub fn forget(&mut self, process: ProcessId, processes: &mut Processes) {
        self.starting.retain(|starting| starting.target.process != process);
        let kernel = processes.in_kernel(process);
        let kernel = kernel.as_deref();
        for mut interpreter in self.interpreters.extract_if(.., |interpreter| interpreter.is_of(process)) {
            // A worker may have lived from one look at the calls to the next: what it has called serves those after it.
            if let Err(error) = kernel.map_or(Ok(()), |kernel| interpreter.count(kernel)) {
                tracing::debug!(%error, %process, "its calls cannot be counted");
            }
            self.engines.remove(interpreter.process.1);
            interpreter.add_to(&mut self.experience);
            self.seen_before += interpreter.seen();
            if !is_worth_telling(&interpreter) {
                continue;
            }
            if self.ended.len() >= MOST_ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back(interpreter.counted_coverage(kernel));
        }
    }

    /// Looks at each interpreter again if it is time. Gives the processes with which that went wrong: the session goes on
    /// without them.
    #[must_use]
    pub fn look_again(&mut self, means: &mut Means<'_>) -> Vec<(ProcessId, SessionError)> {
        let mut failed = Vec::new();
        for process in self.look_for_begun() {
            let begun = self.begin(process, false, means).and_then(|()| self.accept_entries(process, means));
            failed.extend(begun.err().map(|error| (process, error)));
        }
        for interpreter in &mut self.interpreters {
            let process = interpreter.process();
            let has_lost_guard = means.processes.in_kernel(process).is_some_and(KernelProcess::has_lost_guard);
            if has_lost_guard && !has_ended(process) {
                failed.extend(interpreter.lose_guard(means).err().map(|error| (process, error)));
            }
        }
        self.begin_looks();
        let experience = self.shared_experience();
        for interpreter in &mut self.interpreters {
            let looked = interpreter.take_look();
            let result = interpreter.look_again(means, looked, &experience);
            failed.extend(result.err().map(|error| (interpreter.process(), error)));
        }
        failed
    }

    /// From now on the calls of a process are recorded.
    ///
    /// # Errors
    /// The process map cannot be written.
    pub fn accept_entries(&mut self, process: ProcessId, means: &mut Means<'_>) -> Result<(), SessionError> {
        means.in_kernel(process)?.accept_entries(true)?;
        let mut interpreters = self.interpreters.iter_mut().filter(|interpreter| interpreter.is_of(process));
        interpreters.try_for_each(|interpreter| interpreter.entries_are_accepted(means.drain))
    }

    /// The calls of all processes are recorded.
    ///
    /// # Errors
    /// The session cannot go on.
    pub fn entries_are_accepted(&mut self, drain: &Drain) -> Result<(), SessionError> {
        self.interpreters.iter_mut().try_for_each(|interpreter| interpreter.entries_are_accepted(drain))
    }

    /// What the calls in all processes have shown so far, or had a moment ago.
    fn shared_experience(&mut self) -> Arc<Experience> {
        match &self.shared {
            Some((since, shared)) if since.elapsed() < SHARED_FOR => Arc::clone(shared),
            _ => {
                let shared = Arc::new(self.experience());
                self.shared = Some((Instant::now(), Arc::clone(&shared)));
                shared
            }
        }
    }

    /// Begins looks at the interpreters for which it is time, in turns, and not at all of them at once: looks share the time.
    fn begin_looks(&mut self) {
        let count = self.interpreters.len();
        let shares = u32::try_from(count).unwrap_or(u32::MAX);
        let looks = self.interpreters.iter().filter(|interpreter| interpreter.is_looked_at()).count();
        if looks >= MOST_LOOKS {
            return;
        }
        for turn in 0..count {
            let index = (self.next + turn) % count;
            if let Some(interpreter) = self.interpreters.get_mut(index).filter(|found| found.is_due(shares)) {
                interpreter.begin_look();
                self.next = index + 1;
                return;
            }
        }
    }

    /// Takes in the interpreters that have been set up meanwhile; gives their processes.
    fn look_for_begun(&mut self) -> Vec<ProcessId> {
        let mut begun = Vec::new();
        for mut starting in std::mem::take(&mut self.starting) {
            let process = starting.target.process;
            let Some(look) = starting.look.take() else {
                if Instant::now() >= starting.due {
                    starting.look = self.begin_finding(process);
                }
                self.starting.push(starting);
                continue;
            };
            let Finding { interpreter, took } = match look.progress() {
                Progress::UnderWay => {
                    self.starting.push(Starting { look: Some(look), ..starting });
                    continue;
                }
                Progress::Done(finding) => finding,
                Progress::Failed => Finding { interpreter: Ok(None), took: Duration::ZERO },
            };
            match interpreter {
                Ok(Some(interpreter)) => {
                    let interpreter = interpreter.young_since(starting.since);
                    let interpreter = if starting.is_followed { interpreter.followed() } else { interpreter };
                    self.take(interpreter);
                    begun.push(process);
                    continue;
                }
                Err(problem) if starting.since.elapsed() >= MOST_FOR_START && !has_ended(process) => {
                    tracing::warn!("{problem}");
                }
                _ => {}
            }
            if starting.since.elapsed() < MOST_FOR_START && !has_ended(process) {
                starting.due = Instant::now() + took * PART_OF_TIME;
                self.starting.push(starting);
            }
        }
        begun
    }

    /// Begins to look for the interpreter of a process, on a thread of its own.
    fn begin_finding(&self, process: ProcessId) -> Option<Background<Finding>> {
        let (maps, settings) = (Arc::clone(&self.maps), self.settings);
        Background::begin("find", move |limit| {
            let began = Instant::now();
            let target = look_at(process.pid).ok().filter(|target| target.process == process);
            let find = |target: Target| Interpreter::find(&target, &maps, settings, limit);
            Finding { interpreter: target.map_or(Ok(None), find), took: began.elapsed() }
        })
    }

    fn experience(&self) -> Experience {
        let mut experience = self.experience.clone();
        self.interpreters.iter().for_each(|interpreter| interpreter.add_to(&mut experience));
        experience
    }

    /// What was covered and what not, with the calls counted so far.
    pub fn coverage(&mut self, processes: &mut Processes) -> Vec<PythonCoverage> {
        let mut coverage: Vec<_> = self.ended.drain(..).collect();
        for interpreter in self.interpreters.iter_mut().filter(|interpreter| is_worth_telling(interpreter)) {
            let kernel = processes.in_kernel(interpreter.process());
            coverage.push(interpreter.counted_coverage(kernel.as_deref()));
        }
        coverage
    }
}

/// Whether a process has mapped a file that may hold an interpreter.
pub fn may_run_python(target: &Target) -> bool {
    target.modules.iter().any(|module| {
        module.path.file_name().is_some_and(|name| name.to_string_lossy().to_ascii_lowercase().contains("python"))
    })
}

/// Of a forked process in which nothing was ever found, nothing needs to be said: a server has many of those.
fn is_worth_telling(interpreter: &Interpreter) -> bool {
    interpreter.has_begun() || !interpreter.is_followed()
}
