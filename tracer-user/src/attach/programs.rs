//! The BPF programs in the kernel: loaded once, given processes and plans, taken away when dropped.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::maps::{Array, Map, MapData, RingBuf};
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::{ProgramError, RawTracePoint, UProbe};
use aya::{Ebpf, EbpfError, EbpfLoader};
use tracer_common::limits::RING_BYTES;
use tracer_common::tables::CaptureSpec;

use super::asides::Asides;
use super::error::{AttachError, chain, is_about_privilege, kernel_error};
use super::features::{NEEDED_KERNEL, in_initial_pid_namespace, kernel_version, probe_features};
use super::multi::MultiPrograms;
use super::placement::{Placer, Refusal, Refused, remove};
use super::probed_files::{Outcome, ProbedFiles};
use super::python::PythonPrograms;
use super::python_frames::FramesPrograms;
use super::python_tables::{PYTHON_ENTRIES, PYTHON_TABLES};
use super::readback::{check_after, check_before};
use super::slots::Slots;
use super::task_layout::task_layout;
use super::totals;
use crate::memory::MappedFile;
use crate::model::{
    FileNumber, FunctionId, KernelFeatures, LossCounts, ModuleFile, OpenCall, PlannedFunction, ProbePlan, ProcessId,
};

/// The object that `cargo xtask build-ebpf` makes; the build refuses a stale one.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../ebpf/tracer.o");

/// How the programs are loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Bytes of the ring buffer: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Log every decision of the programs through `tracing`.
    pub debug_log: bool,
    /// Place probes one by one even where the kernel takes many in one link.
    pub single_probes: bool,
    /// Load the program of watchpoints on Python code. Where it is not loaded now, it is when the first one is set.
    pub python_watch: bool,
    /// Load the programs that every Python call passes.
    pub python_frames: bool,
    /// Entries of each table about Python code, of all processes together.
    pub python_entries: u32,
    /// Count the processes that followed ones fork.
    pub count_forks: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            ring_bytes: RING_BYTES,
            debug_log: false,
            single_probes: false,
            python_watch: false,
            python_frames: false,
            python_entries: PYTHON_ENTRIES,
            count_forks: false,
        }
    }
}

/// The loaded programs. Dropping them takes every probe away.
pub struct Programs {
    files: ProbedFiles,
    pub(super) slots: Slots,
    pub(super) thread_ends: Vec<RawTracePointLink>,
    pub(super) can_count_forks: bool,
    pub(super) multi: Option<MultiPrograms>,
    features: KernelFeatures,
    pub(super) python: PythonPrograms,
    /// Entries that each table about Python code has room for.
    pub(super) python_room: usize,
    pub(super) asides: Asides,
    /// The ring buffer once it has been taken: what is loaded later names it.
    pub(super) ring: Option<OwnedFd>,
    pub(super) ebpf: Ebpf,
    /// Calls on other stacks than their threads' own that were open when their processes were let go.
    left_elsewhere: Vec<OpenCall>,
    forward_log: Option<Box<dyn FnMut() + Send>>,
}

impl Programs {
    /// Loads maps and programs; nothing fires yet.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot run the programs.
    pub fn load(options: LoadOptions) -> Result<Self, AttachError> {
        if !in_initial_pid_namespace() {
            return Err(AttachError::PidNamespace);
        }
        if kernel_version() < NEEDED_KERNEL {
            return Err(AttachError::OldKernel { version: kernel_version() });
        }
        let debug_log = u8::from(options.debug_log);
        let task = task_layout();
        let mut loader = EbpfLoader::new();
        for table in PYTHON_TABLES {
            loader.map_max_entries(table, options.python_entries);
        }
        let mut ebpf = loader
            .map_max_entries("RECORDS", options.ring_bytes)
            .override_global("DEBUG_LOG", &debug_log, true)
            .override_global("TASK_NUMBER_OFFSET", &task.number, true)
            .override_global("TASK_THREAD_POINTER_OFFSET", &task.thread_pointer, true)
            .override_global("TASK_MEMORY_OFFSET", &task.memory, true)
            .override_global("MEMORY_STACK_OFFSET", &task.memory_stack, true)
            .load(OBJECT)
            .map_err(|error| load_error(&error))?;
        let mut multi = if options.single_probes { None } else { MultiPrograms::load(OBJECT, &ebpf)? };
        let mut asides = Asides::default();
        if let Some(trial) = multi.as_mut().and_then(MultiPrograms::take_trial) {
            asides.begin(move || drop(trial));
        }
        if multi.is_none() {
            for name in ["native_entry", "native_exit", "native_return"] {
                program::<UProbe>(&mut ebpf, name)?.load().map_err(|error| program_error(&error))?;
            }
        }
        // The ring buffer is taken away later: what runs on it must be loaded before.
        let frames = if options.python_frames { Some(FramesPrograms::load(&mut ebpf, multi.is_some())?) } else { None };
        let mut thread_ends = Vec::new();
        for (name, tracepoint) in [("thread_exit", "sched_process_exit"), ("program_exec", "sched_process_exec")] {
            let watcher = program::<RawTracePoint>(&mut ebpf, name)?;
            watcher.load().map_err(|error| program_error(&error))?;
            let link = watcher.attach(tracepoint).map_err(|error| program_error(&error))?;
            thread_ends.push(watcher.take_link(link).map_err(|error| program_error(&error))?);
        }
        let forward_log = if options.debug_log { log_forwarder(&mut ebpf) } else { None };
        let features = probe_features(multi.is_some());
        let mut programs = Self {
            files: ProbedFiles::default(),
            slots: Slots::default(),
            thread_ends,
            can_count_forks: false,
            multi,
            features,
            python: PythonPrograms::new(frames),
            python_room: options.python_entries as usize,
            asides,
            ring: None,
            ebpf,
            left_elsewhere: Vec::new(),
            forward_log,
        };
        if options.python_watch {
            programs.load_python()?;
        }
        if options.count_forks && task.number != 0 {
            programs.load_forks()?;
        }
        give_memory_back();
        Ok(programs)
    }

    /// What this kernel can do.
    #[must_use]
    pub fn features(&self) -> KernelFeatures {
        self.features
    }

    /// The ring buffer that the programs fill; `None` when it has been taken already.
    ///
    /// # Errors
    /// The ring buffer cannot be mapped.
    pub fn take_ring(&mut self) -> Result<Option<RingBuf<MapData>>, AttachError> {
        let Some(map) = self.ebpf.take_map("RECORDS") else { return Ok(None) };
        if let Map::RingBuf(data) = &map {
            let ring = data.fd().as_fd().try_clone_to_owned();
            self.ring = Some(ring.map_err(|error| map_error("RECORDS", &error))?);
        }
        RingBuf::try_from(map).map(Some).map_err(|error| map_error("RECORDS", &error))
    }

    /// Places the probes of a plan. They do nothing until [`Self::accept_entries`].
    ///
    /// # Errors
    /// Not permitted, or too many processes. Functions that the kernel does not take are given back instead: one, or
    /// all of a file that is gone, is another one by now, or is not what the process runs.
    pub fn place(&mut self, plan: &ProbePlan, kernel_pids: &[(ProcessId, u32)]) -> Result<Vec<Refused>, AttachError> {
        self.set_captures(plan)?;
        let mut refused = Vec::new();
        for (module, functions) in by_module(plan) {
            let process = module.process;
            let Some((_, kernel_pid)) = kernel_pids.iter().find(|(known, _)| *known == process) else {
                continue;
            };
            let slot = self.slot_of(process, *kernel_pid)?;
            let because = |why: Refusal, problem: &str| {
                let refusal =
                    |function: &&PlannedFunction| Refused { function: function.id, problem: problem.to_owned(), why };
                functions.iter().map(refusal).collect::<Vec<_>>()
            };
            let file = match MappedFile::of(module) {
                Ok(file) => file,
                Err(error) => {
                    refused.extend(because(Refusal::of(&error), &format!("its file cannot be opened: {error}")));
                    continue;
                }
            };
            let (functions, others) = check_before(module, &file, functions.clone());
            refused.extend(others);
            if functions.is_empty() {
                continue;
            }
            let Self { files, multi, ebpf, .. } = self;
            let outcome = files.place(module, &file, || {
                let path = file.path();
                match multi {
                    Some(multi) => Placer::Multi(multi).place(&path, process.pid, slot, &functions),
                    None => single_placer(ebpf)?.place(&path, process.pid, slot, &functions),
                }
            })?;
            match outcome {
                Outcome::Placed(refusals) => {
                    let taken: Vec<&PlannedFunction> = functions
                        .iter()
                        .filter(|function| refusals.iter().all(|refusal| refusal.function != function.id))
                        .copied()
                        .collect();
                    refused.extend(refusals);
                    let dead = check_after(module, &file, &taken);
                    if dead.len() == taken.len() && !dead.is_empty() {
                        remove(self.files.take(process, Some(module.number)));
                    }
                    refused.extend(dead);
                }
                Outcome::Later => refused.extend(because(Refusal::BeingWritten, "somebody writes to the file")),
            }
        }
        Ok(refused)
    }

    /// Whether probes of a process are live in a file, which it has mapped (again).
    #[must_use]
    pub fn is_placed(&self, process: ProcessId, file: FileNumber) -> bool {
        self.files.is_placed(process, file)
    }

    /// A process has mapped a file no more.
    pub fn unmapped(&mut self, process: ProcessId, file: FileNumber) {
        remove(self.files.unmapped(process, file));
    }

    /// The file under a number of a process is another one now, or has other content: its probes go.
    pub fn replaced(&mut self, process: ProcessId, file: FileNumber) {
        remove(self.files.take(process, Some(file)));
    }

    /// Files that lost their probes because somebody writes to them, since this was asked last.
    pub fn written(&mut self) -> Vec<(ProcessId, FileNumber)> {
        let deleted = self.files.deleted();
        self.asides.begin_if(!deleted.is_empty(), move || remove(deleted));
        self.files.written()
    }

    /// Takes everything away that belongs to one process, which has ended or is not to be traced any more, and makes room
    /// for another one.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn let_go(&mut self, process: ProcessId) -> Result<(), AttachError> {
        let python = self.let_go_of_python(process, false);
        let number = self.kernel_pid(process);
        let slot = self.free_slot(process);
        let taken =
            number.map_or(Ok(()), |number| totals::take_elsewhere(&mut self.ebpf, number, &mut self.left_elsewhere));
        // Without a slot they do nothing any more, and nobody has to wait for them.
        let placed = self.files.take(process, None);
        self.asides.begin(move || drop(placed));
        // Whatever goes wrong with one of them, the others are gone.
        python.and(slot).and(taken)
    }

    /// Takes all probes away: first those at entries, then the others. A thread that ends while the books are read would
    /// move from one page to another, so ends of threads are not seen any more either; the exit probes go after them,
    /// and by then the kernel has waited for every program that was still running.
    pub fn remove_probes(&mut self) {
        remove(self.files.take_entries());
        self.python.remove();
        self.thread_ends.clear();
        remove(self.files.take_exits());
        self.asides = Asides::default();
    }

    /// Reads the totals and the calls that are still open. Exact once the probes are gone.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn totals(&self) -> Result<(LossCounts, Vec<OpenCall>), AttachError> {
        totals::read(&self.ebpf, &self.left_elsewhere)
    }

    /// Calls of these functions so far, folded ones included.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn calls_of(&self, functions: impl Iterator<Item = FunctionId>) -> Result<Vec<u64>, AttachError> {
        totals::calls_of(&self.ebpf, functions)
    }

    /// The number under which the programs know a process, if they do.
    #[must_use]
    pub fn kernel_pid(&self, process: ProcessId) -> Option<u32> {
        self.slots.kernel_pid(process)
    }

    /// Hands on what the programs logged, if they were loaded to log.
    pub fn forward_log(&mut self) {
        if let Some(forward) = &mut self.forward_log {
            forward();
        }
    }

    fn set_captures(&mut self, plan: &ProbePlan) -> Result<(), AttachError> {
        let map = self.ebpf.map_mut("CAPTURES").ok_or(AttachError::Incomplete { name: "CAPTURES" })?;
        let mut captures: Array<_, CaptureSpec> = map.try_into().map_err(|error| map_error("CAPTURES", &error))?;
        for function in plan.functions.iter().filter(|function| !function.request.attributes.is_empty()) {
            let rules = &function.request.attributes;
            let mut spec = CaptureSpec { count: rules.len() as u32, ..CaptureSpec::default() };
            for (position, rule) in spec.positions.iter_mut().zip(rules) {
                *position = rule.argument;
            }
            captures.set(function.id.0, spec, 0).map_err(|error| map_error("CAPTURES", &error))?;
        }
        Ok(())
    }
}

/// Loading takes megabytes for a moment: the object, and the kernel's type information. glibc would keep them.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn log_forwarder(ebpf: &mut Ebpf) -> Option<Box<dyn FnMut() + Send>> {
    match aya_log::EbpfLogger::init(ebpf) {
        Ok(mut logger) => Some(Box::new(move || logger.flush())),
        Err(error) => {
            tracing::warn!(%error, "the log of the BPF programs cannot be read");
            None
        }
    }
}

/// Places probes one by one: all three programs are needed at once.
fn single_placer(ebpf: &mut Ebpf) -> Result<Placer<'_>, AttachError> {
    let (mut entry, mut exit, mut returned) = (None, None, None);
    for (name, program) in ebpf.programs_mut() {
        let slot = match name {
            "native_entry" => &mut entry,
            "native_exit" => &mut exit,
            "native_return" => &mut returned,
            _ => continue,
        };
        *slot = <&mut UProbe>::try_from(program).ok();
    }
    Ok(Placer::Single {
        entry: entry.ok_or(AttachError::Incomplete { name: "native_entry" })?,
        exit: exit.ok_or(AttachError::Incomplete { name: "native_exit" })?,
        returned: returned.ok_or(AttachError::Incomplete { name: "native_return" })?,
    })
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

pub(super) fn program<'ebpf, Kind>(ebpf: &'ebpf mut Ebpf, name: &'static str) -> Result<&'ebpf mut Kind, AttachError>
where
    &'ebpf mut Kind: TryFrom<&'ebpf mut aya::programs::Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(AttachError::Incomplete { name })?;
    program.try_into().map_err(|_| AttachError::Incomplete { name })
}

pub(super) fn load_error(error: &EbpfError) -> AttachError {
    classify(error, "the BPF maps and programs")
}

/// What the verifier says last, after its judgement.
const FIGURES: [&str; 3] = ["processed", "stack depth", "verification time"];

pub(super) fn program_error(error: &ProgramError) -> AttachError {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        // The verifier refuses with EACCES as well, but it says why.
        let log = verifier_log.to_string();
        if !log.trim().is_empty() {
            tracing::debug!(log, "the verifier's words");
            let is_figure = |line: &&str| FIGURES.iter().any(|figure| line.starts_with(figure));
            let last = log.lines().rev().find(|line| !is_figure(line)).unwrap_or_default();
            return AttachError::Load { problem: format!("{io_error}: the verifier says: {last}") };
        }
    }
    classify(error, "the BPF programs")
}

/// A refusal for want of privilege, anywhere in the chain of causes, is told apart from a kernel that cannot.
fn classify(error: &(dyn std::error::Error + 'static), what: &str) -> AttachError {
    let source = kernel_error(error);
    if is_about_privilege(&source) {
        return AttachError::not_permitted(what, error);
    }
    if matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        return AttachError::NoDescriptor { what: what.to_owned() };
    }
    AttachError::Load { problem: chain(error) }
}

pub(super) fn map_error(name: &'static str, error: &(dyn std::error::Error + 'static)) -> AttachError {
    AttachError::Map { name, problem: chain(error) }
}
