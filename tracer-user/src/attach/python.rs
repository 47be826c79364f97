//! The Python side of the programs: tables of what to see in which interpreter, and watchpoints on code objects.

use std::os::fd::AsFd as _;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aya::maps::{Array, HashMap, MapData};
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::{PerfEvent, Program, RawTracePoint};
use aya::{Ebpf, Pod};
use tracer_common::python::{PythonCount, PythonKey, PythonLayout, PythonWatched};

use super::checkup::is_virtual_machine;
use super::error::AttachError;
use super::guard::Guard;
use super::placement::Link;
use super::programs::{Programs, map_error, program, program_error};
use super::python_frames::FramesPrograms;
use super::python_tables::Written;
use super::watchpoints::{Obstacle, Watchpoint};
use crate::model::{ProcessId, PythonTables, RemoteAddress};

/// What is live on the Python side.
#[derive(Default)]
pub struct PythonPrograms {
    loaded: bool,
    pub(super) frames: Option<FramesPrograms>,
    pub(super) exceptions: Vec<(ProcessId, Link)>,
    watchpoints: Vec<Watchpoint>,
    /// In a virtual machine: makes up for hits that the kernel does not know for ones.
    missed_hits: Option<RawTracePointLink>,
    guards: Vec<Guard>,
    /// Signals that guards which are not needed any more have kept from their processes.
    kept_signals: Arc<AtomicU64>,
    pub(super) written: Written,
}

/// How setting a watchpoint went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchOutcome {
    /// It is live on every thread.
    Live,
    /// A thread has no debug register left: somebody else holds some, or four are set already.
    NoSlot,
    /// The process is gone.
    Gone,
    /// In a virtual machine: the process cannot be guarded against hits whose cause is lost, for this reason.
    Unguarded(String),
}

impl PythonPrograms {
    /// With the programs of frames mode, if they are loaded.
    pub fn new(frames: Option<FramesPrograms>) -> Self {
        Self { frames, ..Self::default() }
    }

    /// Takes all watchpoints away, and their guards after them.
    pub fn remove(&mut self) {
        self.watchpoints.clear();
        relieve(std::mem::take(&mut self.guards), &self.kept_signals);
        self.missed_hits = None;
        self.frames = None;
        self.exceptions.clear();
    }
}

impl Programs {
    /// Makes an interpreter known, and its code, functions, classes and containers; what was known of the process before
    /// is replaced. What the tables have no room for is left out and counted ([`Self::python_left_out`]).
    ///
    /// # Errors
    /// Not permitted, the kernel cannot run the programs, or too many processes.
    pub fn set_python(
        &mut self,
        (process, kernel_pid): (ProcessId, u32),
        layout: &PythonLayout,
        tables: &PythonTables,
    ) -> Result<(), AttachError> {
        self.load_python()?;
        let slot = u32::from(self.slot_of(process, kernel_pid)?);
        let map = self.ebpf.map_mut("PYTHON_LAYOUTS").ok_or(AttachError::Incomplete { name: "PYTHON_LAYOUTS" })?;
        let mut layouts: Array<_, PythonLayout> =
            map.try_into().map_err(|error| map_error("PYTHON_LAYOUTS", &error))?;
        layouts.set(slot, *layout, 0).map_err(|error| map_error("PYTHON_LAYOUTS", &error))?;

        self.tell_python(kernel_pid, slot, tables)
    }

    /// Watches calls of a code object on every thread of the process. `count` reads its reference count once the
    /// watchpoint is live, so that the first call is told from a return.
    ///
    /// # Errors
    /// Not permitted, or the kernel takes no watchpoints.
    pub fn watch(
        &mut self,
        (process, kernel_pid): (ProcessId, u32),
        code: RemoteAddress,
        count: impl FnOnce() -> Option<u32>,
    ) -> Result<WatchOutcome, AttachError> {
        self.load_python()?;
        if let Err(outcome) = self.guard(process) {
            return Ok(outcome);
        }
        let key = PythonKey { address: code.0, process: kernel_pid, reserved: 0 };
        // A count of an earlier time says nothing about the changes since.
        let _ = python_map::<PythonCount>(&mut self.ebpf, "PYTHON_COUNTS")?.remove(&key);
        self.tell_watched(kernel_pid, |codes| codes.iter_mut().find(|slot| **slot == 0).map(|slot| *slot = code.0))?;
        let watchpoint = match self.set_watchpoint(process, code) {
            Ok(watchpoint) => watchpoint,
            Err(obstacle) => {
                self.forget_watched(kernel_pid, code)?;
                return match obstacle {
                    Obstacle::NoSlot => Ok(WatchOutcome::NoSlot),
                    Obstacle::Gone => Ok(WatchOutcome::Gone),
                    Obstacle::Other(source) if matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
                        Err(AttachError::NotPermitted { what: "a hardware watchpoint".to_owned() })
                    }
                    Obstacle::Other(source) => Err(AttachError::Watchpoint { pid: process.pid, source }),
                };
            }
        };
        self.python.watchpoints.push(watchpoint);
        if let Some(count) = count() {
            // Does nothing if the program has seen a hit already: then its own count is the newer one.
            let count = PythonCount { references: u64::from(count), calls: 0 };
            let _ = python_map::<PythonCount>(&mut self.ebpf, "PYTHON_COUNTS")?.insert(key, count, NO_EXIST);
        }
        Ok(WatchOutcome::Live)
    }

    fn set_watchpoint(&mut self, process: ProcessId, code: RemoteAddress) -> Result<Watchpoint, Obstacle> {
        let failed = |error: AttachError| Obstacle::Other(std::io::Error::other(error));
        let watcher = program::<PerfEvent>(&mut self.ebpf, "python_watch").map_err(failed)?;
        let descriptor = watcher.fd().map_err(|error| failed(program_error(&error)))?.as_fd();
        Watchpoint::set(descriptor, process.pid, code.0)
    }

    /// Calls of a code object since it was last watched.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn python_calls(&mut self, kernel_pid: u32, code: RemoteAddress) -> Result<u64, AttachError> {
        let key = PythonKey { address: code.0, process: kernel_pid, reserved: 0 };
        let counts = python_map::<PythonCount>(&mut self.ebpf, "PYTHON_COUNTS")?;
        // Nothing was counted where there is no element.
        Ok(counts.get(&key, 0).map_or(0, |count| count.calls))
    }

    /// Takes everything away that sees Python calls in a process, and forgets what the programs were told of it: it has
    /// ended, or (`goes_on`) runs another program, which wants the debug registers.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn let_go_of_python(&mut self, process: ProcessId, goes_on: bool) -> Result<(), AttachError> {
        let python = &mut self.python;
        let watchpoints: Vec<_> =
            python.watchpoints.extract_if(.., |watchpoint| watchpoint.is_of(process.pid)).collect();
        let frames = python.frames.as_mut().map(|frames| frames.take_of(process));
        let exceptions: Vec<_> = python.exceptions.extract_if(.., |(known, _)| *known == process).collect();
        let guards: Vec<_> = python.guards.extract_if(.., |guard| guard.process() == process.pid).collect();
        let kept_signals = Arc::clone(&python.kept_signals);
        let is_empty = watchpoints.is_empty()
            && exceptions.is_empty()
            && guards.is_empty()
            && frames.as_ref().is_none_or(Vec::is_empty);
        let all = (watchpoints, frames, exceptions);
        if goes_on {
            drop(all);
            relieve(guards, &kept_signals);
        } else if !is_empty {
            // The kernel takes a tenth of a second or more, and others are forking meanwhile.
            self.asides.begin(move || {
                drop(all);
                relieve(guards, &kept_signals);
            });
        }
        // Whether anything was ever watched or not: the tables are written before.
        let Some(kernel_pid) = self.slots.kernel_pid(process) else { return Ok(()) };
        let forgotten = self.forget_python(kernel_pid);
        let told = self.tell_watched(kernel_pid, |codes| {
            codes.fill(0);
            Some(())
        });
        forgotten.and(told).and(self.next_python_epoch(process))
    }

    /// Takes the watchpoint of a code object away.
    ///
    /// # Errors
    /// The process map cannot be written.
    pub fn unwatch(&mut self, (process, kernel_pid): (ProcessId, u32), code: RemoteAddress) -> Result<(), AttachError> {
        self.python.watchpoints.retain(|watchpoint| !watchpoint.is_on(process.pid, code.0));
        self.forget_watched(kernel_pid, code)?;
        self.next_python_epoch(process)
    }

    /// Processes whose guard has ended since the last time that this was asked: they have ended, too, or somebody has
    /// killed the guard, and their watchpoints must go at once ([`Self::unwatch_all`]).
    pub fn unguarded(&mut self) -> Vec<u32> {
        let PythonPrograms { guards, kept_signals, .. } = &mut self.python;
        let gone: Vec<_> = guards.extract_if(.., |guard| !guard.is_standing()).collect();
        let processes = gone.iter().map(Guard::process).collect();
        relieve(gone, kept_signals);
        processes
    }

    /// Takes all watchpoints of a process away.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn unwatch_all(&mut self, (process, kernel_pid): (ProcessId, u32)) -> Result<(), AttachError> {
        self.python.watchpoints.retain(|watchpoint| !watchpoint.is_of(process.pid));
        self.tell_watched(kernel_pid, |codes| {
            codes.fill(0);
            Some(())
        })?;
        self.next_python_epoch(process)
    }

    /// Signals that were kept from processes because they came from hits of watchpoints whose cause was lost. Complete
    /// once the probes are gone.
    #[must_use]
    pub fn kept_signals(&self) -> u64 {
        self.python.kept_signals.load(Relaxed)
    }

    /// In a virtual machine no process is watched without a guard.
    fn guard(&mut self, process: ProcessId) -> Result<(), WatchOutcome> {
        let PythonPrograms { guards, missed_hits, .. } = &mut self.python;
        if missed_hits.is_none() || guards.iter().any(|guard| guard.process() == process.pid) {
            return Ok(());
        }
        match Guard::post(process.pid) {
            Ok(guard) => guards.push(guard),
            Err(_) if !Path::new(&format!("/proc/{}", process.pid)).exists() => return Err(WatchOutcome::Gone),
            Err(error) => return Err(WatchOutcome::Unguarded(error.to_string())),
        }
        Ok(())
    }

    fn forget_watched(&mut self, kernel_pid: u32, code: RemoteAddress) -> Result<(), AttachError> {
        self.tell_watched(kernel_pid, |codes| codes.iter_mut().find(|slot| **slot == code.0).map(|slot| *slot = 0))
    }

    /// Tells the programs which code is watched in a process.
    fn tell_watched(
        &mut self,
        kernel_pid: u32,
        change: impl FnOnce(&mut [u64]) -> Option<()>,
    ) -> Result<(), AttachError> {
        const NAME: &str = "PYTHON_WATCHED";
        let map = self.ebpf.map_mut(NAME).ok_or(AttachError::Incomplete { name: NAME })?;
        let mut map: HashMap<_, u32, PythonWatched> = map.try_into().map_err(|error| map_error(NAME, &error))?;
        let mut watched = map.get(&kernel_pid, 0).unwrap_or_default();
        // Nothing to change: more is watched than there are debug registers, which the kernel will refuse.
        let _ = change(&mut watched.codes);
        if watched == PythonWatched::default() {
            // It may not be there.
            let _ = map.remove(&kernel_pid);
            return Ok(());
        }
        map.insert(kernel_pid, watched, 0).map_err(|error| map_error(NAME, &error))
    }

    pub(super) fn load_python(&mut self) -> Result<(), AttachError> {
        if self.python.loaded {
            return Ok(());
        }
        let missed_hits = is_virtual_machine();
        load_watch(&mut self.ebpf, missed_hits)?;
        if missed_hits {
            let missed = program::<RawTracePoint>(&mut self.ebpf, "python_missed_hit")?;
            let link = missed.attach("signal_generate").map_err(|error| program_error(&error))?;
            self.python.missed_hits = Some(missed.take_link(link).map_err(|error| program_error(&error))?);
        }
        self.python.loaded = true;
        Ok(())
    }
}

/// Loads the programs of watchpoints side by side: the verifier takes most of the time of an attach.
fn load_watch(ebpf: &mut Ebpf, missed_hits: bool) -> Result<(), AttachError> {
    std::thread::scope(|scope| {
        let mut loading = Vec::new();
        for (name, program) in ebpf.programs_mut() {
            match (name, program) {
                ("python_watch", Program::PerfEvent(watcher)) => loading.push(scope.spawn(|| watcher.load())),
                ("python_missed_hit", Program::RawTracePoint(missed)) if missed_hits => {
                    loading.push(scope.spawn(|| missed.load()));
                }
                _ => {}
            }
        }
        let ended = loading.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ended.collect::<Result<(), _>>().map_err(|error| program_error(&error))
    })
}

/// Their watchpoints are gone.
fn relieve(guards: Vec<Guard>, kept_signals: &AtomicU64) {
    for mut guard in guards {
        kept_signals.fetch_add(guard.relieve(), Relaxed);
    }
}

/// `BPF_NOEXIST` (include/uapi/linux/bpf.h).
const NO_EXIST: u64 = 1;

pub(super) fn python_map<'ebpf, Value: Pod>(
    ebpf: &'ebpf mut Ebpf,
    name: &'static str,
) -> Result<HashMap<&'ebpf mut MapData, PythonKey, Value>, AttachError> {
    let map = ebpf.map_mut(name).ok_or(AttachError::Incomplete { name })?;
    map.try_into().map_err(|error| map_error(name, &error))
}
