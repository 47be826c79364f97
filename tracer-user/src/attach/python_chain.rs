//! The program of chain mode, which a part of all Python calls passes, and what it is told of the code that is wanted.

use aya::Ebpf;
use aya::programs::UProbe;
use tracer_common::chain::{Chain, WitnessedCalls};
use tracer_common::cookie::Cookie;
use tracer_common::limits::THREAD_KEY_BITS;
use tracer_common::python::{PythonKey, PythonWanted, WANTED_WORDS, wanted_bit};

use super::error::AttachError;
use super::multi::MultiPrograms;
use super::object::{array, hash_map, map_error, program, program_error};
use super::placement::{Link, PlacedFile, place_in_interpreter};
use super::site::Site;
use crate::model::{PythonCodeRule, RemoteAddress, WitnessSite};

/// The map of the bits that wanted code has: as large as the loader makes it.
pub const WANTED_MAP: &str = "PYTHON_WANTED";

/// The map of the frames of each thread.
const CHAINS: &str = "PYTHON_CHAINS";

/// The map of what is counted of calls while all witnesses are there.
const WITNESSED: &str = "PYTHON_WITNESSED";

/// The program that runs at a witness.
pub struct ChainPrograms {
    multi: Option<MultiPrograms>,
}

impl ChainPrograms {
    /// As it is loaded already for links of many uprobes, or else loads it.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot run it.
    pub fn new(ebpf: &mut Ebpf, multi: Option<MultiPrograms>) -> Result<Self, AttachError> {
        if multi.is_some() {
            return Ok(Self { multi });
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
        place_in_interpreter(ebpf, ("python_witness", self.multi.as_ref()), file, &wanted)
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

/// From now on it is counted by which witnesses the calls of this code are seen.
///
/// # Errors
/// There is no room in the map, or it cannot be written.
pub fn count_witnessed(ebpf: &mut Ebpf, process: u32, codes: &[RemoteAddress]) -> Result<(), AttachError> {
    let mut map = hash_map::<PythonKey, WitnessedCalls>(ebpf, WITNESSED)?;
    for code in codes {
        let key = PythonKey { address: code.0, process, reserved: 0 };
        map.insert(key, WitnessedCalls::default(), 0).map_err(|error| map_error(WITNESSED, &error))?;
    }
    Ok(())
}

/// What was counted of a process, which is not counted any more.
///
/// # Errors
/// There is no such map.
pub fn take_witnessed(ebpf: &mut Ebpf, process: u32) -> Result<Vec<WitnessedCalls>, AttachError> {
    let mut map = hash_map::<PythonKey, WitnessedCalls>(ebpf, WITNESSED)?;
    let its_own: Vec<PythonKey> = map.keys().filter_map(Result::ok).filter(|key| key.process == process).collect();
    let mut taken = Vec::new();
    for key in its_own {
        taken.extend(map.get(&key, 0).ok());
        // It is there: nobody else takes it away.
        let _ = map.remove(&key);
    }
    Ok(taken)
}

/// Forgets the frames of all threads of a process that is let go, or runs another program. Of a thread that ends the programs
/// forget them by themselves, if a traced call was ever seen on it.
///
/// # Errors
/// There is no such map.
pub fn forget_threads(ebpf: &mut Ebpf, process: u32) -> Result<(), AttachError> {
    take_witnessed(ebpf, process)?;
    let mut chains = hash_map::<u64, [u8; size_of::<Chain>()]>(ebpf, CHAINS)?;
    let of_process = |key: &u64| (key & ((1 << THREAD_KEY_BITS) - 1)) >> 32 == u64::from(process);
    let its_own: Vec<u64> = chains.keys().filter_map(Result::ok).filter(of_process).collect();
    for key in its_own {
        // It may be gone already.
        let _ = chains.remove(&key);
    }
    Ok(())
}
