//! Measures what a probe costs on this machine: empty programs on tiny functions of our own process.

use std::arch::global_asm;
use std::time::Instant;

use aya::programs::UProbe;
use aya::programs::perf_event::{
    BreakpointConfig, PerfBreakpointLength, PerfBreakpointType, PerfEvent, PerfEventConfig, PerfEventLink,
    PerfEventScope, SamplePolicy,
};
use aya::programs::uprobe::{UProbeAttachLocation, UProbeScope};
use aya::{Ebpf, EbpfLoader};
use procfs::process::{MMapPath, Process};
use serde::Serialize;

use super::error::AttachError;
use super::programs::{OBJECT, load_error, program, program_error};

// One function that begins with an instruction that the kernel emulates, and one that begins with one that it has to
// single-step. The zero bytes are what a watchpoint is set on.
global_asm!(
    ".text",
    ".p2align 4",
    ".globl ml_tracer_cost_emulated",
    "ml_tracer_cost_emulated:",
    "push rbp",
    "pop rbp",
    "ret",
    ".p2align 4",
    ".globl ml_tracer_cost_single_stepped",
    "ml_tracer_cost_single_stepped:",
    "endbr64",
    "push rbp",
    "pop rbp",
    "ret",
);

unsafe extern "C" {
    fn ml_tracer_cost_emulated();
    fn ml_tracer_cost_single_stepped();
}

/// Calls measured at once; the median of the rounds counts.
const CALLS: u32 = 2_000;
const ROUNDS: usize = 5;

/// Calls measured at once where the user waits.
const FEW_CALLS: u32 = 50;

/// Hardware watchpoints that are tried: more than any x86-64 processor has.
const MOST_WATCHPOINTS: usize = 8;

static WATCHED: [std::sync::atomic::AtomicU64; MOST_WATCHPOINTS] =
    [const { std::sync::atomic::AtomicU64::new(0) }; MOST_WATCHPOINTS];

/// Nanoseconds that one call of a tiny function takes, medians. `None`: not possible here.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ProbeCost {
    /// Without a probe.
    pub none_ns: f64,
    /// Entry probe on an instruction that the kernel emulates.
    pub emulated_ns: Option<f64>,
    /// Entry probe on an instruction that it single-steps.
    pub single_stepped_ns: Option<f64>,
    /// Entry probe on an emulated instruction, and return probe.
    pub uretprobe_ns: Option<f64>,
    /// A write that a hardware watchpoint sees.
    pub watchpoint_ns: Option<f64>,
    /// Watchpoints that one thread can have now.
    pub watchpoint_slots: usize,
    /// What was not possible, a sentence each.
    pub problems: Vec<String>,
}

/// Measures.
///
/// # Errors
/// The programs cannot be loaded at all.
pub fn measure_probe_costs() -> Result<ProbeCost, AttachError> {
    let mut ebpf = load(&["floor_entry", "floor_return"])?;
    program::<PerfEvent>(&mut ebpf, "floor_watchpoint")?.load().map_err(|error| program_error(&error))?;

    let mut cost = ProbeCost { none_ns: time(EMULATED.call, CALLS), ..ProbeCost::default() };
    let mut problems = Vec::new();
    let mut keep = |what: &str, measured: Result<f64, String>| match measured {
        Ok(nanoseconds) => Some(nanoseconds),
        Err(problem) => {
            problems.push(format!("{what}: {problem}"));
            None
        }
    };
    cost.emulated_ns = keep("uprobe", with_probes(&mut ebpf, &["floor_entry"], &EMULATED, CALLS));
    cost.single_stepped_ns =
        keep("single-stepped uprobe", with_probes(&mut ebpf, &["floor_entry"], &SINGLE_STEPPED, CALLS));
    cost.uretprobe_ns = keep("uretprobe", with_probes(&mut ebpf, &["floor_entry", "floor_return"], &EMULATED, CALLS));
    let (slots, watchpoint) = watchpoints(&mut ebpf);
    cost.watchpoint_slots = slots;
    cost.watchpoint_ns = keep("watchpoint", watchpoint);
    cost.problems = problems;
    Ok(cost)
}

/// Nanoseconds that the kernel takes for one hit, by what it does there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SiteCosts {
    /// At an instruction that it emulates.
    pub emulated_ns: f64,
    /// At one that it single-steps.
    pub single_stepped_ns: f64,
    /// For a return through its trampoline.
    pub trampoline_ns: f64,
}

/// Measures what one hit costs, in a hundredth of a second. `None` where it is not possible.
pub fn measure_site_costs() -> Option<SiteCosts> {
    let mut ebpf = load(&["floor_entry", "floor_return"]).ok()?;
    let mut measure = |programs: &[&'static str], measured| with_probes(&mut ebpf, programs, measured, FEW_CALLS).ok();
    let emulated_ns = measure(&["floor_entry"], &EMULATED)?;
    let single_stepped_ns = measure(&["floor_entry"], &SINGLE_STEPPED)?;
    let with_return = measure(&["floor_entry", "floor_return"], &EMULATED)?;
    Some(SiteCosts { emulated_ns, single_stepped_ns, trampoline_ns: (with_return - emulated_ns).max(0.0) })
}

/// Measures [`ProbeCost::emulated_ns`] alone, which takes a tenth of the time. `None` where it is not possible.
pub fn measure_emulated_probe() -> Option<f64> {
    with_probes(&mut load(&["floor_entry"]).ok()?, &["floor_entry"], &EMULATED, CALLS).ok()
}

fn load(probes: &[&'static str]) -> Result<Ebpf, AttachError> {
    let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(|error| load_error(&error))?;
    for name in probes {
        program::<UProbe>(&mut ebpf, name)?.load().map_err(|error| program_error(&error))?;
    }
    Ok(ebpf)
}

/// A tiny function and where it begins.
struct Measured {
    call: fn(),
    address: unsafe extern "C" fn(),
}

const EMULATED: Measured = Measured {
    // SAFETY: pushes, pops and returns.
    call: || unsafe { ml_tracer_cost_emulated() },
    address: ml_tracer_cost_emulated,
};

const SINGLE_STEPPED: Measured = Measured {
    // SAFETY: pushes, pops and returns.
    call: || unsafe { ml_tracer_cost_single_stepped() },
    address: ml_tracer_cost_single_stepped,
};

fn time(call: fn(), calls: u32) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..calls).for_each(|_| call());
            start.elapsed().as_nanos() as f64 / f64::from(calls)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn with_probes(ebpf: &mut Ebpf, programs: &[&'static str], measured: &Measured, calls: u32) -> Result<f64, String> {
    let address = measured.address as usize as u64;
    let offset = offset_in_executable(address).ok_or("our own executable could not be found in memory")?;
    let mut links = Vec::new();
    for name in programs {
        let probe = program::<UProbe>(ebpf, name).map_err(|error| error.to_string())?;
        let location = UProbeAttachLocation::AbsoluteOffset(offset);
        let id =
            probe.attach(location, "/proc/self/exe", UProbeScope::CallingProcess).map_err(|error| chain(&error))?;
        links.push(probe.take_link(id).map_err(|error| chain(&error))?);
    }
    Ok(time(measured.call, calls))
}

fn offset_in_executable(address: u64) -> Option<u64> {
    let maps = Process::myself().ok()?.maps().ok()?;
    let map = maps.into_iter().find(|map| (map.address.0..map.address.1).contains(&address))?;
    matches!(map.pathname, MMapPath::Path(_)).then(|| address - map.address.0 + map.offset)
}

/// Sets watchpoints until there is no slot left; gives back how many there are and what a hit costs.
fn watchpoints(ebpf: &mut Ebpf) -> (usize, Result<f64, String>) {
    let mut links = Vec::new();
    let mut problem = None;
    for watched in &WATCHED {
        match watch(ebpf, std::ptr::from_ref(watched) as u64) {
            Ok(link) => links.push(link),
            Err(error) => {
                problem = Some(error);
                break;
            }
        }
    }
    let slots = links.len();
    links.truncate(1);
    let cost = if slots == 0 { Err(problem.unwrap_or_default()) } else { Ok(time(write_watched, CALLS)) };
    (slots, cost)
}

fn write_watched() {
    WATCHED[0].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

fn watch(ebpf: &mut Ebpf, address: u64) -> Result<PerfEventLink, String> {
    let watcher = program::<PerfEvent>(ebpf, "floor_watchpoint").map_err(|error| error.to_string())?;
    let config = PerfEventConfig::Breakpoint(BreakpointConfig::Data {
        r#type: PerfBreakpointType::Write,
        address,
        length: PerfBreakpointLength::Len8,
    });
    let id = watcher
        .attach(config, PerfEventScope::CallingProcess { cpu: None }, SamplePolicy::Period(1), false)
        .map_err(|error| chain(&error))?;
    watcher.take_link(id).map_err(|error| chain(&error))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
