//! The maps and programs as they are loaded, and what all processes share of them.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::{RawTracePoint, UProbe};
use aya::{Ebpf, EbpfLoader};
use tracer_common::limits::RING_BYTES;
use tracer_common::tables::CaptureSpec;

use super::error::AttachError;
use super::features::{NEEDED_KERNEL, in_initial_pid_namespace, kernel_version, probe_features};
use super::first_objects::{FIRST_OBJECT_TABLES, FirstObjectProgram};
use super::forks;
use super::multi::{LoadedBesides, ManyAtOnce, MultiPrograms};
use super::object::{OBJECT, array, load_error, map_error, program, program_error};
use super::placement::{Link, PlacedFile};
use super::probed_files::ProbedFiles;
use super::python_chain::{ChainPrograms, WANTED_MAP};
use super::python_contexts::ContextPrograms;
use super::python_frames::{ExceptionProgram, FramesPrograms};
use super::python_tables::{PYTHON_ENTRIES, PYTHON_TABLES, SharedTables};
use super::python_watch::WatchPrograms;
use super::removals::Removals;
use super::requests::{LoadRequests, REQUEST_TABLES, RequestPrograms};
use super::slots::{Slot, Slots};
use super::task_layout::task_layout;
use crate::model::{InterpreterSite, KernelFeatures, OpenCall, PlannedFunction};

/// How the programs are loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Bytes of the ring buffer: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Log every decision of the programs through `tracing`.
    pub debug_log: bool,
    /// Place probes one by one even where the kernel takes many in one link, and see sockets at system calls even where it tells of them.
    pub single_probes: bool,
    /// Load the program of watchpoints on Python code. Where it is not loaded now, it is when the first one is set.
    pub python_watch: bool,
    /// Load the programs that every Python call passes.
    pub python_frames: bool,
    /// Load the program that a part of all Python calls passes.
    pub python_chain: bool,
    /// Entries of each table about Python code, of all processes together.
    pub python_entries: u32,
    /// Stop a command at the first object of a class that is asked for.
    pub first_objects: bool,
    /// Tell which processes the traced ones fork, and count them.
    pub forks: bool,
    /// See what traced processes read from their connections, and write to them.
    pub requests: LoadRequests,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            ring_bytes: RING_BYTES,
            debug_log: false,
            single_probes: false,
            python_watch: false,
            python_frames: false,
            python_chain: false,
            python_entries: PYTHON_ENTRIES,
            first_objects: false,
            forks: false,
            requests: LoadRequests::No,
        }
    }
}

/// What is loaded and shared. The owner of each process holds on to it.
pub struct Loaded {
    /// The live probes of native functions. A writer to a file waits until those of all processes are gone from it.
    pub files: ProbedFiles,
    /// Which slots are taken.
    pub slots: Slots,
    /// What sees threads, programs and processes end and begin, until the end.
    pub tracepoints: Vec<RawTracePointLink>,
    /// Whether forks are told and counted.
    pub tells_forks: bool,
    /// Native programs for links of many uprobes.
    pub multi: Option<MultiPrograms>,
    /// What this kernel can do.
    pub features: KernelFeatures,
    /// Programs of watch mode.
    pub watch: WatchPrograms,
    /// Programs of frames mode, if they are loaded.
    pub frames: Option<FramesPrograms>,
    /// The program of chain mode, if it is loaded.
    pub chain: Option<ChainPrograms>,
    exceptions: ExceptionProgram,
    /// What stops a command, if it is loaded.
    pub first_objects: Option<FirstObjectProgram>,
    /// What sees requests, if it is loaded.
    pub requests: Option<RequestPrograms>,
    /// What sees contexts of Python code, likewise.
    pub contexts: Option<ContextPrograms>,
    /// Nanoseconds that an empty program takes at a probe, where that was measured.
    pub empty_probe_ns: Option<f64>,
    /// The tables about Python code.
    pub tables: SharedTables,
    /// Signals that guards have kept from their processes.
    pub kept_signals: Arc<AtomicU64>,
    /// What takes probes away meanwhile.
    pub removals: Removals,
    /// The ring buffer once it has been taken: what is loaded later names it.
    pub ring: Option<OwnedFd>,
    /// Calls on other stacks than their threads' own that were open when their processes were let go.
    pub left_elsewhere: Vec<OpenCall>,
    /// Whether the probes are gone for good: nobody needs what the maps say any more.
    pub is_over: bool,
    /// The maps, and all programs that this library knows.
    pub ebpf: Ebpf,
}

/// What is loaded, in the hands of all who use it.
#[derive(Clone)]
pub struct SharedLoaded(Arc<Mutex<Loaded>>);

impl SharedLoaded {
    /// Shares it.
    pub fn new(loaded: Loaded) -> Self {
        Self(Arc::new(Mutex::new(loaded)))
    }

    /// To be used by one at a time. A panic in the middle leaves the maps as they are.
    pub fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loaded {
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
        let python_chain = u8::from(options.python_chain);
        let task = task_layout();
        let mut loader = EbpfLoader::new();
        for table in PYTHON_TABLES {
            loader.map_max_entries(table, options.python_entries);
        }
        if !options.python_chain {
            loader.map_max_entries(WANTED_MAP, 1);
        }
        if options.requests == LoadRequests::No {
            for table in REQUEST_TABLES {
                loader.map_max_entries(table, 1);
            }
        }
        if !options.first_objects {
            for table in FIRST_OBJECT_TABLES {
                loader.map_max_entries(table, 1);
            }
        }
        let mut ebpf = loader
            .map_max_entries("RECORDS", options.ring_bytes)
            .override_global("DEBUG_LOG", &debug_log, true)
            .override_global("PYTHON_CHAIN", &python_chain, true)
            .override_global("TASK_NUMBER_OFFSET", &task.number, true)
            .override_global("TASK_THREAD_POINTER_OFFSET", &task.thread_pointer, true)
            .override_global("TASK_MEMORY_OFFSET", &task.memory, true)
            .override_global("MEMORY_STACK_OFFSET", &task.memory_stack, true)
            .override_global("TASK_FILES_OFFSET", &task.files, true)
            .override_global("FILES_TABLE_OFFSET", &task.files_table, true)
            .override_global("TABLE_FILES_OFFSET", &task.table_files, true)
            .override_global("FILE_FLAGS_OFFSET", &task.file_flags, true)
            .override_global("FILE_PRIVATE_OFFSET", &task.sockets.file_private, true)
            .override_global("SOCK_TYPE_OFFSET", &task.sockets.kind, true)
            .override_global("SOCK_FAMILY_OFFSET", &task.sockets.family, true)
            .override_global("SOCK_PORT_OFFSET", &task.sockets.port, true)
            .override_global("SOCK_SOCKET_OFFSET", &task.sockets.socket, true)
            .override_global("SOCKET_INODE_OFFSET", &task.sockets.inode, true)
            .override_global("UNIX_NAME_OFFSET", &task.sockets.unix_name, true)
            .load(OBJECT)
            .map_err(|error| load_error(&error))?;
        // Where every call is seen, exceptions are asked for in any case.
        let exceptions = options.python_chain || options.python_frames;
        let besides = LoadedBesides { witness: options.python_chain, exceptions };
        let many = if options.single_probes { None } else { MultiPrograms::load(OBJECT, &ebpf, besides)? };
        let empty_probe_ns = many.as_ref().map(|many| many.empty_probe_ns);
        let mut removals = Removals::default();
        let (multi, witness, exceptions) = match many {
            Some(ManyAtOnce { native, witness, exceptions, trial, .. }) => {
                removals.begin(move || drop(trial));
                (Some(native), witness, exceptions)
            }
            None => (None, None, None),
        };
        if multi.is_none() {
            for name in ["native_entry", "native_exit", "native_return"] {
                program::<UProbe>(&mut ebpf, name)?.load().map_err(|error| program_error(&error))?;
            }
        }
        // The ring buffer is taken away later: what runs on it must be loaded before.
        let frames = if options.python_frames { Some(FramesPrograms::load(&mut ebpf, multi.is_some())?) } else { None };
        let chain = if options.python_chain { Some(ChainPrograms::new(&mut ebpf, witness)?) } else { None };
        let requests = RequestPrograms::load_if_wanted(&mut ebpf, &task, options.requests, options.single_probes)?;
        let contexts = match requests.is_some() {
            true => Some(ContextPrograms::load(&mut ebpf, multi.is_some())?),
            false => None,
        };
        let first_objects = match options.first_objects {
            true => Some(FirstObjectProgram::load(&mut ebpf, multi.is_some())?),
            false => None,
        };
        let mut tracepoints = Vec::new();
        for (name, tracepoint) in [("thread_exit", "sched_process_exit"), ("program_exec", "sched_process_exec")] {
            let watcher = program::<RawTracePoint>(&mut ebpf, name)?;
            watcher.load().map_err(|error| program_error(&error))?;
            let link = watcher.attach(tracepoint).map_err(|error| program_error(&error))?;
            tracepoints.push(watcher.take_link(link).map_err(|error| program_error(&error))?);
        }
        let mut loaded = Self {
            files: ProbedFiles::default(),
            slots: Slots::default(),
            tracepoints,
            tells_forks: false,
            features: probe_features(multi.is_some()),
            multi,
            watch: WatchPrograms::default(),
            frames,
            chain,
            exceptions: ExceptionProgram::new(exceptions),
            first_objects,
            requests,
            contexts,
            empty_probe_ns,
            tables: SharedTables::new(options.python_entries as usize),
            kept_signals: Arc::default(),
            removals,
            ring: None,
            left_elsewhere: Vec::new(),
            is_over: false,
            ebpf,
        };
        if options.python_watch {
            loaded.watch.load(&mut loaded.ebpf)?;
        }
        if options.forks && task.number != 0 {
            loaded.tracepoints.push(forks::load(&mut loaded.ebpf)?);
            loaded.tells_forks = true;
        }
        Ok(loaded)
    }

    /// The slot of a process: its own, or one that it gets now.
    ///
    /// # Errors
    /// All are taken, or the kernel cannot be told.
    pub fn slot_of(&mut self, slot: &mut Option<Slot>, process: u32) -> Result<u16, AttachError> {
        if let Some(slot) = slot {
            return Ok(slot.number);
        }
        let number = self.slots.take()?;
        *slot = Some(Slot::begin(&mut self.ebpf, number, process).inspect_err(|_| self.slots.free(number))?);
        Ok(number)
    }

    /// Tells the programs which arguments to keep.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_captures(&mut self, functions: &[PlannedFunction]) -> Result<(), AttachError> {
        const NAME: &str = "CAPTURES";
        let mut captures = array::<CaptureSpec>(&mut self.ebpf, NAME)?;
        for function in functions.iter().filter(|function| !function.request.attributes.is_empty()) {
            let rules = &function.request.attributes;
            let mut spec = CaptureSpec { count: rules.len() as u32, ..CaptureSpec::default() };
            for (position, rule) in spec.positions.iter_mut().zip(rules) {
                *position = rule.argument;
            }
            captures.set(function.id.0, spec, 0).map_err(|error| map_error(NAME, &error))?;
        }
        Ok(())
    }

    /// Places the probe that exceptions pass.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take it.
    pub fn place_exceptions(
        &mut self,
        file: &PlacedFile<'_>,
        slot: u16,
        site: &InterpreterSite,
    ) -> Result<Link, AttachError> {
        let ring = self.ring.as_ref().map(OwnedFd::as_fd);
        self.exceptions.place(&mut self.ebpf, (self.features.uprobe_multi, ring), file, slot, site)
    }
}
