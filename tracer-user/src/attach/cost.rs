//! Measures what a probe costs on this machine: empty programs on tiny functions of our own process.

use std::path::Path;

use aya::programs::UProbe;
use aya::programs::perf_event::{
    BreakpointConfig, PerfBreakpointLength, PerfBreakpointType, PerfEvent, PerfEventConfig, PerfEventLink,
    PerfEventScope, SamplePolicy,
};
use aya::{Ebpf, EbpfLoader};
use serde::Serialize;

use super::error::{AttachError, chain};
use super::multi::MultiPrograms;
use super::object::{OBJECT, load_error, program, program_error};
use super::own_function::{self, EMULATED, OwnFunction, SINGLE_STEPPED, time};
use super::placement::{Link, PlacedFile, place_one};
use super::site::{Role, Site};

/// Calls measured at once.
const CALLS: u32 = 2_000;

/// Calls measured at once where the user waits.
const FEW_CALLS: u32 = 50;

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
    let mut empty = EmptyPrograms::load(&[Role::Entry, Role::Return])?;
    program::<PerfEvent>(&mut empty.ebpf, "empty_watchpoint")?.load().map_err(|error| program_error(&error))?;

    let mut cost = ProbeCost { none_ns: time(EMULATED.call, CALLS), ..ProbeCost::default() };
    let mut problems = Vec::new();
    let mut keep = |what: &str, measured: Result<f64, String>| match measured {
        Ok(nanoseconds) => Some(nanoseconds),
        Err(problem) => {
            problems.push(format!("{what}: {problem}"));
            None
        }
    };
    cost.emulated_ns = keep("uprobe", empty.with_probes(&[Role::Entry], &EMULATED, CALLS));
    cost.single_stepped_ns = keep("single-stepped uprobe", empty.with_probes(&[Role::Entry], &SINGLE_STEPPED, CALLS));
    cost.uretprobe_ns = keep("uretprobe", empty.with_probes(&[Role::Entry, Role::Return], &EMULATED, CALLS));
    let (slots, watchpoint) = watchpoints(&mut empty.ebpf);
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
    let mut empty = EmptyPrograms::load(&[Role::Entry, Role::Return]).ok()?;
    let mut measure = |roles: &[Role], measured| empty.with_probes(roles, measured, FEW_CALLS).ok();
    let emulated_ns = measure(&[Role::Entry], &EMULATED)?;
    let single_stepped_ns = measure(&[Role::Entry], &SINGLE_STEPPED)?;
    let with_return = measure(&[Role::Entry, Role::Return], &EMULATED)?;
    Some(SiteCosts { emulated_ns, single_stepped_ns, trampoline_ns: (with_return - emulated_ns).max(0.0) })
}

/// Measures [`ProbeCost::emulated_ns`] alone, which takes a tenth of the time. `None` where it is not possible.
pub fn measure_emulated_probe() -> Option<f64> {
    EmptyPrograms::load(&[Role::Entry]).ok()?.with_probes(&[Role::Entry], &EMULATED, CALLS).ok()
}

/// Programs that do nothing.
struct EmptyPrograms {
    multi: Option<MultiPrograms>,
    ebpf: Ebpf,
}

impl EmptyPrograms {
    fn load(roles: &[Role]) -> Result<Self, AttachError> {
        let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(|error| load_error(&error))?;
        let multi = MultiPrograms::load_empty(OBJECT, &ebpf)?;
        if multi.is_none() {
            for role in roles {
                program::<UProbe>(&mut ebpf, name_of(*role))?.load().map_err(|error| program_error(&error))?;
            }
        }
        Ok(Self { multi, ebpf })
    }

    fn with_probes(&mut self, roles: &[Role], measured: &OwnFunction, calls: u32) -> Result<f64, String> {
        let offset = measured.offset().ok_or("our own executable could not be found in memory")?;
        let site = Site { offset, cookie: 0 };
        let mut links = Vec::new();
        for role in roles {
            let file = PlacedFile { path: Path::new(own_function::FILE), process: std::process::id(), role: *role };
            let link = match &self.multi {
                Some(multi) => multi.link(file.role, file.path, file.process, &[site]).map(Link::Multi),
                None => {
                    let single =
                        program::<UProbe>(&mut self.ebpf, name_of(*role)).map_err(|error| error.to_string())?;
                    place_one(single, &file, site).map(Link::Single)
                }
            };
            links.push(link.map_err(|error| error.to_string())?);
        }
        Ok(time(measured.call, calls))
    }
}

fn name_of(role: Role) -> &'static str {
    if role == Role::Return { "empty_return" } else { "empty_entry" }
}

/// Sets watchpoints until there is no slot left; gives back how many there are and what a hit costs.
fn watchpoints(ebpf: &mut Ebpf) -> (usize, Result<f64, String>) {
    let mut links = Vec::new();
    let mut problem = None;
    for watched in &own_function::WATCHED {
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
    let cost = if slots == 0 { Err(problem.unwrap_or_default()) } else { Ok(time(own_function::write_watched, CALLS)) };
    (slots, cost)
}

fn watch(ebpf: &mut Ebpf, address: u64) -> Result<PerfEventLink, String> {
    let watcher = program::<PerfEvent>(ebpf, "empty_watchpoint").map_err(|error| error.to_string())?;
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
