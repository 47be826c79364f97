//! What the native probes take from the targets: calls counted, times what a call of each kind of probe costs here.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use crate::attach::{AttachError, Kernel, SiteCosts, measure_site_costs};
use crate::model::{FileNumber, FunctionId, PlannedFunction, ProbeRequest, ProcessId, ReturnMethod, VirtualAddress};

/// How often calls are counted.
const EVERY: Duration = Duration::from_secs(2);

/// Calls a second below which nothing is measured: they cannot cost what is worth a word.
const FEW: f64 = 2_000.0;

/// Share of one processor from which the cost is told.
const DEAR: f64 = 0.25;

/// Functions that are named, the dearest first.
const NAMED: usize = 3;

/// What is known of the cost of the native probes.
pub struct ProbeLoad {
    functions: Vec<Probed>,
    /// Share of one processor that those of a process may take.
    most: Option<f64>,
    /// Functions that must do without probes from now on, because theirs took more.
    left_out: HashSet<Place>,
    looked: Instant,
    /// Measured when there is a reason to; what this machine cannot do cannot be measured.
    costs: Option<Option<SiteCosts>>,
    told: bool,
}

/// A function in a file of a process.
type Place = (ProcessId, FileNumber, VirtualAddress);

/// What a look at the calls has found.
#[derive(Debug, Default)]
pub struct LookAtLoad {
    /// What is to be said.
    pub sentences: Vec<String>,
    /// Files with functions that must do without probes from now on.
    pub files: Vec<(ProcessId, FileNumber)>,
}

/// A function with probes.
struct Probed {
    id: FunctionId,
    process: ProcessId,
    place: Place,
    name: String,
    sites: Sites,
    /// Calls at the last look; numbers of functions are used again, so that the first look tells nothing.
    calls: Option<u64>,
}

/// What the kernel does at the probes that one call passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sites {
    entry_is_emulated: bool,
    exit: Exit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Trampoline,
    /// A jump.
    Emulated,
    SingleStepped,
}

/// A function and what its probes take.
#[derive(Clone, Debug, PartialEq)]
struct Load {
    process: ProcessId,
    place: Place,
    name: String,
    /// Calls a second.
    rate: f64,
    /// Nanoseconds that the probes of one call take.
    cost_ns: f64,
    is_single_stepped: bool,
}

impl ProbeLoad {
    /// Nothing is probed yet.
    pub fn new() -> Self {
        Self {
            functions: Vec::new(),
            most: None,
            left_out: HashSet::new(),
            looked: Instant::now(),
            costs: None,
            told: false,
        }
    }

    /// The same, where the probes of a process may take this share of one processor.
    #[must_use]
    pub fn within(self, most: Option<f64>) -> Self {
        Self { most, ..self }
    }

    /// Whether a function must do without probes, because they took too much.
    pub fn is_left_out(&self, request: &ProbeRequest) -> bool {
        self.left_out.contains(&place(request))
    }

    /// The probes of a file are gone; gives how many functions had some.
    pub fn forget_file(&mut self, process: ProcessId, file: FileNumber) -> usize {
        let before = self.functions.len();
        self.functions.retain(|function| (function.place.0, function.place.1) != (process, file));
        before - self.functions.len()
    }

    /// These functions have probes from now on.
    pub fn add<'plan>(&mut self, placed: impl Iterator<Item = &'plan PlannedFunction>) {
        let placed: Vec<&PlannedFunction> = placed.collect();
        // Numbers of functions are used again once their probes are gone.
        self.functions.retain(|known| placed.iter().all(|function| function.id != known.id));
        self.functions.extend(placed.into_iter().map(|function| Probed {
            id: function.id,
            process: function.request.module.process,
            place: place(&function.request),
            name: function.request.span_name.clone(),
            sites: sites(function),
            calls: None,
        }));
    }

    /// The probes of a process are gone.
    pub fn forget(&mut self, process: ProcessId) {
        self.functions.retain(|function| function.process != process);
        self.left_out.retain(|(known, ..)| *known != process);
    }

    /// Counts the calls if it is time; a sentence the first time that the probes take much, and each time that they take more
    /// than they may.
    ///
    /// # Errors
    /// The counts cannot be read.
    pub fn look(&mut self, kernel: &dyn Kernel) -> Result<LookAtLoad, AttachError> {
        let seconds = self.looked.elapsed().as_secs_f64();
        if (self.told && self.most.is_none()) || self.looked.elapsed() < EVERY {
            return Ok(LookAtLoad::default());
        }
        self.looked = Instant::now();
        let ids: Vec<FunctionId> = self.functions.iter().map(|function| function.id).collect();
        let counts = kernel.calls_of(&ids)?;
        let mut loads = Vec::new();
        for (function, calls) in self.functions.iter_mut().zip(counts) {
            let before = function.calls.replace(calls).unwrap_or(calls);
            let rate = calls.saturating_sub(before) as f64 / seconds;
            if rate > 0.0 {
                loads.push((&*function, rate));
            }
        }
        if loads.iter().map(|(_, rate)| rate).sum::<f64>() < FEW {
            return Ok(LookAtLoad::default());
        }
        let Some(costs) = *self.costs.get_or_insert_with(measure_site_costs) else { return Ok(LookAtLoad::default()) };
        let loads = loads.iter().map(|(function, rate)| Load {
            process: function.process,
            place: function.place,
            name: function.name.clone(),
            rate: *rate,
            cost_ns: function.sites.cost_ns(&costs),
            is_single_stepped: function.sites.is_single_stepped(),
        });
        let loads: Vec<Load> = loads.collect();
        if let Some(most) = self.most {
            return Ok(self.leave_out(&loads, most));
        }
        let sentence = sentence(loads);
        self.told = sentence.is_some();
        Ok(LookAtLoad { sentences: sentence.into_iter().collect(), files: Vec::new() })
    }

    /// Leaves out the dearest functions of each process whose probes take more than this share.
    fn leave_out(&mut self, loads: &[Load], most: f64) -> LookAtLoad {
        let mut look = LookAtLoad::default();
        for process in loads.iter().map(|load| load.process).collect::<BTreeSet<_>>() {
            let of_process: Vec<&Load> = loads.iter().filter(|load| load.process == process).collect();
            let share: f64 = of_process.iter().map(|load| load.share()).sum();
            let dear = too_dear(of_process, most);
            let Some(first) = dear.first() else { continue };
            let others = match dear.len() - 1 {
                0 => "it is".to_owned(),
                1 => "it and one other are".to_owned(),
                more => format!("it and {more} others are"),
            };
            look.sentences.push(format!(
                "the probes of process {process} took about {:.0} % of one processor, --max-overhead allows {:.0} %: {}; \
                 {others} not traced any more",
                share * 100.0,
                most * 100.0,
                first.words(),
            ));
            self.left_out.extend(dear.iter().map(|load| load.place));
            look.files.extend(dear.iter().map(|load| (load.place.0, load.place.1)));
        }
        look.files.sort_unstable();
        look.files.dedup();
        look
    }
}

impl Sites {
    /// Nanoseconds that the probes of one call take.
    fn cost_ns(self, costs: &SiteCosts) -> f64 {
        let entry = if self.entry_is_emulated { costs.emulated_ns } else { costs.single_stepped_ns };
        entry
            + match self.exit {
                Exit::Trampoline => costs.trampoline_ns,
                Exit::Emulated => costs.emulated_ns,
                Exit::SingleStepped => costs.single_stepped_ns,
            }
    }

    fn is_single_stepped(self) -> bool {
        !self.entry_is_emulated || self.exit == Exit::SingleStepped
    }
}

fn sites(function: &PlannedFunction) -> Sites {
    let resolved = &function.request.function;
    let exit = match &resolved.returns {
        ReturnMethod::Uretprobe { .. } => Exit::Trampoline,
        ReturnMethod::ReturnSites { sites } if sites.iter().all(|site| site.tail_jump) => Exit::Emulated,
        ReturnMethod::ReturnSites { .. } => Exit::SingleStepped,
    };
    Sites { entry_is_emulated: resolved.entry.emulated, exit }
}

/// The dearest of these functions, without which the others take no more than this share.
fn too_dear(mut loads: Vec<&Load>, most: f64) -> Vec<&Load> {
    loads.sort_by(|left, right| right.share().total_cmp(&left.share()));
    let mut left: f64 = loads.iter().map(|load| load.share()).sum();
    let is_too_much = |load: &&Load| {
        let is_it = left > most;
        left -= load.share();
        is_it
    };
    loads.into_iter().take_while(is_too_much).collect()
}

fn place(request: &ProbeRequest) -> Place {
    (request.module.process, request.module.number, request.function.address)
}

/// What to say of the process in which the probes take most, if that is much.
fn sentence(mut loads: Vec<Load>) -> Option<String> {
    loads.sort_by(|left, right| right.share().total_cmp(&left.share()));
    let share_of = |process| loads.iter().filter(|load| load.process == process).map(Load::share).sum::<f64>();
    let process = loads.first()?.process;
    let share = share_of(process);
    if share < DEAR {
        return None;
    }
    let of_process = || loads.iter().filter(|load| load.process == process);
    let named: Vec<String> = of_process().take(NAMED).map(Load::words).collect();
    let stepped = of_process().take(NAMED).any(|load| load.is_single_stepped);
    let why = if stepped { "; the kernel has to single-step the probed instructions" } else { "" };
    Some(format!(
        "the probes take about {:.0} % of one processor of process {process}: {}{why}; `exclude` in a symbol map leaves \
         out what is called so often",
        share * 100.0,
        named.join(", "),
    ))
}

impl Load {
    /// Share of one processor.
    fn share(&self) -> f64 {
        self.rate * self.cost_ns / 1e9
    }

    fn words(&self) -> String {
        format!("{} {:.0} times a second, {:.1} us each", self.name, self.rate, self.cost_ns / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: SiteCosts = SiteCosts { emulated_ns: 500.0, single_stepped_ns: 12_000.0, trampoline_ns: 350.0 };

    fn load(name: &str, rate: f64, exit: Exit) -> Load {
        let sites = Sites { entry_is_emulated: true, exit };
        let process = ProcessId { pid: 7, start_time: 0 };
        Load {
            process,
            place: (process, FileNumber::default(), VirtualAddress(rate as u64)),
            name: name.to_owned(),
            rate,
            cost_ns: sites.cost_ns(&COSTS),
            is_single_stepped: sites.is_single_stepped(),
        }
    }

    #[test]
    fn the_dearest_are_named() {
        let loads = vec![
            load("Cheap.fit", 1_000.0, Exit::Trampoline),
            load("Tree.predict", 40_000.0, Exit::SingleStepped),
            load("Model.predict", 100_000.0, Exit::Emulated),
        ];
        let said = sentence(loads).expect("a sentence");
        assert!(said.contains("about 60 % of one processor of process 7: Tree.predict 40000 times"), "{said}");
        assert!(said.contains("12.5 us each, Model.predict") && said.contains("single-step"), "{said}");
    }

    #[test]
    fn what_is_too_dear_goes_until_the_rest_is_cheap_enough() {
        let loads = [
            load("Cheap.fit", 1_000.0, Exit::Trampoline),
            load("Tree.predict", 40_000.0, Exit::SingleStepped),
            load("Model.predict", 100_000.0, Exit::Emulated),
        ];
        let too_dear = |most| {
            let found = too_dear(loads.iter().collect(), most);
            found.iter().map(|load| load.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(too_dear(0.7), [""; 0]);
        assert_eq!(too_dear(0.2), ["Tree.predict"]);
        assert_eq!(too_dear(0.05), ["Tree.predict", "Model.predict"]);
        let mut known = ProbeLoad::new().within(Some(0.2));
        let look = known.leave_out(&loads, 0.2);
        assert_eq!((look.files.len(), known.left_out.len()), (1, 1));
        assert!(look.sentences[0].contains("--max-overhead allows 20 %: Tree.predict 40000 times"), "{look:?}");
    }

    #[test]
    fn what_costs_little_is_no_word_worth() {
        assert_eq!(sentence(vec![load("Model.predict", 100_000.0, Exit::Trampoline)]), None);
        assert_eq!(sentence(Vec::new()), None);
    }
}
