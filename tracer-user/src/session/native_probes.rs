//! The native probes of all processes: what the engine finds in their files is planned, placed, and taken away again.

use std::path::Path;

use super::error::SessionError;
use super::findings::Findings;
use super::instances::Context;
use super::probe_load::{LookAtLoad, ProbeLoad};
use crate::attach::{Kernel, Refusal, Refused};
use crate::engine::NativeEngine;
use crate::memory::{Region, regions};
use crate::model::{FileNumber, Mapping, Module, PlannedFunction, ProbePlan, ProcessId, Target};
use crate::target::{TargetSource, has_ended, identify, look_at};

/// The native side of a session.
pub struct NativeProbes {
    engine: NativeEngine,
    load: ProbeLoad,
    functions: usize,
    /// Candidates that are not probed.
    skipped: usize,
}

impl NativeProbes {
    /// None so far. The probes of a process may take this share of one processor.
    pub fn new(engine: NativeEngine, max_overhead: Option<f64>) -> Self {
        Self { engine, load: ProbeLoad::new().within(max_overhead), functions: 0, skipped: 0 }
    }

    /// Functions probed so far.
    pub fn functions(&self) -> usize {
        self.functions
    }

    /// Candidates that are not probed.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// What the engine finds in these modules. What cannot be read yet is told anew by `source`.
    pub fn survey(&mut self, target: &Target, modules: &[Module], source: &mut dyn TargetSource) -> Findings {
        let found = Findings::of(&mut self.engine, target, modules);
        for problem in &found.unreadable {
            // It has ended meanwhile, most of the time; files that can be opened and not read were told at the start.
            tracing::debug!("{problem}");
        }
        for file in &found.being_written {
            source.forget(target.process, *file);
        }
        found
    }

    /// Places probes on what was found in a process.
    ///
    /// # Errors
    /// As [`crate::attach::KernelProcess::place`], or the session cannot go on.
    pub fn place(
        &mut self,
        target: &Target,
        mut found: Findings,
        context: &mut Context<'_>,
        source: &mut dyn TargetSource,
    ) -> Result<Vec<Refused>, SessionError> {
        let Some(process) = context.processes.traced(target.process) else { return Ok(Vec::new()) };
        self.skipped += found.requests.extract_if(.., |request| self.load.is_left_out(request)).count();
        if found.requests.is_empty() {
            self.skipped += found.skipped.len();
            return Ok(Vec::new());
        }
        if process.is_to_be_described() {
            context.drain.add_process(target.clone())?;
        }
        let added = context.planner.plan(found.requests, found.skipped);
        self.apply(target, added, context, source)
    }

    fn apply(
        &mut self,
        target: &Target,
        mut added: ProbePlan,
        context: &mut Context<'_>,
        source: &mut dyn TargetSource,
    ) -> Result<Vec<Refused>, SessionError> {
        // A process that has executed something since maps its files elsewhere. Its probes are placed all the same: they belong
        // to the process and the files.
        if identify(target.process.pid).is_none_or(|(_, image)| image != target.image) {
            added.functions.iter_mut().for_each(|function| function.request.module.mappings.clear());
        }
        context.drain.add_functions(added.functions.iter().map(PlannedFunction::description).collect())?;
        let Some(kernel) = context.processes.in_kernel(target.process) else { return Ok(Vec::new()) };
        let refused = kernel.place(&added)?;
        tell_refused(&added.functions, &refused);
        let is_being_written = |function: &&PlannedFunction| {
            refused.iter().any(|refusal| refusal.function == function.id && refusal.why == Refusal::BeingWritten)
        };
        for function in added.functions.iter().filter(is_being_written) {
            source.forget(target.process, function.request.module.number);
        }
        let is_placed = |function: &&PlannedFunction| !refused.iter().any(|refusal| refusal.function == function.id);
        self.load.add(added.functions.iter().filter(is_placed));
        let placed = added.functions.len() - refused.len();
        self.functions += placed;
        if let Some(process) = context.processes.traced(target.process) {
            process.native += placed;
        }
        self.skipped += added.skipped.len();
        Ok(refused)
    }

    /// A process has mapped files since.
    ///
    /// # Errors
    /// As [`Self::place`].
    pub fn place_more(
        &mut self,
        target: &Target,
        modules: &[Module],
        context: &mut Context<'_>,
        source: &mut dyn TargetSource,
    ) -> Result<(), SessionError> {
        let Some(kernel) = context.processes.in_kernel(target.process) else { return Ok(()) };
        // Probes of a file that was unmapped for a while may still be there.
        let is_new = |module: &&Module| !kernel.is_placed(module.number());
        let modules: Vec<Module> = modules.iter().filter(is_new).cloned().collect();
        // What is planned again may have been planned before: for the same file, which was unmapped since.
        for module in &modules {
            context.planner.forget_file(target.process, module.number());
        }
        let found = self.survey(target, &modules, source);
        // Calls that are open meanwhile lack those into the new files.
        let gap =
            (!found.requests.is_empty()).then(|| context.drain.begin_gap(Some(target.process.pid))).transpose()?;
        self.place(target, found, context, source)?;
        if let Some(kernel) = context.processes.in_kernel(target.process) {
            kernel.accept_entries(true)?;
        }
        gap.map_or(Ok(()), |gap| context.drain.end_gap(gap))
    }

    /// Counts calls if it is time, and says what the probes take. Gives the files with functions that must do without probes
    /// from now on.
    ///
    /// # Errors
    /// The counts cannot be read.
    pub fn look_at_load(&mut self, kernel: &dyn Kernel) -> Result<Vec<(ProcessId, FileNumber)>, SessionError> {
        let LookAtLoad { sentences, files } = self.load.look(kernel)?;
        sentences.iter().for_each(|sentence| tracing::warn!("{sentence}"));
        Ok(files)
    }

    /// Takes the probes of a file away and places those that may stay.
    ///
    /// # Errors
    /// As [`Self::place`].
    pub fn place_again(
        &mut self,
        (process, file): (ProcessId, FileNumber),
        context: &mut Context<'_>,
        source: &mut dyn TargetSource,
    ) -> Result<(), SessionError> {
        // Its number may be that of another process by now.
        let Some(target) = look_at(process.pid).ok().filter(|target| target.process == process) else { return Ok(()) };
        let Some(kernel) = context.processes.in_kernel(process) else { return Ok(()) };
        // Calls that are open meanwhile lack those into this file.
        let gap = context.drain.begin_gap(Some(process.pid))?;
        kernel.replaced(file);
        let gone = self.load.forget_file(process, file);
        self.functions = self.functions.saturating_sub(gone);
        if let Some(process) = context.processes.traced(process) {
            process.native = process.native.saturating_sub(gone);
        }
        let modules: Vec<Module> = target.modules.iter().filter(|module| module.number() == file).cloned().collect();
        self.place_more(&target, &modules, context, source)?;
        context.drain.end_gap(gap)
    }

    /// The probes of a process are gone.
    pub fn forget(&mut self, process: ProcessId) {
        self.load.forget(process);
    }
}

/// A process has mapped files no more, or they have become others. Probes stay only where nobody can write to the file
/// unnoticed.
pub fn lose(target: &Target, modules: &[Module], context: &mut Context<'_>) {
    let process = target.process;
    let is_still_mapped = |module: &Module| target.modules.iter().any(|mapped| mapped.number() == module.number());
    let Some(kernel) = context.processes.in_kernel(process) else { return };
    for module in modules {
        if is_still_mapped(module) {
            kernel.replaced(module.number());
        } else if kernel.is_placed(module.number()) {
            if has_moved(target, module) {
                kernel.replaced(module.number());
                tracing::warn!(
                    "process {process} has moved the code of {} into memory of its own: its calls are not seen any more; \
                     probes that were copied with the code may end the process with SIGTRAP (docs/native-engine.md, \
                     \"Programs that move their own code\")",
                    module.path.display()
                );
            } else {
                kernel.unmapped(module.number());
            }
        }
    }
}

/// Says which functions of a file are not probed and why, once for each reason.
fn tell_refused(functions: &[PlannedFunction], refused: &[Refused]) {
    let mut reasons: Vec<(&Path, &str, &str, usize)> = Vec::new();
    let function_of = |refusal: &Refused| functions.iter().find(|function| function.id == refusal.function);
    for (function, refusal) in refused.iter().filter_map(|refusal| Some((function_of(refusal)?, refusal))) {
        let request = &function.request;
        // Of a process that has ended in the middle nothing needs to be said.
        if refusal.why == Refusal::ProcessIsEnding || has_ended(request.module.process) {
            continue;
        }
        let path = request.module.path.as_path();
        let is_it = |(known, _, problem, _): &&mut (&Path, &str, &str, usize)| {
            (*known, *problem) == (path, refusal.problem.as_str())
        };
        match reasons.iter_mut().find(is_it) {
            Some((.., count)) => *count += 1,
            None => reasons.push((path, &request.span_name, &refusal.problem, 1)),
        }
    }
    for (path, first, problem, count) in reasons {
        let others = match count {
            0 | 1 => String::new(),
            2 => " and one other".to_owned(),
            _ => format!(" and {} others", count - 1),
        };
        tracing::warn!("not probed: {first}{others} in {}: {problem}", path.display());
    }
}

/// Whether memory without a file is where the code of a module was.
fn has_moved(target: &Target, module: &Module) -> bool {
    let Ok(regions) = regions(target.process.pid) else { return false };
    let overlaps = |region: &Region, mapping: &Mapping| region.start < mapping.end && mapping.start < region.end;
    let is_there = |region: &Region| module.mappings.iter().any(|mapping| overlaps(region, mapping));
    regions.iter().any(|region| region.executable && region.file.is_none() && is_there(region))
}
