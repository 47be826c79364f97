//! How many forked processes user space has not taken notice of.

use aya::maps::{HashMap, PerCpuArray};
use aya::programs::RawTracePoint;

use super::error::AttachError;
use super::programs::{Programs, map_error, program, program_error};
use crate::model::ProcessId;

/// The map's values.
const NOTICED: u32 = 1;

/// Update a map's element whether it is there or not, or only if it is (include/uapi/linux/bpf.h).
const ANY: u64 = 0;
const IF_THERE: u64 = 2;

impl Programs {
    /// From now on the processes are counted that this one forks, and those that these fork.
    ///
    /// # Errors
    /// The program cannot be loaded, or the map cannot be written.
    pub fn count_forks_of(&mut self, kernel_pid: u32) -> Result<(), AttachError> {
        if !self.can_count_forks {
            return Ok(());
        }
        self.followed()?.insert(kernel_pid, NOTICED, ANY).map_err(|error| map_error("FOLLOWED", &error))
    }

    /// User space has taken notice of a forked process. One that has ended meanwhile is counted as unseen already.
    pub fn notice_fork(&mut self, process: ProcessId) {
        if self.can_count_forks
            && let Ok(mut followed) = self.followed()
        {
            let _ = followed.insert(process.pid, NOTICED, IF_THERE);
        }
    }

    /// Forked processes that nobody has taken notice of; `None` where that cannot be known.
    #[must_use]
    pub fn unseen_forks(&self) -> Option<u64> {
        if !self.can_count_forks {
            return None;
        }
        let unseen: PerCpuArray<_, u64> = self.ebpf.map("UNSEEN_FORKS")?.try_into().ok()?;
        let ended: u64 = unseen.get(&0, 0).ok()?.iter().sum();
        let followed: HashMap<_, u32, u32> = self.ebpf.map("FOLLOWED")?.try_into().ok()?;
        let going_on =
            followed.iter().filter(|element| matches!(element, Ok((_, noticed)) if *noticed != NOTICED)).count();
        Some(ended + going_on as u64)
    }

    /// Loads what counts forks.
    pub(super) fn load_forks(&mut self) -> Result<(), AttachError> {
        let counter = program::<RawTracePoint>(&mut self.ebpf, "process_fork")?;
        counter.load().map_err(|error| program_error(&error))?;
        let link = counter.attach("task_newtask").map_err(|error| program_error(&error))?;
        self.thread_ends.push(counter.take_link(link).map_err(|error| program_error(&error))?);
        self.can_count_forks = true;
        Ok(())
    }

    fn followed(&mut self) -> Result<HashMap<&mut aya::maps::MapData, u32, u32>, AttachError> {
        let map = self.ebpf.map_mut("FOLLOWED").ok_or(AttachError::Incomplete { name: "FOLLOWED" })?;
        map.try_into().map_err(|error| map_error("FOLLOWED", &error))
    }
}
