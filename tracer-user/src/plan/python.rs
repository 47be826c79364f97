//! Chooses the Python code to see: as little as covers the methods of the live models, the shared and the busy first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tracer_common::python::NO_FUNCTION;

use super::choose::Planner;
use super::python_choice::choose;
use crate::model::{
    FunctionDescription, FunctionId, Language, PythonClassRule, PythonCode, PythonCodeRule, PythonFunction,
    PythonFunctionRule, PythonPlan, PythonSurvey, PythonTables, RemoteAddress,
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
    /// Why there are no slots, for people, if it is not for want of debug registers.
    pub obstacle: Option<String>,
    /// Whether a call's function object is seen. If not, code that several functions share is of no use.
    pub function_is_seen: bool,
    /// Calls that were counted while the code was watched.
    pub calls: HashMap<RemoteAddress, u64>,
    /// Code that was called at an earlier time.
    pub past: HashSet<RemoteAddress>,
    /// Code that was watched without being called, while other code was.
    pub idle: HashSet<RemoteAddress>,
    /// Bare names of classes that had objects at an earlier look: a request may make some again.
    pub lived: HashSet<Arc<str>>,
    /// Whether what is left of the budget goes to classes that were never seen to have objects.
    pub without_objects: bool,
}

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

#[cfg(test)]
#[path = "python_tests.rs"]
mod tests;
