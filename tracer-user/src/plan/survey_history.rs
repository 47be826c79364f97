//! One look at an interpreter after the other goes in; what is new, which classes have had objects, and which containers
//! stay what they are comes out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::{CodeUser, ContainerMember, PythonCode, PythonSurvey, RemoteAddress};

/// For so many looks a container that was gone again at the next look makes others wait.
const WARY_LOOKS: u64 = 10;

/// The classes and containers of one interpreter over time.
#[derive(Clone, Debug, Default)]
pub struct SurveyHistory {
    /// Bare names of classes that have had an object at a look.
    classes: HashSet<Arc<str>>,
    /// The containers of the last look with their children.
    containers: HashMap<RemoteAddress, Container>,
    /// Looks so far.
    looks: u64,
    /// Until this look, a container is told only once it was seen twice.
    wary_until: u64,
}

#[derive(Clone, Debug)]
struct Container {
    members: Vec<ContainerMember>,
    /// The first look that found it with these children.
    since: u64,
}

/// What a look has found that the one before had not.
#[derive(Debug, Default)]
pub struct SurveyDelta {
    /// Whether there is anything.
    pub is_any: bool,
    /// Code that may be called now, though it was not before.
    codes: HashSet<RemoteAddress>,
}

impl SurveyDelta {
    /// Whether code that nobody called may be called now.
    pub fn may_be_called(&self, code: RemoteAddress) -> bool {
        self.codes.contains(&code)
    }
}

impl SurveyHistory {
    /// Bare names of the classes that have had objects, of those that are there.
    pub fn classes(&self) -> &HashSet<Arc<str>> {
        &self.classes
    }

    /// Whether code serves a class that has had an object.
    pub fn is_wanted(&self, code: &PythonCode) -> bool {
        code.users.iter().any(|user| self.classes.contains(&user.class))
    }

    /// Takes up a look and compares it with the one before. Members of containers that may be gone in a moment are taken out
    /// of it: another object at their place would get their name.
    pub fn take_up(&mut self, before: &PythonSurvey, now: &mut PythonSurvey) -> SurveyDelta {
        let born: HashSet<Arc<str>> = now
            .codes
            .iter()
            .flat_map(|code| &code.users)
            .filter(|user| user.instances > 0 && !self.classes.contains(&user.class))
            .map(|user| Arc::clone(&user.class))
            .collect();
        let there: HashSet<&str> = now.classes.iter().map(|class| &*class.name).collect();
        self.classes.retain(|name| there.contains(&**name));
        self.classes.extend(born.iter().cloned());

        now.members = self.steady(std::mem::take(&mut now.members));

        let in_models: HashSet<(&Arc<str>, &Arc<str>)> = methods(before, |user| user.in_models > 0).collect();
        let joined: HashSet<&Arc<str>> = methods(now, |user| user.in_models > 0)
            .filter(|method| !in_models.contains(method))
            .map(|(class, _)| class)
            .collect();
        let is_fresh = |code: &&PythonCode| {
            let is_fresh = |user: &CodeUser| born.contains(&user.class) || joined.contains(&user.class);
            code.users.iter().any(is_fresh)
        };
        // Numbers of objects come and go with every request: what counts is whether there were any.
        let codes: HashSet<RemoteAddress> = now.codes.iter().filter(is_fresh).map(|code| code.address).collect();
        let is_any = !codes.is_empty()
            || addresses(before) != addresses(now)
            || before.functions != now.functions
            || before.members != now.members
            || before.routes != now.routes
            || before.array_type != now.array_type
            || before.current_span != now.current_span;
        SurveyDelta { is_any, codes }
    }

    /// The members of containers that can be relied on. A container that was new at one look and gone or another at the next
    /// is replaced all the time, and memory is used again: then only what two looks have found alike is told.
    fn steady(&mut self, found: Vec<ContainerMember>) -> Vec<ContainerMember> {
        self.looks += 1;
        let mut lists: HashMap<RemoteAddress, Vec<ContainerMember>> = HashMap::new();
        for member in &found {
            lists.entry(member.container).or_default().push(member.clone());
        }
        let was_brief = |(address, known): (&RemoteAddress, &Container)| {
            known.since + 1 == self.looks && lists.get(address) != Some(&known.members)
        };
        if self.containers.iter().any(was_brief) {
            self.wary_until = self.looks + WARY_LOOKS;
        }
        let mut containers = HashMap::with_capacity(lists.len());
        for (address, members) in lists {
            let known = self.containers.get(&address).filter(|known| known.members == members);
            let since = known.map_or(self.looks, |known| known.since);
            containers.insert(address, Container { members, since });
        }
        self.containers = containers;
        let is_wary = self.looks < self.wary_until;
        let is_told = |member: &ContainerMember| {
            let since = self.containers.get(&member.container).map(|container| container.since);
            !is_wary || since.is_some_and(|since| since < self.looks)
        };
        found.into_iter().filter(is_told).collect()
    }
}

fn addresses(survey: &PythonSurvey) -> Vec<(RemoteAddress, bool, bool)> {
    let classes = survey.classes.iter().map(|class| (class.address, class.is_named, class.nests));
    classes.chain(survey.codes.iter().map(|code| (code.address, false, false))).collect()
}

fn methods(survey: &PythonSurvey, which: fn(&CodeUser) -> bool) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
    let user = survey.codes.iter().flat_map(|code| &code.users);
    user.filter(move |user| which(user)).map(|user| (&user.class, &user.method))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PythonClass, Receiver};

    /// Code 1 of class `A`, code 2 of class `B`, with so many objects in models.
    fn survey(counts: [u32; 2], members: &[(u64, u64)]) -> PythonSurvey {
        let named = [("A", 1), ("B", 2)];
        let class = |(name, address): (&str, u64)| PythonClass {
            address: RemoteAddress(address + 100),
            name: name.into(),
            path: name.into(),
            library: "test".into(),
            nests: true,
            is_container: true,
            lists_children: true,
            excluded: None,
            instances: 0,
            is_named: false,
        };
        let code = |((name, address), count): ((&str, u64), u32)| PythonCode {
            address: RemoteAddress(address),
            name: name.into(),
            frame_bytes: 80,
            receiver: Receiver::Local,
            receiver_offset: 0,
            users: vec![CodeUser {
                class: name.into(),
                address: RemoteAddress(address + 100),
                method: "predict".into(),
                instances: count,
                in_models: count,
                roots: 0,
            }],
            loops: None,
            first_argument: None,
            wraps: Vec::new(),
        };
        let member = |(container, child): &(u64, u64)| ContainerMember {
            container: RemoteAddress(*container),
            container_class: None,
            child: RemoteAddress(*child),
            class: None,
            step: Some("step".into()),
        };
        PythonSurvey {
            classes: named.into_iter().map(class).collect(),
            codes: named.into_iter().zip(counts).map(code).collect(),
            members: members.iter().map(member).collect(),
            ..PythonSurvey::default()
        }
    }

    fn told(survey: &PythonSurvey) -> Vec<(u64, u64)> {
        survey.members.iter().map(|member| (member.container.0, member.child.0)).collect()
    }

    /// Takes up looks one after the other; gives what is told after each.
    fn looks(history: &mut SurveyHistory, found: &[&[(u64, u64)]]) -> Vec<Vec<(u64, u64)>> {
        let mut before = PythonSurvey::default();
        let mut all = Vec::new();
        for members in found {
            let mut now = survey([1, 1], members);
            history.take_up(&before, &mut now);
            all.push(told(&now));
            before = now;
        }
        all
    }

    #[test]
    fn objects_that_come_and_go_are_news_once() {
        let mut history = SurveyHistory::default();
        let mut before = PythonSurvey::default();
        let mut news = Vec::new();
        for counts in [[0, 0], [1, 0], [0, 0], [0, 0], [1, 1], [0, 2]] {
            let mut now = survey(counts, &[]);
            let found = history.take_up(&before, &mut now);
            news.push((found.is_any, found.may_be_called(RemoteAddress(1)), found.may_be_called(RemoteAddress(2))));
            before = now;
        }
        let (nothing, first) = ((false, false, false), (true, false, false));
        assert_eq!(news[..4], [first, (true, true, false), nothing, nothing]);
        // `A` is part of a model again, `B` for the first time.
        assert_eq!(news[4..], [(true, true, true), nothing]);
        assert_eq!(history.classes().len(), 2);
        history.take_up(&before, &mut PythonSurvey::default());
        assert!(history.classes().is_empty(), "what is not there any more is forgotten");
    }

    #[test]
    fn a_model_that_is_replaced_once_is_told_at_once() {
        let old: &[(u64, u64)] = &[(1, 10)];
        let new: &[(u64, u64)] = &[(2, 20)];
        let told = looks(&mut SurveyHistory::default(), &[old, old, new]);
        assert_eq!(told, [old, old, new]);
    }

    #[test]
    fn models_that_are_replaced_all_the_time_are_told_once_they_stay() {
        let first: &[(u64, u64)] = &[(1, 10)];
        let second: &[(u64, u64)] = &[(1, 11)];
        let third: &[(u64, u64)] = &[(2, 20), (3, 30)];
        let last: &[(u64, u64)] = &[(2, 20), (4, 40)];
        let told = looks(&mut SurveyHistory::default(), &[first, second, third, last, last]);
        assert_eq!(told, [first.to_vec(), vec![], vec![], vec![(2, 20)], last.to_vec()]);
    }
}
