//! Tries on this very process what the commands use: every kind of probe is placed by the calls that place it for a
//! target, and taken away again.

use std::path::Path;

use aya::programs::UProbe;

use super::error::AttachError;
use super::kernel::{Kernel as _, KernelProcess};
use super::loaded::{LoadOptions, Loaded};
use super::object::program;
use super::own_function::{self, EMULATED, WATCHED};
use super::placement::{Link, PlacedFile, place_one};
use super::programs::Programs;
use super::python_frames::FramesPrograms;
use super::python_watch::WatchOutcome;
use super::site::{Role, Site};
use crate::model::{
    FileOffset, FramePlace, InterpreterSite, InterpreterSites, InterpreterStyle, ProcessId, RemoteAddress, Witness,
    WitnessDensity, WitnessSite,
};

/// Probes of native functions: at an exit, in the return trampoline and at an entry.
///
/// # Errors
/// The first that the kernel does not take.
pub fn try_native(programs: &mut Programs) -> Result<(), AttachError> {
    let mut loaded = programs.loaded.lock();
    let Loaded { multi, ebpf, removals, .. } = &mut *loaded;
    let site = Site { offset: own_offset()?, cookie: 0 };
    let mut links = Vec::new();
    for (role, name) in [(Role::Exit, "native_exit"), (Role::Return, "native_return"), (Role::Entry, "native_entry")] {
        let file = PlacedFile { path: Path::new(own_function::FILE), process: std::process::id(), role };
        let link = match multi {
            Some(multi) => multi.link(role, file.path, file.process, &[site]).map(Link::Multi),
            None => place_one(program::<UProbe>(ebpf, name)?, &file, site).map(Link::Single),
        };
        links.push(link.map_err(|error| AttachError::refused(file.path, error))?);
    }
    // The kernel takes its time, and nobody has to wait for it.
    removals.begin(move || drop(links));
    Ok(())
}

/// A watchpoint as on Python code, in a virtual machine with its guard.
///
/// # Errors
/// The kernel does not take the programs or the watchpoint.
pub fn try_watch(programs: &Programs) -> Result<WatchOutcome, AttachError> {
    let mut own = this_process(programs);
    let code = RemoteAddress(std::ptr::from_ref(&WATCHED[0]) as u64);
    let outcome = own.watch(code, &mut || None)?;
    own.unwatch(code)?;
    Ok(outcome)
}

/// Probes that every Python call passes. Their programs are loaded for it, which needs the ring buffer.
///
/// # Errors
/// The kernel does not take the programs or the probes.
pub fn try_frames(programs: &Programs) -> Result<(), AttachError> {
    let mut loaded = programs.loaded.lock();
    if loaded.frames.is_none() {
        let many_at_once = loaded.features.uprobe_multi;
        loaded.frames = Some(FramesPrograms::load(&mut loaded.ebpf, many_at_once)?);
    }
    drop(loaded);
    let sites =
        InterpreterSites { style: InterpreterStyle::Opcodes, entries: vec![own_site()?], returns: vec![own_site()?] };
    let mut own = this_process(programs);
    own.place_frames(Path::new(own_function::FILE), &sites)?;
    own.remove_frames()
}

/// A probe that a part of all Python calls passes. Its program is loaded in an object of its own: the others do without most of it.
///
/// # Errors
/// The kernel does not take the program or the probe.
pub fn try_chain() -> Result<(), AttachError> {
    let programs = Programs::load(LoadOptions { python_chain: true, ..LoadOptions::default() })?;
    let InterpreterSite { offset, emulated, instruction, .. } = own_site()?;
    let site = WitnessSite { function: String::new(), offset, emulated, instruction, witness: Witness::OfThread };
    let mut own = this_process(&programs);
    own.place_witnesses(Path::new(own_function::FILE), &[site], WitnessDensity::Dense)?;
    own.remove_frames()
}

/// The probe that exceptions pass.
///
/// # Errors
/// The kernel does not take the program or the probe.
pub fn try_exceptions(programs: &Programs) -> Result<(), AttachError> {
    this_process(programs).place_exceptions(Path::new(own_function::FILE), &own_site()?)
}

/// This process, as targets are named.
fn this_process(programs: &Programs) -> Box<dyn KernelProcess> {
    programs.process(ProcessId { pid: std::process::id(), start_time: 0 })
}

fn own_site() -> Result<InterpreterSite, AttachError> {
    Ok(InterpreterSite {
        opcode: String::new(),
        offset: FileOffset(own_offset()?),
        emulated: true,
        instruction: String::new(),
        condition: None,
        frame: FramePlace::Current,
    })
}

fn own_offset() -> Result<u64, AttachError> {
    EMULATED.offset().ok_or_else(|| AttachError::Place {
        path: own_function::FILE.into(),
        source: std::io::Error::other("our own executable could not be found in memory"),
    })
}
