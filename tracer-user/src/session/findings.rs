//! Asks the engines about every module of a process: what could be traced, and what not and why.

use std::collections::HashSet;

use super::instances::Instances;
use super::python_mode::Chosen;
use super::settings::PythonSettings;
use crate::attach::probe_features;
use crate::engine::{EngineError, NativeEngine};
use crate::memory::ReadLimit;
use crate::model::{
    FileNumber, Module, ModuleFile, ProbePlan, ProbeRequest, ProcessId, RuntimeCoverage, Skipped, SymbolMap, Target,
    counted, process_numbers,
};
use crate::plan::Planner;
use crate::target::native_obstacle;

/// What the engines found in some modules.
#[derive(Debug, Default)]
pub struct Findings {
    /// Functions to probe.
    pub requests: Vec<ProbeRequest>,
    /// Candidates that cannot be probed.
    pub skipped: Vec<Skipped>,
    /// Modules that could not be read, or not in full, one sentence each.
    pub unreadable: Vec<String>,
    /// What may be the reason if nothing at all is found.
    pub hints: Vec<String>,
    /// Why no native function of the process can be probed.
    pub obstacle: Option<&'static str>,
    /// Modules that somebody was writing while they were read: they are to be read again.
    pub being_written: Vec<FileNumber>,
    /// How many of them may not be read.
    pub forbidden: usize,
}

impl Findings {
    /// What the engine finds in these modules of a target.
    pub fn of(engine: &mut NativeEngine, target: &Target, modules: &[Module]) -> Self {
        let mut found = Self::default();
        found.look_into(engine, target, modules);
        found
    }

    /// Adds what the engine finds in these modules of a target.
    pub fn look_into(&mut self, engine: &mut NativeEngine, target: &Target, modules: &[Module]) {
        self.obstacle = self.obstacle.or_else(|| native_obstacle(target));
        if let Some(obstacle) = native_obstacle(target) {
            self.unreadable.push(format!("process {}: no native function is probed: {obstacle}", target.process));
            return;
        }
        for module in modules {
            // Without a process there are only files that were named.
            let is_named = target.process.pid == 0;
            let is_first = target.modules.first().is_some_and(|program| program.path == module.path);
            let file = ModuleFile { is_program: is_named || is_first, ..ModuleFile::of(target.process, module) };
            match engine.module(&file) {
                Ok(found) => {
                    self.requests.extend(found.requests);
                    self.skipped.extend(found.skipped);
                    self.unreadable.extend(found.remarks);
                    self.hints.extend(found.hints);
                }
                Err(error) => {
                    if matches!(error, EngineError::BeingWritten { .. }) {
                        self.being_written.push(module.number());
                    }
                    self.forbidden += usize::from(error.is_about_privilege());
                    self.unreadable.push(error.to_string());
                }
            }
        }
    }
}

/// Why nothing is found in these targets, and what to do.
pub fn nothing_found(targets: &[Target], found: &[Findings]) -> String {
    let modules: usize = targets.iter().map(|target| target.modules.len()).sum();
    let pids: Vec<u32> = targets.iter().map(|target| target.process.pid).collect();
    if let Some(obstacle) = found.iter().find_map(|found| found.obstacle) {
        return format!("no native function of {} is probed: {obstacle}", process_numbers(&pids));
    }
    let skipped = match found.iter().map(|found| found.skipped.len()).sum() {
        0_usize => String::new(),
        count => format!(" ({} cannot be probed)", counted(count as u64, "candidate", "candidates")),
    };
    format!(
        "no function in the {} of {} matches a symbol map{skipped}; `ml-tracer symbols --pid {}` lists every candidate, \
         `--map FILE` adds rules of your own{}",
        counted(modules as u64, "mapped file", "mapped files"),
        process_numbers(&pids),
        pids.first().map_or_else(|| "PID".to_owned(), u32::to_string),
        // The program's own comes first, and says enough.
        found.iter().flat_map(|found| &found.hints).take(1).map(|hint| format!("; {hint}")).collect::<String>()
    )
}

/// What would be traced.
#[derive(Debug)]
pub struct PlanOnly {
    /// Native functions.
    pub native: ProbePlan,
    /// Python code, by interpreter.
    pub python: Vec<RuntimeCoverage>,
    /// Files and interpreters that could not be read, or not in full, one sentence each.
    pub unreadable: Vec<String>,
    /// What may be the reason if nothing at all is found.
    pub hints: Vec<String>,
}

/// What would be probed in these processes, each with the one that has forked it if it was not named, without loading or placing
/// anything; and the files that could not be read. A file that several have mapped is listed once.
#[must_use]
pub fn plan_only(
    targets: &[(Option<ProcessId>, Target)],
    maps: Vec<SymbolMap>,
    python: PythonSettings,
    probe_moving_code: bool,
) -> PlanOnly {
    let mut interpreters = Instances::new(&maps, Chosen::by_measuring(python).settings);
    let mut engine = NativeEngine::new(maps).probing_moving_code(probe_moving_code).listing_all();
    let mut found = Findings::default();
    let mut problems = Vec::new();
    let mut known: HashSet<FileNumber> = HashSet::new();
    for (forked_by, target) in targets {
        // Files that were named have no numbers.
        let is_new = |module: &&Module| target.process.pid == 0 || known.insert(module.number());
        let modules: Vec<Module> = target.modules.iter().filter(is_new).cloned().collect();
        found.look_into(&mut engine, target, &modules);
        match interpreters.find(target, &ReadLimit::default()) {
            Ok(interpreter) => interpreter.into_iter().for_each(|interpreter| interpreters.take(interpreter)),
            Err(problem) if forked_by.is_none() => problems.push(problem),
            Err(problem) => tracing::debug!("{problem}"),
        }
    }
    let mut planner = Planner::new(probe_features(true));
    let native = planner.plan(found.requests, found.skipped);
    let unreadable = found.unreadable.into_iter().chain(problems).collect();
    // Of a forked process in which there is nothing, nothing needs to be said.
    let named: HashSet<u32> =
        targets.iter().filter(|(forked_by, _)| forked_by.is_none()).map(|(_, target)| target.process.pid).collect();
    let mut python = interpreters.plan_only(&mut planner);
    python.retain(|coverage| named.contains(&coverage.process) || !coverage.is_empty());
    PlanOnly { native, python, unreadable, hints: found.hints }
}
