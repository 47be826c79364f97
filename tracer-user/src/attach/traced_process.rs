//! The owner of everything that the kernel holds for one process: its slot, probes, watchpoints, guard, and entries in the
//! tables that all processes share.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use super::error::{AttachError, is_about_privilege};
use super::first_objects;
use super::kernel::KernelProcess;
use super::loaded::{Loaded, SharedLoaded};
use super::object::{array, map_error};
use super::placement::{Link, PlacedFile, Placer, Refusal, Refused, remove};
use super::probed_files::Outcome;
use super::python_chain;
use super::python_frames::FramesPrograms;
use super::python_probes::PythonProbes;
use super::python_watch::{self, WatchOutcome, WatchPrograms};
use super::readback::{check_after, check_before};
use super::requests;
use super::site::Role;
use super::slots::Slot;
use super::totals;
use super::watchpoints::Obstacle;
use crate::memory::MappedFile;
use crate::model::{
    CodeCalls, ContextSites, CurrentSpanLayout, FileNumber, InterpreterSite, InterpreterSites, ModuleFile,
    PlannedFunction, ProbePlan, ProbesPassed, ProcessId, PythonLayout, PythonLeftOut, PythonTables, RemoteAddress,
    ServerSockets, WitnessDensity, WitnessSite, WitnessWindow, WitnessedCalls,
};

/// A traced process. Dropping it takes everything away that belongs to it, and makes room for another one; what of that takes
/// the kernel long goes on aside, until the end.
pub struct TracedProcess {
    process: ProcessId,
    loaded: SharedLoaded,
    /// It gets one with the first thing that needs it: most that a server forks run nothing that is traced.
    slot: Option<Slot>,
    python: PythonProbes,
    /// Where it stops at the first object of a class, if it does.
    first_objects: Vec<Link>,
    /// Whether its connections are looked at.
    is_asked: bool,
    /// Where contexts of its Python code are made and freed.
    contexts: Vec<Link>,
}

impl TracedProcess {
    /// Nothing of it is seen yet.
    pub(super) fn new(process: ProcessId, loaded: SharedLoaded) -> Self {
        let kept_signals = Arc::clone(&loaded.lock().kept_signals);
        let python = PythonProbes::new(process, kept_signals);
        Self { process, loaded, slot: None, python, first_objects: Vec::new(), is_asked: false, contexts: Vec::new() }
    }

    /// Whether anything was ever watched or not: the tables are written before.
    fn forget_python_tables(&mut self) -> Result<(), AttachError> {
        let Some(slot) = &mut self.slot else { return Ok(()) };
        let mut loaded = self.loaded.lock();
        let Loaded { tables, ebpf, chain, .. } = &mut *loaded;
        let unwanted = match chain {
            Some(_) => python_chain::tell_wanted(ebpf, u32::from(slot.number), &[])
                .and(slot.see_witnesses(ebpf, WitnessWindow::Closed))
                .and(python_chain::forget_threads(ebpf, self.process.pid)),
            None => Ok(()),
        };
        let forgotten = tables.forget(ebpf, self.process.pid);
        let told = python_watch::forget_all_watched(ebpf, self.process.pid);
        unwanted.and(forgotten).and(told).and(slot.next_python_epoch(ebpf))
    }

    fn next_python_epoch(&mut self) -> Result<(), AttachError> {
        match &mut self.slot {
            Some(slot) => slot.next_python_epoch(&mut self.loaded.lock().ebpf),
            None => Ok(()),
        }
    }

    /// From now on its requests are told, with the contexts of its interpreter if these are seen. `settling`: its open connections
    /// are about to be told.
    fn look_at_requests_of(&mut self, interpreter: bool, settling: bool) -> Result<(), AttachError> {
        let mut loaded = self.loaded.lock();
        let slot = if interpreter { Some(loaded.slot_of(&mut self.slot, self.process.pid)?) } else { None };
        requests::look_at(&mut loaded.ebpf, self.process.pid, slot, settling)
    }

    /// Whatever goes wrong with one of them, the others are gone.
    fn take_away(&mut self) -> Result<(), AttachError> {
        self.stop_no_more();
        self.remove_python();
        let contexts = std::mem::take(&mut self.contexts);
        self.loaded.lock().removals.begin_if(!contexts.is_empty(), move || drop(contexts));
        if self.loaded.lock().is_over {
            return Ok(());
        }
        let asked = match self.is_asked {
            true => requests::leave(&mut self.loaded.lock().ebpf, self.process.pid),
            false => Ok(()),
        };
        let python = self.forget_python_tables().and(asked);
        let mut loaded = self.loaded.lock();
        let Loaded { ebpf, slots, files, removals, left_elsewhere, .. } = &mut *loaded;
        let Some(slot) = self.slot.take() else { return Ok(()) };
        let cleared = slot.clear(ebpf);
        slots.free(slot.number);
        let taken = totals::take_elsewhere(ebpf, self.process.pid, left_elsewhere);
        // Without a slot they do nothing any more, and nobody has to wait for them.
        let placed = files.take(self.process, None);
        removals.begin_if(!placed.is_empty(), move || drop(placed));
        python.and(cleared).and(taken)
    }
}

impl KernelProcess for TracedProcess {
    fn is_known(&self) -> bool {
        self.slot.is_some()
    }

    fn accept_entries(&mut self, accept: bool) -> Result<(), AttachError> {
        match &mut self.slot {
            Some(slot) => slot.accept_entries(&mut self.loaded.lock().ebpf, accept),
            None => Ok(()),
        }
    }

    fn place(&mut self, plan: &ProbePlan) -> Result<Vec<Refused>, AttachError> {
        let mut loaded = self.loaded.lock();
        loaded.set_captures(&plan.functions)?;
        let mut refused = Vec::new();
        for (module, functions) in by_module(plan).into_iter().filter(|(module, _)| module.process == self.process) {
            let slot = loaded.slot_of(&mut self.slot, self.process.pid)?;
            refused.extend(place_in_file(&mut loaded, slot, module, functions)?);
        }
        Ok(refused)
    }

    fn is_placed(&self, file: FileNumber) -> bool {
        self.loaded.lock().files.is_placed(self.process, file)
    }

    fn unmapped(&mut self, file: FileNumber) {
        remove(self.loaded.lock().files.unmapped(self.process, file));
    }

    fn replaced(&mut self, file: FileNumber) {
        remove(self.loaded.lock().files.take(self.process, Some(file)));
    }

    fn set_python(&mut self, layout: &PythonLayout, tables: &PythonTables) -> Result<(), AttachError> {
        const NAME: &str = "PYTHON_LAYOUTS";
        const SPANS: &str = "CURRENT_SPANS";
        let mut loaded = self.loaded.lock();
        let loaded = &mut *loaded;
        let slot = u32::from(loaded.slot_of(&mut self.slot, self.process.pid)?);
        let mut layouts = array::<PythonLayout>(&mut loaded.ebpf, NAME)?;
        let layout = PythonLayout { array_type: tables.array_type.unwrap_or_default().0, ..*layout };
        layouts.set(slot, layout, 0).map_err(|error| map_error(NAME, &error))?;
        let mut spans = array::<CurrentSpanLayout>(&mut loaded.ebpf, SPANS)?;
        spans.set(slot, tables.current_span.unwrap_or_default(), 0).map_err(|error| map_error(SPANS, &error))?;
        if let Some(slot) = &mut self.slot {
            slot.note_contexts(&mut loaded.ebpf, layout.thread_context != 0 || tables.current_span.is_some())?;
        }
        if layout.witnesses != 0 {
            python_chain::tell_wanted(&mut loaded.ebpf, slot, &tables.codes)?;
        }
        loaded.tables.tell(&mut loaded.ebpf, self.process.pid, slot, tables)
    }

    fn python_left_out(&self) -> PythonLeftOut {
        self.loaded.lock().tables.left_out(self.process.pid)
    }

    fn watch(
        &mut self,
        code: RemoteAddress,
        count: &mut dyn FnMut() -> Option<u32>,
    ) -> Result<WatchOutcome, AttachError> {
        let (pid, mut loaded) = (self.process.pid, self.loaded.lock());
        let Loaded { watch, ebpf, .. } = &mut *loaded;
        watch.load(ebpf)?;
        let failed = |source| AttachError::Watchpoint { pid, source };
        let program = WatchPrograms::at_hits(ebpf)?.map_err(failed)?;
        if watch.need_guards()
            && let Err(outcome) = self.python.start_guard(program.as_fd())
        {
            return Ok(outcome);
        }
        python_watch::tell_watched(ebpf, pid, code)?;
        if let Err(obstacle) = self.python.watch(program.as_fd(), code) {
            python_watch::forget_watched(ebpf, pid, code)?;
            return match obstacle {
                Obstacle::NoSlot => Ok(WatchOutcome::NoSlot),
                Obstacle::NoDescriptors { needed, limit } => Ok(WatchOutcome::NoDescriptors { needed, limit }),
                Obstacle::Gone => Ok(WatchOutcome::Gone),
                Obstacle::Other(source) if is_about_privilege(&source) => {
                    Err(AttachError::not_permitted("a hardware watchpoint", &source))
                }
                Obstacle::Other(source) => Err(failed(source)),
            };
        }
        if let Some(count) = count() {
            python_watch::tell_references(ebpf, pid, code, count)?;
        }
        Ok(WatchOutcome::Live)
    }

    fn unwatch(&mut self, code: RemoteAddress) -> Result<(), AttachError> {
        self.python.unwatch(code);
        python_watch::forget_watched(&mut self.loaded.lock().ebpf, self.process.pid, code)?;
        self.next_python_epoch()
    }

    fn unwatch_all(&mut self) -> Result<(), AttachError> {
        self.python.unwatch_all();
        python_watch::forget_all_watched(&mut self.loaded.lock().ebpf, self.process.pid)?;
        self.next_python_epoch()
    }

    fn python_calls(&self, code: RemoteAddress) -> Result<CodeCalls, AttachError> {
        python_watch::calls(&mut self.loaded.lock().ebpf, self.process.pid, code)
    }

    fn guard(&self) -> Option<u32> {
        self.python.guard()
    }

    fn has_lost_guard(&mut self) -> bool {
        self.python.has_lost_guard()
    }

    fn place_frames(&mut self, path: &Path, sites: &InterpreterSites) -> Result<(), AttachError> {
        let mut loaded = self.loaded.lock();
        let slot = loaded.slot_of(&mut self.slot, self.process.pid)?;
        let Loaded { frames, ebpf, .. } = &mut *loaded;
        let frames = frames.as_ref().ok_or(AttachError::Incomplete { name: "python_frame_entry" })?;
        let file = |role| PlacedFile { path, process: self.process.pid, role };
        self.python.add_frame_returns(frames.place(ebpf, &file(Role::Exit), slot, &sites.returns)?);
        self.python.add_frame_entries(frames.place(ebpf, &file(Role::Entry), slot, &sites.entries)?);
        Ok(())
    }

    fn place_witnesses(
        &mut self,
        path: &Path,
        sites: &[WitnessSite],
        density: WitnessDensity,
    ) -> Result<(), AttachError> {
        let mut loaded = self.loaded.lock();
        let slot = loaded.slot_of(&mut self.slot, self.process.pid)?;
        let Loaded { chain, ebpf, .. } = &mut *loaded;
        let chain = chain.as_ref().ok_or(AttachError::Incomplete { name: "python_witness" })?;
        let file = PlacedFile { path, process: self.process.pid, role: Role::Entry };
        // What is walked at sparse witnesses is right at others as well, but not the other way round.
        if density == WitnessDensity::Sparse
            && let Some(slot) = &mut self.slot
        {
            slot.has_witnesses(ebpf, density)?;
        }
        let placed = chain.place(ebpf, &file, slot, sites)?;
        if let Some(slot) = &mut self.slot {
            slot.has_witnesses(ebpf, density)?;
        }
        drop(loaded);
        self.python.replace_frame_entries(placed);
        Ok(())
    }

    fn count_witnessed(&mut self, codes: &[RemoteAddress]) -> Result<(), AttachError> {
        python_chain::count_witnessed(&mut self.loaded.lock().ebpf, self.process.pid, codes)
    }

    fn take_witnessed(&mut self) -> Result<Vec<WitnessedCalls>, AttachError> {
        python_chain::take_witnessed(&mut self.loaded.lock().ebpf, self.process.pid)
    }

    fn see_witnesses(&mut self, window: WitnessWindow) -> Result<(), AttachError> {
        match &mut self.slot {
            Some(slot) => slot.see_witnesses(&mut self.loaded.lock().ebpf, window),
            None => Ok(()),
        }
    }

    fn remove_frames(&mut self) -> Result<(), AttachError> {
        self.see_witnesses(WitnessWindow::Closed)?;
        self.python.remove_frames();
        self.next_python_epoch()?;
        let mut loaded = self.loaded.lock();
        if loaded.chain.is_some() {
            // What they were is not what they are when the next witness comes.
            python_chain::forget_threads(&mut loaded.ebpf, self.process.pid)?;
        }
        Ok(())
    }

    fn python_probes_passed(&self) -> Result<ProbesPassed, AttachError> {
        match &self.slot {
            Some(slot) => FramesPrograms::passed(&self.loaded.lock().ebpf, slot.number),
            None => Ok(ProbesPassed::default()),
        }
    }

    fn has_open_calls(&self) -> Result<bool, AttachError> {
        totals::has_open_calls(&self.loaded.lock().ebpf, self.process.pid)
    }

    fn place_exceptions(&mut self, path: &Path, site: &InterpreterSite) -> Result<(), AttachError> {
        let mut loaded = self.loaded.lock();
        let slot = loaded.slot_of(&mut self.slot, self.process.pid)?;
        let file = PlacedFile { path, process: self.process.pid, role: Role::Entry };
        self.python.add_exception(loaded.place_exceptions(&file, slot, site)?);
        Ok(())
    }

    fn stop_at_first_objects(
        &mut self,
        path: &Path,
        site: &InterpreterSite,
        classes: &[String],
    ) -> Result<(), AttachError> {
        let mut loaded = self.loaded.lock();
        let slot = loaded.slot_of(&mut self.slot, self.process.pid)?;
        let Loaded { first_objects: program, ebpf, .. } = &mut *loaded;
        let program = program.as_ref().ok_or(AttachError::Incomplete { name: "python_object" })?;
        first_objects::ask_for(ebpf, classes)?;
        let file = PlacedFile { path, process: self.process.pid, role: Role::Entry };
        self.first_objects = program.place(ebpf, &file, slot, site)?;
        Ok(())
    }

    fn knows_classes(&mut self, classes: &[RemoteAddress]) -> Result<(), AttachError> {
        match self.first_objects.is_empty() {
            true => Ok(()),
            false => first_objects::know(&mut self.loaded.lock().ebpf, self.process.pid, classes),
        }
    }

    fn stop_no_more(&mut self) {
        let links = std::mem::take(&mut self.first_objects);
        self.loaded.lock().removals.begin_if(!links.is_empty(), move || drop(links));
    }

    fn look_at_requests(&mut self, open: &mut dyn FnMut() -> ServerSockets) -> Result<(), AttachError> {
        if self.loaded.lock().requests.is_none() {
            // That was said when it was found out.
            return Ok(());
        }
        // The ports are known before anything is looked at: what is read over a connection that is not known for one is not told, and its
        // answer would come to no request.
        requests::know_ports(&mut self.loaded.lock().ebpf, &open().ports)?;
        self.is_asked = true;
        self.look_at_requests_of(!self.contexts.is_empty(), true)?;
        let open = open();
        let mut loaded = self.loaded.lock();
        let Loaded { ebpf, requests, .. } = &mut *loaded;
        requests.as_mut().map_or(Ok(()), |requests| requests.look_at_open(ebpf, self.process.pid, &open))?;
        drop(loaded);
        self.look_at_requests_of(!self.contexts.is_empty(), false)
    }

    fn place_contexts(&mut self, path: &Path, sites: &ContextSites) -> Result<(), AttachError> {
        if !self.contexts.is_empty() {
            return Ok(());
        }
        let mut loaded = self.loaded.lock();
        let slot = loaded.slot_of(&mut self.slot, self.process.pid)?;
        let Loaded { contexts, ebpf, .. } = &mut *loaded;
        let Some(contexts) = contexts else { return Ok(()) };
        self.contexts = contexts.place(ebpf, (path, self.process, slot), sites)?;
        drop(loaded);
        if self.is_asked { self.look_at_requests_of(true, false) } else { Ok(()) }
    }

    fn forget_contexts(&mut self) -> Result<(), AttachError> {
        if self.contexts.is_empty() {
            return Ok(());
        }
        let mut loaded = self.loaded.lock();
        let links = std::mem::take(&mut self.contexts);
        loaded.removals.begin(move || drop(links));
        drop(loaded);
        if self.is_asked { self.look_at_requests_of(false, false) } else { Ok(()) }
    }

    fn forget_python(&mut self) -> Result<(), AttachError> {
        drop(self.python.take());
        self.forget_python_tables()
    }

    fn remove_python(&mut self) {
        let python = self.python.take();
        self.loaded.lock().removals.begin_if(!python.is_empty(), move || drop(python));
    }
}

impl Drop for TracedProcess {
    fn drop(&mut self) {
        if let Err(error) = self.take_away() {
            tracing::debug!(process = %self.process, %error, "not all of what belongs to it could be taken away");
        }
    }
}

/// Places probes in one file of a process; gives back what was refused.
fn place_in_file(
    loaded: &mut Loaded,
    slot: u16,
    module: &ModuleFile,
    functions: Vec<&PlannedFunction>,
) -> Result<Vec<Refused>, AttachError> {
    let process = module.process;
    let all = functions.clone();
    let all_because = |why: Refusal, problem: &str| {
        let refusal = |function: &&PlannedFunction| Refused { function: function.id, problem: problem.to_owned(), why };
        all.iter().map(refusal).collect::<Vec<_>>()
    };
    let file = match MappedFile::of(module) {
        Ok(file) => file,
        Err(error) => {
            return Ok(all_because(Refusal::of(&error), &format!("its file cannot be opened: {error}")));
        }
    };
    let (functions, mut refused) = check_before(module, &file, functions);
    if functions.is_empty() {
        return Ok(refused);
    }
    let Loaded { files, multi, ebpf, .. } = loaded;
    let outcome = files.place(module, &file, || {
        let path = file.path();
        match multi {
            Some(multi) => Placer::Multi(multi).place(&path, process.pid, slot, &functions),
            None => Placer::single(ebpf)?.place(&path, process.pid, slot, &functions),
        }
    })?;
    match outcome {
        Outcome::Placed(refusals) => {
            let is_taken =
                |function: &&&PlannedFunction| refusals.iter().all(|refusal| refusal.function != function.id);
            let taken: Vec<&PlannedFunction> = functions.iter().filter(is_taken).copied().collect();
            refused.extend(refusals);
            let dead = check_after(module, &file, &taken);
            if dead.len() == taken.len() && !dead.is_empty() {
                remove(loaded.files.take(process, Some(module.number)));
            }
            refused.extend(dead);
        }
        Outcome::Later => refused.extend(all_because(Refusal::BeingWritten, "somebody writes to the file")),
    }
    Ok(refused)
}

/// Functions of a plan by the file and process that hold them, in the order of the plan.
fn by_module(plan: &ProbePlan) -> Vec<(&ModuleFile, Vec<&PlannedFunction>)> {
    let mut groups: Vec<(&ModuleFile, Vec<&PlannedFunction>)> = Vec::new();
    for function in &plan.functions {
        let module = &function.request.module;
        match groups.iter_mut().find(|(known, _)| *known == module) {
            Some((_, functions)) => functions.push(function),
            None => groups.push((module, vec![function])),
        }
    }
    groups
}
