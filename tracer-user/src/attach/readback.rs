//! Whether a process runs the code that is probed: its memory is compared with the file before probes are placed, and read back
//! afterwards.
//!
//! A file that lies in a container's overlay may be copied while it is mapped, a program may run a copy of its own code, and a
//! debugger or the program itself may have changed it. Probes go into the file as it is now.

use std::os::unix::fs::FileExt as _;

use super::placement::{Refusal, Refused};
use crate::memory::{LiveProcess, MappedFile, Memory as _, PageCache};
use crate::model::{FileOffset, Mapping, ModuleFile, PlannedFunction, RemoteAddress, ReturnMethod};

/// The longest instruction of x86-64.
const LONGEST: usize = 15;

/// The breakpoint of the kernel, and of debuggers.
const BREAKPOINT: u8 = 0xcc;

/// A five-byte nop, which newer kernels replace by a call where it is probed.
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
const CALL: u8 = 0xe8;

/// Separates functions whose code in memory is that of the file from others, which must not be probed: the kernel would
/// run the file's instructions in the middle of other code. Where nothing is mapped yet, nothing can be said.
pub fn check_before<'plan>(
    module: &ModuleFile,
    file: &MappedFile,
    functions: Vec<&'plan PlannedFunction>,
) -> (Vec<&'plan PlannedFunction>, Vec<Refused>) {
    if module.mappings.is_empty() {
        return (functions, Vec::new());
    }
    let memory = PageCache::new(LiveProcess::new(module.process.pid));
    let (mut same, mut refused) = (Vec::new(), Vec::new());
    for function in functions {
        let problem = sites(function).find_map(|site| {
            let Some(address) = address_of(&module.mappings, site) else {
                return Some("this code is not mapped there any more");
            };
            let (mut expected, mut found) = ([0; LONGEST], [0; LONGEST]);
            let length = file.file().read_at(&mut expected, site.0).unwrap_or(0).min(room(&module.mappings, site));
            let (expected, found) = (expected.get(..length)?, found.get_mut(..length)?);
            // What cannot be read now the kernel will find, or not.
            memory.read(address, found).ok()?;
            (!is_same_code(expected, found))
                .then_some("the code in memory is not that of the file, which may have been replaced or copied since")
        });
        match problem {
            Some(problem) => refused.push(not_its_code(function, problem)),
            None => same.push(function),
        }
    }
    (same, refused)
}

/// Functions whose entry probe is not in the memory of the process, although the kernel took it.
pub fn check_after(module: &ModuleFile, file: &MappedFile, functions: &[&PlannedFunction]) -> Vec<Refused> {
    if module.mappings.is_empty() {
        return Vec::new();
    }
    let memory = PageCache::new(LiveProcess::new(module.process.pid));
    let is_missing = |function: &&&PlannedFunction| {
        let site = function.request.function.entry.offset;
        let (mut expected, mut found) = ([0; 1], [0; 1]);
        let is_read = file.file().read_at(&mut expected, site.0).is_ok_and(|bytes| bytes == 1);
        let address = address_of(&module.mappings, site);
        is_read && address.is_some_and(|address| memory.read(address, &mut found).is_ok()) && found == expected
    };
    let missing = functions.iter().filter(is_missing);
    missing
        .map(|function| {
            not_its_code(function, "no probe is in the memory of the process: it runs another copy of the file")
        })
        .collect()
}

fn not_its_code(function: &PlannedFunction, problem: &str) -> Refused {
    Refused { function: function.id, problem: problem.to_owned(), why: Refusal::NotItsCode }
}

/// Where probes go.
fn sites(function: &PlannedFunction) -> impl Iterator<Item = FileOffset> {
    let resolved = &function.request.function;
    let exits = match &resolved.returns {
        ReturnMethod::ReturnSites { sites } => sites.as_slice(),
        ReturnMethod::Uretprobe { .. } => &[],
    };
    std::iter::once(resolved.entry.offset).chain(exits.iter().map(|site| site.offset))
}

fn mapping_of(mappings: &[Mapping], site: FileOffset) -> Option<&Mapping> {
    let holds = |mapping: &&Mapping| {
        site.0 >= mapping.offset.0 && site.0 - mapping.offset.0 < mapping.end.0.saturating_sub(mapping.start.0)
    };
    mappings.iter().find(holds)
}

fn address_of(mappings: &[Mapping], site: FileOffset) -> Option<RemoteAddress> {
    let mapping = mapping_of(mappings, site)?;
    Some(RemoteAddress(mapping.start.0 + (site.0 - mapping.offset.0)))
}

/// Bytes from a site to the end of its mapping.
fn room(mappings: &[Mapping], site: FileOffset) -> usize {
    let end = |mapping: &Mapping| mapping.end.0 - mapping.start.0 - (site.0 - mapping.offset.0);
    mapping_of(mappings, site).map_or(0, |mapping| usize::try_from(end(mapping)).unwrap_or(usize::MAX))
}

/// Whether code is the same but for probes of others.
fn is_same_code(expected: &[u8], found: &[u8]) -> bool {
    let is_called = expected.starts_with(&NOP5) && found.first() == Some(&CALL);
    let skipped = if is_called { NOP5.len() } else { 0 };
    expected.iter().zip(found).skip(skipped).all(|(expected, found)| expected == found || *found == BREAKPOINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_found_in_their_mapping() {
        let mapping = |start: u64, end: u64, offset: u64| Mapping {
            start: RemoteAddress(start),
            end: RemoteAddress(end),
            offset: FileOffset(offset),
        };
        let mappings = [mapping(0x7000, 0x9000, 0x1000), mapping(0xa000, 0xb000, 0x5000)];
        let address = |site| address_of(&mappings, FileOffset(site)).map(|address| address.0);
        assert_eq!(
            [0xfff, 0x1000, 0x2fff, 0x3000, 0x5010].map(address),
            [None, Some(0x7000), Some(0x8fff), None, Some(0xa010)]
        );
        assert_eq!(room(&mappings, FileOffset(0x2ff8)), 8);
    }

    #[test]
    fn probes_of_others_are_no_other_code() {
        assert!(is_same_code(b"\x55\x48\x89\xe5", b"\xcc\x48\x89\xcc"));
        assert!(!is_same_code(b"\x55\x48\x89\xe5", b"\x53\x48\x89\xe5"));
        assert!(is_same_code(b"\x0f\x1f\x44\x00\x00\x55", b"\xe8\x01\x02\x03\x04\x55"));
        assert!(!is_same_code(b"\x0f\x1f\x44\x00\x00\x55", b"\xe8\x01\x02\x03\x04\x53"));
    }
}
