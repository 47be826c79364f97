//! What it costs the processes that their calls are seen: counted for a moment, before anything is recorded.

use std::time::{Duration, Instant};

use super::context::Context;
use super::traced_instance::TracedInstance;
use crate::model::{ProcessId, PythonMode};
use crate::plan::PythonCost;

/// How long is counted.
const MOMENT: Duration = Duration::from_millis(100);

/// Hits of watchpoints that a call makes: its frame takes a reference to the code, and gives it back.
const HITS_OF_CALL: u64 = 2;

/// Nanoseconds that an empty program takes.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// At a probe, if that was measured.
    pub probe_ns: Option<f64>,
    /// At a hit of a watchpoint; `None`: nobody asks what watchpoints cost.
    pub hit_ns: Option<f64>,
}

/// Counts what is passed and hit for a moment. Where nothing is to be told, it waits for nothing. A process that ends meanwhile
/// counts for nothing.
pub fn of_a_moment(instances: &[TracedInstance], context: &mut Context<'_>, measured: Measured) -> Vec<PythonCost> {
    let seen_by = |mode| instances.iter().filter(move |instance| instance.mode() == Some(mode));
    let probed: Vec<ProcessId> = seen_by(PythonMode::Chain).map(TracedInstance::process).collect();
    let is_told = |_: &&TracedInstance| measured.hit_ns.is_some();
    let watched: Vec<&TracedInstance> = seen_by(PythonMode::Watch).filter(is_told).collect();
    if probed.is_empty() && watched.is_empty() {
        return Vec::new();
    }
    let began = Instant::now();
    let raising: Vec<ProcessId> = watched.iter().map(|instance| instance.process()).collect();
    let count = |context: &mut Context<'_>| {
        let passed_by_all = if probed.is_empty() { passed(&raising, context) } else { 0 };
        (passed(&probed, context), hits(&watched, context), passed_by_all)
    };
    let before = count(context);
    std::thread::sleep(MOMENT);
    let after = count(context);
    let seconds = began.elapsed().as_secs_f64();
    let a_second = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
    let of_mode = |mode, processes: Vec<ProcessId>, passed, empty_ns, exceptions| {
        let exception_ns = measured.probe_ns;
        PythonCost { mode, processes, passed, empty_ns, exceptions, exception_ns }
    };
    let costs = [
        of_mode(PythonMode::Chain, probed, a_second(before.0, after.0), measured.probe_ns, 0.0),
        // Where both are there, they are counted together, and told as those of chain mode.
        of_mode(PythonMode::Watch, raising, a_second(before.1, after.1), measured.hit_ns, a_second(before.2, after.2)),
    ];
    costs.into_iter().filter(|cost| !cost.processes.is_empty()).collect()
}

/// Probes that the processes have passed so far. They count together, and whichever is left tells it.
fn passed(processes: &[ProcessId], context: &mut Context<'_>) -> u64 {
    let told = |process: &ProcessId| context.in_kernel(*process).ok()?.python_calls_passed().ok();
    processes.iter().find_map(told).unwrap_or(0)
}

/// Hits of the watchpoints of these instances so far.
fn hits(instances: &[&TracedInstance], context: &mut Context<'_>) -> u64 {
    let calls = |instance: &&TracedInstance| {
        let kernel = context.in_kernel(instance.process()).ok()?;
        instance.watched_calls(kernel).ok()
    };
    instances.iter().filter_map(calls).sum::<u64>() * HITS_OF_CALL
}
