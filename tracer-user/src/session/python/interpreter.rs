//! One interpreter: looked at, planned for, seen in one of the two modes, and looked at again.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::super::error::SessionError;
use super::super::settings::PythonSettings;
use super::experience::Experience;
use super::frames::{Frames, exception_site, interpreter_file};
use super::targets::Means;
use super::watching::DEBUG_REGISTERS;
use crate::engine::cpython::CpythonEngine;
use crate::model::{
    InterpreterSite, ProcessId, ProgramImage, PythonCode, PythonLayout, PythonMode, PythonNames, PythonPlan,
    PythonSurvey, RemoteAddress, SymbolMap, Target, WatchedCode,
};
use crate::plan::{Planner, PythonBudget};
use crate::symbol_map::PythonRules;
use crate::target::has_ended;

/// How often a process is looked at again for new classes, functions and models.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The same after looks that have found nothing new, at most: each such look doubles the time to the next.
const LOOK_SELDOM: Duration = Duration::from_secs(4);

/// How often the calls of watched code are looked at: code that is not called makes room for other code.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// How often it is looked at while nothing to trace has been found: it is importing its libraries, perhaps.
const LOOK_EARLY: Duration = Duration::from_millis(200);

/// Looks may take this share of the time, those at all interpreters together: where one takes longer, the next one comes
/// later.
const PART_OF_TIME: u32 = 10;

/// A worker that was just forked makes its model soon, and then has requests: until it has, a greater share is well spent.
const PART_OF_YOUNG_TIME: u32 = 3;

/// How long a forked process is young.
const YOUNG: Duration = Duration::from_secs(60);

/// One interpreter and what is seen of it.
pub struct Interpreter {
    pub(super) process: (ProcessId, u32),
    pub(super) engine: CpythonEngine,
    pub(super) layout: PythonLayout,
    pub(super) survey: PythonSurvey,
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
    /// Code that is watched now.
    pub(super) watched: Vec<RemoteAddress>,
    /// Code that was watched without being called, while other code was.
    pub(super) idle: HashSet<RemoteAddress>,
    /// Calls of the watched code at the last look.
    pub(super) counted: HashMap<RemoteAddress, u64>,
    /// Code that was watched before, and its calls then.
    pub(super) past: HashMap<RemoteAddress, WatchedCode>,
    /// When it came to the session.
    since: Instant,
    looked: Instant,
    look_took: Duration,
    /// Time from the last look to the next.
    look_every: Duration,
    /// When the calls of watched code were looked at last.
    calls_looked_at: Instant,
}

impl Interpreter {
    /// Finds the interpreter of a process and looks at it. `Ok(None)` if it has none.
    pub fn find(target: &Target, maps: &[SymbolMap], settings: PythonSettings) -> Result<Option<Self>, String> {
        let began = Instant::now();
        let rules = PythonRules::new(maps);
        let Some(mut engine) = CpythonEngine::open(target, rules).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let layout = engine.kernel_layout().map_err(|error| error.to_string())?;
        let survey = engine.survey().map_err(|error| error.to_string())?;
        let PythonSettings { mode, duty } = settings;
        let frames = match mode {
            PythonMode::Watch => None,
            PythonMode::Frames => Some(Frames::find(target, engine.runtime(), duty)?),
        };
        Ok(Some(Self {
            process: (target.process, target.kernel_pid),
            engine,
            layout,
            survey,
            plan: PythonPlan::default(),
            mode,
            frames,
            target: target.clone(),
            exceptions: None,
            has_begun: false,
            is_followed: false,
            is_settling: false,
            has_told: false,
            slots: DEBUG_REGISTERS,
            held_by: Vec::new(),
            watched: Vec::new(),
            idle: HashSet::new(),
            counted: HashMap::new(),
            past: HashMap::new(),
            since: Instant::now(),
            looked: Instant::now(),
            look_took: began.elapsed(),
            look_every: LOOK_EVERY,
            calls_looked_at: Instant::now(),
        }))
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
        Some(Self {
            process: (target.process, target.kernel_pid),
            engine,
            layout: PythonLayout { exceptions_are_seen: 0, ..self.layout },
            survey: self.survey.clone(),
            plan: PythonPlan::default(),
            mode: self.mode,
            frames,
            target: target.clone(),
            exceptions: self.exceptions.clone(),
            has_begun: false,
            is_followed: true,
            is_settling: !self.has_begun,
            has_told: false,
            slots: DEBUG_REGISTERS,
            held_by: Vec::new(),
            watched: Vec::new(),
            idle: HashSet::new(),
            counted: HashMap::new(),
            past: HashMap::new(),
            since: Instant::now(),
            looked: Instant::now(),
            look_took: Duration::ZERO,
            look_every: LOOK_EARLY,
            calls_looked_at: Instant::now(),
        })
    }

    /// The same after a look at it.
    pub fn looked_at(mut self) -> Result<Self, String> {
        let began = Instant::now();
        self.survey = self.engine.survey().map_err(|error| error.to_string())?;
        (self.looked, self.look_took, self.look_every) = (Instant::now(), began.elapsed(), LOOK_EVERY);
        Ok(self)
    }

    /// The same interpreter, found in a process that a traced one has forked.
    #[must_use]
    pub fn followed(self) -> Self {
        Self { is_followed: true, is_settling: true, ..self }
    }

    /// Whether more may be found at any moment, because the process is young.
    pub fn is_settling(&self) -> bool {
        self.is_followed && self.is_settling && self.since.elapsed() < YOUNG
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

    /// Calls that were counted, by the name of the code.
    pub fn add_to(&self, experience: &mut Experience) {
        for code in &self.survey.codes {
            experience.add(code, self.counted.get(&code.address).copied().unwrap_or(0));
        }
    }

    /// Whether it is the interpreter of this process.
    pub fn is_of(&self, process: ProcessId) -> bool {
        self.process.0 == process
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
        let is_alive = |code: &PythonCode| code.reached_by.iter().any(|reached| reached.instances > 0);
        let is_worth_it = match self.mode {
            PythonMode::Watch => self.survey.codes.iter().any(is_alive),
            PythonMode::Frames => !self.survey.codes.is_empty(),
        };
        if self.has_begun || !is_worth_it {
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
        }
    }

    fn see_exceptions(&mut self, means: &mut Means<'_>) -> Result<(), SessionError> {
        let Some(path) = interpreter_file(&self.target, self.engine.runtime()) else { return Ok(()) };
        if let Some(site) = self.exceptions.get_or_insert_with(|| exception_site(&path)) {
            means.programs.place_exceptions(self.process, &path, site)?;
            self.layout.exceptions_are_seen = 1;
        }
        Ok(())
    }

    /// Forgets what is watched: the programs that did it are gone.
    pub fn let_go(&mut self) {
        self.has_begun = false;
        self.watched.clear();
        self.counted.clear();
    }

    /// Looks again if it is time: new classes and functions become known, and a model that was loaded or replaced changes
    /// what is seen.
    /// `experience` is given if there is time for a look at the process now, which may take some ten milliseconds. Gives
    /// whether there was one.
    pub fn look_again(&mut self, means: &mut Means<'_>, experience: Option<&Experience>) -> Result<bool, SessionError> {
        if self.has_begun
            && let Some(frames) = &mut self.frames
        {
            frames.keep_time(means.programs, self.process)?;
        }
        let Some(experience) = experience else { return self.look_at_calls(means).map(|()| false) };
        if has_ended(self.process.0) {
            return Ok(false);
        }
        let began = Instant::now();
        let survey = self.engine.survey();
        self.looked = Instant::now();
        self.look_took = began.elapsed();
        // A process that is ending; the next look tells.
        let Ok(survey) = survey else { return Ok(true) };
        let is_new = !is_same(&self.survey, &survey);
        // Nothing to trace, and again nothing: it is still to come.
        self.is_settling &= is_new || !self.has_begun;
        self.look_every = if is_new { LOOK_EVERY } else { LOOK_SELDOM.min(self.look_every * 2) };
        if is_new {
            self.idle.clear();
            self.survey = survey;
        }
        if !self.has_begun {
            self.attach(means, experience, !self.is_followed)?;
            means.programs.accept_entries_of(self.process.0, true)?;
            return Ok(true);
        }
        self.calls_looked_at = Instant::now();
        match self.mode {
            PythonMode::Watch => self.watch_again(means, is_new)?,
            PythonMode::Frames if is_new => {
                // An interpreter that ends has no objects any more: what was covered is remembered.
                let named = self.plan.watched.iter().filter(|(_, watched)| !watched.methods.is_empty());
                self.past.extend(named.cloned());
                self.choose(means.planner, &HashMap::new());
                self.tell(means)?;
            }
            PythonMode::Frames => {}
        }
        Ok(true)
    }

    /// Whether it is time for another look at the process. `count` is the number of interpreters, which share the time.
    pub fn is_due(&self, count: u32) -> bool {
        let is_early = self.plan.watched.is_empty() || self.is_settling();
        let every = if is_early { LOOK_EARLY.min(self.look_every) } else { self.look_every };
        let part = if self.is_settling() { PART_OF_YOUNG_TIME } else { PART_OF_TIME.saturating_mul(count) };
        self.looked.elapsed() >= every.max(self.look_took * part)
    }

    /// Between two looks at the process, in watch mode: looks whether watched code is called.
    fn look_at_calls(&mut self, means: &mut Means<'_>) -> Result<(), SessionError> {
        let is_watching = self.has_begun && self.mode == PythonMode::Watch;
        if !is_watching || self.calls_looked_at.elapsed() < COUNT_EVERY || has_ended(self.process.0) {
            return Ok(());
        }
        self.calls_looked_at = Instant::now();
        self.watch_again(means, false)
    }

    /// Chooses, given the calls that were counted.
    pub(super) fn choose(&mut self, planner: &mut Planner, calls: &HashMap<RemoteAddress, u64>) {
        let budget = PythonBudget { calls: calls.clone(), idle: self.idle.clone(), ..self.budget() };
        self.plan = self.planned(planner, &budget);
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
        PythonBudget { slots: None, function_is_seen, ..PythonBudget::default() }
    }

    fn budget(&self) -> PythonBudget {
        let slots = (self.mode == PythonMode::Watch).then_some(self.slots);
        PythonBudget { slots, without_objects: true, ..self.unlimited() }
    }

    /// Tells the programs and the assembler what the plan says.
    pub(super) fn tell(&mut self, means: &mut Means<'_>) -> Result<(), SessionError> {
        means.drain.add_functions(self.plan.functions.clone())?;
        let classes = self.survey.classes.iter().map(|class| (class.address, class.name.clone())).collect();
        let members = self.survey.members.clone();
        let is_first = !std::mem::replace(&mut self.has_told, true);
        means.drain.add_python_names(PythonNames { process: self.process.1, is_first, classes, members })?;
        means.programs.set_python(self.process, &self.layout, &self.plan.tables)?;
        Ok(())
    }
}

/// Whether two looks found the same. Numbers of objects come and go with every request: what counts is whether there are
/// any.
fn is_same(before: &PythonSurvey, now: &PythonSurvey) -> bool {
    let classes =
        |survey: &PythonSurvey| -> Vec<RemoteAddress> { survey.classes.iter().map(|class| class.address).collect() };
    let live = |survey: &PythonSurvey| -> Vec<(RemoteAddress, Vec<(bool, bool)>)> {
        let reached = |code: &PythonCode| {
            code.reached_by.iter().map(|reached| (reached.instances > 0, reached.in_models > 0)).collect()
        };
        survey.codes.iter().map(|code| (code.address, reached(code))).collect()
    };
    classes(before) == classes(now)
        && before.functions == now.functions
        && before.members == now.members
        && live(before) == live(now)
}
