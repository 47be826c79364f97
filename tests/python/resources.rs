//! What a process holds, and whether it grows.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Resources {
    /// Its memory that is resident.
    pub resident_kilobytes: u64,
    files: usize,
}

/// Times that a process is looked at which opens files for a moment again and again.
const SAMPLES: usize = 40;

impl Resources {
    /// What it holds now.
    pub fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        Ok(Self {
            resident_kilobytes: resident.context("no VmRSS")?.parse()?,
            files: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
        })
    }

    /// What it holds all the time, of a process that opens files for a moment: the tracer does at each look.
    pub fn lasting(pid: u32) -> Result<Self> {
        let mut least = Self::of(pid)?;
        for _ in 1..SAMPLES {
            std::thread::sleep(Duration::from_millis(5));
            let now = Self::of(pid)?;
            least.files = least.files.min(now.files);
            least.resident_kilobytes = least.resident_kilobytes.min(now.resident_kilobytes);
        }
        Ok(least)
    }

    /// An eighth and two megabytes more are allocators at work, and no leak.
    pub fn is_much_like(self, later: Self) -> Result<()> {
        let allowed = self.resident_kilobytes + self.resident_kilobytes / 8 + 2048;
        ensure!(later.resident_kilobytes <= allowed, "memory has grown: {self:?}, then {later:?}");
        ensure!(later.files <= self.files, "open files have grown: {self:?}, then {later:?}");
        Ok(())
    }
}
