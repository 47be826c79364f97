//! Chooses the Python code to see: as little as covers the methods of the live models, the shared and the busy first.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tracer_common::python::NO_FUNCTION;

use super::choose::Planner;
use crate::model::{
    FunctionDescription, FunctionId, Language, NotWatched, PythonClassRule, PythonCode, PythonCodeRule, PythonFunction,
    PythonFunctionRule, PythonPlan, PythonSurvey, PythonTables, Reached, Receiver, RemoteAddress, WatchedCode,
};

/// Numbers that Python functions have got, in all processes together.
pub type KnownFunctions = HashMap<FunctionKey, FunctionId>;

/// What a number stands for: the interpreter's file, and the function's module, qualified name, method, file and line.
/// Where its object is in memory does not matter: workers that run the same program share its numbers.
type FunctionKey = (Arc<str>, Arc<str>, Arc<str>, Arc<str>, Arc<str>, u32);

/// How much can be seen, and what is known of the traffic.
#[derive(Clone, Debug, Default)]
pub struct PythonBudget {
    /// Code objects that can be watched; `None`: all, because every call is looked at.
    pub slots: Option<usize>,
    /// Whether a call's function object is seen. If not, code that several functions share is of no use.
    pub function_is_seen: bool,
    /// Calls that were counted while the code was watched.
    pub calls: HashMap<RemoteAddress, u64>,
    /// Code that was watched without being called, while other code was.
    pub idle: HashSet<RemoteAddress>,
    /// Whether what is left of the budget goes to classes that have no objects now: a request may make some.
    pub without_objects: bool,
}

/// A method of a class, by bare names.
type Pair = (Arc<str>, Arc<str>);

impl Planner {
    /// Chooses what to see in one interpreter. Functions that had a number before keep it.
    pub fn plan_python(&mut self, module: &str, survey: &PythonSurvey, budget: &PythonBudget) -> PythonPlan {
        let mut plan = PythonPlan::default();
        let chosen = choose(survey, budget, &mut plan);
        let codes: HashSet<RemoteAddress> = chosen.iter().map(|code| code.address).collect();
        for function in survey.functions.iter().filter(|function| codes.contains(&function.code)) {
            let number = function
                .method
                .as_ref()
                .and_then(|method| self.number_of_python(module, function, method, &mut plan.functions));
            plan.tables.functions.push((
                function.address,
                PythonFunctionRule {
                    function: number.map_or(NO_FUNCTION, |number| number.0),
                    of_container: u32::from(function.of_container),
                    code: function.code.0,
                },
            ));
        }
        for code in &chosen {
            plan.tables.codes.push((code.address, code_rule(code, &plan.tables)));
        }
        plan.tables.classes = class_rules(survey);
        plan.tables.members = survey.members.iter().map(|member| (member.child, member.container)).collect();
        plan
    }

    fn number_of_python(
        &mut self,
        module: &str,
        function: &PythonFunction,
        method: &Arc<str>,
        described: &mut Vec<FunctionDescription>,
    ) -> Option<FunctionId> {
        let key = (
            module.into(),
            Arc::clone(&function.module),
            Arc::clone(&function.qualified_name),
            Arc::clone(method),
            Arc::clone(&function.file),
            function.line,
        );
        let id = match self.python.get(&key) {
            Some(known) => *known,
            None => {
                let new = self.number()?;
                self.python.insert(key, new);
                new
            }
        };
        described.push(FunctionDescription {
            id,
            span_name: own_name(&function.qualified_name),
            path: format!("{}.{}", function.module, function.qualified_name).into(),
            module: module.into(),
            library: Arc::clone(&function.library),
            language: Language::Python,
            attributes: Vec::new(),
            error: None,
            method: Some(Arc::clone(method)),
            source: Some((Arc::clone(&function.file), function.line)),
        });
        Some(id)
    }
}

/// `{Class}.{method}` as the function itself is named, where the class of the receiver was not seen.
fn own_name(qualified_name: &str) -> Arc<str> {
    let mut parts = qualified_name.rsplit('.').filter(|part| *part != "<locals>");
    match (parts.next(), parts.next()) {
        (Some(method), Some(class)) => format!("{class}.{method}").into(),
        _ => qualified_name.into(),
    }
}

fn code_rule(code: &PythonCode, tables: &PythonTables) -> PythonCodeRule {
    let mut functions = tables.functions.iter().filter(|(_, rule)| rule.code == code.address.0);
    let only = match (functions.next(), functions.next()) {
        (Some((_, rule)), None) => *rule,
        _ => PythonFunctionRule { function: NO_FUNCTION, ..PythonFunctionRule::default() },
    };
    PythonCodeRule {
        process_slot: 0,
        frame_bytes: code.frame_bytes,
        receiver_offset: code.receiver_offset,
        receiver: code.receiver as u32,
        only_function: only.function,
        of_container: only.of_container,
    }
}

fn class_rules(survey: &PythonSurvey) -> Vec<(RemoteAddress, PythonClassRule)> {
    let rule = |class: &crate::model::PythonClass| PythonClassRule {
        nests: u32::from(class.nests),
        excluded: u32::from(class.excluded.is_some()),
        is_container: u32::from(class.is_container),
        reserved: 0,
    };
    survey.classes.iter().map(|class| (class.address, rule(class))).collect()
}

/// Chooses codes until every method of the live models is covered or the budget is used up, and says what is covered.
fn choose<'survey>(
    survey: &'survey PythonSurvey,
    budget: &PythonBudget,
    plan: &mut PythonPlan,
) -> Vec<&'survey PythonCode> {
    let excluded: HashSet<&str> =
        survey.classes.iter().filter(|class| class.excluded.is_some()).map(|class| &*class.name).collect();
    let mut shared: HashMap<RemoteAddress, usize> = HashMap::new();
    for function in survey.functions.iter().filter(|function| function.method.is_some()) {
        *shared.entry(function.code).or_default() += 1;
    }
    let usable =
        |code: &&PythonCode| budget.function_is_seen || shared.get(&code.address).is_none_or(|count| *count < 2);
    let mut candidates: Vec<&PythonCode> = survey.codes.iter().filter(usable).collect();
    // Addresses decide where all else is equal, so that the same process gives the same choice.
    candidates.sort_by_key(|code| code.address);

    let mut open: HashSet<Pair> = HashSet::new();
    for reached in candidates.iter().flat_map(|code| &code.reached_by) {
        if reached.instances > 0 && !excluded.contains(&*reached.class) {
            open.insert(pair(reached));
        }
    }
    let mut chosen: Vec<&PythonCode> = Vec::new();
    take(&candidates, &mut open, budget, &mut chosen, plan);
    plan.not_watched = not_watched(survey, &open, budget);
    if budget.without_objects {
        let methods = candidates.iter().flat_map(|code| &code.reached_by).filter(|reached| reached.instances == 0);
        let mut unborn = methods.filter(|reached| !excluded.contains(&*reached.class)).map(pair).collect();
        let live = plan.watched.len();
        take(&candidates, &mut unborn, budget, &mut chosen, plan);
        // What is told is what is there: classes without objects are many, and most never get one.
        for (_, code) in plan.watched.iter_mut().skip(live) {
            code.methods.clear();
        }
    }
    chosen
}

/// Takes the best code for these methods again and again, until all are covered or the budget is used up.
fn take<'survey>(
    candidates: &[&'survey PythonCode],
    open: &mut HashSet<Pair>,
    budget: &PythonBudget,
    chosen: &mut Vec<&'survey PythonCode>,
    plan: &mut PythonPlan,
) {
    while budget.slots.is_none_or(|slots| chosen.len() < slots) {
        let best = candidates
            .iter()
            .filter(|code| !chosen.iter().any(|taken| taken.address == code.address))
            .filter(|code| code.reached_by.iter().any(|reached| open.contains(&pair(reached))))
            .max_by_key(|code| (value(code, open, budget), Reverse(code.address)));
        let Some(best) = best else { break };
        let methods: BTreeSet<Pair> = best.reached_by.iter().map(pair).filter(|pair| open.contains(pair)).collect();
        for method in &methods {
            open.remove(method);
        }
        let code = best.name.to_string();
        let methods = methods.iter().map(name_of).collect();
        plan.watched.push((best.address, WatchedCode { code, methods, calls_seen: 0 }));
        chosen.push(best);
    }
}

/// What a code object is worth while these methods are open: calls that were counted, then live models, then live
/// objects, and code whose receiver stays readable before other code.
fn value(code: &PythonCode, open: &HashSet<Pair>, budget: &PythonBudget) -> Value {
    let reached = || code.reached_by.iter().filter(|reached| open.contains(&pair(reached)));
    let sum = |count: fn(&Reached) -> u32| reached().map(|it| u64::from(count(it)) * weight(&it.method)).sum();
    Value {
        calls: budget.calls.get(&code.address).copied().unwrap_or(0),
        may_be_called: !budget.idle.contains(&code.address),
        in_models: sum(|reached| reached.in_models),
        instances: sum(|reached| reached.instances),
        reach: reached().map(|reached| weight(&reached.method)).sum(),
        is_readable: !matches!(code.receiver, Receiver::None | Receiver::FirstOfTuple),
        wraps: code.wraps.len(),
    }
}

/// What a code object is worth; compared field by field.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Value {
    calls: u64,
    may_be_called: bool,
    in_models: u64,
    instances: u64,
    /// Methods that run it, whether there are objects or not: shared code before other code.
    reach: u64,
    /// Whether the receiver can still be read when the call ends.
    is_readable: bool,
    /// Of a function and what is wrapped around it, what is around sees the whole call.
    wraps: usize,
}

/// Where no traffic has been seen: a server predicts more often than it trains.
fn weight(method: &str) -> u64 {
    match method {
        "predict" | "transform" => 40,
        "predict_proba" => 30,
        _ if method.contains("fit") => 1,
        _ => 20,
    }
}

fn not_watched(survey: &PythonSurvey, open: &HashSet<Pair>, budget: &PythonBudget) -> Vec<NotWatched> {
    let reason = match budget.slots {
        Some(slots) => format!("no debug register left ({slots} are in use; `--python frames` needs none)"),
        None => "its code is shared by several functions that cannot be told apart".to_owned(),
    };
    let mut left: Vec<NotWatched> =
        open.iter().map(|pair| NotWatched { name: name_of(pair), reason: reason.clone() }).collect();
    left.extend(
        survey
            .skipped
            .iter()
            .map(|skipped| NotWatched { name: skipped.name.clone(), reason: skipped.reason.to_string() }),
    );
    left.sort_by(|first, second| first.name.cmp(&second.name));
    left.dedup();
    left
}

fn pair(reached: &Reached) -> Pair {
    (Arc::clone(&reached.class), Arc::clone(&reached.method))
}

fn name_of((class, method): &Pair) -> String {
    format!("{class}.{method}")
}

#[cfg(test)]
#[path = "python_tests.rs"]
mod tests;
