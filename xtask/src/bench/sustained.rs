//! A steady load on two processors, target and tracer together.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::target::{Place, Target};
use super::tracer::Tracer;

/// Calls a second that nothing may be lost of.
pub const RATE: u32 = 200_000;
/// Calls a second that are tried: more than one thread can make where a traced call takes two microseconds.
pub const TRIED_RATE: u32 = 500_000;

/// What came of it.
pub struct Sustained {
    /// Calls a second that were asked for.
    pub asked: u32,
    /// Calls a second that were made.
    pub rate: f64,
    /// For so many seconds.
    pub seconds: u32,
    /// Spans in the file.
    pub spans: u64,
    /// Calls lost in the kernel, or between kernel and file.
    pub lost: u64,
    /// Time of the tracer on processors, as a share of one.
    pub tracer_load: f64,
    /// Largest memory of the tracer, MiB.
    pub tracer_memory: f64,
}

/// Measures.
///
/// # Errors
/// When the target or the tracer ends before.
pub fn measure(place: &Place, asked: u32, seconds: u32) -> Result<Sustained> {
    eprintln!("==> {asked} calls a second for {seconds} s");
    let mut target = Target::start(place, &place.copy_of_target("load")?)?;
    let processors = [place.tracer_processor, place.target_processor];
    let map = format!("--map={}", place.map.display());
    let tracer = Tracer::attach(place, &processors, target.pid(), "load", &[map])?;
    let pid = tracer.process.0.id();
    let before = processor_seconds(pid)?;
    let rate = target.pace(asked, seconds)?;
    let tracer_load = (processor_seconds(pid)? - before) / f64::from(seconds);
    let tracer_memory = memory(pid, "VmHWM")?;
    let summary = tracer.finish()?;
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64);
    let spans = number(&summary, "spans").context("no `spans` in the summary")?;
    let exports = summary.get("exports").and_then(Value::as_array).context("no `exports` in the summary")?;
    let lost_in_export: u64 = exports.iter().filter_map(|export| number(export, "lost")).sum();
    let lost = number(&summary, "lost").context("no `lost` in the summary")? + lost_in_export;
    Ok(Sustained { asked, rate, seconds, spans, lost, tracer_load, tracer_memory })
}

/// Time that the threads of a process have spent on processors, seconds. Not from /proc/PID/stat: threads that sleep at each
/// clock tick are not seen there. Source: Documentation/scheduler/sched-stats.rst of Linux 6.18 (first field, ns).
pub fn processor_seconds(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("the tracer has ended")? {
        let text = fs::read_to_string(thread?.path().join("schedstat")).context("a thread has ended")?;
        nanoseconds += text.split(' ').next().and_then(|field| field.parse::<f64>().ok()).context("no time")?;
    }
    Ok(nanoseconds / 1e9)
}

/// A line of /proc/PID/status, in MiB.
///
/// # Errors
/// When the process has ended.
pub fn memory(pid: u32, name: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("the tracer has ended")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|value| value.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kilobytes.with_context(|| format!("no {name} in /proc/PID/status"))? / 1024.0)
}
