//! How many forked processes user space has not taken notice of.

use aya::Ebpf;
use aya::programs::RawTracePoint;
use aya::programs::raw_trace_point::RawTracePointLink;

use super::error::AttachError;
use super::object::{hash_map, hash_map_to_read, map_error, per_processor, program, program_error};

/// The processes whose forks are counted, by the name of the map.
const FOLLOWED: &str = "FOLLOWED";

/// The map's values.
const NOTICED: u32 = 1;

/// Update a map's element whether it is there or not, or only if it is (include/uapi/linux/bpf.h).
const ANY: u64 = 0;
const IF_THERE: u64 = 2;

/// Loads what counts forks. Dropping the link ends it.
///
/// # Errors
/// Not permitted, or the kernel cannot run it.
pub fn load(ebpf: &mut Ebpf) -> Result<RawTracePointLink, AttachError> {
    let counter = program::<RawTracePoint>(ebpf, "process_fork")?;
    counter.load().map_err(|error| program_error(&error))?;
    let link = counter.attach("task_newtask").map_err(|error| program_error(&error))?;
    counter.take_link(link).map_err(|error| program_error(&error))
}

/// From now on the processes are counted that this one forks, and those that these fork.
///
/// # Errors
/// The map cannot be written.
pub fn count(ebpf: &mut Ebpf, process: u32) -> Result<(), AttachError> {
    hash_map(ebpf, FOLLOWED)?.insert(process, NOTICED, ANY).map_err(|error| map_error(FOLLOWED, &error))
}

/// User space has taken notice of a forked process. One that has ended meanwhile is counted as unseen already.
pub fn notice(ebpf: &mut Ebpf, process: u32) {
    if let Ok(mut followed) = hash_map::<u32, u32>(ebpf, FOLLOWED) {
        let _ = followed.insert(process, NOTICED, IF_THERE);
    }
}

/// Forked processes that nobody has taken notice of.
pub fn unseen(ebpf: &Ebpf) -> Option<u64> {
    let ended: u64 = per_processor(ebpf, "UNSEEN_FORKS").ok()?.get(&0, 0).ok()?.iter().sum();
    let followed = hash_map_to_read::<u32, u32>(ebpf, FOLLOWED).ok()?;
    let going_on = followed.iter().filter(|element| matches!(element, Ok((_, noticed)) if *noticed != NOTICED)).count();
    Some(ended + going_on as u64)
}
