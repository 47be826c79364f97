//! The programs of watch mode: what runs at a hit, and what makes up for hits that a virtual machine loses; and what they are
//! told and count of the code that is watched.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::panic::resume_unwind;

use aya::Ebpf;
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::{PerfEvent, Program, RawTracePoint};
use tracer_common::python::{PythonCount, PythonKey, PythonWatched};

use super::error::AttachError;
use super::features::is_virtual_machine;
use super::object::{hash_map, map_error, program, program_error};
use crate::model::{CodeCalls, RemoteAddress};

/// The maps, by their names.
const COUNTS: &str = "PYTHON_COUNTS";
const WATCHED: &str = "PYTHON_WATCHED";

/// `BPF_NOEXIST` (include/uapi/linux/bpf.h).
const NO_EXIST: u64 = 1;

/// How setting a watchpoint went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchOutcome {
    /// It is live on every thread.
    Live,
    /// A thread has no debug register left: somebody else holds some, or four are set already.
    NoSlot,
    /// The process is gone.
    Gone,
    /// One descriptor for each thread is more than may be open.
    NoDescriptors {
        /// So many would have to be open for four watchpoints.
        needed: u64,
        /// So many may be.
        limit: u64,
    },
    /// In a virtual machine: the process cannot be guarded against hits whose cause is lost, for this reason.
    Unguarded(String),
}

/// The programs, once they are loaded.
#[derive(Default)]
pub struct WatchPrograms {
    is_loaded: bool,
    /// In a virtual machine: makes up for hits that the kernel does not know for ones.
    missed_hits: Option<RawTracePointLink>,
}

impl WatchPrograms {
    /// Loads them, if they are not loaded yet.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot run them.
    pub fn load(&mut self, ebpf: &mut Ebpf) -> Result<(), AttachError> {
        if self.is_loaded {
            return Ok(());
        }
        let missed_hits = is_virtual_machine();
        load_side_by_side(ebpf, missed_hits)?;
        if missed_hits {
            let missed = program::<RawTracePoint>(ebpf, "python_missed_hit")?;
            let link = missed.attach("signal_generate").map_err(|error| program_error(&error))?;
            self.missed_hits = Some(missed.take_link(link).map_err(|error| program_error(&error))?);
        }
        self.is_loaded = true;
        Ok(())
    }

    /// Whether no process may be watched without a guard: this is a virtual machine.
    pub fn need_guards(&self) -> bool {
        self.missed_hits.is_some()
    }

    /// What runs at a hit.
    ///
    /// # Errors
    /// It is not loaded, or there is no descriptor for it (the inner error).
    pub fn at_hits(ebpf: &mut Ebpf) -> Result<io::Result<OwnedFd>, AttachError> {
        let watcher = program::<PerfEvent>(ebpf, "python_watch")?;
        Ok(watcher.fd().map_err(|error| program_error(&error))?.as_fd().try_clone_to_owned())
    }

    /// Nothing is watched any more: lost hits need not be made up for.
    pub fn end(&mut self) {
        self.missed_hits = None;
    }
}

/// The verifier takes most of the time of an attach.
fn load_side_by_side(ebpf: &mut Ebpf, missed_hits: bool) -> Result<(), AttachError> {
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

/// Tells the programs that code is watched from now on. A count of an earlier time says nothing about the changes since.
///
/// # Errors
/// A map cannot be written.
pub fn tell_watched(ebpf: &mut Ebpf, process: u32, code: RemoteAddress) -> Result<(), AttachError> {
    let _ = hash_map::<PythonKey, PythonCount>(ebpf, COUNTS)?.remove(&key(process, code));
    change_watched(ebpf, process, |codes| codes.iter_mut().find(|slot| **slot == 0).map(|slot| *slot = code.0))
}

/// Tells the programs that code is not watched any more.
///
/// # Errors
/// The map cannot be written.
pub fn forget_watched(ebpf: &mut Ebpf, process: u32, code: RemoteAddress) -> Result<(), AttachError> {
    change_watched(ebpf, process, |codes| codes.iter_mut().find(|slot| **slot == code.0).map(|slot| *slot = 0))
}

/// Tells the programs that no code of a process is watched any more.
///
/// # Errors
/// The map cannot be written.
pub fn forget_all_watched(ebpf: &mut Ebpf, process: u32) -> Result<(), AttachError> {
    change_watched(ebpf, process, |codes| {
        codes.fill(0);
        Some(())
    })
}

fn change_watched(
    ebpf: &mut Ebpf,
    process: u32,
    change: impl FnOnce(&mut [u64]) -> Option<()>,
) -> Result<(), AttachError> {
    let mut map = hash_map::<u32, PythonWatched>(ebpf, WATCHED)?;
    let mut watched = map.get(&process, 0).unwrap_or_default();
    // Nothing to change: more is watched than there are debug registers, which the kernel will refuse.
    let _ = change(&mut watched.codes);
    if watched == PythonWatched::default() {
        // It may not be there.
        let _ = map.remove(&process);
        return Ok(());
    }
    map.insert(process, watched, 0).map_err(|error| map_error(WATCHED, &error))
}

/// Tells the programs the reference count of code whose watchpoint is live, so that the first call is told from a return.
/// Does nothing if they have seen a hit already: then their own count is the newer one.
///
/// # Errors
/// There is no such map.
pub fn tell_references(ebpf: &mut Ebpf, process: u32, code: RemoteAddress, count: u32) -> Result<(), AttachError> {
    let count = PythonCount { references: u64::from(count), calls: 0, folded: 0 };
    let _ = hash_map::<PythonKey, PythonCount>(ebpf, COUNTS)?.insert(key(process, code), count, NO_EXIST);
    Ok(())
}

/// Calls of a code object since it was last watched.
///
/// # Errors
/// The map cannot be read.
pub fn calls(ebpf: &mut Ebpf, process: u32, code: RemoteAddress) -> Result<CodeCalls, AttachError> {
    let counts = hash_map::<PythonKey, PythonCount>(ebpf, COUNTS)?;
    // Nothing was counted where there is no element.
    let counted = |count: PythonCount| CodeCalls {
        seen: count.calls,
        folded: count.folded.min(count.calls),
        references: count.references,
    };
    Ok(counts.get(&key(process, code), 0).map_or_else(|_| CodeCalls::default(), counted))
}

fn key(process: u32, code: RemoteAddress) -> PythonKey {
    PythonKey { address: code.0, process, reserved: 0 }
}
