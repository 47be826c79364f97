//! Chooses the Python code to see: as little as covers the methods of the live models, the shared and the busy first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tracer_common::python::NO_FUNCTION;

use super::budget::PythonBudget;
use super::planner::Planner;
use super::python_choice::choose;
use crate::model::{
    ArgumentRule, ArgumentType, FunctionDescription, FunctionId, Language, MAX_LOOPS, PythonClass, PythonClassRule,
    PythonCode, PythonCodeRule, PythonFunction, PythonFunctionRule, PythonLoops, PythonPlan, PythonSurvey,
    PythonTables, Receiver, RemoteAddress,
};

/// What is read of the argument of a Python call that is an array of numpy, as the programs number it.
const SHAPE: [(&str, u32); 2] = [("ml.rows", 0), ("ml.columns", 1)];

fn shape_rule((attribute, argument): (&str, u32)) -> ArgumentRule {
    ArgumentRule { attribute: attribute.to_owned(), argument, kind: ArgumentType::U64 }
}

impl Planner {
    /// Chooses what to see in one interpreter. Functions that had a number before keep it.
    pub fn plan_python(&mut self, module: &str, survey: &PythonSurvey, budget: &PythonBudget) -> PythonPlan {
        let mut plan = PythonPlan::default();
        let chosen = choose(survey, budget, &mut plan);
        let place: HashMap<RemoteAddress, usize> =
            chosen.iter().enumerate().map(|(place, code)| (code.address, place)).collect();
        let of_chosen = survey.functions.iter().filter_map(|function| Some((*place.get(&function.code)?, function)));
        let mut functions: Vec<(usize, &PythonFunction)> = of_chosen.collect();
        // What is wanted most comes first, everywhere: the last is what finds no room.
        functions.sort_by_key(|(place, _)| *place);
        let asked = functions.iter().filter(|(_, function)| function.method.is_some());
        let asked: HashSet<RemoteAddress> = asked.map(|(_, function)| function.address).collect();
        let may_be_new = budget.new_numbers.unwrap_or(usize::MAX);
        let mut new_numbers = may_be_new;
        for (_, function) in functions {
            // Where what it wraps is seen as well, it would be the same call twice.
            let is_seen_inside = function.inner.iter().any(|inner| asked.contains(inner));
            let number = function.method.as_ref().filter(|_| !is_seen_inside).and_then(|method| {
                let number = self.number_of_python(module, function, method, &mut new_numbers, &mut plan.functions);
                plan.without_number += usize::from(number.is_none());
                number
            });
            plan.tables.functions.push((
                function.address,
                PythonFunctionRule {
                    function: number.map_or(NO_FUNCTION, |number| number.0),
                    of_container: u32::from(function.of_container),
                    code: function.code.0,
                },
            ));
        }
        plan.new_numbers = may_be_new - new_numbers;
        let only = only_functions(&plan.tables);
        plan.tables.codes = chosen.iter().map(|code| (code.address, code_rule(code, &only))).collect();
        plan.tables.loops = chosen.iter().filter_map(|code| Some((code.address, loops_of(code)?))).collect();
        plan.tables.classes = class_rules(survey, &place);
        plan.tables.array_type = survey.array_type;
        plan.tables.current_span = survey.current_span;
        plan.tables.members = survey.members.iter().map(|member| (member.child, member.container)).collect();
        plan
    }

    fn number_of_python(
        &mut self,
        module: &str,
        function: &PythonFunction,
        method: &Arc<str>,
        new_numbers: &mut usize,
        described: &mut Vec<FunctionDescription>,
    ) -> Option<FunctionId> {
        let id = self.numbers.of_python(module, function, method, new_numbers)?;
        described.push(FunctionDescription {
            id,
            span_name: own_name(&function.qualified_name),
            path: format!("{}.{}", function.module, function.qualified_name).into(),
            module: module.into(),
            library: Arc::clone(&function.library),
            language: Language::Python,
            attributes: SHAPE.map(shape_rule).into(),
            error: None,
            method: Some(Arc::clone(method)),
            source: Some((Arc::clone(&function.file), function.line)),
            shared_code: None,
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

/// The function that runs each code object, where it is the only one.
fn only_functions(tables: &PythonTables) -> HashMap<u64, Option<PythonFunctionRule>> {
    let mut only = HashMap::with_capacity(tables.functions.len());
    for (_, rule) in &tables.functions {
        only.entry(rule.code).and_modify(|known| *known = None).or_insert(Some(*rule));
    }
    only
}

fn code_rule(code: &PythonCode, only: &HashMap<u64, Option<PythonFunctionRule>>) -> PythonCodeRule {
    let nobody = PythonFunctionRule { function: NO_FUNCTION, ..PythonFunctionRule::default() };
    let only = only.get(&code.address.0).copied().flatten().unwrap_or(nobody);
    PythonCodeRule {
        process_slot: 0,
        frame_bytes: code.frame_bytes,
        receiver_offset: code.receiver_offset,
        receiver: code.receiver as u32,
        only_function: only.function,
        of_container: only.of_container,
        argument: code.first_argument.map_or(Receiver::None, |argument| argument.kind) as u32,
        argument_offset: code.first_argument.map_or(0, |argument| argument.offset),
        argument_until: code.first_argument.map_or(0, |argument| argument.until),
        reserved: 0,
    }
}

/// The loops of a code object as the programs are told of them, if they are known; of too many, the last ones count as one.
fn loops_of(code: &PythonCode) -> Option<PythonLoops> {
    let known = code.loops.as_ref()?;
    let mut told = PythonLoops::default();
    for (place, (start, end)) in known.iter().enumerate() {
        let last = &mut told.loops[place.min(MAX_LOOPS - 1)];
        *last = if place < MAX_LOOPS { [*start, *end] } else { [last[0], *end] };
    }
    told.count = known.len().min(MAX_LOOPS) as u32;
    Some(told)
}

/// What is to be known of the classes, those first whose objects are called: those of the code that is seen, in its order, and
/// of those the ones with objects. A class of which nothing is to be known needs no rule.
fn class_rules(survey: &PythonSurvey, place: &HashMap<RemoteAddress, usize>) -> Vec<(RemoteAddress, PythonClassRule)> {
    let rule = |class: &PythonClass| PythonClassRule {
        nests: u32::from(class.nests),
        excluded: u32::from(class.excluded.is_some()),
        is_container: u32::from(class.is_container),
        reserved: 0,
    };
    let mut first_place: HashMap<RemoteAddress, usize> = HashMap::new();
    for code in &survey.codes {
        let place = place.get(&code.address).copied().unwrap_or(usize::MAX);
        for user in &code.users {
            let first = first_place.entry(user.address).or_insert(place);
            *first = place.min(*first);
        }
    }
    let mut classes: Vec<&PythonClass> =
        survey.classes.iter().filter(|class| rule(class) != PythonClassRule::default()).collect();
    classes.sort_by_key(|class| {
        let place = first_place.get(&class.address).copied().unwrap_or(usize::MAX);
        (place == usize::MAX, class.instances == 0, place, !class.is_named)
    });
    classes.into_iter().map(|class| (class.address, rule(class))).collect()
}

#[cfg(test)]
#[path = "python_plan_tests.rs"]
mod tests;
