//! What was found in an interpreter and a budget go in; the code to see comes out, the shared and the busy first.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use super::budget::PythonBudget;
use crate::model::{
    CodeUser, NotWatched, PythonCode, PythonPlan, PythonSkipped, PythonSurvey, Receiver, RemoteAddress, WatchedCode,
};

/// A method of a class. Several classes may have one name.
type Pair = (RemoteAddress, Arc<str>);

/// Classes of one method that are named where it was called and no object of them was ever seen.
const MAX_NAMED: usize = 4;

/// What is known while code is chosen.
struct Choice<'survey> {
    budget: &'survey PythonBudget,
    candidates: Vec<&'survey PythonCode>,
    excluded: HashSet<RemoteAddress>,
    /// Classes whose objects list their children.
    containers: HashSet<RemoteAddress>,
    /// Classes that the application names.
    named: HashSet<RemoteAddress>,
    /// Methods of classes that have objects, or had some; not covered yet.
    wanted: HashSet<Pair>,
    /// Methods of other classes; not covered yet.
    possible: HashSet<Pair>,
    /// Methods that uncalled code would have seen.
    tried: HashSet<Pair>,
}

/// Chooses codes until every method is covered or the budget is used up, and says what is covered.
pub fn choose<'survey>(
    survey: &'survey PythonSurvey,
    budget: &'survey PythonBudget,
    plan: &mut PythonPlan,
) -> Vec<&'survey PythonCode> {
    let mut choice = Choice::new(survey, budget);
    let mut chosen: Vec<&PythonCode> = Vec::new();
    let mut waiting = choice.candidates();
    while budget.slots.is_none_or(|slots| chosen.len() < slots) {
        // While no outermost call is seen, and each tree is in pieces, the last watchpoint is for what may be one.
        let is_last = budget.tries_roots && budget.slots.is_some_and(|slots| slots > 1 && chosen.len() + 1 == slots);
        let is_for_root = is_last && !chosen.iter().any(|code| choice.is_untried_root(code));
        let root = if is_for_root { choice.best_untried_root() } else { None };
        let Some(best) = root.or_else(|| choice.take_best(&mut waiting)) else { break };
        let methods = choice.cover(best);
        if methods.is_empty() {
            plan.without_objects.insert(best.address, choice.in_question(best));
        }
        plan.watched.push((best.address, WatchedCode { code: best.name.to_string(), methods, calls_seen: 0 }));
        chosen.push(best);
    }
    let next = choice.take_best(&mut waiting);
    plan.has_more = next.is_some();
    plan.may_need_more = next.is_some_and(|code| {
        let value = choice.value(code);
        value.is_wanted && value.may_be_called && !only_trains(code)
    });
    plan.has_untried_root = choice.best_untried_root().is_some();
    plan.not_watched = not_watched(survey, &choice.wanted, budget);
    chosen
}

impl<'survey> Choice<'survey> {
    fn new(survey: &'survey PythonSurvey, budget: &'survey PythonBudget) -> Self {
        let mut shared: HashMap<RemoteAddress, usize> = HashMap::new();
        for function in survey.functions.iter().filter(|function| function.method.is_some()) {
            *shared.entry(function.code).or_default() += 1;
        }
        let usable =
            |code: &&PythonCode| budget.function_is_seen || shared.get(&code.address).is_none_or(|count| *count < 2);
        let candidates: Vec<&PythonCode> = survey.codes.iter().filter(usable).collect();
        let classes = |which: fn(&crate::model::PythonClass) -> bool| {
            survey
                .classes
                .iter()
                .filter(|class| which(class))
                .map(|class| class.address)
                .collect::<HashSet<RemoteAddress>>()
        };
        let mut choice = Self {
            budget,
            candidates,
            excluded: classes(|class| class.excluded.is_some()),
            containers: classes(|class| class.is_container),
            named: classes(|class| class.is_named),
            wanted: HashSet::new(),
            possible: HashSet::new(),
            tried: HashSet::new(),
        };
        let all = choice.candidates.iter().flat_map(|code| code.users.iter().map(|user| (code.address, user)));
        let (mut wanted, mut possible, mut tried) = (HashSet::new(), HashSet::new(), HashSet::new());
        for (code, user) in all.filter(|(_, user)| !choice.excluded.contains(&user.address)) {
            if user.instances > 0 || budget.had_objects.contains(&user.class) {
                wanted.insert(pair(user));
            } else if budget.without_objects {
                possible.insert(pair(user));
            }
            if budget.uncalled.contains(&code) {
                tried.insert(pair(user));
            }
        }
        (choice.wanted, choice.possible, choice.tried) = (wanted, possible, tried);
        choice
    }

    /// All code with what it is worth before any is chosen, the best on top.
    fn candidates(&self) -> BinaryHeap<Candidate<'survey>> {
        let candidate = |code: &&'survey PythonCode| Candidate { value: self.value(code), code };
        self.candidates.iter().map(candidate).collect()
    }

    /// Whether code may be called as the outermost one of a tree, as far as nobody knows yet: a model that no other one holds
    /// has it, and it was not watched so far.
    fn is_untried_root(&self, code: &PythonCode) -> bool {
        let budget = self.budget;
        let is_known = budget.calls.get(&code.address).is_some_and(|calls| *calls > 0)
            || budget.called_before.contains(&code.address)
            || budget.uncalled.contains(&code.address)
            || budget.only_folded.contains(&code.address);
        !is_known && serves_root(code)
    }

    /// The best of those that are not covered yet.
    fn best_untried_root(&self) -> Option<&'survey PythonCode> {
        let is_wanted = |user: &&CodeUser| self.wanted.contains(&pair(user)) && weight(&user.method) > FIT;
        let worth = |code: &PythonCode| -> u64 {
            code.users.iter().filter(is_wanted).map(|user| u64::from(user.roots) * weight(&user.method)).sum()
        };
        let untried = self.candidates.iter().filter(|code| self.is_untried_root(code));
        let worth = untried.map(|code| (worth(code), Reverse(code.address), *code)).filter(|(worth, ..)| *worth > 0);
        worth.max_by_key(|(worth, address, _)| (*worth, *address)).map(|(.., code)| code)
    }

    /// Takes the best code that is left. What code is worth never grows while other code is chosen, so one that is still
    /// worth what it was is the best.
    fn take_best(&self, waiting: &mut BinaryHeap<Candidate<'survey>>) -> Option<&'survey PythonCode> {
        let is_open = |user: &CodeUser| self.wanted.contains(&pair(user)) || self.possible.contains(&pair(user));
        loop {
            let Candidate { value, code } = waiting.pop()?;
            if !code.users.iter().any(is_open) {
                continue;
            }
            let now = self.value(code);
            if now == value {
                return Some(code);
            }
            waiting.push(Candidate { value: now, code });
        }
    }

    /// Takes the methods of a code object for covered; gives those that were wanted.
    fn cover(&mut self, code: &PythonCode) -> Vec<String> {
        let mut names = BTreeSet::new();
        for user in &code.users {
            self.possible.remove(&pair(user));
            if self.wanted.remove(&pair(user)) {
                names.insert(name_of(user));
            }
        }
        names.into_iter().collect()
    }

    /// What code may have been called as if it is called and no object was ever seen.
    fn in_question(&self, code: &PythonCode) -> Vec<String> {
        let mut by_method: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for user in code.users.iter().filter(|user| !self.excluded.contains(&user.address)) {
            by_method.entry(&user.method).or_default().insert(&user.class);
        }
        let names = by_method.into_iter().map(|(method, classes)| match classes.len() {
            0..=MAX_NAMED => classes.into_iter().map(|class| format!("{class}.{method}")).collect(),
            count => vec![format!("{method} of {count} classes")],
        });
        names.collect::<Vec<Vec<String>>>().concat()
    }

    /// What a code object is worth now: calls that were counted, here before elsewhere, then classes with objects, then what has not been tried,
    /// live models, live objects, containers, and code whose receiver stays readable before other code.
    fn value(&self, code: &PythonCode) -> Value {
        let is_wanted = |user: &&CodeUser| self.wanted.contains(&pair(user));
        let is_open = |user: &&CodeUser| is_wanted(user) || self.possible.contains(&pair(user));
        let wanted = || code.users.iter().filter(is_wanted);
        let open = || code.users.iter().filter(is_open);
        let sum = |count: fn(&CodeUser) -> u32| wanted().map(|it| u64::from(count(it)) * weight(&it.method)).sum();
        let is_folded = self.budget.only_folded.contains(&code.address);
        let calls = if is_folded { 0 } else { self.budget.calls.get(&code.address).copied().unwrap_or(0) };
        Value {
            calls: worth_of_calls(code, calls),
            elsewhere: self.budget.elsewhere.get(&code.address).copied().unwrap_or(0),
            is_wanted: wanted().next().is_some() && !is_folded,
            is_folded,
            may_be_called: !self.budget.uncalled.contains(&code.address)
                && open().any(|user| !self.tried.contains(&pair(user))),
            was_called: self.budget.called_before.contains(&code.address),
            in_models: sum(|user| user.in_models),
            roots: sum(|user| user.roots),
            instances: sum(|user| user.instances),
            named: self.of_named(open()),
            in_containers: self.of_containers(open()),
            methods: open().map(|user| weight(&user.method)).sum(),
            is_readable: !matches!(code.receiver, Receiver::None | Receiver::FirstOfTuple),
            wraps: code.wraps.len(),
        }
    }

    /// What methods of classes are worth that the application names: where it makes an object, it trains it, too.
    fn of_named<'code>(&self, open: impl Iterator<Item = &'code CodeUser>) -> u64 {
        open.filter(|user| self.named.contains(&user.address))
            .map(|user| weight(&user.method))
            .map(|weight| if weight == FIT { TRAINED } else { weight })
            .sum()
    }

    /// What methods of containers are worth where neither objects nor names tell: a model that is loaded is mostly one.
    fn of_containers<'code>(&self, open: impl Iterator<Item = &'code CodeUser>) -> u64 {
        if !self.named.is_empty() {
            return 0;
        }
        open.filter(|user| self.containers.contains(&user.address))
            .map(|user| weight(&user.method))
            .filter(|weight| *weight > FIT)
            .sum()
    }
}

/// Code that may be chosen, and what it was worth when that was asked last.
struct Candidate<'survey> {
    value: Value,
    code: &'survey PythonCode,
}

impl Candidate<'_> {
    /// Addresses decide where all else is equal, so that the same process gives the same choice.
    fn rank(&self) -> (&Value, Reverse<RemoteAddress>) {
        (&self.value, Reverse(self.code.address))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Candidate<'_> {}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// What a code object is worth; compared field by field.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Value {
    /// See [`worth_of_calls`].
    calls: u64,
    /// Calls in other processes.
    elsewhere: u64,
    /// Not where all its calls are folded.
    is_wanted: bool,
    /// What is only ever folded comes after that: its calls are counted as long as there is room.
    is_folded: bool,
    may_be_called: bool,
    was_called: bool,
    in_models: u64,
    roots: u64,
    instances: u64,
    named: u64,
    in_containers: u64,
    /// Methods that run it, whether there are objects or not: shared code before other code.
    methods: u64,
    /// Whether the receiver can still be read when the call ends.
    is_readable: bool,
    /// Of a function and what is wrapped around it, what is around sees the whole call.
    wraps: usize,
}

/// The [`weight`] of what trains.
const FIT: u64 = 1;

/// The same for a class that the application names and that has no object yet.
const TRAINED: u64 = 35;

/// A call that is the outermost one of its tree is worth so many calls inside a tree: without it the tree is in pieces, and without
/// one of the others it lacks a part.
const ROOT: u64 = 16;

/// What so many calls of code are worth.
#[must_use]
pub fn worth_of_calls(code: &PythonCode, calls: u64) -> u64 {
    if serves_root(code) { calls.saturating_mul(ROOT) } else { calls }
}

/// Whether code serves models that no other model holds, at least as many as it serves others, and does more than train them. What
/// serves many, such as a wrapper around every `transform`, is called inside others mostly.
fn serves_root(code: &PythonCode) -> bool {
    let users = || code.users.iter().filter(|user| weight(&user.method) > FIT);
    let roots: u64 = users().map(|user| u64::from(user.roots)).sum();
    let in_models: u64 = users().map(|user| u64::from(user.in_models)).sum();
    roots > 0 && 2 * roots >= in_models
}

/// Whether some of the code that is called serves such a model: then trees have their outermost call.
#[must_use]
pub fn sees_root(survey: &PythonSurvey, calls: &HashMap<RemoteAddress, u64>) -> bool {
    let is_called = |code: &&PythonCode| calls.get(&code.address).is_some_and(|calls| *calls > 0);
    survey.codes.iter().filter(is_called).any(serves_root)
}

/// Whether code is called in training only.
#[must_use]
pub fn only_trains(code: &PythonCode) -> bool {
    code.users.iter().all(|user| weight(&user.method) == FIT)
}

/// Where no traffic has been seen: a server predicts more often than it trains.
fn weight(method: &str) -> u64 {
    match method {
        "predict" => 40,
        "transform" => 39,
        "predict_proba" => 30,
        _ if method.contains("fit") => FIT,
        _ => 20,
    }
}

/// Why code is not watched that would make no span.
const FOLDED: &str = "all its calls were folded into the calls around them";

fn not_watched(survey: &PythonSurvey, open: &HashSet<Pair>, budget: &PythonBudget) -> Vec<NotWatched> {
    let reason = match (&budget.obstacle, budget.slots) {
        (Some(obstacle), _) => obstacle.clone(),
        (None, Some(slots)) => {
            format!(
                "no more than {slots} can be watched at one time (`--python chain` and `--python frames` have no such limit)"
            )
        }
        (None, None) => "its code is shared by several functions that cannot be told apart".to_owned(),
    };
    let of_code = survey.codes.iter().flat_map(|code| code.users.iter().map(|user| (code.address, user)));
    let of_code = of_code.filter(|(_, user)| open.contains(&pair(user)));
    let left = of_code.map(|(code, user)| {
        let reason = if budget.only_folded.contains(&code) { FOLDED.to_owned() } else { reason.clone() };
        NotWatched { name: name_of(user), reason, is_live: false }
    });
    let mut left: Vec<NotWatched> = left.collect();
    left.extend(survey.skipped.iter().map(|PythonSkipped { name, reason, is_live }| NotWatched {
        name: name.clone(),
        reason: reason.to_string(),
        is_live: *is_live,
    }));
    left.sort_by(|first, second| (!first.is_live, &first.name).cmp(&(!second.is_live, &second.name)));
    left.dedup();
    left
}

fn pair(user: &CodeUser) -> Pair {
    (user.address, Arc::clone(&user.method))
}

fn name_of(user: &CodeUser) -> String {
    format!("{}.{}", user.class, user.method)
}
