//! The programs of frames mode: those that every Python call passes, and that which exceptions pass.

use std::io;
use std::os::fd::BorrowedFd;

use aya::Ebpf;
use aya::programs::UProbe;
use tracer_common::chain::ProbesPassed;
use tracer_common::cookie::Cookie;

use super::error::AttachError;
use super::multi::MultiPrograms;
use super::object::{OBJECT, map_error, per_processor, program, program_error};
use super::placement::{Link, PlacedFile, place_in_interpreter, place_one};
use super::site::{Role, Site};
use crate::model::{FramePlace, InterpreterSite};

/// "The current frame of the thread state": no register has this number.
const CURRENT_FRAME: u32 = 16;

/// Every Python call passes these.
pub struct FramesPrograms {
    multi: Option<MultiPrograms>,
}

impl FramesPrograms {
    /// Loads them.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot run them.
    pub fn load(ebpf: &mut Ebpf, many_at_once: bool) -> Result<Self, AttachError> {
        let multi = if many_at_once { Some(MultiPrograms::load_frames(OBJECT, ebpf)?) } else { None };
        if multi.is_none() {
            for name in ["python_frame_entry", "python_frame_return"] {
                program::<UProbe>(ebpf, name)?.load().map_err(|error| program_error(&error))?;
            }
        }
        Ok(Self { multi })
    }

    /// Places the probes of one role.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take a probe.
    pub fn place(
        &self,
        ebpf: &mut Ebpf,
        file: &PlacedFile<'_>,
        slot: u16,
        sites: &[InterpreterSite],
    ) -> Result<Vec<Link>, AttachError> {
        let wanted: Vec<Site> = sites.iter().map(|site| probe(site, slot)).collect();
        let name = if file.role == Role::Entry { "python_frame_entry" } else { "python_frame_return" };
        place_in_interpreter(ebpf, (name, self.multi.as_ref()), file, &wanted)
    }

    /// Probes that the Python calls of the process in this slot, and of those that had it before, have passed so far.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn passed(ebpf: &Ebpf, slot: u16) -> Result<ProbesPassed, AttachError> {
        const NAME: &str = "PYTHON_PASSED";
        let passed = per_processor::<ProbesPassed>(ebpf, NAME)?;
        let values = passed.get(&u32::from(slot), 0).map_err(|error| map_error(NAME, &error))?;
        let mut sum = ProbesPassed::default();
        for value in values.iter() {
            for (sum, count) in sum.by_place.iter_mut().zip(value.by_place) {
                *sum += count;
            }
        }
        Ok(sum)
    }
}

/// Exceptions pass this one on their way through Python frames.
pub struct ExceptionProgram {
    /// Once it is needed, for links of many uprobes.
    multi: Option<MultiPrograms>,
}

impl ExceptionProgram {
    /// The program, if it is loaded already for links of many uprobes.
    pub fn new(multi: Option<MultiPrograms>) -> Self {
        Self { multi }
    }

    /// Places its probe. The ring buffer, which the program does not use, may be somebody else's by now: `ring` is its
    /// descriptor.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take it.
    pub fn place(
        &mut self,
        ebpf: &mut Ebpf,
        (many_at_once, ring): (bool, Option<BorrowedFd<'_>>),
        file: &PlacedFile<'_>,
        slot: u16,
        site: &InterpreterSite,
    ) -> Result<Link, AttachError> {
        let wanted = probe(site, slot);
        let failed = |error: io::Error| AttachError::refused(file.path, error);
        if !many_at_once {
            let watcher = program::<UProbe>(ebpf, "python_exception")?;
            if watcher.fd().is_err() {
                watcher.load().map_err(|error| program_error(&error))?;
            }
            return place_one(watcher, file, wanted).map(Link::Single).map_err(failed);
        }
        let multi = match &self.multi {
            Some(multi) => multi,
            None => self.multi.insert(MultiPrograms::load_exceptions(OBJECT, ebpf, ring)?),
        };
        multi.link(file.role, file.path, file.process, &[wanted]).map(Link::Multi).map_err(failed)
    }
}

fn probe(site: &InterpreterSite, slot: u16) -> Site {
    let place = match site.frame {
        FramePlace::Register(number) => u32::from(number),
        FramePlace::Current => CURRENT_FRAME,
    };
    Site { offset: site.offset.0, cookie: Cookie::interpreter(place, slot, site.condition).0 }
}
