//! Which code is chosen.

use super::*;
use crate::model::{CodeUser, KernelFeatures, PythonClass, Receiver};

fn code(address: u64, name: &str, users: &[(&str, &str, u32)]) -> PythonCode {
    PythonCode {
        address: RemoteAddress(address),
        name: name.into(),
        frame_bytes: 160,
        receiver: Receiver::Local,
        receiver_offset: 0,
        users: users
            .iter()
            .map(|(class, method, in_models)| CodeUser {
                address: class_address(class),
                class: (*class).into(),
                method: (*method).into(),
                instances: *in_models,
                in_models: *in_models,
                roots: 0,
            })
            .collect(),
        loops: None,
        first_argument: None,
        wraps: Vec::new(),
    }
}

/// One address for each name.
fn class_address(name: &str) -> RemoteAddress {
    RemoteAddress(name.bytes().fold(0x1000, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte))))
}

fn function(address: u64, code: u64, qualified_name: &str, method: Option<&str>) -> PythonFunction {
    PythonFunction {
        address: RemoteAddress(address),
        code: RemoteAddress(code),
        inner: Vec::new(),
        method: method.map(Into::into),
        qualified_name: qualified_name.into(),
        module: "sklearn.somewhere".into(),
        file: "somewhere.py".into(),
        line: 12,
        library: "scikit-learn".into(),
        of_container: false,
    }
}

fn survey() -> PythonSurvey {
    PythonSurvey {
        functions: vec![
            function(0x10, 1, "Pipeline.predict", Some("predict")),
            function(0x20, 2, "StandardScaler.transform", Some("transform")),
            function(0x21, 2, "PolynomialFeatures.transform", Some("transform")),
            function(0x22, 2, "PolynomialFeatures.fit_transform", None),
            function(0x30, 3, "LinearClassifierMixin.predict", Some("predict")),
        ],
        codes: vec![
            code(1, "Pipeline.predict", &[("Pipeline", "predict", 1)]),
            code(2, "wrapped", &[("StandardScaler", "transform", 1), ("PolynomialFeatures", "transform", 1)]),
            code(3, "LinearClassifierMixin.predict", &[("LogisticRegression", "predict", 1), ("Idle", "predict", 0)]),
        ],
        ..PythonSurvey::default()
    }
}

fn plan(survey: &PythonSurvey, budget: &PythonBudget) -> PythonPlan {
    Planner::new(KernelFeatures::default()).plan_python("libpython", survey, budget)
}

fn budget(slots: usize) -> PythonBudget {
    PythonBudget { slots: Some(slots), function_is_seen: true, ..PythonBudget::default() }
}

fn watched(plan: &PythonPlan) -> Vec<u64> {
    plan.watched.iter().map(|(address, _)| address.0).collect()
}

/// A decorator that one class has around a method, which another class has without: a call must not be seen twice.
#[test]
fn of_a_function_and_what_it_wraps_one_is_seen() {
    let wrapper =
        PythonFunction { inner: vec![RemoteAddress(0x20)], ..function(0x10, 1, "A.predict", Some("predict")) };
    let wraps = vec![RemoteAddress(2)];
    let survey = PythonSurvey {
        functions: vec![wrapper, function(0x20, 2, "A.predict", Some("predict"))],
        codes: vec![
            PythonCode { wraps, ..code(1, "wrapper", &[("A", "predict", 2), ("C", "predict", 2)]) },
            code(2, "A.predict", &[("A", "predict", 2), ("B", "predict", 1)]),
        ],
        ..PythonSurvey::default()
    };
    let silent = |plan: &PythonPlan| -> Vec<u64> {
        let functions = plan.tables.functions.iter().filter(|(_, rule)| rule.function == NO_FUNCTION);
        functions.map(|(address, _)| address.0).collect()
    };
    let both = plan(&survey, &budget(2));
    assert_eq!((watched(&both), silent(&both)), (vec![1, 2], vec![0x10]));
    let outer = plan(&survey, &budget(1));
    assert_eq!((watched(&outer), silent(&outer)), (vec![1], vec![]));
}

#[test]
fn shared_code_comes_first_and_the_rest_is_named() {
    let plan = plan(&survey(), &budget(2));
    assert_eq!(watched(&plan), [2, 1]);
    assert_eq!(plan.watched[0].1.methods, ["PolynomialFeatures.transform", "StandardScaler.transform"]);
    assert_eq!(plan.not_watched.len(), 1);
    assert_eq!(plan.not_watched[0].name, "LogisticRegression.predict");
    assert_eq!(
        plan.not_watched[0].reason,
        "no more than 2 can be watched at one time (`--python chain` and `--python frames` have no such limit)"
    );
}

#[test]
fn counted_calls_decide_before_live_objects() {
    let mut budget = budget(1);
    budget.calls.insert(RemoteAddress(3), 40);
    assert_eq!(watched(&plan(&survey(), &budget)), [3]);
}

#[test]
fn code_that_nobody_calls_makes_room() {
    let mut budget = budget(2);
    budget.calls.insert(RemoteAddress(2), 5);
    budget.uncalled.insert(RemoteAddress(1));
    assert_eq!(watched(&plan(&survey(), &budget)), [2, 3]);
}

#[test]
fn what_serves_comes_before_what_trains() {
    let mut survey = survey();
    survey.codes.push(code(5, "wrapper", &[("Pipeline", "fit", 1), ("StandardScaler", "fit", 1)]));
    assert_eq!(watched(&plan(&survey, &budget(3))), [2, 1, 3]);
}

#[test]
fn what_is_left_goes_to_classes_without_objects() {
    let mut survey = survey();
    survey.codes.push(code(5, "Late.predict", &[("Late", "predict", 0)]));
    survey.codes.push(code(6, "wrapper", &[("Late", "transform", 0), ("Later", "transform", 0)]));
    assert_eq!(watched(&plan(&survey, &budget(4))), [2, 1, 3]);
    let budget = PythonBudget { without_objects: true, ..budget(4) };
    let plan = plan(&survey, &budget);
    // The third serves a class without objects as well.
    assert_eq!(watched(&plan), [2, 3, 1, 6]);
    // What was called stays, although its objects come and go with each request.
    let called = PythonBudget { calls: HashMap::from([(RemoteAddress(5), 9)]), ..budget };
    assert_eq!(watched(&self::plan(&survey, &called)), [5, 2, 3, 1]);
    assert!(plan.watched[3].1.methods.is_empty() && plan.not_watched.is_empty());
}

/// Classes without objects: one that lists children, many that share code, and one of its own.
fn unborn() -> PythonSurvey {
    let class = |name: &str, is_container| PythonClass {
        address: class_address(name),
        name: name.into(),
        path: name.into(),
        library: "scikit-learn".into(),
        nests: is_container,
        is_container,
        lists_children: is_container,
        excluded: None,
        instances: 0,
        is_named: false,
    };
    let wrapped = [("Scaler", "transform", 0), ("Encoder", "transform", 0)];
    PythonSurvey {
        classes: vec![class("Pipeline", true), class("Scaler", false)],
        codes: vec![
            code(1, "wrapper", &[("Pipeline", "fit", 0), ("Scaler", "fit", 0), ("Forest", "fit", 0)]),
            PythonCode { wraps: vec![RemoteAddress(4)], ..code(2, "wrapped", &wrapped) },
            code(3, "Forest.predict", &[("Forest", "predict", 0)]),
            code(4, "Scaler.transform", &wrapped[..1]),
            code(5, "Pipeline.predict", &[("Pipeline", "predict", 0)]),
        ],
        ..PythonSurvey::default()
    }
}

#[test]
fn where_nothing_lives_containers_come_first_and_then_what_many_share() {
    let survey = unborn();
    assert!(watched(&plan(&survey, &budget(4))).is_empty());
    let budget = PythonBudget { without_objects: true, ..budget(3) };
    let first = plan(&survey, &budget);
    assert_eq!(watched(&first), [5, 2, 3]);
    assert!(first.has_more && first.not_watched.is_empty());
    assert_eq!(first.without_objects.len(), 3);
    assert_eq!(first.called(RemoteAddress(2), &first.watched[1].1, 0).methods, [""; 0]);
    let called = first.called(RemoteAddress(2), &first.watched[1].1, 7);
    assert_eq!((called.methods, called.calls_seen), (vec!["Encoder.transform".into(), "Scaler.transform".into()], 7));
    // What is inside code that nobody calls is not called either: the next in turn is the other one.
    let second = plan(&survey, &PythonBudget { uncalled: [5, 2, 3].map(RemoteAddress).into(), ..budget });
    assert_eq!(watched(&second), [1, 5, 2]);
}

#[test]
fn what_the_application_names_comes_first_and_is_trained_too() {
    let mut survey = unborn();
    let named = survey.classes[1].clone();
    survey.classes.push(PythonClass {
        address: class_address("Forest"),
        name: "Forest".into(),
        is_named: true,
        ..named
    });
    let budget = PythonBudget { without_objects: true, ..budget(2) };
    assert_eq!(watched(&plan(&survey, &budget)), [3, 1]);
}

#[test]
fn classes_that_had_objects_are_wanted_and_told() {
    let survey = unborn();
    let had_objects = HashSet::from([Arc::from("Forest")]);
    let budget = PythonBudget { without_objects: true, had_objects, ..budget(2) };
    let plan = plan(&survey, &budget);
    assert_eq!(watched(&plan), [3, 1]);
    assert_eq!(plan.watched[0].1.methods, ["Forest.predict"]);
    // The wrapper serves a class that had objects, and others.
    assert_eq!(plan.watched[1].1.methods, ["Forest.fit"]);
    assert!(plan.without_objects.is_empty());
}

#[test]
fn what_was_called_once_comes_before_what_never_was() {
    let survey = survey();
    let uncalled: HashSet<RemoteAddress> = [1, 2, 3].map(RemoteAddress).into();
    let budget = PythonBudget { uncalled, called_before: [RemoteAddress(3)].into(), ..budget(1) };
    assert_eq!(watched(&plan(&survey, &budget)), [3]);
}

#[test]
fn classes_of_one_name_are_two_classes() {
    let mut survey = survey();
    // As imbalanced-learn's Pipeline beside that of scikit-learn.
    let mut other = code(5, "Pipeline.predict", &[("Pipeline", "predict", 1)]);
    other.users[0].address = RemoteAddress(0x99);
    survey.codes.push(other);
    let plan = plan(&survey, &budget(4));
    assert_eq!(watched(&plan), [2, 1, 3, 5]);
    assert_eq!(plan.not_watched, []);
}

#[test]
fn what_chosen_code_wraps_is_not_taken_for_a_class_without_objects() {
    let mut survey = survey();
    // As in XGBoost: one wrapper around the method of each class, of which one has an object.
    survey.codes.push(code(5, "inner_f", &[("Live", "predict", 1), ("Base", "predict", 0)]));
    survey.codes.push(code(6, "Live.predict", &[("Live", "predict", 1)]));
    survey.codes.push(code(7, "Base.predict", &[("Base", "predict", 0)]));
    survey.codes[3].wraps = vec![RemoteAddress(6), RemoteAddress(7)];
    let budget = PythonBudget { without_objects: true, slots: None, ..budget(4) };
    let mut watched = watched(&plan(&survey, &budget));
    watched.sort_unstable();
    assert_eq!(watched, [1, 2, 3, 5]);
}

#[test]
fn functions_of_the_chosen_code_get_numbers_and_strangers_get_none() {
    let plan = plan(&survey(), &budget(4));
    assert_eq!(plan.functions.len(), 4);
    let stranger = plan.tables.functions.iter().find(|(address, _)| *address == RemoteAddress(0x22));
    assert_eq!(stranger.map(|(_, rule)| rule.function), Some(NO_FUNCTION));
    let rule =
        |address| plan.tables.codes.iter().find(|(code, _)| code.0 == address).map(|(_, rule)| rule.only_function);
    assert_eq!(rule(2), Some(NO_FUNCTION), "several functions run it");
    assert_ne!(rule(1), Some(NO_FUNCTION));
    assert!(plan.not_watched.is_empty());
}

#[test]
fn a_second_plan_keeps_the_numbers() {
    let mut planner = Planner::new(KernelFeatures::default());
    let first = planner.plan_python("libpython", &survey(), &budget(4));
    let second = planner.plan_python("libpython", &survey(), &budget(4));
    assert_eq!(first.tables, second.tables);
    assert_eq!(first.functions, second.functions);
}

#[test]
fn without_the_function_object_shared_code_is_of_no_use() {
    let everything = PythonBudget::default();
    let mut survey = survey();
    survey.codes.push(code(4, "StandardScaler.transform", &[("StandardScaler", "transform", 1)]));
    let plan = plan(&survey, &everything);
    assert!(!watched(&plan).contains(&2));
    assert!(watched(&plan).contains(&4));
}

#[test]
fn excluded_classes_ask_for_nothing() {
    let mut survey = survey();
    survey.classes.push(PythonClass {
        address: class_address("Pipeline"),
        name: "Pipeline".into(),
        path: "sklearn.pipeline.Pipeline".into(),
        library: "scikit-learn".into(),
        nests: true,
        is_container: true,
        lists_children: true,
        excluded: Some("sklearn.pipeline.Pipeline".into()),
        instances: 1,
        is_named: false,
    });
    assert!(!watched(&plan(&survey, &budget(4))).contains(&1));
}

#[test]
fn names_without_a_class_are_those_of_the_function() {
    assert_eq!(&*own_name("LinearClassifierMixin.predict"), "LinearClassifierMixin.predict");
    assert_eq!(&*own_name("build.<locals>.Model.predict"), "Model.predict");
    assert_eq!(&*own_name("predict"), "predict");
}

#[test]
fn what_others_call_comes_after_what_is_called_here_and_before_what_only_lives() {
    let mut survey = survey();
    survey.codes.push(code(4, "Pipeline.predict_proba", &[("Pipeline", "predict_proba", 1)]));
    let elsewhere = HashMap::from([(RemoteAddress(4), 100_000), (RemoteAddress(3), 7)]);
    let mut budget = PythonBudget { elsewhere, ..budget(3) };
    assert_eq!(watched(&plan(&survey, &budget)), [4, 3, 2]);
    budget.calls.insert(RemoteAddress(1), 1);
    assert_eq!(watched(&plan(&survey, &budget)), [1, 4, 3]);
    // That it had its turn in a quiet time says nothing.
    budget.uncalled.insert(RemoteAddress(4));
    assert_eq!(watched(&plan(&survey, &budget)), [1, 4, 3]);
    budget.elsewhere.remove(&RemoteAddress(4));
    assert_eq!(watched(&plan(&survey, &budget)), [1, 3, 2]);
}

/// So many classes with a method of their own, the later ones with more objects.
fn many(count: u64) -> PythonSurvey {
    let mut survey = PythonSurvey::default();
    for number in 0..count {
        let (name, instances) = (format!("Model{number}"), number as u32);
        survey.codes.push(code(10 + number, "predict", &[(&name, "predict", instances)]));
        let method = format!("{name}.predict");
        survey.functions.push(function(1_000_000 + number, 10 + number, &method, Some("predict")));
        survey.classes.push(PythonClass {
            address: class_address(&name),
            name: name.as_str().into(),
            path: name.as_str().into(),
            library: "test".into(),
            nests: true,
            is_container: false,
            lists_children: false,
            excluded: None,
            instances,
            is_named: false,
        });
    }
    survey
}

#[test]
fn whatever_there_is_is_told_the_most_wanted_first_and_soon() {
    const COUNT: u64 = 20_000;
    let began = std::time::Instant::now();
    let all = PythonBudget { slots: None, ..budget(0) };
    let plan = plan(&many(COUNT), &PythonBudget { without_objects: true, ..all });
    assert_eq!(plan.tables.codes.len() as u64, COUNT);
    let last = format!("Model{}", COUNT - 1);
    assert_eq!(plan.tables.codes[0].0, RemoteAddress(10 + COUNT - 1));
    assert_eq!(plan.tables.functions[0].0, RemoteAddress(1_000_000 + COUNT - 1));
    assert_eq!(plan.tables.classes[0].0, class_address(&last));
    assert_eq!((plan.without_number, plan.new_numbers as u64), (0, COUNT));
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn functions_that_find_no_number_are_counted_and_take_none_from_others() {
    let mut planner = Planner::new(KernelFeatures::default());
    let all = PythonBudget { slots: None, without_objects: true, ..budget(0) };
    let first = planner.plan_python("libpython", &many(10), &PythonBudget { new_numbers: Some(4), ..all.clone() });
    assert_eq!((first.without_number, first.new_numbers, first.functions.len()), (6, 4, 4));
    let numbers = |plan: &PythonPlan| plan.tables.functions.iter().map(|(_, rule)| rule.function).collect::<Vec<_>>();
    assert_eq!(numbers(&first)[4..], [NO_FUNCTION; 6], "the least wanted ones");
    // Known functions keep their numbers, and others still get some.
    let second = planner.plan_python("libpython", &many(10), &PythonBudget { new_numbers: Some(3), ..all });
    assert_eq!((second.without_number, second.new_numbers), (3, 3));
    assert_eq!(numbers(&second)[..4], numbers(&first)[..4]);
}
