//! Probes inside an interpreter that every Python call passes.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use aya::Ebpf;
use aya::maps::PerCpuArray;
use aya::programs::UProbe;
use tracer_common::cookie::Cookie;

use super::error::AttachError;
use super::multi::{MultiPrograms, Role, Site};
use super::placement::{Link, PlacedFile, place_one, remove};
use super::programs::{OBJECT, Programs, map_error, program, program_error};
use crate::model::{FramePlace, InterpreterSite, InterpreterSites, ProcessId};

/// The programs, and the probes that are live.
pub struct FramesPrograms {
    multi: Option<MultiPrograms>,
    entries: Vec<(ProcessId, Link)>,
    returns: Vec<(ProcessId, Link)>,
}

/// "The current frame of the thread state": no register has this number.
const CURRENT_FRAME: u32 = 16;

impl FramesPrograms {
    /// Loads the programs.
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
        Ok(Self { multi, entries: Vec::new(), returns: Vec::new() })
    }

    /// Gives all probes away: entries first.
    pub(super) fn into_links(self) -> Vec<Link> {
        self.entries.into_iter().chain(self.returns).map(|(_, link)| link).collect()
    }

    /// Gives the probes of a process away: entries first.
    pub(super) fn take_of(&mut self, process: ProcessId) -> Vec<Link> {
        let entries = self.entries.extract_if(.., |(known, _)| *known == process);
        let returns = self.returns.extract_if(.., |(known, _)| *known == process);
        entries.chain(returns).map(|(_, link)| link).collect()
    }
}

impl Programs {
    /// Loads the programs of frames mode, if they are not loaded yet; only while the ring buffer is here.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot run them.
    pub(super) fn load_frames(&mut self) -> Result<(), AttachError> {
        if self.python.frames.is_none() {
            let many_at_once = self.features().uprobe_multi;
            self.python.frames = Some(FramesPrograms::load(&mut self.ebpf, many_at_once)?);
        }
        Ok(())
    }

    /// Places probes at these sites of an interpreter's file, as one process runs it: returns before entries.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take a probe.
    pub fn place_frames(
        &mut self,
        (process, kernel_pid): (ProcessId, u32),
        path: &Path,
        sites: &InterpreterSites,
    ) -> Result<(), AttachError> {
        let slot = self.slot_of(process, kernel_pid)?;
        let missing = AttachError::Incomplete { name: "python_frame_entry" };
        let mut frames = self.python.frames.take().ok_or(missing)?;
        let placed = self.place_both(&mut frames, process, path, slot, sites);
        // However that went, the probes of other processes are in there.
        self.python.frames = Some(frames);
        placed
    }

    fn place_both(
        &mut self,
        frames: &mut FramesPrograms,
        process: ProcessId,
        path: &Path,
        slot: u16,
        sites: &InterpreterSites,
    ) -> Result<(), AttachError> {
        let returns = self.place_role(frames, Role::Exit, process, path, slot, &sites.returns)?;
        frames.returns.extend(returns.into_iter().map(|link| (process, link)));
        let entries = self.place_role(frames, Role::Entry, process, path, slot, &sites.entries)?;
        frames.entries.extend(entries.into_iter().map(|link| (process, link)));
        Ok(())
    }

    /// Places the probe that exceptions pass on their way through Python frames.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take it.
    pub fn place_exceptions(
        &mut self,
        (process, kernel_pid): (ProcessId, u32),
        path: &Path,
        site: &InterpreterSite,
    ) -> Result<(), AttachError> {
        let slot = self.slot_of(process, kernel_pid)?;
        let file = PlacedFile { path, process: process.pid, role: Role::Entry };
        let wanted = Site { offset: site.offset.0, cookie: cookie(site, slot).0 };
        let link = self.place_exception(&file, wanted)?;
        self.python.exceptions.push((process, link));
        Ok(())
    }

    fn place_exception(&mut self, file: &PlacedFile<'_>, wanted: Site) -> Result<Link, AttachError> {
        let failed = |error: io::Error| AttachError::refused(file.path, error);
        if !self.features().uprobe_multi {
            let watcher = program::<UProbe>(&mut self.ebpf, "python_exception")?;
            if watcher.fd().is_err() {
                watcher.load().map_err(|error| program_error(&error))?;
            }
            return place_one(watcher, file, wanted).map(Link::Single).map_err(failed);
        }
        let Self { python, ebpf, ring, .. } = self;
        let ring = ring.as_ref().map(OwnedFd::as_fd);
        let multi = match &python.exception_program {
            Some(multi) => multi,
            None => python.exception_program.insert(MultiPrograms::load_exceptions(OBJECT, ebpf, ring)?),
        };
        multi.link(file.role, file.path, file.process, &[wanted]).map(Link::Multi).map_err(failed)
    }

    /// Takes the probes of a process away and keeps the programs. Calls that are open then are let go.
    ///
    /// # Errors
    /// The process map cannot be written.
    pub fn remove_frames(&mut self, process: ProcessId) -> Result<(), AttachError> {
        let Some(frames) = &mut self.python.frames else { return Ok(()) };
        // A call whose beginning was seen has an end to be seen.
        let entries = frames.entries.extract_if(.., |(known, _)| *known == process).map(|(_, link)| link);
        remove(entries.collect());
        remove(frames.take_of(process));
        self.next_python_epoch(process)
    }

    /// Python calls that have passed the probes so far, traced or not.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn python_calls_passed(&self) -> Result<u64, AttachError> {
        let map = self.ebpf.map("PYTHON_PASSED").ok_or(AttachError::Incomplete { name: "PYTHON_PASSED" })?;
        let passed: PerCpuArray<_, u64> = map.try_into().map_err(|error| map_error("PYTHON_PASSED", &error))?;
        let values = passed.get(&0, 0).map_err(|error| map_error("PYTHON_PASSED", &error))?;
        Ok(values.iter().sum())
    }

    fn place_role(
        &mut self,
        frames: &FramesPrograms,
        role: Role,
        process: ProcessId,
        path: &Path,
        slot: u16,
        sites: &[InterpreterSite],
    ) -> Result<Vec<Link>, AttachError> {
        let wanted: Vec<Site> =
            sites.iter().map(|site| Site { offset: site.offset.0, cookie: cookie(site, slot).0 }).collect();
        let failed = |error: io::Error| AttachError::refused(path, error);
        if let Some(multi) = &frames.multi {
            return Ok(vec![Link::Multi(multi.link(role, path, process.pid, &wanted).map_err(failed)?)]);
        }
        let name = if role == Role::Entry { "python_frame_entry" } else { "python_frame_return" };
        let single = program::<UProbe>(&mut self.ebpf, name)?;
        let file = PlacedFile { path, process: process.pid, role };
        wanted.iter().map(|site| place_one(single, &file, *site).map(Link::Single).map_err(failed)).collect()
    }
}

fn cookie(site: &InterpreterSite, slot: u16) -> Cookie {
    let place = match site.frame {
        FramePlace::Register(number) => u32::from(number),
        FramePlace::Current => CURRENT_FRAME,
    };
    Cookie::interpreter(place, slot, site.condition)
}
