//! The files that a process runs code from.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use procfs::ProcError;
use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};

use super::process::without_deleted_mark;
use crate::model::{FileOffset, FileVersion, Mapping, Module, RemoteAddress};

/// Files mapped with execute permission, each once, the executable first. `process` is a thread that has memory.
pub(super) fn of(process: &Process, executable: &Path) -> Result<Vec<Module>, ProcError> {
    let mut modules: Vec<Module> = Vec::new();
    for map in process.maps()? {
        let MMapPath::Path(path) = &map.pathname else { continue };
        if !map.perms.contains(MMPermissions::EXECUTE) || map.inode == 0 {
            continue;
        }
        let mapping = Mapping {
            start: RemoteAddress(map.address.0),
            end: RemoteAddress(map.address.1),
            offset: FileOffset(map.offset),
        };
        match modules.iter_mut().find(|module| module.inode == map.inode && module.device == map.dev) {
            Some(module) => module.mappings.push(mapping),
            None => {
                let (access_path, version) = access(process.pid, path, &map);
                modules.push(Module {
                    path: without_deleted_mark(path),
                    access_path,
                    device: map.dev,
                    inode: map.inode,
                    version,
                    mappings: vec![mapping],
                });
            }
        }
    }
    let executable = without_deleted_mark(executable);
    modules.sort_by_key(|module| module.path != executable);
    Ok(modules)
}

/// A path to the very file that is mapped, even if it was replaced since or lies in a container; and its version, where
/// that is certain to be the mapped file's.
fn access(pid: i32, path: &Path, map: &MemoryMap) -> (PathBuf, Option<FileVersion>) {
    let exact = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", map.address.0, map.address.1));
    if let Ok(metadata) = std::fs::metadata(&exact) {
        return (exact, Some(version(&metadata)));
    }
    // map_files wants CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN; the root of the process does without.
    let relative = path.strip_prefix("/").unwrap_or(path);
    let by_name = PathBuf::from(format!("/proc/{pid}/root")).join(relative);
    let metadata = std::fs::symlink_metadata(&by_name).ok().filter(|found| found.ino() == map.inode);
    (by_name, metadata.as_ref().map(version))
}

/// What tells the content of a file.
pub(super) fn version(metadata: &Metadata) -> FileVersion {
    FileVersion {
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}
