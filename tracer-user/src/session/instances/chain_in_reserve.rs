//! Chain mode for a process that is watched: taken when more is called than can be watched, and given up again where it sees none of
//! that.

use std::time::{Duration, Instant};

use super::super::settings::PythonSettings;
use super::call_probes::CallProbes;
use crate::attach::measure_emulated_probe;
use crate::engine::RuntimeInstance;
use crate::model::{ProcessId, PythonMode, Target};
use crate::plan::{Counts, PythonCost, few_witnesses_sentence, suits_chain};

/// For so long it is tried: C code may never call Python code in what is called, and then there is nothing to be seen.
const TRIAL: Duration = Duration::from_secs(2);

/// The same where nothing was called before: a program that has just begun may load its data first.
const FIRST_TRIAL: Duration = Duration::from_secs(20);

/// So often it is tried: the calls may have stopped just then.
const MOST_TRIALS: u32 = 2;

/// Why a method is not seen, for people.
pub const UNSEEN: &str = "called before chain mode began and not seen since: C code may call no Python code in it (`--python watch` sees it)";

/// The probes that it takes, as long as they are not used, and what has become of it.
pub struct ChainInReserve {
    probes: Option<CallProbes>,
    trials: u32,
    trial: Option<Trial>,
}

/// It is being tried.
struct Trial {
    began: Instant,
    lasts: Duration,
    /// Probes passed when it began.
    passed: u64,
    /// What was called before.
    called: Counts,
}

/// What a trial has come to.
#[derive(Debug, PartialEq, Eq)]
pub struct TrialEnd {
    /// What was called before and not since.
    pub called_before: Counts,
    /// Whether nothing of that was called since, or nothing at all where nothing was before.
    pub is_blind: bool,
}

impl ChainInReserve {
    /// The probes of chain mode, if the process may go over to it and has places for them.
    pub fn find(instance: &dyn RuntimeInstance, target: &Target, settings: PythonSettings) -> Option<Self> {
        if !settings.may_go_over || !suits_chain(instance.runtime().version) {
            return None;
        }
        let found = CallProbes::find(instance, target, PythonSettings { mode: PythonMode::Chain, ..settings });
        let found = found.inspect_err(|problem| tracing::debug!(%problem, "it stays watched"));
        found.ok().flatten().map(Self::new)
    }

    fn new(probes: CallProbes) -> Self {
        Self { probes: Some(probes), trials: 0, trial: None }
    }

    /// The same in a process that was forked, if they are at hand here.
    pub fn in_fork(&self, instance: &dyn RuntimeInstance, target: &Target) -> Option<Self> {
        self.probes.as_ref()?.in_fork(instance, target).map(Self::new)
    }

    /// Whether it can be taken.
    pub fn is_at_hand(&self) -> bool {
        self.probes.is_some() && self.trials < MOST_TRIALS
    }

    /// Whether it was never taken.
    pub fn is_new(&self) -> bool {
        self.trials == 0
    }

    /// It is taken; so many calls were counted of each code before.
    pub fn take(&mut self) -> Option<CallProbes> {
        self.trials += 1;
        self.probes.take()
    }

    /// It is tried from now on.
    pub fn begin_trial(&mut self, now: Instant, called: Counts, passed: u64) {
        let lasts = if called.is_empty() { FIRST_TRIAL } else { TRIAL };
        self.trial = Some(Trial { began: now, lasts, passed, called });
    }

    /// When the trial is over.
    pub fn due(&self) -> Option<Instant> {
        self.trial.as_ref().map(|trial| trial.began + trial.lasts)
    }

    /// Ends the trial, if it is time: gives what it has come to, and how many probes were passed in a second. `passed` are those until now,
    /// and `counts` the calls since it began: of that code, or of all where nothing was called before.
    pub fn end_trial(&mut self, passed: u64, counts: impl FnOnce(&Counts) -> Counts) -> Option<(TrialEnd, f64)> {
        let Trial { began, passed: before, called, .. } = self.trial.take()?;
        let since = counts(&called);
        let is_called = |code| since.get(code).is_some_and(|calls| calls.seen > 0);
        let is_blind = !since.keys().any(is_called);
        let called_before =
            called.iter().filter(|(code, _)| !is_called(code)).map(|(code, calls)| (*code, *calls)).collect();
        let a_second = passed.saturating_sub(before) as f64 / began.elapsed().as_secs_f64();
        Some((TrialEnd { called_before, is_blind }, a_second))
    }

    /// It is given up: the probes are at hand again.
    pub fn give_back(&mut self, probes: CallProbes) {
        self.probes = Some(probes);
    }
}

/// What to say when a process goes over; `has_just_begun`: before anything was called in it.
pub fn going_over(process: ProcessId, has_just_begun: bool) -> String {
    if has_just_begun {
        return format!(
            "process {process} has just begun: its Python methods are seen from their first calls on, in chain mode, beginnings and ends \
             within bounds (`--python watch` sees some of them exactly)"
        );
    }
    format!(
        "process {process} calls as many Python methods as can be watched, or more; all of them are seen in chain mode from now on, beginnings and ends within bounds \
         (`--python watch` keeps to what can be watched, exactly)"
    )
}

/// What to say when it goes back; `was_called`: something was called before chain mode.
pub fn going_back(process: ProcessId, was_called: bool) -> String {
    if !was_called {
        return format!(
            "process {process}: chain mode has seen no call so far; what is called from now on is watched, and seen in chain mode again if more \
             is called than can be watched"
        );
    }
    format!(
        "process {process}: chain mode has seen none of the methods that were called before, perhaps because C code calls no Python \
         code in them; they are watched again"
    )
}

/// What to say once it has been tried: so many probes are passed a second, or where not all are placed so many and so many if they were.
pub fn cost_of_chain(process: ProcessId, passed: f64, of_all: Option<(f64, f64)>) -> String {
    let empty_ns = measure_emulated_probe();
    if let Some((few, all)) = of_all {
        return few_witnesses_sentence(process, (few, all), empty_ns);
    }
    PythonCost { mode: PythonMode::Chain, processes: vec![process], passed, empty_ns }.sentence()
}
