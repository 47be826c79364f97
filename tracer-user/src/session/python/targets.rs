//! The interpreters of all targets: found at the start, or when a target begins to run one.

use std::time::{Duration, Instant};

use super::super::drain::Drain;
use super::super::error::SessionError;
use super::super::settings::PythonSettings;
use super::interpreter::Interpreter;
use crate::attach::Programs;
use crate::model::{ProcessId, PythonCoverage, SymbolMap, Target};
use crate::plan::Planner;
use crate::target::{has_ended, look_at};

/// How long a process that has mapped an interpreter may take to set it up.
const MOST_FOR_START: Duration = Duration::from_secs(30);

/// The interpreters of the targets.
pub struct PythonTargets {
    settings: PythonSettings,
    maps: Vec<SymbolMap>,
    interpreters: Vec<Interpreter>,
    /// Processes that may have an interpreter soon.
    starting: Vec<Starting>,
}

struct Starting {
    target: Target,
    since: Instant,
}

/// What the tracer works with, lent to its Python side.
pub struct Means<'tracer> {
    /// The programs in the kernel.
    pub programs: &'tracer mut Programs,
    /// Chooses and numbers.
    pub planner: &'tracer mut Planner,
    /// What must know functions and names before their first record.
    pub drain: &'tracer Drain,
}

impl PythonTargets {
    /// Finds the interpreters of the targets and looks at them. What cannot be read is a problem to be told, not an error.
    pub fn find(targets: &[Target], maps: &[SymbolMap], settings: PythonSettings) -> (Self, Vec<String>) {
        let mut found = Self { settings, maps: maps.to_vec(), interpreters: Vec::new(), starting: Vec::new() };
        let mut problems = Vec::new();
        for target in targets {
            match Interpreter::find(target, maps, settings) {
                Ok(Some(interpreter)) => found.interpreters.push(interpreter),
                Ok(None) => {}
                Err(problem) => {
                    found.mapped(target);
                    problems.push(problem);
                }
            }
        }
        (found, problems)
    }

    /// Whether no target runs Python.
    pub fn is_empty(&self) -> bool {
        self.interpreters.is_empty()
    }

    /// Code objects that are seen now.
    pub fn seen(&self) -> usize {
        self.interpreters.iter().map(Interpreter::seen).sum()
    }

    /// What would be seen, without seeing anything.
    pub fn plan_only(&mut self, planner: &mut Planner) -> Vec<PythonCoverage> {
        self.interpreters.iter_mut().map(|interpreter| interpreter.plan_only(planner)).collect()
    }

    /// Chooses what to see and makes it so.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot.
    pub fn attach(&mut self, means: &mut Means<'_>) -> Result<(), SessionError> {
        self.interpreters.iter_mut().try_for_each(|interpreter| interpreter.attach(means))
    }

    /// Forgets what is watched: the programs that did it are gone.
    pub fn let_go(&mut self) {
        self.interpreters.iter_mut().for_each(Interpreter::let_go);
    }

    /// A process has mapped files: perhaps an interpreter is among them.
    pub fn mapped(&mut self, target: &Target) {
        let runs_python = target.modules.iter().any(|module| {
            module.path.file_name().is_some_and(|name| name.to_string_lossy().to_ascii_lowercase().contains("python"))
        });
        let is_known = |process: ProcessId| {
            self.interpreters.iter().any(|interpreter| interpreter.is_of(process))
                || self.starting.iter().any(|starting| starting.target.process == process)
        };
        if runs_python && !is_known(target.process) {
            self.starting.push(Starting { target: target.clone(), since: Instant::now() });
        }
    }

    /// Looks at each interpreter again if it is time.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot.
    pub fn look_again(&mut self, means: &mut Means<'_>) -> Result<(), SessionError> {
        for starting in std::mem::take(&mut self.starting) {
            let began = look_at(starting.target.process.pid)
                .ok()
                .filter(|target| target.process == starting.target.process)
                .and_then(|target| Interpreter::find(&target, &self.maps, self.settings).ok().flatten());
            match began {
                Some(mut interpreter) => {
                    interpreter.attach(means)?;
                    means.programs.accept_entries(true)?;
                    self.interpreters.push(interpreter);
                }
                None if starting.since.elapsed() < MOST_FOR_START && !has_ended(starting.target.process) => {
                    self.starting.push(starting);
                }
                None => {}
            }
        }
        for process in means.programs.unguarded() {
            let left = self.interpreters.iter_mut().find(|interpreter| interpreter.is_of_number(process));
            if let Some(interpreter) = left.filter(|interpreter| !has_ended(interpreter.process.0)) {
                interpreter.watch_nothing("its guard has been killed".to_owned());
            }
        }
        self.interpreters.iter_mut().try_for_each(|interpreter| interpreter.look_again(means))
    }

    /// What was covered and what not, with the calls counted so far.
    ///
    /// # Errors
    /// The counts cannot be read.
    pub fn coverage(&mut self, programs: &mut Programs) -> Result<Vec<PythonCoverage>, SessionError> {
        self.interpreters.iter_mut().map(|interpreter| interpreter.counted_coverage(programs)).collect()
    }
}
