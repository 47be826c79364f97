//! Tries on this very process what the commands use: every kind of probe is placed by the calls that place it for a
//! target, and taken away again.

use std::path::Path;

use aya::programs::UProbe;

use super::error::AttachError;
use super::multi::{Role, Site};
use super::own_function::{self, EMULATED, WATCHED};
use super::placement::{Link, PlacedFile, place_one};
use super::programs::{Programs, program};
use super::python::WatchOutcome;
use crate::model::{
    FileOffset, FramePlace, InterpreterSite, InterpreterSites, InterpreterStyle, ProcessId, RemoteAddress,
};

impl Programs {
    /// Probes of native functions: at an exit, in the return trampoline and at an entry.
    ///
    /// # Errors
    /// The first that the kernel does not take.
    pub fn try_native(&mut self) -> Result<(), AttachError> {
        let site = Site { offset: own_offset()?, cookie: 0 };
        let mut links = Vec::new();
        for (role, name) in
            [(Role::Exit, "native_exit"), (Role::Return, "native_return"), (Role::Entry, "native_entry")]
        {
            let file = PlacedFile { path: Path::new(own_function::FILE), process: std::process::id(), role };
            let link = match &self.multi {
                Some(multi) => multi.link(role, file.path, file.process, &[site]).map(Link::Multi),
                None => place_one(program::<UProbe>(&mut self.ebpf, name)?, &file, site).map(Link::Single),
            };
            links.push(link.map_err(|error| AttachError::refused(file.path, error))?);
        }
        // The kernel takes its time, and nobody has to wait for it.
        self.asides.begin(move || drop(links));
        Ok(())
    }

    /// A watchpoint as on Python code, in a virtual machine with its guard.
    ///
    /// # Errors
    /// The kernel does not take the programs or the watchpoint.
    pub fn try_watch(&mut self) -> Result<WatchOutcome, AttachError> {
        let (process, code) = (own_process(), RemoteAddress(std::ptr::from_ref(&WATCHED[0]) as u64));
        let outcome = self.watch(process, code, || None)?;
        self.unwatch(process, code)?;
        Ok(outcome)
    }

    /// Probes that every Python call passes.
    ///
    /// # Errors
    /// The kernel does not take the programs or the probes.
    pub fn try_frames(&mut self) -> Result<(), AttachError> {
        self.load_frames()?;
        let sites = InterpreterSites {
            style: InterpreterStyle::Opcodes,
            entries: vec![own_site()?],
            returns: vec![own_site()?],
        };
        self.place_frames(own_process(), Path::new(own_function::FILE), &sites)?;
        self.remove_frames(own_process().0)
    }

    /// The probe that exceptions pass.
    ///
    /// # Errors
    /// The kernel does not take the program or the probe.
    pub fn try_exceptions(&mut self) -> Result<(), AttachError> {
        self.place_exceptions(own_process(), Path::new(own_function::FILE), &own_site()?)
    }
}

/// This process, as targets are named.
fn own_process() -> (ProcessId, u32) {
    let pid = std::process::id();
    (ProcessId { pid, start_time: 0 }, pid)
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
