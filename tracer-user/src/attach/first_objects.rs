//! The program that stops a command at the first object of a class that is asked for, and what it is told.

use aya::Ebpf;
use aya::programs::UProbe;
use tracer_common::cookie::Cookie;
use tracer_common::first_objects::{CLASS_NAME_BYTES, MAX_CLASS_NAMES};
use tracer_common::python::PythonKey;

use super::error::AttachError;
use super::multi::MultiPrograms;
use super::object::{OBJECT, hash_map, map_error, program, program_error};
use super::placement::{Link, PlacedFile, place_in_interpreter};
use super::site::{Role, Site};
use crate::model::{InterpreterSite, RemoteAddress};

/// Maps that hold nothing where no command is stopped.
pub const FIRST_OBJECT_TABLES: [&str; 2] = [NAMES, CLASSES];

/// Names of classes that are asked for, and classes that nobody is stopped for any more, by the names of the maps.
const NAMES: &str = "CLASS_NAMES";
const CLASSES: &str = "CLASSES_WITH_OBJECTS";

/// Update a map's element whether it is there or not (`BPF_ANY`, include/uapi/linux/bpf.h).
const ANY: u64 = 0;

/// The program.
pub struct FirstObjectProgram {
    multi: Option<MultiPrograms>,
}

impl FirstObjectProgram {
    const NAME: &str = "python_object";

    /// Loads it. It runs on the ring buffer, which is somebody else's later.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot run it.
    pub fn load(ebpf: &mut Ebpf, many_at_once: bool) -> Result<Self, AttachError> {
        if many_at_once {
            let names = [(Role::Entry, Self::NAME)];
            return Ok(Self { multi: Some(MultiPrograms::load_named_on(OBJECT, ebpf, &names)?) });
        }
        program::<UProbe>(ebpf, Self::NAME)?.load().map_err(|error| program_error(&error))?;
        Ok(Self { multi: None })
    }

    /// Places its probe where an interpreter makes objects.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take it.
    pub fn place(
        &self,
        ebpf: &mut Ebpf,
        file: &PlacedFile<'_>,
        slot: u16,
        site: &InterpreterSite,
    ) -> Result<Vec<Link>, AttachError> {
        let wanted = Site { offset: site.offset.0, cookie: Cookie::interpreter(0, slot, None).0 };
        place_in_interpreter(ebpf, (Self::NAME, self.multi.as_ref()), file, &[wanted])
    }
}

/// From now on these classes are asked for, by their bare names, and what is derived from them.
///
/// # Errors
/// The map cannot be written.
pub fn ask_for(ebpf: &mut Ebpf, names: &[String]) -> Result<(), AttachError> {
    let mut map = hash_map::<[u8; CLASS_NAME_BYTES], u32>(ebpf, NAMES)?;
    for name in names.iter().take(MAX_CLASS_NAMES as usize) {
        map.insert(padded(name), 0, ANY).map_err(|error| map_error(NAMES, &error))?;
    }
    Ok(())
}

/// Nobody is stopped for these classes.
///
/// # Errors
/// The map cannot be written.
pub fn know(ebpf: &mut Ebpf, process: u32, classes: &[RemoteAddress]) -> Result<(), AttachError> {
    let mut map = hash_map::<PythonKey, u32>(ebpf, CLASSES)?;
    for class in classes {
        let key = PythonKey { address: class.0, process, reserved: 0 };
        // Where there is no room, the program asks for no more classes either.
        let _ = map.insert(key, 0, ANY);
    }
    Ok(())
}

/// A name as the program reads it.
fn padded(name: &str) -> [u8; CLASS_NAME_BYTES] {
    let mut padded = [0; CLASS_NAME_BYTES];
    for (place, byte) in padded.iter_mut().take(CLASS_NAME_BYTES - 1).zip(name.bytes()) {
        *place = byte;
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_off_as_the_program_reads_it() {
        assert_eq!(&padded("Module")[..8], b"Module\0\0");
        assert_eq!(&padded(&"A".repeat(40))[30..], b"A\0");
    }
}
