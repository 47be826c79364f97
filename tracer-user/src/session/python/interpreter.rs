//! One interpreter: looked at, planned for, seen in one of the two modes, and looked at again.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::super::background::{Background, Progress};
use super::super::drain::{Drain, OpenGap};
use super::super::error::SessionError;
use super::super::settings::PythonSettings;
use super::experience::Experience;
use super::frames::{Frames, exception_site, interpreter_file};
use super::lives::Lives;
use super::look::{Looked, time_worked};
use super::targets::Means;
use crate::attach::KernelProcess;
use crate::engine::cpython::CpythonEngine;
use crate::memory::ReadLimit;
use crate::model::{
    DEBUG_REGISTERS, InterpreterSite, ProcessId, ProgramImage, PythonLayout, PythonLeftOut, PythonMode, PythonNames,
    PythonPlan, PythonSurvey, RemoteAddress, SymbolMap, Target, WatchedCode,
};
use crate::plan::{MOST_PYTHON, Planner, PythonBudget};
use crate::symbol_map::PythonRules;
use crate::target::has_ended;

/// How often a process is looked at again for new classes, functions and models.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The same after looks that have found nothing new, at most: each such look doubles the time to the next.
const LOOK_SELDOM: Duration = Duration::from_secs(4);

/// How often the calls of watched code are looked at: code that is not called makes room for other code.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// The same where nothing was ever called and classes without objects have their turns, until all have had one.
const TURN: Duration = Duration::from_millis(250);

/// For so long after it has come, the calls of a followed interpreter are looked at as often as that.
const FRESH: Duration = Duration::from_secs(4);

/// How often it is looked at while nothing to trace has been found: it is importing its libraries, perhaps.
const LOOK_EARLY: Duration = Duration::from_millis(200);

/// Looks may take this share of the time, those at all interpreters together: where one takes longer, the next one comes
/// later.
const PART_OF_TIME: u32 = 10;

/// A worker that was just forked makes its model soon, and then has requests: until it has, a greater share is well spent.
const PART_OF_SETTLING_TIME: u32 = 3;

/// How long that may take a forked process.
const SETTLING: Duration = Duration::from_secs(60);

/// Functions that get a number on behalf of one process: a share of all numbers, so that there are some for others.
const MOST_NUMBERS: usize = MOST_PYTHON as usize / 8;

/// A program that has just begun is importing its libraries, and may use them the moment they are there. For so long, and
/// until a call is seen, it is looked at as often as this while its memory grows, and half of the time at most.
const YOUNG: Duration = Duration::from_secs(20);
const LOOK_YOUNG: Duration = Duration::from_millis(20);

/// One interpreter and what is seen of it.
pub struct Interpreter {
    pub(super) process: (ProcessId, u32),
    pub(super) engine: CpythonEngine,
    pub(super) layout: PythonLayout,
    pub(super) survey: PythonSurvey,
    /// Which classes have had objects, and which objects stay what they are.
    pub(super) lives: Lives,
    pub(super) plan: PythonPlan,
    pub(super) mode: PythonMode,
    /// In frames mode: the probes and when they are live.
    pub(super) frames: Option<Frames>,
    target: Target,
    /// Where exceptions pass in the interpreter's file, once that was asked.
    exceptions: Option<Option<InterpreterSite>>,
    /// Whether there has been anything to see: until then nothing is placed.
    has_begun: bool,
    /// Whether its process was forked by a traced one.
    is_followed: bool,
    /// Whether it was found while its program was perhaps still making its classes and models, and no look since has found
    /// everything as it was.
    is_settling: bool,
    /// Whether its names were told.
    has_told: bool,
    /// Watchpoints that can be had.
    pub(super) slots: usize,
    /// Who has the others.
    pub(super) held_by: Vec<String>,
    /// Why nothing can be watched.
    pub(super) obstacle: Option<String>,
    /// Code that is watched now.
    pub(super) watched: Vec<RemoteAddress>,
    /// Code that was watched without being called, while other code was.
    pub(super) idle: HashSet<RemoteAddress>,
    /// Calls of the watched code at the last look.
    pub(super) counted: HashMap<RemoteAddress, u64>,
    /// What these calls are worth: old ones count for less.
    pub(super) worth: HashMap<RemoteAddress, u64>,
    /// Calls that were seen while all that is chosen was watched.
    pub(super) traffic: u64,
    /// The same when watched code began to be watched.
    pub(super) watched_since: HashMap<RemoteAddress, u64>,
    /// Code that was watched before, and its calls then.
    pub(super) past: HashMap<RemoteAddress, WatchedCode>,
    /// When it came to the session.
    since: Instant,
    looked: Instant,
    /// A look that is under way, on a thread of its own.
    look: Option<Background<Looked>>,
    look_took: Duration,
    /// Time from the last look to the next.
    look_every: Duration,
    /// The same while it is young.
    look_young: Duration,
    /// Bytes of memory that the last look went through.
    memory: u64,
    /// When it began, if that was while the tracer was there.
    began: Option<Instant>,
    /// Time from there until any of its code was seen.
    pub(super) seen_after: Option<Duration>,
    /// When the calls of watched code were looked at last.
    calls_looked_at: Instant,
    /// When watched code was last found to have been called.
    pub(super) called_at: Option<Instant>,
    /// Whether each class without objects has had its turn to be watched.
    pub(super) all_had_a_turn: bool,
    /// Of the idle code, what was watched while other code was called: not merely had its turn in a quiet time.
    pub(super) in_vain: HashSet<RemoteAddress>,
    /// Code that was chosen among with what calls elsewhere have shown of it.
    pub(super) considered: HashSet<RemoteAddress>,
    /// Calls that a calibration has shown.
    pub(super) calibrated: HashMap<RemoteAddress, u64>,
    /// The time of a calibration, in which nothing is recorded.
    pub(super) calibration: Option<OpenGap>,
    /// Functions that have got a number on its behalf.
    numbers: usize,
    /// Functions that found all numbers in use, at most.
    without_number: usize,
}

/// Calls that are known when code is chosen.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    /// In this process.
    pub here: HashMap<RemoteAddress, u64>,
    /// In others that have the same code.
    pub elsewhere: HashMap<RemoteAddress, u64>,
}

impl Interpreter {
    /// Finds the interpreter of a process and looks at it. `Ok(None)` if it has none.
    ///
    /// `limit` ends it, and nothing else: what comes of it is read without one.
    pub fn find(
        target: &Target,
        maps: &[SymbolMap],
        settings: PythonSettings,
        limit: &ReadLimit,
    ) -> Result<Option<Self>, String> {
        let began = time_worked();
        let rules = PythonRules::new(maps);
        let Some(mut engine) = CpythonEngine::open(target, rules, limit).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let layout = engine.kernel_layout().map_err(|error| error.to_string())?;
        let mut survey = engine.survey().map_err(|error| error.to_string())?;
        let mut lives = Lives::default();
        lives.take_up(&PythonSurvey::default(), &mut survey);
        let PythonSettings { mode, duty } = settings;
        let frames = match mode {
            PythonMode::Watch => None,
            PythonMode::Frames => Some(Frames::find(target, engine.runtime(), duty)?),
        };
        let look_took = time_worked().saturating_sub(began);
        let engine = engine.to_look_at(&ReadLimit::default());
        Ok(Some(Self { frames, look_took, ..Self::unseen(target, engine, layout, survey, lives, mode) }))
    }

    /// One that has been looked at, and of which nothing is seen yet.
    fn unseen(
        target: &Target,
        engine: CpythonEngine,
        layout: PythonLayout,
        survey: PythonSurvey,
        lives: Lives,
        mode: PythonMode,
    ) -> Self {
        Self {
            process: (target.process, target.kernel_pid),
            engine,
            layout,
            survey,
            lives,
            plan: PythonPlan::default(),
            mode,
            frames: None,
            target: target.clone(),
            exceptions: None,
            has_begun: false,
            is_followed: false,
            is_settling: false,
            has_told: false,
            slots: DEBUG_REGISTERS,
            held_by: Vec::new(),
            obstacle: None,
            watched: Vec::new(),
            idle: HashSet::new(),
            counted: HashMap::new(),
            worth: HashMap::new(),
            traffic: 0,
            watched_since: HashMap::new(),
            past: HashMap::new(),
            since: Instant::now(),
            looked: Instant::now(),
            look: None,
            look_took: Duration::ZERO,
            look_every: LOOK_EVERY,
            look_young: LOOK_YOUNG,
            memory: 0,
            began: None,
            seen_after: None,
            calls_looked_at: Instant::now(),
            called_at: None,
            all_had_a_turn: false,
            in_vain: HashSet::new(),
            considered: HashSet::new(),
            calibrated: HashMap::new(),
            calibration: None,
            numbers: 0,
            without_number: 0,
        }
    }

    /// The interpreter of a process that was forked by this one's and runs the same program: what is known of this one
    /// holds for it, until a look of its own, which comes soon. `None` where the file cannot be had.
    pub fn in_fork(&self, target: &Target) -> Option<Self> {
        if target.image != self.image() {
            return None;
        }
        let engine = self.engine.in_fork(target.process);
        let frames = match &self.frames {
            Some(frames) => Some(frames.in_fork(target, engine.runtime())?),
            None => None,
        };
        let layout = PythonLayout { exceptions_are_seen: 0, ..self.layout };
        Some(Self {
            frames,
            exceptions: self.exceptions.clone(),
            is_followed: true,
            is_settling: !self.has_begun,
            look_every: LOOK_EARLY,
            ..Self::unseen(target, engine, layout, self.survey.clone(), self.lives.clone(), self.mode)
        })
    }

    /// The same after a look at it, for which it waits.
    pub fn looked_at(mut self, limit: &ReadLimit) -> Result<Self, String> {
        let Looked { engine, survey, took } = Looked::at(self.engine.to_look_at(limit));
        let mut survey = survey.map_err(|error| error.to_string())?;
        self.engine = engine.to_look_at(&ReadLimit::default());
        self.lives.take_up(&self.survey, &mut survey);
        self.survey = survey;
        self.look_took = took;
        (self.looked, self.look_every) = (Instant::now(), LOOK_EVERY);
        Ok(self)
    }

    /// The same interpreter, found in a process that a traced one has forked.
    #[must_use]
    pub fn followed(self) -> Self {
        Self { is_followed: true, is_settling: true, ..self }
    }

    /// Whether more may be found at any moment, because the process is young.
    pub fn is_settling(&self) -> bool {
        self.is_followed && self.is_settling && self.since.elapsed() < SETTLING
    }

    /// Whether its process was forked by a traced one.
    pub fn is_followed(&self) -> bool {
        self.is_followed
    }

    /// Whether there has been anything to see.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Its process.
    pub fn process(&self) -> ProcessId {
        self.process.0
    }

    /// The program that it belongs to.
    pub fn image(&self) -> ProgramImage {
        self.target.image
    }

    /// What has found no room in the tables, at most.
    pub fn left_out(&self, kernel: Option<&dyn KernelProcess>) -> PythonLeftOut {
        kernel
            .map_or_else(PythonLeftOut::default, KernelProcess::python_left_out)
            .most(PythonLeftOut { numbers: self.without_number, ..PythonLeftOut::default() })
    }

    /// Counts the calls of code that is seen so far.
    ///
    /// # Errors
    /// The counts cannot be read.
    pub fn count(&mut self, kernel: &dyn KernelProcess) -> Result<(), SessionError> {
        let seen: Vec<RemoteAddress> = match self.mode {
            PythonMode::Watch => self.watched.clone(),
            PythonMode::Frames => self.plan.watched.iter().map(|(code, _)| *code).collect(),
        };
        for code in seen {
            self.counted.insert(code, kernel.python_calls(code)?);
        }
        Ok(())
    }

    /// From now on calls are recorded.
    ///
    /// # Errors
    /// The process map cannot be written.
    pub fn accept_entries(&mut self, means: &mut Means<'_>) -> Result<(), SessionError> {
        means.in_kernel(self.process.0)?.accept_entries(true)?;
        self.entries_are_accepted(means.drain)
    }

    /// Calls are recorded: a calibration is over.
    ///
    /// # Errors
    /// The session cannot go on.
    pub fn entries_are_accepted(&mut self, drain: &Drain) -> Result<(), SessionError> {
        self.calibration.take().map_or(Ok(()), |gap| drain.end_gap(gap))
    }

    /// Calls that were counted, by the name of the code.
    pub fn add_to(&self, experience: &mut Experience) {
        for code in &self.survey.codes {
            let counted = self.counted.get(&code.address).copied().unwrap_or(0);
            let calibrated = self.calibrated.get(&code.address).copied().unwrap_or(0);
            experience.add(code, counted.max(calibrated));
        }
    }

    /// Whether it is the interpreter of this process.
    pub fn is_of(&self, process: ProcessId) -> bool {
        self.process.0 == process
    }

    /// It has begun at this time, while the tracer was there.
    #[must_use]
    pub fn young_since(self, began: Instant) -> Self {
        Self { began: Some(began), ..self }
    }

    /// Code objects that are seen now.
    pub fn seen(&self) -> usize {
        match self.mode {
            PythonMode::Watch => self.watched.len(),
            PythonMode::Frames => self.plan.watched.len(),
        }
    }

    /// Chooses what to see and makes it so, once there is something to see.
    pub fn attach(
        &mut self,
        means: &mut Means<'_>,
        experience: &Experience,
        may_wait: bool,
    ) -> Result<(), SessionError> {
        // Code is there when its class has been imported; whether it has objects yet does not matter.
        if self.has_begun || self.survey.codes.is_empty() {
            return Ok(());
        }
        self.has_begun = true;
        if self.is_followed {
            means.drain.add_process(self.target.clone())?;
        }
        // In watch mode the end of a call tells its exception, where it is seen at once.
        if self.mode == PythonMode::Frames || self.layout.exits_are_prompt == 0 {
            self.see_exceptions(means)?;
        }
        match self.mode {
            PythonMode::Watch => self.begin_watching(means, experience, may_wait),
            PythonMode::Frames => self.begin_frames(means, may_wait),
        }?;
        self.seen_after = self.began.map(|began| began.elapsed());
        Ok(())
    }

    fn see_exceptions(&mut self, means: &mut Means<'_>) -> Result<(), SessionError> {
        let Some(path) = interpreter_file(&self.target, self.engine.runtime()) else { return Ok(()) };
        if let Some(site) = self.exceptions.get_or_insert_with(|| exception_site(&path)) {
            match means.in_kernel(self.process.0)?.place_exceptions(&path, site) {
                Ok(()) => self.layout.exceptions_are_seen = 1,
                // The calls are seen without it.
                Err(error) if !has_ended(self.process.0) => tracing::warn!(
                    "exceptions in process {} are not seen, and calls that they end have no error type: {error}",
                    self.process.0
                ),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Forgets what is watched: the programs that did it are gone.
    pub fn let_go(&mut self) {
        self.has_begun = false;
        self.watched.clear();
        self.counted.clear();
        self.worth.clear();
        self.watched_since.clear();
        self.calibration = None;
    }

    /// Whether a look at the process is under way.
    pub fn is_looked_at(&self) -> bool {
        self.look.is_some()
    }

    /// Begins another look at the process, on a thread of its own. What it finds is taken up by [`Self::look_again`] once it
    /// is there.
    pub fn begin_look(&mut self) {
        let engine = self.engine.to_look_at(&ReadLimit::default());
        self.look = Background::begin("look", move |limit| Looked::at(engine.to_look_at(limit)));
        // Where there is no thread for it, it is tried again when the next one is due.
        self.looked = Instant::now();
    }

    /// What a look has found, if one has ended.
    pub fn take_look(&mut self) -> Option<Looked> {
        match self.look.as_ref()?.progress() {
            Progress::UnderWay => None,
            Progress::Done(looked) => {
                self.look = None;
                Some(looked)
            }
            Progress::Failed => {
                self.look = None;
                None
            }
        }
    }

    /// Takes up what a look has found, if one has ended: new classes and functions become known, and a model that was loaded
    /// or replaced changes what is seen. Otherwise looks at the calls, if it is time.
    pub fn look_again(
        &mut self,
        means: &mut Means<'_>,
        looked: Option<Looked>,
        experience: &Experience,
    ) -> Result<(), SessionError> {
        if self.has_begun
            && let Some(frames) = &mut self.frames
        {
            frames.keep_time(means, self.process)?;
        }
        let Some(Looked { engine, survey, took }) = looked else { return self.look_at_calls(means, experience) };
        self.looked = Instant::now();
        self.look_took = took;
        if has_ended(self.process.0) {
            return Ok(());
        }
        // A process that is ending; the next look tells.
        let Ok(mut survey) = survey else { return Ok(()) };
        self.engine = engine.to_look_at(&ReadLimit::default());
        let news = self.lives.take_up(&self.survey, &mut survey);
        let is_new = news.is_any;
        // Nothing to trace, and again nothing: it is still to come.
        self.is_settling &= is_new || !self.has_begun;
        self.look_every = if is_new { LOOK_EVERY } else { LOOK_SELDOM.min(self.look_every * 2) };
        let memory = self.engine.memory_read();
        let is_busy = is_new || memory != self.memory;
        self.look_young = if is_busy { LOOK_YOUNG } else { LOOK_EVERY.min(self.look_young * 2) };
        self.memory = memory;
        self.survey.not_looked_at.clone_from(&survey.not_looked_at);
        if is_new {
            self.idle.retain(|code| !news.may_be_called(*code));
            self.in_vain.retain(|code| !news.may_be_called(*code));
            self.survey = survey;
        }
        if !self.has_begun {
            self.attach(means, experience, !self.is_followed)?;
            return self.accept_entries(means);
        }
        self.calls_looked_at = Instant::now();
        match self.mode {
            PythonMode::Watch => self.watch_again(means, experience, is_new)?,
            PythonMode::Frames if is_new => {
                // An interpreter that ends has no objects any more: what was covered is remembered.
                for (code, watched) in self.plan.watched.iter().filter(|(_, watched)| !watched.methods.is_empty()) {
                    self.past.entry(*code).or_insert_with(|| watched.clone());
                }
                self.count(means.in_kernel(self.process.0)?)?;
                let before = std::mem::take(&mut self.plan);
                self.choose(means.planner, &Calls { here: self.counted.clone(), elsewhere: HashMap::new() });
                self.remember(&before, &self.counted.clone());
                self.tell(means)?;
            }
            PythonMode::Frames => {}
        }
        Ok(())
    }

    /// Whether it is time for another look at the process. `count` is the number of interpreters, which share the time.
    pub fn is_due(&self, count: u32) -> bool {
        self.look.is_none() && self.looked.elapsed() >= self.pause(count)
    }

    /// Time from the end of one look to the next.
    fn pause(&self, count: u32) -> Duration {
        let is_young = self.called_at.is_none() && self.began.is_some_and(|began| began.elapsed() < YOUNG);
        let shared = PART_OF_TIME.saturating_mul(count);
        let (every, part) = if is_young {
            (self.look_young, 1)
        } else if self.is_settling() {
            (LOOK_EARLY.min(self.look_every), PART_OF_SETTLING_TIME)
        } else if self.plan.watched.is_empty() {
            (LOOK_EARLY.min(self.look_every), shared)
        } else {
            (self.look_every, shared)
        };
        every.max(self.look_took * part)
    }

    /// Between two looks at the process, in watch mode: looks whether watched code is called.
    fn look_at_calls(&mut self, means: &mut Means<'_>, experience: &Experience) -> Result<(), SessionError> {
        let is_watching = self.has_begun && self.mode == PythonMode::Watch;
        let takes_turns = self.called_at.is_none()
            && !self.all_had_a_turn
            && !self.plan.without_objects.is_empty()
            && self.plan.has_more;
        // What is called in a worker that has just begun shows soon, and serves the others.
        let is_fresh = self.is_followed && self.since.elapsed() < FRESH;
        let every = if takes_turns || is_fresh { TURN } else { COUNT_EVERY };
        if !is_watching || self.calls_looked_at.elapsed() < every || has_ended(self.process.0) {
            return Ok(());
        }
        self.calls_looked_at = Instant::now();
        self.watch_again(means, experience, false)
    }

    /// Chooses, given the calls that were counted.
    pub(super) fn choose(&mut self, planner: &mut Planner, calls: &Calls) {
        let past = self.past.iter().map(|(code, past)| (code, past.calls_seen));
        let called = past.chain(self.counted.iter().map(|(code, calls)| (code, *calls)));
        let past = called.filter(|(_, calls)| *calls > 0).map(|(code, _)| *code).collect();
        let Calls { here, elsewhere } = calls.clone();
        let budget = PythonBudget { calls: here, elsewhere, idle: self.idle.clone(), past, ..self.budget() };
        self.plan = self.planned(planner, &budget);
        self.numbers += self.plan.new_numbers;
        self.without_number = self.without_number.max(self.plan.without_number);
    }

    /// What a budget would give.
    pub(super) fn planned(&self, planner: &mut Planner, budget: &PythonBudget) -> PythonPlan {
        planner.plan_python(&self.engine.runtime().module, &self.survey, budget)
    }

    /// Everything: no limit on what is watched.
    pub(super) fn unlimited(&self) -> PythonBudget {
        // A heap frame does not hold its function; in watch mode the caller's stack tells.
        let heap_frames = self.layout.style == crate::model::FrameStyle::Heap as u32;
        let function_is_seen = self.mode == PythonMode::Watch || !heap_frames;
        PythonBudget { slots: None, function_is_seen, lived: self.lives.classes().clone(), ..PythonBudget::default() }
    }

    fn budget(&self) -> PythonBudget {
        let slots = (self.mode == PythonMode::Watch).then_some(self.slots);
        let new_numbers = Some(MOST_NUMBERS.saturating_sub(self.numbers));
        PythonBudget { slots, obstacle: self.obstacle.clone(), without_objects: true, new_numbers, ..self.unlimited() }
    }

    /// Tells the programs and the assembler what the plan says.
    pub(super) fn tell(&mut self, means: &mut Means<'_>) -> Result<(), SessionError> {
        means.drain.add_functions(self.plan.functions.clone())?;
        let classes = self.survey.classes.iter().map(|class| (class.address, class.name.clone())).collect();
        let members = self.survey.members.clone();
        let is_first = !std::mem::replace(&mut self.has_told, true);
        means.drain.add_python_names(PythonNames { process: self.process.1, is_first, classes, members })?;
        means.in_kernel(self.process.0)?.set_python(&self.layout, &self.plan.tables)?;
        Ok(())
    }
}
