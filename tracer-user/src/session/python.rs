//! The Python side of a running tracer: which code is watched in which interpreter, kept up to date with the process.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::drain::Drain;
use super::error::SessionError;
use crate::attach::{Programs, WatchOutcome};
use crate::engine::cpython::CpythonEngine;
use crate::memory::{LiveProcess, Memory as _};
use crate::model::{
    NotWatched, ProcessId, PythonCode, PythonCoverage, PythonLayout, PythonMode, PythonNames, PythonPlan, PythonSurvey,
    RemoteAddress, SymbolMap, Target, WatchedCode,
};
use crate::plan::{Planner, PythonBudget};
use crate::symbol_map::PythonRules;
use crate::target::{has_ended, tracer_of};

/// Debug registers of an x86-64 processor.
const DEBUG_REGISTERS: usize = 4;

/// How often a process is looked at again for new classes, functions and models.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A look may take this share of the tracer's time; where it takes longer, the next one comes later.
const MOST_OF_THE_TIME: u32 = 20;

/// A calibration watches a few candidates for so long before it goes on to the next ones.
const CALIBRATION_STEP: Duration = Duration::from_millis(60);

/// Steps of a calibration at most: what is not tried by then is chosen by what is alive alone.
const CALIBRATION_STEPS: usize = 12;

/// The interpreters of the targets.
#[derive(Default)]
pub struct PythonTargets {
    interpreters: Vec<Interpreter>,
    /// What was met and kept an interpreter from being traced, a sentence each.
    pub problems: Vec<String>,
}

struct Interpreter {
    process: (ProcessId, u32),
    engine: CpythonEngine,
    layout: PythonLayout,
    survey: PythonSurvey,
    plan: PythonPlan,
    slots: usize,
    held_by: Vec<String>,
    /// Code that is watched now.
    watched: Vec<RemoteAddress>,
    /// Calls of code that is not watched any more, and what it was.
    past: HashMap<RemoteAddress, (WatchedCode, u64)>,
    looked: Instant,
    look_took: Duration,
}

impl PythonTargets {
    /// Finds the interpreters of the targets and looks at them. What cannot be read is a problem to be told, not an error.
    pub fn find(targets: &[Target], maps: &[SymbolMap]) -> Self {
        let mut found = Self::default();
        for target in targets {
            match Interpreter::find(target, maps) {
                Ok(interpreter) => found.interpreters.extend(interpreter),
                Err(problem) => found.problems.push(problem),
            }
        }
        found
    }

    /// Whether any target runs Python.
    pub fn is_empty(&self) -> bool {
        self.interpreters.is_empty()
    }

    /// Code objects that are watched now.
    pub fn watched(&self) -> usize {
        self.interpreters.iter().map(|interpreter| interpreter.watched.len()).sum()
    }

    /// What would be watched, without watching anything.
    pub fn plan_only(&mut self, planner: &mut Planner) -> Vec<PythonCoverage> {
        for interpreter in &mut self.interpreters {
            interpreter.choose(planner, &HashMap::new());
        }
        self.interpreters.iter().map(Interpreter::coverage).collect()
    }

    /// Chooses what to watch, after a calibration where there is more than can be watched, and watches it.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot.
    pub fn attach(
        &mut self,
        programs: &mut Programs,
        planner: &mut Planner,
        drain: &Drain,
    ) -> Result<(), SessionError> {
        for interpreter in &mut self.interpreters {
            interpreter.attach(programs, planner, drain)?;
        }
        Ok(())
    }

    /// Looks at each interpreter again if it is time: new classes and functions become known, and a model that was loaded
    /// or replaced changes what is watched.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot.
    pub fn look_again(
        &mut self,
        programs: &mut Programs,
        planner: &mut Planner,
        drain: &Drain,
    ) -> Result<(), SessionError> {
        for interpreter in &mut self.interpreters {
            let pause = LOOK_EVERY.max(interpreter.look_took * MOST_OF_THE_TIME);
            if interpreter.looked.elapsed() >= pause && !has_ended(interpreter.process.0) {
                interpreter.look_again(programs, planner, drain)?;
            }
        }
        Ok(())
    }

    /// What was covered and what not, with the calls counted so far.
    ///
    /// # Errors
    /// The counts cannot be read.
    pub fn coverage(&mut self, programs: &mut Programs) -> Result<Vec<PythonCoverage>, SessionError> {
        self.interpreters.iter_mut().map(|interpreter| interpreter.counted_coverage(programs)).collect()
    }
}

impl Interpreter {
    fn find(target: &Target, maps: &[SymbolMap]) -> Result<Option<Self>, String> {
        let began = Instant::now();
        let Some(mut engine) =
            CpythonEngine::open(target, PythonRules::new(maps)).map_err(|error| error.to_string())?
        else {
            return Ok(None);
        };
        let layout = engine.kernel_layout().map_err(|error| error.to_string())?;
        let survey = engine.survey().map_err(|error| error.to_string())?;
        Ok(Some(Self {
            process: (target.process, target.kernel_pid),
            engine,
            layout,
            survey,
            plan: PythonPlan::default(),
            slots: DEBUG_REGISTERS,
            held_by: Vec::new(),
            watched: Vec::new(),
            past: HashMap::new(),
            looked: Instant::now(),
            look_took: began.elapsed(),
        }))
    }

    fn choose(&mut self, planner: &mut Planner, calls: &HashMap<RemoteAddress, u64>) {
        let budget = PythonBudget { slots: Some(self.slots), function_is_seen: true, calls: calls.clone() };
        let module = self.engine.runtime().module.clone();
        self.plan = planner.plan_python(self.process.0, &module, &self.survey, &budget);
    }

    fn attach(&mut self, programs: &mut Programs, planner: &mut Planner, drain: &Drain) -> Result<(), SessionError> {
        let calls = self.calibrate(programs, planner)?;
        self.choose(planner, &calls);
        self.put_into_force(programs, drain)?;
        if self.slots < DEBUG_REGISTERS && self.plan.watched.len() > self.slots {
            // Fewer registers than there should be: choose again for these.
            self.choose(planner, &calls);
            self.put_into_force(programs, drain)?;
        }
        Ok(())
    }

    /// Where there is more than can be watched: watches a few candidates after the other for a moment each, and counts
    /// their calls. Nothing is recorded meanwhile.
    fn calibrate(
        &mut self,
        programs: &mut Programs,
        planner: &mut Planner,
    ) -> Result<HashMap<RemoteAddress, u64>, SessionError> {
        let mut calls = HashMap::new();
        let everything = PythonBudget { slots: None, function_is_seen: true, calls: HashMap::new() };
        let module = self.engine.runtime().module.clone();
        let all = planner.plan_python(self.process.0, &module, &self.survey, &everything);
        if all.watched.len() <= self.slots {
            return Ok(calls);
        }
        programs.set_python(self.process, &self.layout, &all.tables)?;
        for group in all.watched.chunks(self.slots).take(CALIBRATION_STEPS) {
            for (code, _) in group {
                if self.watch(programs, *code)? != WatchOutcome::Live {
                    break;
                }
            }
            std::thread::sleep(CALIBRATION_STEP);
            for (code, _) in group {
                let counted = programs.python_calls(self.process.1, *code)?;
                programs.unwatch(self.process.0, *code)?;
                if counted > 0 {
                    calls.insert(*code, counted);
                }
            }
        }
        Ok(calls)
    }

    /// Tells the programs and the assembler what the plan says, and moves the watchpoints.
    fn put_into_force(&mut self, programs: &mut Programs, drain: &Drain) -> Result<(), SessionError> {
        drain.add_functions(self.plan.functions.clone())?;
        drain.add_python_names(self.names())?;
        programs.set_python(self.process, &self.layout, &self.plan.tables)?;
        let wanted: Vec<RemoteAddress> = self.plan.watched.iter().map(|(code, _)| *code).collect();
        let (kept, dropped): (Vec<_>, Vec<_>) = self.watched.iter().partition(|code| wanted.contains(code));
        for code in dropped {
            programs.unwatch(self.process.0, code)?;
        }
        self.watched = kept;
        for code in wanted {
            if self.watched.contains(&code) {
                continue;
            }
            match self.watch(programs, code)? {
                WatchOutcome::Live => self.watched.push(code),
                WatchOutcome::NoSlot => {
                    self.slots = self.watched.len();
                    self.held_by = vec![holder_of(self.process.0)];
                    break;
                }
                WatchOutcome::Gone => break,
            }
        }
        Ok(())
    }

    fn watch(&self, programs: &mut Programs, code: RemoteAddress) -> Result<WatchOutcome, SessionError> {
        let memory = LiveProcess::new(self.process.0.pid);
        let count = || {
            let mut bytes = [0; 4];
            memory.read(code, &mut bytes).ok().map(|()| u32::from_ne_bytes(bytes))
        };
        Ok(programs.watch(self.process, code, count)?)
    }

    fn look_again(
        &mut self,
        programs: &mut Programs,
        planner: &mut Planner,
        drain: &Drain,
    ) -> Result<(), SessionError> {
        let began = Instant::now();
        let survey = self.engine.survey();
        self.looked = Instant::now();
        self.look_took = began.elapsed();
        // A process that is ending; the next look tells.
        let Ok(survey) = survey else { return Ok(()) };
        if is_same(&self.survey, &survey) {
            return Ok(());
        }
        let mut calls = HashMap::new();
        for (code, watched) in &self.plan.watched {
            let counted = programs.python_calls(self.process.1, *code)?;
            calls.insert(*code, counted);
            self.past.insert(*code, (watched.clone(), counted));
        }
        self.survey = survey;
        self.choose(planner, &calls);
        self.put_into_force(programs, drain)?;
        programs.accept_entries(true)?;
        Ok(())
    }

    fn names(&self) -> PythonNames {
        let classes = self.survey.classes.iter().map(|class| (class.address, class.name.clone()));
        PythonNames { process: self.process.1, classes: classes.collect(), members: self.survey.members.clone() }
    }

    fn counted_coverage(&mut self, programs: &mut Programs) -> Result<PythonCoverage, SessionError> {
        let mut coverage = self.coverage();
        coverage.watched.clear();
        for (code, watched) in &self.plan.watched {
            if !self.watched.contains(code) {
                continue;
            }
            let before = self.past.remove(code).map_or(0, |(_, calls)| calls);
            let calls_seen = programs.python_calls(self.process.1, *code)?.max(before);
            coverage.watched.push(WatchedCode { calls_seen, ..watched.clone() });
        }
        let past = self.past.drain().map(|(_, (watched, calls_seen))| WatchedCode { calls_seen, ..watched });
        coverage.watched.extend(past.filter(|watched| watched.calls_seen > 0));
        Ok(coverage)
    }

    fn coverage(&self) -> PythonCoverage {
        let (major, minor, micro) = self.engine.runtime().version;
        let left_out = self.engine.left_out();
        let mut not_watched = self.plan.not_watched.clone();
        if left_out > 0 {
            not_watched.push(NotWatched {
                name: format!("models in {} MiB of memory", left_out >> 20),
                reason: "that memory was not searched".into(),
            });
        }
        PythonCoverage {
            process: self.process.0.pid,
            interpreter: format!("CPython {major}.{minor}.{micro}"),
            mode: PythonMode::Watch,
            slots: u32::try_from(self.slots).unwrap_or(u32::MAX),
            slots_held_by: self.held_by.clone(),
            watched: self.plan.watched.iter().map(|(_, watched)| watched.clone()).collect(),
            not_watched,
        }
    }
}

/// Whether two looks found the same, apart from how often something was changing while it was read.
fn is_same(before: &PythonSurvey, now: &PythonSurvey) -> bool {
    let classes =
        |survey: &PythonSurvey| -> Vec<RemoteAddress> { survey.classes.iter().map(|class| class.address).collect() };
    // Numbers of objects come and go with every request: what counts is whether there are any.
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

/// Who may hold the other debug registers of a process.
fn holder_of(process: ProcessId) -> String {
    tracer_of(process.pid)
        .unwrap_or_else(|| "another tool (a debugger, perf, or a second ml-tracer: who is not known)".to_owned())
}
