//! Steps that were not watched while their container was called, and of which no call was seen inside: what they did may be in
//! the time of the container's call itself.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tracer_common::limits::MAX_PROCESSES;

use super::python::{Listed, PythonObjects};
use crate::model::{
    Call, CallEnding, MonotonicNs, RemoteAddress, ThreadId, UNKNOWN_STEPS, UnwatchedMethods, UnwatchedSteps,
};

/// Changes that are remembered of one process. Records are hardly ever older than a few.
const MOST_CHANGES: usize = 8;

/// Processes that are remembered: twice what can be traced, because the end of a process is not announced.
const MOST_PROCESSES: usize = 2 * MAX_PROCESSES as usize;

/// Open calls of which it is remembered what was called inside; what is beyond is forgotten.
const MOST_CALLS: usize = 16_384;

/// Objects that are remembered of one open call.
const MOST_OBJECTS: usize = 256;

/// A call, by its thread, when that was first seen, and its number there.
type CallKey = (ThreadId, MonotonicNs, u64);

/// What is not watched in each process, and what was seen inside the calls that have not ended.
#[derive(Debug, Default)]
pub struct Unwatched {
    processes: FxHashMap<u32, VecDeque<Told>>,
    seen: FxHashMap<CallKey, Vec<Seen>>,
}

/// What is not watched from an instant on.
#[derive(Debug)]
struct Told {
    since: MonotonicNs,
    are_others: bool,
    /// By class. The addresses are chosen by the traced program.
    methods: HashMap<RemoteAddress, Vec<Arc<str>>>,
}

/// A call was seen inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    object: RemoteAddress,
    /// It was inside a call inside that was on this object.
    through: Option<RemoteAddress>,
}

impl Unwatched {
    /// Takes what is not watched from now on.
    pub fn learn(&mut self, told: UnwatchedMethods) {
        let UnwatchedMethods { process, since, methods, are_others } = told;
        if self.processes.len() >= MOST_PROCESSES && !self.processes.contains_key(&process) {
            let newest = |told: &VecDeque<Told>| told.back().map_or(MonotonicNs(0), |told| told.since);
            let oldest = self.processes.iter().min_by_key(|(_, told)| newest(told)).map(|(process, _)| *process);
            oldest.and_then(|process| self.processes.remove(&process));
        }
        let known = self.processes.entry(process).or_default();
        if known.len() >= MOST_CHANGES {
            known.pop_front();
        }
        known.push_back(Told { since, are_others, methods: methods.into_iter().collect() });
    }

    /// The number of the process is another one's now.
    pub fn forget(&mut self, process: u32) {
        self.processes.remove(&process);
    }

    /// A call has come: the steps of its object that it may hide. `method` is that of a Python class which it runs.
    pub fn steps_of(&mut self, call: &Call, method: Option<&str>, python: &PythonObjects) -> UnwatchedSteps {
        let Some(told) = self.processes.get(&call.process) else { return UnwatchedSteps::none() };
        let key = |call: &Call, number| (call.thread, call.thread_first_seen, number);
        let inside = self.seen.remove(&key(call, call.call)).unwrap_or_default();
        let Some(object) = call.object.filter(|_| method.is_some()) else { return UnwatchedSteps::none() };
        let around = match (call.parent_call, call.join) {
            (Some(parent), _) => Some(key(call, parent)),
            (None, Some(join)) => Some((join.parent.thread, join.parent.first_seen, join.parent.call)),
            (None, None) => None,
        };
        if let Some(around) = around {
            if self.seen.len() >= MOST_CALLS && !self.seen.contains_key(&around) {
                self.seen.clear();
            }
            let seen = self.seen.entry(around).or_default();
            // Of two calls on one object inside each other, the steps of one are those of the other.
            let of_inner = inside.iter().filter(|inner| inner.through.is_none_or(|through| through == object));
            let of_inner = of_inner.map(|inner| Seen { object: inner.object, through: Some(object) });
            for new in [Seen { object, through: None }].into_iter().chain(of_inner) {
                if seen.len() < MOST_OBJECTS && !seen.contains(&new) {
                    seen.push(new);
                }
            }
        }
        let in_force = in_force(told, call);
        let mut steps = UnwatchedSteps::none();
        let Some(listed) = python.listed_in(call.process, object, call.class) else {
            if in_force.iter().any(|told| told.are_others) {
                steps.add(UNKNOWN_STEPS);
            }
            return steps;
        };
        if listed.is_empty() {
            return steps;
        }
        let seen = inside.iter().filter(|seen| seen.through.is_none_or(|through| through == object));
        let seen: HashSet<RemoteAddress> = seen.map(|seen| seen.object).collect();
        let method = method.unwrap_or_default();
        // A container may list what it was made of beside what it has trained of that, under the same names.
        let mut named: HashSet<Name<'_>> =
            listed.iter().filter(|step| seen.contains(&step.object)).map(Name::of).collect();
        // Where an exception has left it, steps behind the one that raised it were not called: of those whose calls by this method would
        // have been seen that is known.
        let has_failed = matches!(call.ending, CallEnding::Unwound { .. });
        for step in listed {
            let may_hide = |methods: &Vec<Arc<str>>| {
                let is_called = |of_step: &Arc<str>| match has_failed {
                    true => **of_step == *method || &**of_step == "transform",
                    false => may_be_called(of_step, method),
                };
                methods.is_empty() || methods.iter().any(is_called)
            };
            let mut of_class = in_force.iter().filter_map(|told| told.methods.get(&step.class));
            if !of_class.any(may_hide) || !named.insert(Name::of(step)) {
                continue;
            }
            match &step.step {
                Some(name) => steps.add(name),
                None => steps.add(python.told_class(call.process, step.class).map_or("?", |name| name)),
            }
        }
        steps
    }
}

/// What an object in a list goes by: its name there, or where it has none its class.
#[derive(PartialEq, Eq, Hash)]
enum Name<'listed> {
    Step(&'listed str),
    Class(RemoteAddress),
}

impl<'listed> Name<'listed> {
    fn of(listed: &'listed Listed) -> Self {
        listed.step.as_deref().map_or(Self::Class(listed.class), Self::Step)
    }
}

/// What was told that held at any time of a call.
fn in_force<'told>(told: &'told VecDeque<Told>, call: &Call) -> Vec<&'told Told> {
    let ends = told.iter().skip(1).map(|next| Some(next.since)).chain([None]);
    let meets =
        |(told, end): &(&Told, Option<MonotonicNs>)| told.since <= call.end && end.is_none_or(|end| call.start < end);
    told.iter().zip(ends).filter(meets).map(|(told, _)| told).collect()
}

/// Whether a method of a step may be called by this method of its container: what trains calls what trains or transforms, and
/// everything else calls what does not train.
fn may_be_called(of_step: &str, by: &str) -> bool {
    let trains = |method: &str| method.contains("fit");
    if trains(by) { trains(of_step) || of_step == "transform" } else { !trains(of_step) }
}

#[cfg(test)]
mod tests {
    use tracer_common::limits::MAX_ARGUMENTS;

    use super::*;
    use crate::model::{CallEnding, ContainerMember, ForeignCall, FunctionId, Join, PythonNames};

    const PIPELINE: RemoteAddress = RemoteAddress(1);
    const SCALER: RemoteAddress = RemoteAddress(2);
    const FOREST: RemoteAddress = RemoteAddress(3);
    const SCALER_CLASS: RemoteAddress = RemoteAddress(12);
    const FOREST_CLASS: RemoteAddress = RemoteAddress(13);

    fn python() -> PythonObjects {
        let member = |child, class, step: Option<&str>| ContainerMember {
            container: PIPELINE,
            container_class: None,
            child,
            class: Some(class),
            step: step.map(Into::into),
        };
        let mut python = PythonObjects::new(Box::new(|_, _| None));
        python.learn(PythonNames {
            process: 4200,
            classes: vec![(FOREST_CLASS, "Forest".into())],
            members: vec![
                member(SCALER, SCALER_CLASS, Some("scaler")),
                member(FOREST, FOREST_CLASS, Some("rf")),
                member(RemoteAddress(4), FOREST_CLASS, None),
                member(RemoteAddress(5), FOREST_CLASS, None),
            ],
            ..PythonNames::default()
        });
        python
    }

    fn told(since: u64, methods: &[(RemoteAddress, &[&str])]) -> UnwatchedMethods {
        let methods = methods.iter().map(|(class, names)| (*class, names.iter().map(|name| (*name).into()).collect()));
        UnwatchedMethods { process: 4200, since: MonotonicNs(since), methods: methods.collect(), are_others: false }
    }

    fn call(number: u64, parent: Option<u64>, object: RemoteAddress) -> Call {
        Call {
            process: 4200,
            thread: ThreadId(9),
            thread_first_seen: MonotonicNs(500),
            function: FunctionId(3),
            depth: u32::from(parent.is_some()),
            sequence: number,
            call: number,
            parent_call: parent,
            root_call: 1,
            start: MonotonicNs(2_000),
            end: MonotonicNs(3_000),
            ending: CallEnding::Returned { value: None },
            is_on_own_stack: true,
            object: Some(object),
            folded_calls: 0,
            arguments: [None; MAX_ARGUMENTS],
            class: None,
            join: None,
            start_uncertainty_ns: 0,
            may_be_several: false,
            context: None,
            has_lost_span: false,
        }
    }

    /// What the calls of a pipeline hide, given the calls inside.
    fn hidden(unwatched: &mut Unwatched, inside: &[Call], outer: &Call, method: &str) -> String {
        let python = python();
        for call in inside {
            assert!(unwatched.steps_of(call, Some("transform"), &python).is_empty());
        }
        unwatched.steps_of(outer, Some(method), &python).text()
    }

    #[test]
    fn a_step_that_nobody_watches_is_named_unless_it_was_seen() {
        let mut unwatched = Unwatched::default();
        let outer = call(1, None, PIPELINE);
        assert_eq!(hidden(&mut unwatched, &[], &outer, "predict"), "", "everything is watched");
        unwatched.learn(told(0, &[(FOREST_CLASS, &["predict", "predict_proba"])]));
        assert_eq!(hidden(&mut unwatched, &[call(2, Some(1), SCALER)], &outer, "predict"), "rf, Forest");
        let both = [call(2, Some(1), SCALER), call(3, Some(1), FOREST)];
        assert_eq!(hidden(&mut unwatched, &both, &outer, "predict"), "Forest", "what has a name is another one");
        assert_eq!(hidden(&mut unwatched, &[], &outer, "fit"), "", "what predicts is not called by what trains");
        unwatched.learn(told(1, &[(SCALER_CLASS, &["transform"])]));
        assert_eq!(hidden(&mut unwatched, &[], &outer, "fit"), "scaler");
        unwatched.learn(told(2, &[(SCALER_CLASS, &[])]));
        assert_eq!(hidden(&mut unwatched, &[], &outer, "predict"), "scaler", "its class is excluded");
        assert!(unwatched.seen.is_empty());
        unwatched.forget(4200);
        assert_eq!(hidden(&mut unwatched, &[], &outer, "fit"), "");
    }

    #[test]
    fn what_a_step_was_made_of_is_the_step() {
        let mut unwatched = Unwatched::default();
        unwatched.learn(told(0, &[(FOREST_CLASS, &["predict_proba"])]));
        let mut python = python();
        let member = |child| ContainerMember {
            container: PIPELINE,
            container_class: None,
            child: RemoteAddress(child),
            class: Some(FOREST_CLASS),
            step: Some("rf".into()),
        };
        let members = vec![member(FOREST.0), member(77)];
        python.learn(PythonNames { process: 4200, members, ..PythonNames::default() });
        unwatched.steps_of(&call(2, Some(1), FOREST), Some("predict"), &python);
        let outer = call(1, None, PIPELINE);
        assert_eq!(unwatched.steps_of(&outer, Some("predict"), &python).text(), "", "the trained one was seen");
        assert_eq!(unwatched.steps_of(&outer, Some("predict"), &python).text(), "rf", "each name once");
    }

    #[test]
    fn a_container_that_nobody_has_looked_into_may_hide_what_nobody_watches() {
        const PIPELINE_CLASS: RemoteAddress = RemoteAddress(11);
        let mut unwatched = Unwatched::default();
        unwatched.learn(told(0, &[]));
        let mut python = python();
        python.learn(PythonNames { process: 4200, containers: vec![PIPELINE_CLASS], ..PythonNames::default() });
        let outer = Call { class: Some(PIPELINE_CLASS), ..call(1, None, PIPELINE) };
        assert_eq!(unwatched.steps_of(&outer, Some("predict"), &python).text(), "", "everything is watched");
        unwatched.learn(UnwatchedMethods { are_others: true, ..told(1, &[]) });
        assert_eq!(unwatched.steps_of(&outer, Some("predict"), &python).text(), UNKNOWN_STEPS);
        let no_container = Call { class: Some(SCALER_CLASS), ..outer.clone() };
        assert_eq!(unwatched.steps_of(&no_container, Some("predict"), &python).text(), "");
        // What was another container's memory lists nothing of that one.
        let member = ContainerMember {
            container: PIPELINE,
            container_class: Some(RemoteAddress(14)),
            child: FOREST,
            class: Some(FOREST_CLASS),
            step: Some("best_estimator_".into()),
        };
        python.learn(PythonNames { process: 4200, members: vec![member], ..PythonNames::default() });
        unwatched.learn(told(2, &[(FOREST_CLASS, &["predict"])]));
        let its_own = Call { class: Some(RemoteAddress(14)), start: MonotonicNs(2_500), ..outer.clone() };
        assert_eq!(unwatched.steps_of(&its_own, Some("predict"), &python).text(), "best_estimator_");
        assert_eq!(unwatched.steps_of(&outer, Some("predict"), &python).text(), "");
    }

    #[test]
    fn what_an_exception_has_kept_from_being_called_is_not_hidden() {
        let mut unwatched = Unwatched::default();
        unwatched.learn(told(0, &[(FOREST_CLASS, &["predict_proba"])]));
        let outer = call(1, None, PIPELINE);
        assert_eq!(hidden(&mut unwatched, &[], &outer, "predict"), "rf, Forest");
        let raised = Call { ending: CallEnding::Unwound { exception: None, is_end_exact: true }, ..outer };
        assert_eq!(hidden(&mut unwatched, &[], &raised, "predict"), "");
        unwatched.learn(told(1, &[(FOREST_CLASS, &["predict"])]));
        assert_eq!(hidden(&mut unwatched, &[], &raised, "predict"), "rf, Forest");
    }

    #[test]
    fn what_was_watched_for_a_part_of_the_call_was_not_watched() {
        let outer = Call { start: MonotonicNs(1_000), end: MonotonicNs(2_000), ..call(1, None, PIPELINE) };
        for (changes, expected) in [
            (vec![told(100, &[(SCALER_CLASS, &["transform"])]), told(1_500, &[])], "scaler"),
            (vec![told(100, &[(SCALER_CLASS, &["transform"])]), told(900, &[])], ""),
            (vec![told(100, &[]), told(1_999, &[(SCALER_CLASS, &["transform"])])], "scaler"),
            (vec![told(100, &[]), told(2_001, &[(SCALER_CLASS, &["transform"])])], ""),
        ] {
            let mut unwatched = Unwatched::default();
            changes.into_iter().for_each(|told| unwatched.learn(told));
            assert_eq!(hidden(&mut unwatched, &[], &outer, "predict"), expected);
        }
    }

    #[test]
    fn what_a_call_on_the_same_object_has_called_was_seen() {
        let mut unwatched = Unwatched::default();
        unwatched.learn(told(0, &[(SCALER_CLASS, &["transform", "predict"])]));
        let (scaler, inner, outer) = (call(3, Some(2), SCALER), call(2, Some(1), PIPELINE), call(1, None, PIPELINE));
        assert_eq!(hidden(&mut unwatched, &[scaler.clone(), inner], &outer, "predict"), "");
        let other = call(2, Some(1), RemoteAddress(99));
        assert_eq!(
            hidden(&mut unwatched, &[scaler, other], &outer, "predict"),
            "scaler",
            "that was another one's step"
        );
    }

    #[test]
    fn a_step_that_another_thread_ran_was_seen() {
        let mut unwatched = Unwatched::default();
        unwatched.learn(told(0, &[(SCALER_CLASS, &["transform", "predict"])]));
        let outer = call(1, None, PIPELINE);
        let parent = ForeignCall { thread: outer.thread, first_seen: outer.thread_first_seen, call: 1 };
        let join = Some(Join { parent, trace: parent });
        let joined = Call { thread: ThreadId(77), join, ..call(1, None, SCALER) };
        assert_eq!(hidden(&mut unwatched, &[joined], &outer, "predict"), "");
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut unwatched = Unwatched::default();
        (0..5_000).for_each(|process| unwatched.learn(UnwatchedMethods { process, ..told(u64::from(process), &[]) }));
        assert!(unwatched.processes.len() <= MOST_PROCESSES);
        (0..100).for_each(|time| unwatched.learn(told(time, &[])));
        assert!(unwatched.processes[&4200].len() <= MOST_CHANGES);
        let python = python();
        for number in 2..20_000 {
            unwatched.steps_of(&call(number, Some(number + 1_000_000), SCALER), Some("predict"), &python);
            if number < 1_000 {
                unwatched.steps_of(&call(number, Some(1), RemoteAddress(number)), Some("predict"), &python);
            }
        }
        assert!(unwatched.seen.len() <= MOST_CALLS);
        assert!(unwatched.seen.values().all(|seen| seen.len() <= MOST_OBJECTS));
    }
}
