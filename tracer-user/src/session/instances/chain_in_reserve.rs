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

/// Probes that are passed at least while none of the calls is seen, or the process may merely have had nothing to do. A request that a web
/// framework answers without a model passes some hundreds.
const SOME_WORK: u64 = 1_000;

/// The same where nothing was called before.
const MUCH_WORK: u64 = 20_000;

/// So often it is tried: where nothing was called before, what was done may not have been of its calls.
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
    /// When it began, or was prolonged last.
    began: Instant,
    lasts: Duration,
    /// Probes passed by then.
    passed: u64,
    /// Probes passed before it began at all.
    passed_before: u64,
    /// What was called before.
    called: Counts,
}

/// Why a process goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It calls more than can be watched, or as much.
    CallsMore,
    /// It has just begun.
    HasJustBegun,
    /// More may be called than can be watched, and nothing is called now.
    IsIdle,
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

    /// Why it is to be taken, if it can be and is.
    pub fn reason(&self, is_command: bool, is_idle: bool, is_too_much: impl FnOnce() -> bool) -> Option<Reason> {
        if self.probes.is_none() || self.trials >= MOST_TRIALS {
            return None;
        }
        match self.trials {
            0 if is_command => Some(Reason::HasJustBegun),
            0 if is_idle => Some(Reason::IsIdle),
            _ => is_too_much().then_some(Reason::CallsMore),
        }
    }

    /// It is taken; so many calls were counted of each code before.
    pub fn take(&mut self) -> Option<CallProbes> {
        self.trials += 1;
        self.probes.take()
    }

    /// It is tried from now on.
    pub fn begin_trial(&mut self, now: Instant, called: Counts, passed: u64) {
        let lasts = if called.is_empty() { FIRST_TRIAL } else { TRIAL };
        self.trial = Some(Trial { began: now, lasts, passed, passed_before: passed, called });
    }

    /// When the trial is over.
    pub fn due(&self) -> Option<Instant> {
        self.trial.as_ref().map(|trial| trial.began + trial.lasts)
    }

    /// Ends the trial, which is due: gives what it has come to, and how many probes were passed in a second. `None` where the process has done
    /// too little to tell: it is prolonged. `passed` are the probes until now, and `counts` the calls since it began: of that code, or of all
    /// where nothing was called before.
    pub fn end_trial(
        &mut self,
        now: Instant,
        passed: u64,
        counts: impl FnOnce(&Counts) -> Counts,
    ) -> Option<(TrialEnd, f64)> {
        let Trial { began, lasts, passed: before, passed_before, called } = self.trial.take()?;
        let since = counts(&called);
        let is_called = |code| since.get(code).is_some_and(|calls| calls.seen > 0);
        let is_blind = !since.keys().any(is_called);
        let work = if called.is_empty() { MUCH_WORK } else { SOME_WORK };
        if is_blind && passed.saturating_sub(passed_before) < work {
            self.trial = Some(Trial { began: now, lasts, passed, passed_before, called });
            return None;
        }
        if is_blind && !called.is_empty() {
            self.trials = MOST_TRIALS;
        }
        let called_before =
            called.iter().filter(|(code, _)| !is_called(code)).map(|(code, calls)| (*code, *calls)).collect();
        let a_second = passed.saturating_sub(before) as f64 / now.saturating_duration_since(began).as_secs_f64();
        Some((TrialEnd { called_before, is_blind }, a_second))
    }

    /// It is given up: the probes are at hand again.
    pub fn give_back(&mut self, probes: CallProbes) {
        self.probes = Some(probes);
    }
}

/// What to say when a process goes over.
pub fn going_over(process: ProcessId, reason: Reason) -> String {
    match reason {
        Reason::HasJustBegun => format!(
            "process {process} has just begun: its Python methods are seen from their first calls on, in chain mode, which knows \
             beginnings and ends within bounds (`--python watch` sees some of the methods, exactly)"
        ),
        Reason::IsIdle => format!(
            "process {process}: none of its Python methods was seen called so far, and more may be called than can be watched; all of them are \
             seen from now on, in chain mode, which knows beginnings and ends within bounds (`--python watch` sees as many as can be watched, exactly)"
        ),
        Reason::CallsMore => format!(
            "process {process} calls as many Python methods as can be watched, or more; all of them are seen in chain mode from now on, \
             which knows beginnings and ends within bounds (`--python watch` sees as many as can be watched, exactly)"
        ),
    }
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
    PythonCost {
        mode: PythonMode::Chain,
        processes: vec![process],
        passed,
        empty_ns,
        exceptions: 0.0,
        exception_ns: None,
    }
    .sentence()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CodeCalls, RemoteAddress};

    fn reserve_on_trial(called: &[u64]) -> (ChainInReserve, Instant) {
        let began = Instant::now();
        let mut reserve = ChainInReserve { probes: None, trials: 1, trial: None };
        reserve.begin_trial(began, counts(called), 100);
        (reserve, began)
    }

    fn counts(called: &[u64]) -> Counts {
        called.iter().map(|code| (RemoteAddress(*code), CodeCalls { seen: 1, ..CodeCalls::default() })).collect()
    }

    #[test]
    fn of_a_process_that_does_nothing_nothing_is_concluded() {
        for (called, lasts, work) in [(&[7][..], TRIAL, SOME_WORK), (&[], FIRST_TRIAL, MUCH_WORK)] {
            let (mut reserve, began) = reserve_on_trial(called);
            assert_eq!(reserve.due(), Some(began + lasts));
            let later = began + lasts;
            assert_eq!(reserve.end_trial(later, 100 + work - 1, |_| Counts::new()), None);
            assert_eq!(reserve.due(), Some(later + lasts), "it is prolonged");
            let (end, _) = reserve.end_trial(later + lasts, 100 + work, |_| Counts::new()).expect("it has done much");
            assert_eq!(end, TrialEnd { called_before: counts(called), is_blind: true });
            assert_eq!(reserve.due(), None);
            assert_eq!(
                reserve.trials < MOST_TRIALS,
                called.is_empty(),
                "what is blind to known calls is not tried again"
            );
        }
    }

    #[test]
    fn what_was_seen_is_told_with_the_cost_of_the_last_part() {
        let (mut reserve, began) = reserve_on_trial(&[7, 8]);
        assert_eq!(reserve.end_trial(began + TRIAL, 200, |_| Counts::new()), None);
        let (end, a_second) = reserve.end_trial(began + 2 * TRIAL, 1_200, |_| counts(&[8])).expect("one was called");
        assert_eq!(end, TrialEnd { called_before: counts(&[7]), is_blind: false });
        assert!((a_second - 500.0).abs() < 1e-6, "{a_second}");
    }
}
