//! What a look has found and the code that is seen go in; the methods of steps of containers that are not seen come out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::model::{PythonSurvey, RemoteAddress};

/// The methods of a class.
type OfClass = (RemoteAddress, Vec<Arc<str>>);

/// Methods that the maps ask for, of classes whose objects are steps of containers, and whose calls are not seen where this
/// code is: no watchpoint is left, or they cannot be watched at all. By class, in the order of addresses; of an excluded class
/// none is named, and none is seen.
pub fn unwatched_methods(survey: &PythonSurvey, seen: &[RemoteAddress]) -> Vec<OfClass> {
    let steps: HashSet<RemoteAddress> = survey.members.iter().filter_map(|member| member.class).collect();
    if steps.is_empty() {
        return Vec::new();
    }
    let seen: HashSet<RemoteAddress> = seen.iter().copied().collect();
    // Each method may run several code objects, inside each other: one of them is enough.
    let mut is_seen: BTreeMap<RemoteAddress, BTreeMap<Arc<str>, bool>> = BTreeMap::new();
    for code in &survey.codes {
        for user in code.users.iter().filter(|user| steps.contains(&user.address)) {
            let of_class = is_seen.entry(user.address).or_default();
            let method = of_class.entry(Arc::clone(&user.method)).or_default();
            *method |= seen.contains(&code.address);
        }
    }
    let mut unwatched: BTreeMap<RemoteAddress, BTreeSet<Arc<str>>> = BTreeMap::new();
    for (class, methods) in is_seen {
        let unseen: BTreeSet<Arc<str>> = methods.into_iter().filter(|(_, seen)| !seen).map(|(name, _)| name).collect();
        if !unseen.is_empty() {
            unwatched.insert(class, unseen);
        }
    }
    let mut skipped: HashMap<&str, Vec<&str>> = HashMap::new();
    for (class, method) in survey.skipped.iter().filter_map(|skipped| skipped.name.rsplit_once('.')) {
        skipped.entry(class).or_default().push(method);
    }
    for class in survey.classes.iter().filter(|class| steps.contains(&class.address)) {
        if class.excluded.is_some() {
            unwatched.insert(class.address, BTreeSet::new());
            continue;
        }
        for method in skipped.get(&*class.name).into_iter().flatten() {
            unwatched.entry(class.address).or_default().insert((*method).into());
        }
    }
    unwatched.into_iter().map(|(class, methods)| (class, methods.into_iter().collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CodeUser, ContainerMember, PythonClass, PythonCode, PythonSkipReason, PythonSkipped, Receiver};

    fn code(address: u64, users: &[(u64, &str)]) -> PythonCode {
        let user = |(class, method): &(u64, &str)| CodeUser {
            address: RemoteAddress(*class),
            class: "C".into(),
            method: (*method).into(),
            instances: 1,
            in_models: 1,
            roots: 0,
        };
        PythonCode {
            address: RemoteAddress(address),
            name: "code".into(),
            frame_bytes: 0,
            receiver: Receiver::Local,
            receiver_offset: 0,
            users: users.iter().map(user).collect(),
            loops: None,
            first_argument: None,
            wraps: Vec::new(),
        }
    }

    fn class(address: u64, name: &str, excluded: bool) -> PythonClass {
        PythonClass {
            address: RemoteAddress(address),
            name: name.into(),
            path: name.into(),
            library: "test".into(),
            nests: false,
            is_container: false,
            lists_children: false,
            excluded: excluded.then(|| name.to_owned()),
            instances: 1,
            is_named: false,
        }
    }

    fn survey() -> PythonSurvey {
        let member = |class| ContainerMember {
            container: RemoteAddress(1),
            container_class: None,
            child: RemoteAddress(class + 100),
            class: Some(RemoteAddress(class)),
            step: None,
        };
        PythonSurvey {
            classes: vec![class(10, "Pipeline", false), class(11, "Scaler", false), class(12, "Tree", true)],
            codes: vec![
                code(1, &[(10, "predict")]),
                code(2, &[(11, "transform"), (12, "transform")]),
                code(3, &[(11, "transform")]),
                code(4, &[(11, "fit")]),
            ],
            members: vec![member(11), member(12)],
            skipped: vec![PythonSkipped {
                name: "Scaler.predict".into(),
                reason: PythonSkipReason::NotPython,
                is_live: true,
            }],
            ..PythonSurvey::default()
        }
    }

    fn unwatched(seen: &[u64]) -> Vec<(u64, Vec<String>)> {
        let seen: Vec<RemoteAddress> = seen.iter().copied().map(RemoteAddress).collect();
        let unwatched = unwatched_methods(&survey(), &seen);
        unwatched
            .into_iter()
            .map(|(class, methods)| (class.0, methods.iter().map(ToString::to_string).collect()))
            .collect()
    }

    fn expected(scaler: &[&str]) -> Vec<(u64, Vec<String>)> {
        vec![(11, scaler.iter().map(ToString::to_string).collect()), (12, Vec::new())]
    }

    #[test]
    fn of_code_around_a_method_and_in_it_one_is_enough() {
        assert_eq!(unwatched(&[]), expected(&["fit", "predict", "transform"]));
        assert_eq!(unwatched(&[3]), expected(&["fit", "predict"]));
        assert_eq!(unwatched(&[2, 4]), expected(&["predict"]), "an excluded class is never seen");
    }

    #[test]
    fn what_is_no_step_of_a_container_hides_nothing() {
        let survey = PythonSurvey { members: Vec::new(), ..survey() };
        assert!(unwatched_methods(&survey, &[]).is_empty());
    }
}
