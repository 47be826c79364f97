//! Who is watched, and when to look again.

use std::collections::HashMap;

use super::*;
use crate::model::{CodeCalls, CodeUser, FrameStyle, KernelFeatures, PythonCode, Receiver};

const NOBODY: u32 = 1;

fn code(address: u64, class: &str, instances: u32) -> PythonCode {
    let method = CodeUser {
        address: RemoteAddress(0x1000 + address),
        class: class.into(),
        method: "predict".into(),
        instances,
        in_models: instances,
        roots: 0,
    };
    PythonCode {
        address: RemoteAddress(address),
        name: format!("{class}.predict").into(),
        frame_bytes: 80,
        receiver: Receiver::Local,
        receiver_offset: 0,
        users: vec![method],
        loops: None,
        first_argument: None,
        wraps: Vec::new(),
    }
}

/// So many classes with one method each, the code of which is numbered from 1: the earlier ones have more objects.
fn look(count: u64, instances: u32) -> Look {
    let codes =
        (1..=count).map(|number| code(number, &format!("Model{number}"), instances * (count - number + 1) as u32));
    let survey = PythonSurvey { codes: codes.collect(), ..PythonSurvey::default() };
    Look { survey, memory_read: 1 }
}

struct Bench {
    now: Instant,
    planner: Planner,
    profile: CallProfile,
    policy: WatchPolicy,
    /// Calls of each code object since it was watched.
    calls: Weights,
}

impl Bench {
    fn new(mode: PythonMode, look: Look) -> Self {
        let now = Instant::now();
        let runtime = PythonRuntime {
            process: ProcessId { pid: 7, start_time: 1 },
            version: (3, 12, 1),
            module: "/usr/bin/python3.12".into(),
            layout_source: "a data file".into(),
        };
        let layout = PythonLayout { style: FrameStyle::DataStack as u32, ..PythonLayout::default() };
        Self {
            now,
            planner: Planner::new(KernelFeatures::default()),
            profile: CallProfile::default(),
            policy: WatchPolicy::new(now, runtime, (mode, &layout), (look, Duration::from_millis(1))),
            calls: Weights::new(),
        }
    }

    /// Begins, and watches what was chosen.
    fn begin(&mut self, calibrated: &Counts) {
        assert!(self.policy.begins());
        self.policy.begin(&mut self.planner, &self.profile, calibrated);
        self.put_into_force();
    }

    fn put_into_force(&mut self) {
        if let Some(wanted) = self.policy.to_move() {
            self.calls.retain(|code, _| self.policy.watched().contains(code));
            self.policy.watches(wanted);
        }
        let counts = self.counts();
        self.policy.count_from_here(&counts);
    }

    fn counts(&self) -> Counts {
        let calls = |code: &RemoteAddress| (*code, self.calls.get(code).copied().unwrap_or(0).into());
        self.policy.seen().iter().map(calls).collect()
    }

    /// Calls code so often, if it is watched, waits a second and takes a step.
    fn step(&mut self, called: &[u64], times: u64, look: Option<Look>) -> Step {
        let watched = self.policy.seen();
        for code in called.iter().map(|code| RemoteAddress(*code)).filter(|code| watched.contains(code)) {
            *self.calls.entry(code).or_default() += times;
        }
        self.now += COUNT_EVERY;
        let delta = look.map(|look| self.policy.take_up(look)).unwrap_or_default();
        let others = Others { profile: &self.profile, sharers: NOBODY };
        let counts = self.counts();
        let step = self.policy.step(self.now, counts, &delta, others, &mut self.planner);
        if step.watch.is_some() {
            self.put_into_force();
        }
        step
    }

    fn watched(&self) -> Vec<u64> {
        let mut watched: Vec<u64> = self.policy.watched().iter().map(|code| code.0).collect();
        watched.sort_unstable();
        watched
    }
}

#[test]
fn what_is_not_called_makes_room_once_enough_of_the_others_is_called() {
    let mut bench = Bench::new(PythonMode::Watch, look(5, 1));
    bench.begin(&Counts::new());
    assert_eq!(bench.watched(), [1, 2, 3, 4], "those with the most objects");
    assert_eq!(bench.step(&[1, 2, 3, 5], 2, None).watch, None, "it may be the beginning of one call");
    let step = bench.step(&[1, 2, 3, 5], 10, None);
    assert!(step.watch.is_some());
    assert_eq!(bench.watched(), [1, 2, 3, 5]);
    // Everything that is watched is called: nothing changes, and what was watched without being called is not tried again.
    for _ in 0..5 {
        assert_eq!(bench.step(&[1, 2, 3, 5], 10, None).watch, None);
    }
}

#[test]
fn a_quiet_process_keeps_what_it_has() {
    let mut bench = Bench::new(PythonMode::Watch, look(5, 1));
    bench.begin(&Counts::new());
    for _ in 0..10 {
        assert_eq!(bench.step(&[], 0, None).watch, None);
    }
}

#[test]
fn classes_without_objects_have_their_turns_until_one_is_called() {
    let mut bench = Bench::new(PythonMode::Watch, look(12, 0));
    bench.begin(&Counts::new());
    assert_eq!(bench.policy.next_count(bench.now), Some(bench.now + TURN));
    assert_eq!(bench.watched(), [1, 2, 3, 4]);
    bench.step(&[7], 1, None);
    assert_eq!(bench.watched(), [5, 6, 7, 8]);
    bench.step(&[7], 100, None);
    assert!(bench.watched().contains(&7) && bench.watched() != [5, 6, 7, 8], "the others were not called");
    assert_eq!(bench.policy.next_count(bench.now), Some(bench.now + COUNT_EVERY));
}

#[test]
fn what_is_called_elsewhere_is_watched_until_it_was_watched_without_being_called() {
    let mut bench = Bench::new(PythonMode::Watch, look(6, 1));
    bench.begin(&Counts::new());
    bench.profile.add(&code(600, "Model6", 1), 50);
    assert!(bench.step(&[1, 2], 10, None).watch.is_some());
    assert!(bench.watched().contains(&6));
    bench.step(&[1, 2], 10, None);
    assert!(!bench.watched().contains(&6), "here nobody calls it");
    assert_eq!(bench.step(&[1, 2], 10, None).watch, None);
    // Another process is told at once.
    let mut other = Bench::new(PythonMode::Watch, look(6, 1));
    bench.policy.add_to(&mut other.profile);
    other.begin(&Counts::new());
    assert_eq!(other.watched()[..2], [1, 2]);
}

#[test]
fn what_a_calibration_has_shown_comes_first() {
    let mut bench = Bench::new(PythonMode::Watch, look(9, 1));
    let calibration = bench.policy.calibration(&mut bench.planner, &bench.profile).expect("more than four");
    assert_eq!(calibration.groups.concat().len(), 9);
    bench.begin(&HashMap::from([(RemoteAddress(9), 3.into()), (RemoteAddress(8), 1.into())]));
    assert_eq!(bench.watched(), [1, 2, 8, 9]);
    bench.profile.add(&code(1, "Model1", 1), 1);
    assert!(bench.policy.calibration(&mut bench.planner, &bench.profile).is_none(), "others have shown it");
}

#[test]
fn with_fewer_watchpoints_less_is_chosen() {
    let mut bench = Bench::new(PythonMode::Watch, look(5, 1));
    assert!(bench.policy.begins());
    bench.policy.begin(&mut bench.planner, &bench.profile, &Counts::new());
    bench.policy.watches(vec![RemoteAddress(1)]);
    bench.policy.limit("a debugger".into());
    assert!(bench.policy.is_beyond_slots());
    bench.policy.begin(&mut bench.planner, &bench.profile, &Counts::new());
    assert!(!bench.policy.is_beyond_slots() && bench.policy.to_move().is_none());
    let coverage = bench.policy.counted_coverage(&Counts::new(), PythonLeftOut::default());
    assert_eq!((coverage.slots, coverage.slots_held_by), (1, vec!["a debugger".to_owned()]));
    assert_eq!(coverage.not_watched.len(), 4);
}

#[test]
fn what_was_covered_is_told_whatever_is_watched_in_the_end() {
    let mut bench = Bench::new(PythonMode::Watch, look(5, 1));
    bench.begin(&Counts::new());
    bench.step(&[1, 2, 3], 10, None);
    bench.step(&[5], 1, None);
    bench.policy.watch_nothing("its guard has been killed".into());
    assert!(bench.watched().is_empty());
    bench.step(&[], 0, Some(look(6, 1)));
    assert!(bench.watched().is_empty());
    let coverage = bench.policy.counted_coverage(&Counts::new(), PythonLeftOut::default());
    let mut covered: Vec<_> = coverage.watched.iter().map(|code| (code.code.as_str(), code.calls_seen)).collect();
    covered.sort_unstable();
    assert_eq!(
        covered,
        [("Model1.predict", 10), ("Model2.predict", 10), ("Model3.predict", 10), ("Model5.predict", 1)]
    );
    assert_eq!(coverage.not_watched[0].reason, "its guard has been killed");
}

#[test]
fn frames_mode_sees_everything_and_chooses_again_only_after_news() {
    let mut bench = Bench::new(PythonMode::Frames, look(9, 1));
    bench.begin(&Counts::new());
    assert_eq!((bench.policy.seen().len(), bench.policy.next_count(bench.now)), (9, None));
    assert_eq!(bench.step(&[1], 1, Some(look(9, 1))).watch, None);
    let step = bench.step(&[1], 1, Some(look(10, 1)));
    assert_eq!(step.watch.map(|watch| watch.len()), Some(10));
    // The interpreter ends, and what is in it goes: what was called was covered.
    bench.step(&[], 0, Some(look(0, 0)));
    let coverage = bench.policy.counted_coverage(&Counts::new(), PythonLeftOut::default());
    let called: Vec<_> = coverage.watched.iter().filter(|code| code.calls_seen > 0).map(|code| &code.code).collect();
    assert_eq!(called, ["Model1.predict"]);
}

#[test]
fn a_fork_knows_what_its_parent_knew_and_begins_for_itself() {
    let mut bench = Bench::new(PythonMode::Watch, look(5, 1));
    bench.begin(&Counts::new());
    let process = ProcessId { pid: 8, start_time: 2 };
    let mut fork = bench.policy.in_fork(bench.now, process);
    assert!(fork.is_followed() && !fork.has_begun() && !fork.is_settling(bench.now));
    assert_eq!(fork.runtime().process, process);
    assert!(fork.begins(), "there is code to see");
    assert!(!fork.begins(), "it begins once");
    assert!(fork.next_look(bench.now, NOBODY) < bench.policy.next_look(bench.now, NOBODY));
    assert_eq!((fork.names(8).is_first, fork.names(8).is_first), (true, false));
    // Nothing needs to be said of one that executes another program at once, unless something was called.
    assert!(fork.has_passed_by(bench.now) && !bench.policy.has_passed_by(bench.now));
    assert!(!fork.has_passed_by(bench.now + Duration::from_secs(60)));
    fork.note(&Counts::from([(RemoteAddress(1), 1.into())]));
    assert!(!fork.has_passed_by(bench.now));
}

#[test]
fn nothing_begins_before_there_is_code() {
    let mut bench = Bench::new(PythonMode::Watch, look(0, 0));
    assert!(!bench.policy.begins());
    assert!(bench.policy.take_up(look(2, 0)).is_any);
    assert!(bench.policy.begins());
}

#[test]
fn more_than_the_registers_hold_is_too_much() {
    let is_too_much = |bench: &Bench| {
        let called = bench.policy.called(&Counts::new(), &bench.profile);
        bench.policy.is_too_much(&called)
    };
    let mut bench = Bench::new(PythonMode::Watch, look(6, 1));
    bench.begin(&Counts::new());
    bench.step(&[1, 2, 3], 20, None);
    assert!(!is_too_much(&bench), "three are called");
    bench.step(&[1, 2, 3, 5], 20, None);
    assert_eq!(bench.watched(), [1, 2, 3, 5]);
    assert!(is_too_much(&bench), "nobody knows of the sixth");
    let calibrated: Counts = (1..=4).map(|code| (RemoteAddress(code), 9.into())).collect();
    let mut bench = Bench::new(PythonMode::Watch, look(6, 1));
    assert!(!bench.policy.is_too_much(&calibrated));
    bench.begin(&calibrated);
    bench.step(&[1, 2, 3, 4], 20, None);
    assert!(is_too_much(&bench), "the others were tried out for a moment only");
    let five: Counts = (1..=5).map(|code| (RemoteAddress(code), 9.into())).collect();
    assert!(bench.policy.is_too_much(&five));
    bench.policy.limit("gdb".to_owned());
    bench.policy.watch_nothing("it cannot be guarded".to_owned());
    assert!(bench.policy.is_too_much(&Counts::new()), "nothing can be watched at all");
}

#[test]
fn in_another_mode_all_is_seen_and_what_was_covered_is_remembered() {
    let mut bench = Bench::new(PythonMode::Watch, look(6, 1));
    bench.begin(&Counts::new());
    bench.step(&[1, 2], 20, None);
    let layout = PythonLayout { style: FrameStyle::DataStack as u32, ..PythonLayout::default() };
    bench.policy = bench.policy.in_mode(bench.now, (PythonMode::Chain, &layout));
    bench.calls.clear();
    bench.begin(&Counts::new());
    assert_eq!((bench.policy.mode(), bench.policy.seen().len()), (PythonMode::Chain, 6));
    assert!(!bench.policy.is_too_much(&bench.counts()));
    let counts: Counts = [(RemoteAddress(1), 7.into())].into();
    let coverage = bench.policy.counted_coverage(&counts, PythonLeftOut::default());
    let seen = |name: &str| coverage.watched.iter().find(|code| code.code == name).map(|code| code.calls_seen);
    assert_eq!((seen("Model1.predict"), seen("Model2.predict"), seen("Model6.predict")), (Some(27), Some(20), Some(0)));
}

/// Code 5 is that of a model that no other one holds, but there are more objects of the others.
fn look_with_root() -> Look {
    let mut look = look(6, 1);
    let users = look.survey.codes.iter_mut().flat_map(|code| &mut code.users);
    users.filter(|user| &*user.class == "Model5").for_each(|user| user.roots = user.in_models);
    look
}

#[test]
fn the_outermost_call_is_tried_and_is_worth_more_than_those_inside() {
    let mut bench = Bench::new(PythonMode::Watch, look_with_root());
    // A calibration has seen four others: it is tried all the same.
    bench.begin(&(1..=4).map(|code| (RemoteAddress(code), 30.into())).collect());
    assert_eq!(bench.watched(), [1, 2, 3, 5]);
    for _ in 0..5 {
        // It is called once for three of each of the others.
        bench.step(&[5], 10, None);
        bench.step(&[1, 2, 3, 4, 6], 30, None);
        assert!(bench.watched().contains(&5), "{:?}", bench.watched());
    }
    // Where it is not called, it gives its place back.
    let mut other = Bench::new(PythonMode::Watch, look_with_root());
    other.begin(&(1..=4).map(|code| (RemoteAddress(code), 30.into())).collect());
    other.step(&[1, 2, 3, 4], 30, None);
    assert_eq!(other.watched(), [1, 2, 3, 4]);
}

#[test]
fn what_a_worker_has_learned_takes_the_place_of_what_is_worth_less_in_the_others() {
    let mut bench = Bench::new(PythonMode::Watch, look(6, 1));
    bench.begin(&Counts::new());
    bench.step(&[1, 2, 3, 4], 10, None);
    assert_eq!(bench.watched(), [1, 2, 3, 4], "all are called");
    for (number, calls) in [(1, 100), (2, 100), (3, 100), (4, 100), (6, 500)] {
        bench.profile.add(&code(100 + number, &format!("Model{number}"), 1), calls);
    }
    assert!(bench.step(&[1, 2, 3, 4], 10, None).watch.is_some());
    assert!(bench.watched().contains(&6), "{:?}", bench.watched());
    assert_eq!(bench.step(&[1, 2, 3, 4, 6], 50, None).watch, None);
}

#[test]
fn code_whose_calls_are_all_folded_makes_room_for_others() {
    let mut bench = Bench::new(PythonMode::Watch, look(5, 1));
    bench.begin(&Counts::new());
    let counts = |bench: &Bench| -> Counts {
        let folded = CodeCalls { seen: 100, folded: 100, references: 3 };
        let of = |code: &RemoteAddress| (*code, if code.0 == 4 { folded } else { 20.into() });
        bench.policy.seen().iter().map(of).collect()
    };
    bench.now += COUNT_EVERY;
    let others = Others { profile: &bench.profile, sharers: NOBODY };
    let counted = counts(&bench);
    let step = bench.policy.step(bench.now, counted, &SurveyDelta::default(), others, &mut bench.planner);
    assert_eq!(step.watch.map(|watch| watch.len()), Some(4));
    bench.put_into_force();
    assert_eq!(bench.watched(), [1, 2, 3, 5]);
    let coverage = bench.policy.counted_coverage(&Counts::new(), PythonLeftOut::default());
    let left: Vec<_> = coverage.not_watched.iter().map(|left| (left.name.as_str(), left.reason.as_str())).collect();
    assert_eq!(left, [("Model4.predict", "all its calls were folded into the calls around them")]);
}
