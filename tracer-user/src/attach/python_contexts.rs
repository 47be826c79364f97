//! The programs that see contexts (`contextvars.Context`) of Python code made and freed.

use aya::Ebpf;
use aya::programs::UProbe;
use tracer_common::cookie::Cookie;

use super::error::AttachError;
use super::multi::MultiPrograms;
use super::object::{OBJECT, program, program_error};
use super::placement::{Link, PlacedFile, place_in_interpreter};
use super::site::{Role, Site};
use crate::model::{ContextSite, ContextSites, ProcessId};

/// Where contexts are made, and where they are freed.
const MADE: (Role, &str) = (Role::Exit, "python_context_made");
/// See [`MADE`].
const FREED: (Role, &str) = (Role::Entry, "python_context_freed");

/// The programs.
pub struct ContextPrograms {
    multi: Option<MultiPrograms>,
}

impl ContextPrograms {
    /// Loads them. They run on the ring buffer, which is somebody else's later.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot run them.
    pub fn load(ebpf: &mut Ebpf, many_at_once: bool) -> Result<Self, AttachError> {
        if many_at_once {
            return Ok(Self { multi: Some(MultiPrograms::load_named_on(OBJECT, ebpf, &[MADE, FREED])?) });
        }
        for (_, name) in [MADE, FREED] {
            program::<UProbe>(ebpf, name)?.load().map_err(|error| program_error(&error))?;
        }
        Ok(Self { multi: None })
    }

    /// Places their probes in the file of a process's interpreter: what is freed is seen before anything is made.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take a probe.
    pub fn place(
        &self,
        ebpf: &mut Ebpf,
        (path, process, slot): (&std::path::Path, ProcessId, u16),
        sites: &ContextSites,
    ) -> Result<Vec<Link>, AttachError> {
        let freed = vec![Site { offset: sites.freed.0, cookie: Cookie::interpreter(0, slot, None).0 }];
        let cookie = |made: &ContextSite| Cookie::new_context(made.register, made.is_copy, slot).0;
        let made = sites.made.iter().map(|made| Site { offset: made.offset.0, cookie: cookie(made) }).collect();
        let mut links = Vec::new();
        for ((role, name), sites) in [(FREED, freed), (MADE, made)] {
            let file = PlacedFile { path, process: process.pid, role };
            links.extend(place_in_interpreter(ebpf, (name, self.multi.as_ref()), &file, &sites)?);
        }
        Ok(links)
    }
}
