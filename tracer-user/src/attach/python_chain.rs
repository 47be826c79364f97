//! The program of chain mode, which a part of all Python calls passes, and what it is told of the code that is wanted.

use std::io;

use aya::Ebpf;
use aya::programs::UProbe;
use tracer_common::cookie::Cookie;
use tracer_common::python::{PythonWanted, WANTED_WORDS, wanted_bit};

use super::error::AttachError;
use super::multi::MultiPrograms;
use super::object::{OBJECT, array, map_error, program, program_error};
use super::placement::{Link, PlacedFile, place_one};
use super::site::Site;
use crate::model::{PythonCodeRule, RemoteAddress, WitnessSite};

/// The map of the bits that wanted code has: as large as the loader makes it.
pub const WANTED_MAP: &str = "PYTHON_WANTED";

/// The program that runs at a witness.
pub struct ChainPrograms {
    multi: Option<MultiPrograms>,
}

impl ChainPrograms {
    /// Loads it.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot run it.
    pub fn load(ebpf: &mut Ebpf, many_at_once: bool) -> Result<Self, AttachError> {
        if many_at_once {
            return Ok(Self { multi: Some(MultiPrograms::load_witness(OBJECT, ebpf)?) });
        }
        program::<UProbe>(ebpf, "python_witness")?.load().map_err(|error| program_error(&error))?;
        Ok(Self { multi: None })
    }

    /// Places the probes.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take a probe.
    pub fn place(
        &self,
        ebpf: &mut Ebpf,
        file: &PlacedFile<'_>,
        slot: u16,
        sites: &[WitnessSite],
    ) -> Result<Vec<Link>, AttachError> {
        let wanted: Vec<Site> = sites
            .iter()
            .map(|site| Site { offset: site.offset.0, cookie: Cookie::interpreter(site.witness as u32, slot, None).0 })
            .collect();
        let failed = |error: io::Error| AttachError::refused(file.path, error);
        if let Some(multi) = &self.multi {
            let link = multi.link(file.role, file.path, file.process, &wanted).map_err(failed)?;
            return Ok(vec![Link::Multi(link)]);
        }
        let single = program::<UProbe>(ebpf, "python_witness")?;
        wanted.iter().map(|site| place_one(single, file, *site).map(Link::Single).map_err(failed)).collect()
    }
}

/// Tells the program which code may be wanted.
///
/// # Errors
/// The map cannot be written.
pub fn tell_wanted(ebpf: &mut Ebpf, slot: u32, codes: &[(RemoteAddress, PythonCodeRule)]) -> Result<(), AttachError> {
    let mut wanted = PythonWanted { bits: [0; WANTED_WORDS] };
    for (code, _) in codes {
        let bit = wanted_bit(code.0);
        if let Some(word) = usize::try_from(bit / 64).ok().and_then(|word| wanted.bits.get_mut(word)) {
            *word |= 1 << (bit % 64);
        }
    }
    array::<PythonWanted>(ebpf, WANTED_MAP)?.set(slot, wanted, 0).map_err(|error| map_error(WANTED_MAP, &error))
}
