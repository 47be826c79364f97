//! What a process has mapped, from /proc/PID/maps.

use std::io;
use std::path::PathBuf;

use procfs::ProcError;
use procfs::process::{MMPermissions, MMapPath, Process};

use super::reader::MemoryError;
use crate::model::{FileOffset, RemoteAddress};

/// One range of a process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: RemoteAddress,
    /// Address after the last.
    pub end: RemoteAddress,
    /// Whether the process may read it.
    pub readable: bool,
    /// Whether it may write to it.
    pub writable: bool,
    /// Whether it may run code there.
    pub executable: bool,
    /// The file that it maps, as the process names it, and the offset of the first byte; `None` for anonymous memory
    /// (heap, stacks, arenas).
    pub file: Option<(PathBuf, FileOffset)>,
}

/// All ranges, by address. The kernel's own pages (vdso, vvar, vsyscall) are left out.
///
/// # Errors
/// The process is gone, or may not be looked at.
pub fn regions(pid: u32) -> Result<Vec<Region>, MemoryError> {
    let failed = |error| match error {
        ProcError::PermissionDenied(_) => MemoryError::NotPermitted { pid },
        ProcError::Io(error, _) if error.kind() == io::ErrorKind::PermissionDenied => MemoryError::NotPermitted { pid },
        _ => MemoryError::Gone { pid },
    };
    let number = i32::try_from(pid).map_err(|_| MemoryError::Gone { pid })?;
    let process = Process::new(number).map_err(failed)?;
    let maps = match process.maps() {
        Ok(maps) if !maps.0.is_empty() => maps,
        // The first thread has ended; others that go on have the same memory.
        without => {
            let threads = process.tasks().map_err(failed)?.filter_map(|task| Process::new(task.ok()?.tid).ok());
            let mut of_threads = threads.filter_map(|thread| thread.maps().ok().filter(|maps| !maps.0.is_empty()));
            match of_threads.next() {
                Some(maps) => maps,
                None => without.map_err(failed)?,
            }
        }
    };
    let kernel = |path: &MMapPath| match path {
        MMapPath::Vdso | MMapPath::Vvar | MMapPath::Vsyscall => true,
        MMapPath::Other(name) => name.starts_with("vvar"),
        _ => false,
    };
    let regions = maps.into_iter().filter(|map| !kernel(&map.pathname)).map(|map| Region {
        start: RemoteAddress(map.address.0),
        end: RemoteAddress(map.address.1),
        readable: map.perms.contains(MMPermissions::READ),
        writable: map.perms.contains(MMPermissions::WRITE),
        executable: map.perms.contains(MMPermissions::EXECUTE),
        file: match map.pathname {
            MMapPath::Path(path) => Some((path, FileOffset(map.offset))),
            _ => None,
        },
    });
    Ok(regions.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_regions_hold_code_and_stack() {
        let here = own_regions_hold_code_and_stack as *const () as u64;
        let local = 0_u8;
        let stack = &raw const local as u64;
        let regions = regions(std::process::id()).expect("this process can be looked at");
        let at = |address: u64| regions.iter().find(|region| region.start.0 <= address && address < region.end.0);
        let code = at(here).expect("code is mapped");
        assert!(code.executable && !code.writable && code.file.is_some());
        let stack = at(stack).expect("the stack is mapped");
        assert!(stack.writable && stack.file.is_none());
        assert!(regions.is_sorted_by_key(|region| region.start));
    }

    #[test]
    fn a_process_that_is_not_there_is_gone() {
        assert_eq!(super::regions(4_194_304), Err(MemoryError::Gone { pid: 4_194_304 }));
    }
}
