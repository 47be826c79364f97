//! Asks the engines about every module of a process: what could be traced, and what not and why.

use super::python::PythonTargets;
use super::settings::PythonSettings;
use crate::attach::probe_features;
use crate::engine::NativeEngine;
use crate::model::{Module, ModuleFile, ProbePlan, ProbeRequest, PythonCoverage, Skipped, SymbolMap, Target};
use crate::plan::Planner;

/// What the engines found in some modules.
#[derive(Debug, Default)]
pub struct Survey {
    /// Functions to probe.
    pub requests: Vec<ProbeRequest>,
    /// Candidates that cannot be probed.
    pub skipped: Vec<Skipped>,
    /// Modules that could not be read, one sentence each.
    pub unreadable: Vec<String>,
    /// How many of them may not be read.
    pub forbidden: usize,
}

impl Survey {
    /// What the engine finds in these modules of a target.
    pub fn of(engine: &mut NativeEngine, target: &Target, modules: &[Module]) -> Self {
        let mut found = Self::default();
        found.look_into(engine, target, modules);
        found
    }

    /// Adds what the engine finds in these modules of a target.
    pub fn look_into(&mut self, engine: &mut NativeEngine, target: &Target, modules: &[Module]) {
        for module in modules {
            let file = ModuleFile {
                process: target.process,
                path: module.path.clone(),
                access_path: module.access_path.clone(),
            };
            match engine.module(&file) {
                Ok(found) => {
                    self.requests.extend(found.requests);
                    self.skipped.extend(found.skipped);
                }
                Err(error) => {
                    self.forbidden += usize::from(error.is_about_privilege());
                    self.unreadable.push(error.to_string());
                }
            }
        }
    }
}

/// What would be traced.
#[derive(Debug)]
pub struct PlanOnly {
    /// Native functions.
    pub native: ProbePlan,
    /// Python code, by interpreter.
    pub python: Vec<PythonCoverage>,
    /// Files and interpreters that could not be read, one sentence each.
    pub unreadable: Vec<String>,
}

/// What would be probed, without loading or placing anything; and the files that could not be read.
#[must_use]
pub fn plan_only(targets: &[Target], maps: Vec<SymbolMap>, python: PythonSettings) -> PlanOnly {
    let mut interpreters = PythonTargets::new(&maps, python);
    let mut engine = NativeEngine::new(maps);
    let mut found = Survey::default();
    let mut problems = Vec::new();
    for target in targets {
        found.look_into(&mut engine, target, &target.modules);
        match interpreters.find(target) {
            Ok(interpreter) => interpreter.into_iter().for_each(|interpreter| interpreters.take(interpreter)),
            Err(problem) => problems.push(problem),
        }
    }
    let mut planner = Planner::new(probe_features(true));
    let native = planner.plan(found.requests, found.skipped);
    let unreadable = found.unreadable.into_iter().chain(problems).collect();
    PlanOnly { native, python: interpreters.plan_only(&mut planner), unreadable }
}
