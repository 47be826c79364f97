//! Who is watched and when to look again, in one process: what a look has found and the calls that were counted go in, the
//! code to see comes out. It reads no clock and no process: both are told to it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::budget::{PythonBudget, function_is_seen};
use super::calibration::Calibration;
use super::call_counts::{CallCounts, Counts, Weights};
use super::call_profile::CallProfile;
use super::covered_code::CoveredCode;
use super::elsewhere::Elsewhere;
use super::function_numbers::MOST_PYTHON;
use super::look_schedule::{Activity, LookSchedule};
use super::planner::Planner;
use super::python_choice::{only_trains, sees_root};
use super::step::{Others, Step};
use super::survey_history::{SurveyDelta, SurveyHistory};
use super::unwatched::unwatched_methods;
use crate::model::{
    ClassesInSight, DEBUG_REGISTERS, Look, MonotonicNs, ProcessId, PythonLayout, PythonLeftOut, PythonMode,
    PythonNames, PythonPlan, PythonRuntime, PythonSurvey, RemoteAddress, RuntimeCoverage, UnwatchedMethods,
};

/// How often the calls of watched code are counted: code that is not called makes room for other code.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// They are counted as often as this where nothing was ever called and classes without objects have their turns, until all have
/// had one; and in a followed process that has just come.
const TURN: Duration = Duration::from_millis(250);

/// Functions that get a number on behalf of one process: a share of all numbers, so that there are some for others.
const MOST_NUMBERS: usize = MOST_PYTHON as usize / 8;

/// What is known of one interpreter, and what is seen of it.
#[derive(Clone, Debug)]
pub struct WatchPolicy {
    runtime: PythonRuntime,
    mode: PythonMode,
    /// Whether a call's function object is seen.
    function_is_seen: bool,
    survey: PythonSurvey,
    history: SurveyHistory,
    schedule: LookSchedule,
    plan: PythonPlan,
    calls: CallCounts,
    /// Calls that a calibration has shown.
    calibrated: Counts,
    /// What calls in other processes have shown so far.
    others: Elsewhere,
    /// Code that was left out of the last choice because all its calls are folded.
    only_folded: HashSet<RemoteAddress>,
    watched: Vec<RemoteAddress>,
    /// Code that was seen before, and its calls then.
    covered: CoveredCode,
    /// Watchpoints that can be had.
    slots: usize,
    /// Who has the others.
    held_by: Vec<String>,
    /// Why nothing can be watched.
    obstacle: Option<String>,
    /// Whether there has been anything to see: until then nothing is placed.
    has_begun: bool,
    /// Time from the beginning of the program until any of its code was seen.
    seen_after: Option<Duration>,
    /// When the calls of watched code were counted last.
    counted_at: Instant,
    /// Whether its names were told.
    has_told: bool,
    /// Whether its applications may have other routes than were told.
    has_new_routes: bool,
    /// Functions that have got a number on its behalf.
    numbers: usize,
    /// Functions that found all numbers in use, at most.
    without_number: usize,
}

impl WatchPolicy {
    /// The policy for an interpreter that was looked at a moment ago, which took so long. Mode and layout say how its calls are seen.
    #[must_use]
    pub fn new(
        now: Instant,
        runtime: PythonRuntime,
        (mode, layout): (PythonMode, &PythonLayout),
        (look, took): (Look, Duration),
    ) -> Self {
        let Look { mut survey, .. } = look;
        let mut history = SurveyHistory::default();
        history.take_up(&PythonSurvey::default(), &mut survey);
        let function_is_seen = function_is_seen(mode, layout);
        Self::unseen(runtime, (mode, function_is_seen), (survey, history), (now, LookSchedule::new(now, took)))
    }

    /// The policy for an interpreter in a process that was forked by this one's and runs the same program: what is known of
    /// this one holds for it, until a look of its own, which comes soon.
    #[must_use]
    pub fn in_fork(&self, now: Instant, process: ProcessId) -> Self {
        let runtime = PythonRuntime { process, ..self.runtime.clone() };
        let known = (self.survey.clone(), self.history.clone());
        let schedule = LookSchedule::of_fork(now, !self.has_begun);
        Self::unseen(runtime, (self.mode, self.function_is_seen), known, (now, schedule))
    }

    /// The same, to be seen in another way after [`Self::begin`]. What was covered so far is remembered.
    #[must_use]
    pub fn in_mode(&self, now: Instant, (mode, layout): (PythonMode, &PythonLayout)) -> Self {
        let mut covered = self.covered.clone();
        covered.take_over(&self.plan, |code| self.watched.contains(&code), |code| self.calls.counted(code).seen);
        let (known, how) = ((self.survey.clone(), self.history.clone()), (mode, function_is_seen(mode, layout)));
        let unseen = Self::unseen(self.runtime.clone(), how, known, (now, self.schedule.clone()));
        let Self { numbers, without_number, has_told, seen_after, .. } = *self;
        Self { covered, numbers, without_number, has_told, seen_after, ..unseen }
    }

    fn unseen(
        runtime: PythonRuntime,
        (mode, function_is_seen): (PythonMode, bool),
        (survey, history): (PythonSurvey, SurveyHistory),
        (now, schedule): (Instant, LookSchedule),
    ) -> Self {
        Self {
            runtime,
            mode,
            function_is_seen,
            survey,
            history,
            schedule,
            plan: PythonPlan::default(),
            calls: CallCounts::default(),
            calibrated: Counts::new(),
            others: Elsewhere::default(),
            only_folded: HashSet::new(),
            watched: Vec::new(),
            covered: CoveredCode::default(),
            slots: DEBUG_REGISTERS,
            held_by: Vec::new(),
            obstacle: None,
            has_begun: false,
            seen_after: None,
            counted_at: now,
            has_told: false,
            has_new_routes: true,
            numbers: 0,
            without_number: 0,
        }
    }

    /// Its process was forked by a traced one, and more may be found in it at any moment.
    #[must_use]
    pub fn followed(mut self) -> Self {
        self.schedule.follow();
        self
    }

    /// Its program has begun at this time, while the tracer was there.
    #[must_use]
    pub fn young_since(mut self, began: Instant) -> Self {
        self.schedule.begin_young(began);
        self
    }

    /// A forked process has been looked at itself, for which somebody has waited.
    #[must_use]
    pub fn looked_at(mut self, now: Instant, look: Look, took: Duration) -> Self {
        let Look { mut survey, .. } = look;
        self.history.take_up(&self.survey, &mut survey);
        self.survey = survey;
        self.schedule.first_look(now, took);
        self
    }

    /// The interpreter that it is about.
    #[must_use]
    pub fn runtime(&self) -> &PythonRuntime {
        &self.runtime
    }

    /// Classes that were found in it.
    #[must_use]
    pub fn classes_in_sight(&self) -> ClassesInSight {
        self.survey.classes_in_sight(self.runtime.process.pid)
    }

    /// How its calls are seen.
    #[must_use]
    pub fn mode(&self) -> PythonMode {
        self.mode
    }

    /// Whether its process was forked by a traced one.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.schedule.is_followed()
    }

    /// Whether more may be found at any moment, because the process is young.
    #[must_use]
    pub fn is_settling(&self, now: Instant) -> bool {
        self.schedule.is_settling(now)
    }

    /// Whether its process was forked a moment ago and no call was seen: if it goes now, it was on its way to another program.
    #[must_use]
    pub fn has_passed_by(&self, now: Instant) -> bool {
        let counted = self.calls.all().values().map(|calls| calls.seen);
        self.schedule.is_fresh(now)
            && self.covered.calls().map(|(_, calls)| calls).chain(counted).all(|calls| calls == 0)
    }

    /// Whether there has been anything to see.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// What is to be seen.
    #[must_use]
    pub fn plan(&self) -> &PythonPlan {
        &self.plan
    }

    /// Whether a class that is asked for has had an object.
    #[must_use]
    pub fn has_objects(&self) -> bool {
        !self.history.classes().is_empty()
    }

    /// Whether there are classes that are asked for, without an object so far.
    #[must_use]
    pub fn has_classes_alone(&self) -> bool {
        !self.survey.codes.is_empty() && !self.has_objects()
    }

    /// Code that is watched now.
    #[must_use]
    pub fn watched(&self) -> &[RemoteAddress] {
        &self.watched
    }

    /// Code that is seen now.
    #[must_use]
    pub fn seen(&self) -> Vec<RemoteAddress> {
        if self.mode == PythonMode::Watch { self.watched.clone() } else { self.wanted() }
    }

    /// A look at the process has begun.
    pub fn look_begins(&mut self, now: Instant) {
        self.schedule.look_begins(now);
    }

    /// Whether a look that is due may be left out: so many bytes of address space say that nothing was imported since the last.
    pub fn leaves_out_look(&mut self, now: Instant, address_space: u64) -> bool {
        !self.has_begun && self.schedule.leaves_out(now, address_space)
    }

    /// A look has ended that took so long, whatever it has found ([`Self::take_up`]).
    pub fn look_ends(&mut self, now: Instant, took: Duration) {
        self.schedule.look_ends(now, took);
    }

    /// When the next look is due.
    #[must_use]
    pub fn next_look(&self, now: Instant, sharers: u32) -> Instant {
        let activity =
            Activity { was_called: self.calls.was_called(), has_code: !self.plan.watched.is_empty(), sharers };
        self.schedule.next_look(now, activity)
    }

    /// When the calls of what is watched are to be counted again; `None`: not before the next look.
    #[must_use]
    pub fn next_count(&self, now: Instant) -> Option<Instant> {
        let takes_turns = !self.calls.was_called()
            && !self.calls.all_had_a_turn()
            && !self.plan.without_objects.is_empty()
            && self.plan.has_more;
        // What is called in a worker that has just begun shows soon, and serves the others.
        let every = if takes_turns || self.schedule.is_fresh(now) { TURN } else { COUNT_EVERY };
        (self.has_begun && self.mode == PythonMode::Watch).then_some(self.counted_at + every)
    }

    /// Takes up what a look has found; the answer is what is new.
    pub fn take_up(&mut self, look: Look) -> SurveyDelta {
        let Look { mut survey, memory_read } = look;
        let delta = self.history.take_up(&self.survey, &mut survey);
        self.schedule.found(delta.is_any, memory_read, self.has_begun);
        self.survey.not_looked_at.clone_from(&survey.not_looked_at);
        self.survey.unnamed.clone_from(&survey.unnamed);
        if delta.is_any {
            self.has_new_routes |= survey.routes != self.survey.routes;
            self.calls.may_be_called(|code| delta.may_be_called(code));
            self.survey = survey;
        }
        delta
    }

    /// Whether there is something to see now for the first time: code of a class, whether that has objects yet or not.
    pub fn begins(&mut self) -> bool {
        let begins = !self.has_begun && !self.survey.codes.is_empty();
        self.has_begun |= begins;
        begins
    }

    /// Some of its code is seen from now on.
    pub fn is_seen(&mut self, now: Instant) {
        self.seen_after = self.schedule.age(now);
    }

    /// What to try out before anything is chosen: where there is more than can be watched, and other processes show nothing.
    pub fn calibration(&self, planner: &mut Planner, profile: &CallProfile) -> Option<Calibration> {
        if self.mode != PythonMode::Watch || !profile.of(&self.survey).is_empty() {
            return None;
        }
        Calibration::of(self.planned(planner, &self.unlimited()), self.slots)
    }

    /// Chooses for the first time, or again if fewer watchpoints could be had. `calibrated`: calls that a calibration has shown.
    pub fn begin(&mut self, planner: &mut Planner, profile: &CallProfile, calibrated: &Counts) {
        let elsewhere = match self.mode {
            PythonMode::Watch => profile.of(&self.survey),
            PythonMode::Frames | PythonMode::Chain => Weights::new(),
        };
        self.calibrated.clone_from(calibrated);
        let here = calibrated.iter().map(|(code, calls)| (*code, calls.spans())).collect();
        self.choose(planner, here, elsewhere);
    }

    /// Code whose calls are to be counted for the next step.
    #[must_use]
    pub fn to_count(&self, delta: &SurveyDelta) -> Vec<RemoteAddress> {
        if self.mode == PythonMode::Watch || delta.is_any { self.seen() } else { Vec::new() }
    }

    /// One step of the policy: it chooses again if the process has changed, if traffic has shown that watched code is not called, or if calls
    /// in other processes have shown what is. `counts` are the calls of what [`Self::to_count`] gave.
    pub fn step(
        &mut self,
        now: Instant,
        counts: Counts,
        delta: &SurveyDelta,
        others: Others<'_>,
        planner: &mut Planner,
    ) -> Step {
        self.counted_at = now;
        let is_changed = match self.mode {
            PythonMode::Watch => self.watch_again(now, counts, delta, others.profile, planner),
            PythonMode::Frames | PythonMode::Chain => {
                if delta.is_any {
                    self.see_again(&counts, planner);
                }
                delta.is_any
            }
        };
        Step {
            watch: is_changed.then(|| self.wanted()),
            next_look: self.next_look(now, others.sharers),
            next_count: self.next_count(now),
        }
    }

    fn watch_again(
        &mut self,
        now: Instant,
        counts: Counts,
        delta: &SurveyDelta,
        profile: &CallProfile,
        planner: &mut Planner,
    ) -> bool {
        let Self { calls, survey, plan, history, .. } = self;
        let trains = |code| survey.codes.iter().any(|known| known.address == code && only_trains(known));
        let is_traffic = calls.take_up(now, counts, trains);
        let uncalled = if is_traffic {
            calls.uncalled_in_this_traffic()
        } else {
            let wanted = || survey.codes.iter().filter(|code| history.is_wanted(code)).map(|code| code.address);
            calls.had_their_turn(now, |code| plan.without_objects.contains_key(&code), || wanted().collect())
        };
        let wants_more = plan.has_more && uncalled.iter().any(|code| !calls.uncalled().contains(code));
        if is_traffic {
            calls.add_uncalled_in_traffic(&uncalled);
        }
        let is_in_pieces = is_traffic && !calls.is_any_not_called_lately() && !sees_root(survey, calls.recent());
        let tries_root = is_in_pieces && plan.has_untried_root && self.slots > 1;
        let is_folded = !calls.take_out_folded(now).is_empty();
        let only_folded = calls.only_folded(now);
        let may_be_called_again = self.only_folded.iter().any(|code| !only_folded.contains(code));
        // What is called elsewhere is called here too, until it was watched here while other code was called.
        let mut elsewhere = profile.of(survey);
        elsewhere.retain(|code, _| !calls.is_uncalled_in_traffic(*code) && !only_folded.contains(code));
        self.only_folded = only_folded;
        let has_room = self.watched.len() < self.slots || calls.is_any_not_called_lately();
        let knows_more = self.others.knows_more(survey, has_room, (&self.watched, calls.recent()), &elsewhere);
        if ![delta.is_any, wants_more, tries_root, is_folded, may_be_called_again, knows_more].contains(&true) {
            return false;
        }
        self.calls.add_uncalled(uncalled);
        let here = self.calls.recent().clone();
        self.choose_again(planner, here, elsewhere);
        true
    }

    /// Where all calls are seen, after a look that has found something new.
    fn see_again(&mut self, counts: &Counts, planner: &mut Planner) {
        // An interpreter that ends has no objects any more: what was covered is remembered.
        self.covered.add_all(&self.plan);
        self.calls.note(counts);
        let here = self.calls.all().iter().map(|(code, calls)| (*code, calls.seen)).collect();
        self.choose_again(planner, here, Weights::new());
    }

    /// Chooses, and keeps the calls of what is not chosen any more.
    fn choose_again(&mut self, planner: &mut Planner, here: Weights, elsewhere: Weights) {
        let before = std::mem::take(&mut self.plan);
        self.choose(planner, here, elsewhere);
        let kept: HashSet<RemoteAddress> = self.wanted().into_iter().collect();
        self.covered.take_over(&before, |code| !kept.contains(&code), |code| self.calls.counted(code).seen);
    }

    /// Chooses, given the calls that were counted here and elsewhere.
    fn choose(&mut self, planner: &mut Planner, mut here: Weights, elsewhere: Weights) {
        let now = self.calls.all().iter().map(|(code, calls)| (*code, calls.seen));
        self.others.add_to(&mut here, &elsewhere);
        let called = self.covered.calls().chain(now);
        let budget = PythonBudget {
            slots: (self.mode == PythonMode::Watch).then_some(self.slots),
            obstacle: self.obstacle.clone(),
            tries_roots: !sees_root(&self.survey, &here),
            calls: here,
            elsewhere,
            called_before: called.filter(|(_, calls)| *calls > 0).map(|(code, _)| code).collect(),
            uncalled: self.calls.uncalled().clone(),
            only_folded: self.only_folded.clone(),
            without_objects: true,
            new_numbers: Some(MOST_NUMBERS.saturating_sub(self.numbers)),
            ..self.unlimited()
        };
        self.plan = self.planned(planner, &budget);
        self.numbers += self.plan.new_numbers;
        self.without_number = self.without_number.max(self.plan.without_number);
    }

    fn planned(&self, planner: &mut Planner, budget: &PythonBudget) -> PythonPlan {
        planner.plan_python(&self.runtime.module, &self.survey, budget)
    }

    /// Everything: no limit on what is watched.
    fn unlimited(&self) -> PythonBudget {
        let (function_is_seen, had_objects) = (self.function_is_seen, self.history.classes().clone());
        PythonBudget { function_is_seen, had_objects, ..PythonBudget::default() }
    }

    fn wanted(&self) -> Vec<RemoteAddress> {
        self.plan.watched.iter().map(|(code, _)| *code).collect()
    }

    /// Code to watch in place of what is watched; `None` if that is the same.
    #[must_use]
    pub fn to_move(&self) -> Option<Vec<RemoteAddress>> {
        let wanted = self.wanted();
        let is_the_same = self.watched.len() == wanted.len() && self.watched.iter().all(|code| wanted.contains(code));
        (!is_the_same).then_some(wanted)
    }

    /// Whether more was chosen than can be watched.
    #[must_use]
    pub fn is_beyond_slots(&self) -> bool {
        self.mode == PythonMode::Watch && self.plan.watched.len() > self.slots
    }

    /// Whether this called code is more than can be watched at one time, or as much, where more may be called.
    #[must_use]
    pub fn is_too_much(&self, called: &Counts) -> bool {
        // That a moment's calibration has seen no more does not say that no more is called.
        let most = self.slots.saturating_sub(usize::from(self.plan.may_need_more));
        self.mode == PythonMode::Watch && (called.len() > most || self.slots == 0)
    }

    /// What was called so far, and by a calibration or elsewhere if nothing was counted.
    #[must_use]
    pub fn called(&self, calibrated: &Counts, profile: &CallProfile) -> Counts {
        self.calls.called(calibrated, || profile.of(&self.survey))
    }

    /// This code is watched from now on.
    pub fn watches(&mut self, watched: Vec<RemoteAddress>) {
        self.watched = watched;
    }

    /// No more can be watched than is watched now: somebody has the other watchpoints.
    pub fn limit(&mut self, held_by: String) {
        self.slots = self.watched.len();
        self.held_by = vec![held_by];
    }

    /// Calls of what is watched, from which on all that is chosen is watched.
    pub fn count_from_here(&mut self, counts: &Counts) {
        self.calls.count_from_here(counts);
    }

    /// Calls of what is seen, before it is seen no more.
    pub fn note(&mut self, counts: &Counts) {
        self.calls.note(counts);
    }

    /// Nothing can be watched from now on, for this reason. The answer is what to say of it.
    pub fn watch_nothing(&mut self, reason: String) -> String {
        // What was called until now was covered.
        let watched = std::mem::take(&mut self.watched);
        self.covered.take_over(&self.plan, |code| watched.contains(&code), |code| self.calls.counted(code).seen);
        self.slots = 0;
        let sentence = format!(
            "{reason}; in a virtual machine a watchpoint may end an unguarded process, so no Python code is watched \
             (`--python frames` needs no watchpoints)"
        );
        self.obstacle = Some(reason);
        sentence
    }

    /// The programs that watched are gone: nothing is seen until it begins again.
    pub fn restart(&mut self) {
        self.has_begun = false;
        self.watched.clear();
        self.calls.restart();
    }

    /// Adds the calls that were counted, by the name of the code.
    pub fn add_to(&self, profile: &mut CallProfile) {
        for code in &self.survey.codes {
            let counted = self.calls.counted(code.address);
            let calibrated = self.calibrated.get(&code.address).copied().unwrap_or_default();
            // While calls were tried out nobody knew which of them are folded.
            let calls = if counted.seen > 0 { counted.spans() } else { calibrated.spans() };
            profile.add(code, calls);
        }
    }

    /// The names behind the addresses in records. `number` is the process's in the initial pid namespace.
    pub fn names(&mut self, number: u32) -> PythonNames {
        self.has_new_routes = false;
        self.survey.names(number, !std::mem::replace(&mut self.has_told, true))
    }

    /// The same while nothing is seen, if there are routes that were not told.
    pub fn new_routes(&mut self, number: u32) -> Option<PythonNames> {
        let is_any = self.has_told || !self.survey.routes.is_empty();
        (self.has_new_routes && is_any).then(|| self.names(number))
    }

    /// Methods whose calls are not seen from now on in the process with this number.
    #[must_use]
    pub fn unwatched(&self, process: u32, since: MonotonicNs) -> UnwatchedMethods {
        let are_others = self.mode == PythonMode::Watch && self.plan.has_more;
        UnwatchedMethods { process, since, methods: unwatched_methods(&self.survey, &self.seen()), are_others }
    }

    /// What would be seen, without seeing anything.
    pub fn plan_only(&mut self, planner: &mut Planner) -> RuntimeCoverage {
        self.choose(planner, Weights::new(), Weights::new());
        self.coverage()
    }

    /// Code whose calls are to be counted for [`Self::counted_coverage`].
    #[must_use]
    pub fn to_cover(&self) -> Vec<RemoteAddress> {
        let is_seen = |code: &RemoteAddress| self.mode != PythonMode::Watch || self.watched.contains(code);
        self.wanted().into_iter().filter(is_seen).collect()
    }

    /// What was seen, with the calls counted now; what could not be counted any more was counted a moment ago.
    pub fn counted_coverage(&mut self, counts: &Counts, left_out: PythonLeftOut) -> RuntimeCoverage {
        let without_number = PythonLeftOut { numbers: self.without_number, ..PythonLeftOut::default() };
        let mut coverage = RuntimeCoverage { left_out: left_out.most(without_number), ..self.coverage() };
        let is_seen: HashSet<RemoteAddress> = self.to_cover().into_iter().collect();
        let counted = |code| counts.get(&code).copied().unwrap_or_else(|| self.calls.counted(code)).seen;
        coverage.watched = self.covered.told(&self.plan, |code| is_seen.contains(&code), counted);
        coverage
    }

    fn coverage(&self) -> RuntimeCoverage {
        let (major, minor, micro) = self.runtime.version;
        let is_watching = self.mode == PythonMode::Watch;
        RuntimeCoverage {
            process: self.runtime.process.pid,
            interpreter: format!("CPython {major}.{minor}.{micro}"),
            layout: self.runtime.layout_source.clone(),
            mode: self.mode,
            slots: if is_watching { u32::try_from(self.slots).unwrap_or(u32::MAX) } else { 0 },
            slots_held_by: self.held_by.clone(),
            seen_after_ms: self.seen_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            watched: self.plan.watched.iter().map(|(_, watched)| watched.clone()).collect(),
            not_watched: self.plan.not_watched.clone(),
            unnamed_classes: self.survey.unnamed.clone(),
            not_looked_at: self.survey.not_looked_at.clone(),
            ..RuntimeCoverage::default()
        }
    }
}

#[cfg(test)]
#[path = "watch_policy_tests.rs"]
mod tests;
