//! Which processes the kernel tells of: what they execute, fork, and that they end; and how many of those that they have forked
//! user space has not taken notice of.
//!
//! The programs run at every fork, execution and end of a thread of the machine, and look up one number in one table, which is
//! all that it costs a process that is not traced. Those that see forks are loaded only where forked processes are followed.

use aya::Ebpf;
use aya::programs::RawTracePoint;
use aya::programs::raw_trace_point::RawTracePointLink;

use super::error::{AttachError, kernel_error};
use super::object::{hash_map, hash_map_to_read, map_error, per_processor, program, program_error};

/// The processes that are told of, by the name of the map.
const FOLLOWED: &str = "FOLLOWED";

/// The map's values.
const NOTICED: u32 = 1;

/// Update a map's element whether it is there or not, or if it is there (`BPF_ANY`, `BPF_EXIST`, include/uapi/linux/bpf.h).
const ANY: u64 = 0;
const EXIST: u64 = 2;

/// Loads what tells of forks. Dropping the link ends it.
///
/// # Errors
/// Not permitted, or the kernel cannot run it.
pub fn load(ebpf: &mut Ebpf) -> Result<RawTracePointLink, AttachError> {
    let counter = program::<RawTracePoint>(ebpf, "process_fork")?;
    counter.load().map_err(|error| program_error(&error))?;
    let link = counter.attach("task_newtask").map_err(|error| program_error(&error))?;
    counter.take_link(link).map_err(|error| program_error(&error))
}

/// From now on records tell when this process executes another program or ends and, where they are loaded to, which processes it
/// forks: those are told of likewise, and counted until this is said of them too.
///
/// # Errors
/// The map cannot be written.
pub fn tell_of(ebpf: &mut Ebpf, process: u32) -> Result<(), AttachError> {
    hash_map(ebpf, FOLLOWED)?.insert(process, NOTICED, ANY).map_err(|error| map_error(FOLLOWED, &error))
}

/// Notice is taken of a process that was forked: it is told of from now on, and not counted. `false`: it has been counted, because it has
/// ended, or found no room.
///
/// # Errors
/// The map cannot be written.
pub fn take_notice_of(ebpf: &mut Ebpf, process: u32) -> Result<bool, AttachError> {
    match hash_map(ebpf, FOLLOWED)?.insert(process, NOTICED, EXIST).map_err(|error| kernel_error(&error)) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(map_error(FOLLOWED, &error)),
    }
}

/// Nothing is told of a process any more.
pub fn tell_no_more_of(ebpf: &mut Ebpf, process: u32) {
    if let Ok(mut followed) = hash_map::<u32, u32>(ebpf, FOLLOWED) {
        // One that has ended is not there any more.
        let _ = followed.remove(&process);
    }
}

/// Forked processes that nobody has taken notice of.
pub fn unseen(ebpf: &Ebpf) -> Option<u64> {
    let ended: u64 = per_processor(ebpf, "UNSEEN_FORKS").ok()?.get(&0, 0).ok()?.iter().sum();
    let followed = hash_map_to_read::<u32, u32>(ebpf, FOLLOWED).ok()?;
    let going_on = followed.iter().filter(|element| matches!(element, Ok((_, noticed)) if *noticed != NOTICED)).count();
    Some(ended + going_on as u64)
}
