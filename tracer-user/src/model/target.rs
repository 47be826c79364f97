//! A process to trace: who it is and what it has mapped.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::units::{FileOffset, ProcessId, RemoteAddress};

/// A process as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The process.
    pub process: ProcessId,
    /// Command line, for display and the `process.*` attributes.
    pub command_line: Vec<String>,
    /// Executable as the process names it, e.g. `/usr/bin/python3.11`.
    pub executable: PathBuf,
    /// Files mapped with execute permission, each once, the executable first.
    pub modules: Vec<Module>,
    /// Container id from the control group, if there is one.
    pub container_id: Option<String>,
    /// Which program of the process this was.
    #[serde(default)]
    pub image: ProgramImage,
    /// What it calls itself.
    #[serde(default)]
    pub service: Service,
}

/// What a process calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `OTEL_SERVICE_NAME` in its environment.
    pub name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES` in its environment, as it stands there.
    pub resource_attributes: Option<String>,
    /// The application that its command line, or that of the process which has started it, names: `app:main`.
    pub application: Option<String>,
}

impl Service {
    /// A variable of its environment, as far as it was kept.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        match name {
            "OTEL_SERVICE_NAME" => self.name.clone(),
            "OTEL_RESOURCE_ATTRIBUTES" => self.resource_attributes.clone(),
            _ => None,
        }
    }
}

/// What tells one program of a process from the next: a fork keeps it, `execve` changes it. Both are chosen at random by
/// the kernel; where that is switched off, a program that executes itself with the same arguments looks the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProgramImage {
    /// Where its code begins (field 26 of /proc/PID/stat, proc(5)).
    pub code: u64,
    /// Where its stack begins (field 28).
    pub stack: u64,
}

/// A file that a process has mapped to run code from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Path as the process sees it.
    pub path: PathBuf,
    /// Path through which the tracer opens the very same file (/proc/PID/map_files or /proc/PID/root).
    pub access_path: PathBuf,
    /// Device number of the file, as /proc/PID/maps states it (major, minor).
    pub device: (i32, i32),
    /// Inode of the file.
    pub inode: u64,
    /// What tells its content from what was in it before; `None` where that could not be seen.
    #[serde(default)]
    pub version: Option<FileVersion>,
    /// The executable ranges.
    pub mappings: Vec<Mapping>,
}

/// What changes when a file is written to. A new file may get the number of one that was deleted, and a file may be
/// overwritten in place: device and inode alone do not tell one content from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileVersion {
    /// Bytes.
    pub size: u64,
    /// When it was written to last (seconds, nanoseconds).
    pub modified: (i64, i64),
    /// When anything about it was changed last; unlike `modified` nobody can set it.
    pub changed: (i64, i64),
}

/// A file by its numbers, as /proc/PID/maps states them: device (major, minor) and inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileNumber {
    /// Device (major, minor).
    pub device: (i32, i32),
    /// Inode.
    pub inode: u64,
}

/// One executable range of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mapping {
    /// First address.
    pub start: RemoteAddress,
    /// Address after the last.
    pub end: RemoteAddress,
    /// Offset in the file of the first byte.
    pub offset: FileOffset,
}

/// What changed about the watched processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetChange {
    /// A watched process has forked another one.
    Forked {
        /// The process that did.
        parent: ProcessId,
        /// The new one, as it is now: it may have executed another program since.
        target: Target,
    },
    /// A process runs another program: nothing that was known of its memory holds any more.
    Executed {
        /// The process, looked at again.
        target: Target,
        /// Files that it had not mapped before.
        modules: Vec<Module>,
    },
    /// A process has mapped files that it had not mapped before.
    Mapped {
        /// The process, looked at again.
        target: Target,
        /// The new modules.
        modules: Vec<Module>,
    },
    /// A process has files mapped no more, or they were replaced by others with the same numbers.
    Unmapped {
        /// The process, looked at again.
        target: Target,
        /// The files, as they were mapped.
        modules: Vec<Module>,
    },
    /// A process is gone.
    Gone(ProcessId),
}

impl Module {
    /// Device and inode.
    #[must_use]
    pub fn number(&self) -> FileNumber {
        FileNumber { device: self.device, inode: self.inode }
    }

    /// File name without directories, for matching the maps' `module` glob.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}
