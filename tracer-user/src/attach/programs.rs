//! The BPF programs in the kernel: loaded once, given processes and plans, taken away when dropped.

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::{ProgramError, RawTracePoint, UProbe};
use aya::{Ebpf, EbpfError, EbpfLoader};
use tracer_common::limits::RING_BYTES;
use tracer_common::records::CaptureSpec;

use super::asides::Asides;
use super::error::AttachError;
use super::features::{in_initial_pid_namespace, probe_features};
use super::multi::MultiPrograms;
use super::placement::{Placed, Placer, Refused, remove};
use super::python::PythonPrograms;
use super::python_frames::FramesPrograms;
use super::python_tables::{PYTHON_ENTRIES, PYTHON_TABLES};
use super::slots::Slots;
use super::totals;
use crate::model::{Call, KernelFeatures, LossCounts, ModuleFile, PlannedFunction, ProbePlan, ProcessId};

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
        }
    }
}

/// The loaded programs. Dropping them takes every probe away.
pub struct Programs {
    placed: Vec<(ProcessId, Placed)>,
    pub(super) slots: Slots,
    thread_ends: Vec<RawTracePointLink>,
    multi: Option<MultiPrograms>,
    features: KernelFeatures,
    pub(super) python: PythonPrograms,
    /// Entries that each table about Python code has room for.
    pub(super) python_room: usize,
    pub(super) asides: Asides,
    pub(super) ebpf: Ebpf,
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
        let debug_log = u8::from(options.debug_log);
        let mut loader = EbpfLoader::new();
        for table in PYTHON_TABLES {
            loader.map_max_entries(table, options.python_entries);
        }
        let mut ebpf = loader
            .map_max_entries("RECORDS", options.ring_bytes)
            .override_global("DEBUG_LOG", &debug_log, true)
            .load(OBJECT)
            .map_err(|error| load_error(&error))?;
        let multi = if options.single_probes { None } else { MultiPrograms::load(OBJECT, &ebpf)? };
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
            placed: Vec::new(),
            slots: Slots::default(),
            thread_ends,
            multi,
            features,
            python: PythonPrograms::new(frames),
            python_room: options.python_entries as usize,
            asides: Asides::default(),
            ebpf,
            forward_log,
        };
        if options.python_watch {
            programs.load_python()?;
        }
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
        RingBuf::try_from(map).map(Some).map_err(|error| map_error("RECORDS", &error))
    }

    /// Places the probes of a plan. They do nothing until [`Self::accept_entries`].
    ///
    /// # Errors
    /// Not permitted, or too many processes. Functions that the kernel does not take are given back instead: one, or
    /// all of a file that is gone.
    pub fn place(&mut self, plan: &ProbePlan, kernel_pids: &[(ProcessId, u32)]) -> Result<Vec<Refused>, AttachError> {
        self.set_captures(plan)?;
        let mut refused = Vec::new();
        for (module, functions) in by_module(plan) {
            let process = module.process;
            let Some((_, kernel_pid)) = kernel_pids.iter().find(|(known, _)| *known == process) else {
                continue;
            };
            let slot = self.slot_of(process, *kernel_pid)?;
            let (placed, refusals) = match &self.multi {
                Some(multi) => Placer::Multi(multi).place(&module.access_path, process.pid, slot, &functions)?,
                None => single_placer(&mut self.ebpf)?.place(&module.access_path, process.pid, slot, &functions)?,
            };
            match self.placed.iter_mut().find(|(known, _)| *known == process) {
                Some((_, all)) => all.extend(placed),
                None => self.placed.push((process, placed)),
            }
            refused.extend(refusals);
        }
        Ok(refused)
    }

    /// Takes everything away that belongs to one process, which has ended or is not to be traced any more, and makes room
    /// for another one.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn let_go(&mut self, process: ProcessId) -> Result<(), AttachError> {
        let python = self.let_go_of_python(process, false);
        let slot = self.free_slot(process);
        // Without a slot they do nothing any more, and nobody has to wait for them.
        let placed: Vec<_> = self.placed.extract_if(.., |(known, _)| *known == process).collect();
        if !placed.is_empty() {
            self.asides.begin(move || drop(placed));
        }
        // Whatever goes wrong with one of them, the others are gone.
        python.and(slot)
    }

    /// Takes all probes away: first those at entries, then the others. A thread that ends while the books are read would
    /// move from one page to another, so ends of threads are not seen any more either; the exit probes go after them,
    /// and by then the kernel has waited for every program that was still running.
    pub fn remove_probes(&mut self) {
        let mut placed = std::mem::take(&mut self.placed);
        remove(placed.iter_mut().flat_map(|(_, placed)| placed.take_entries()).collect());
        self.python.remove();
        self.thread_ends.clear();
        remove(placed.iter_mut().flat_map(|(_, placed)| placed.take_exits()).collect());
        self.asides = Asides::default();
    }

    /// Reads the totals and the calls that are still open. Exact once the probes are gone.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn totals(&self) -> Result<(LossCounts, Vec<Call>), AttachError> {
        totals::read(&self.ebpf)
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
    let mut causes = Vec::new();
    let mut cause = Some(error);
    while let Some(current) = cause {
        let errno = current.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        if matches!(errno, Some(libc::EPERM | libc::EACCES)) {
            return AttachError::NotPermitted { what: what.to_owned() };
        }
        causes.push(current.to_string());
        cause = current.source();
    }
    AttachError::Load { problem: causes.join(": ") }
}

pub(super) fn map_error(name: &'static str, error: &dyn std::fmt::Display) -> AttachError {
    AttachError::Map { name, problem: error.to_string() }
}
