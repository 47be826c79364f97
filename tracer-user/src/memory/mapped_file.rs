//! A file that a process has mapped, opened from outside.
//!
//! A path that comes from a process may lead anywhere by the time it is opened: the process can put a pipe, a device or a link to
//! somebody else's file under the name of what it has mapped. So nothing but a regular file is opened, without waiting, and
//! it must be the one that is mapped.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstatfs, openat, openat2, statat};

use crate::model::{FileNumber, ModuleFile};

/// `OVERLAYFS_SUPER_MAGIC` (include/uapi/linux/magic.h, Linux 6.18).
const OVERLAY: i64 = 0x794c_7630;

/// Nothing is waited for, and opening changes nothing.
const CAREFUL: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// An open file that a process has mapped.
#[derive(Debug)]
pub struct MappedFile(File);

impl MappedFile {
    /// Opens what is mapped, through a path of /proc or, where no process is asked about (`inode` 0), any path.
    ///
    /// # Errors
    /// It cannot be opened, is no regular file, or is another one than the mapped file.
    pub fn open(path: &Path, mapped: FileNumber) -> io::Result<Self> {
        let file = match within_root(path) {
            // The path is the process's, so it ends within the process's root, and no link is followed: the kernel states
            // paths of mapped files without any.
            Some((root, relative)) => {
                let folder = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
                is_regular(rustix::fs::FileType::from_raw_mode(look(&folder, &relative)?))?;
                let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                match openat2(&folder, &relative, CAREFUL, Mode::empty(), within) {
                    // Where a filter of system calls does not know this one.
                    Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
                        File::from(openat(&folder, &relative, CAREFUL | OFlags::NOFOLLOW, Mode::empty())?)
                    }
                    opened => File::from(opened?),
                }
            }
            None => {
                // Opening a device may do something: it is looked at first.
                is_regular(rustix::fs::FileType::from_raw_mode(std::fs::metadata(path)?.mode()))?;
                OpenOptions::new().read(true).custom_flags(CAREFUL.bits().cast_signed()).open(path)?
            }
        };
        let found = file.metadata()?;
        is_regular(rustix::fs::FileType::from_raw_mode(found.mode()))?;
        // An overlay may number its files otherwise than the file systems below it, which are what is mapped on older kernels.
        if mapped.inode != 0 && found.ino() != mapped.inode && !is_overlay(&file) {
            return Err(io::Error::other("the file under this name is not the one that is mapped"));
        }
        Ok(Self(file))
    }

    /// Opens a file of a module. The path that leads to the very mapping is gone once the process has mapped it elsewhere, or has
    /// executed the same program again; then the name does, where it still leads to the same file.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of(module: &ModuleFile) -> io::Result<Self> {
        match Self::open(&module.access_path, module.number) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && module.number.inode != 0 => {
                let relative = module.path.strip_prefix("/").unwrap_or(&module.path);
                let root = format!("/proc/{}/root", module.process.pid);
                Self::open(&Path::new(&root).join(relative), module.number)
            }
            opened => opened,
        }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }

    /// The file alone.
    #[must_use]
    pub fn into_file(self) -> File {
        self.0
    }

    /// A path that leads to this very file for as long as it is open.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// `/proc/7/root` and the rest of a path below it.
fn within_root(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut parts = path.strip_prefix("/proc").ok()?.components();
    let process = parts.next()?.as_os_str();
    (parts.next()?.as_os_str() == "root")
        .then(|| (Path::new("/proc").join(process).join("root"), parts.as_path().to_path_buf()))
}

fn look(folder: impl AsFd, relative: &Path) -> io::Result<u32> {
    Ok(statat(folder, relative, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
}

fn is_regular(kind: rustix::fs::FileType) -> io::Result<()> {
    if kind == rustix::fs::FileType::RegularFile { Ok(()) } else { Err(io::Error::other("it is no regular file")) }
}

fn is_overlay(file: &File) -> bool {
    fstatfs(file).is_ok_and(|system| system.f_type == OVERLAY)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    fn through_root(path: &Path) -> PathBuf {
        let relative = path.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(std::process::id().to_string()).join("root").join(relative)
    }

    fn number(inode: u64) -> FileNumber {
        FileNumber { device: (0, 0), inode }
    }

    #[test]
    fn only_the_very_file_is_opened() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path().canonicalize().expect("it is there");
        let (program, other, link) = (folder.join("program"), folder.join("other"), folder.join("link"));
        std::fs::write(&program, "its code").expect("written");
        std::fs::write(&other, "other code").expect("written");
        symlink(&other, &link).expect("linked");
        let inode = program.metadata().expect("it is there").ino();
        for path in [program.clone(), through_root(&program)] {
            MappedFile::open(&path, number(0)).expect("a file");
            let opened = MappedFile::open(&path, number(inode)).expect("the mapped file");
            assert_eq!(std::fs::read(opened.path()).expect("readable"), b"its code");
        }
        for path in [&other, &link, &folder] {
            MappedFile::open(&through_root(path), number(inode)).expect_err("another file");
        }
        MappedFile::open(&other, number(inode)).expect_err("another file");
        MappedFile::open(&through_root(&link), number(0)).expect_err("a link of the process");
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pipe = folder.path().canonicalize().expect("it is there").join("program");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is everywhere").success());
        for path in
            [pipe.clone(), through_root(&pipe), PathBuf::from("/dev/zero"), through_root(Path::new("/dev/zero"))]
        {
            MappedFile::open(&path, number(0)).expect_err("no regular file");
        }
    }
}
