//! Code that several functions share: linkers fold functions of equal code, and then no address tells which one was called.

use crate::model::{FunctionName, Language};
use crate::symbol::Candidate;
use crate::symbol_map::{Match, Matcher, Verdict};

/// Classes, or functions, that a span's name has at most.
const NAME_LIMIT: usize = 3;
/// Other functions that are named beside it, at most.
const OTHERS_LIMIT: usize = 16;
/// Bytes of each of them, at most.
const PATH_LIMIT: usize = 256;

/// How the calls of code that may be shared are called.
pub(super) struct Names {
    /// `Churn|Fraud.predict` where nothing tells whose call it is.
    pub span_name: String,
    /// Whether the calls inside become spans: if any of the functions asks for it.
    pub nests: bool,
    /// Paths of the other functions.
    pub others: Vec<String>,
}

impl Names {
    /// Of a candidate whose first name is the one that a rule has chosen.
    pub fn of(candidate: &Candidate, rule: &Match<'_>, matcher: &Matcher) -> Self {
        let mut names = candidate.names.iter().chain(&candidate.others);
        let Some(first) = names.next() else {
            return Self { span_name: rule.span_name.clone(), nests: rule.nests, others: Vec::new() };
        };
        let mut others = Vec::new();
        add(&mut others, first, names.clone());
        let matches = names.clone().filter_map(|name| matcher.match_name(name));
        let nests =
            rule.nests || matches.into_iter().any(|verdict| matches!(verdict, Verdict::Traced(other) if other.nests));
        let given = rule.rule.is_some_and(|rule| rule.span.is_some());
        // A further name of a C function is one that its author gave it, and a name that a map gives is what its author wants.
        let span_name = if given || others.is_empty() {
            rule.span_name.clone()
        } else {
            joined(
                rule.span_name.clone(),
                names.filter(|name| name.class.is_some() && name.language != Language::Cython),
            )
        };
        Self { span_name, nests, others }
    }
}

/// Adds the paths of further functions that share a function's code.
pub(super) fn add<'name>(
    others: &mut Vec<String>,
    own: &FunctionName,
    names: impl Iterator<Item = &'name FunctionName>,
) {
    for name in names.filter(|name| name.path != own.path) {
        let end = name.path.char_indices().nth(PATH_LIMIT).map_or(name.path.len(), |(end, _)| end);
        let path = name.path.get(..end).unwrap_or(&name.path);
        if others.len() < OTHERS_LIMIT && !others.iter().any(|known| known == path) {
            others.push(path.to_owned());
        }
    }
    others.sort_unstable();
}

/// `Churn|Fraud.predict`; `Churn.fit|Fraud.predict` where the methods differ.
fn joined<'name>(own: String, others: impl Iterator<Item = &'name FunctionName>) -> String {
    let mut names: Vec<String> = others.map(FunctionName::span_name).chain([own]).collect();
    names.sort_unstable();
    names.dedup();
    let more = if names.len() > NAME_LIMIT { "|\u{2026}" } else { "" };
    names.truncate(NAME_LIMIT);
    let split: Option<Vec<(&str, &str)>> = names.iter().map(|name| name.rsplit_once('.')).collect();
    match split.as_deref() {
        Some([(_, method), rest @ ..]) if rest.iter().all(|(_, other)| other == method) => {
            let classes: Vec<&str> = split.iter().flatten().map(|(class, _)| *class).collect();
            format!("{}{more}.{method}", classes.join("|"))
        }
        _ => format!("{}{more}", names.join("|")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(class: &str, method: &str) -> FunctionName {
        FunctionName {
            symbol: String::new(),
            path: format!("ml::{class}::{method}"),
            class: Some(class.to_owned()),
            class_path: Some(format!("ml::{class}")),
            method: method.to_owned(),
            language: Language::Cpp,
        }
    }

    #[test]
    fn no_class_is_claimed_for_shared_code() {
        let others = [name("Fraud", "predict"), name("Churn", "predict")];
        assert_eq!(joined("Churn.predict".into(), others.iter()), "Churn|Fraud.predict");
        assert_eq!(joined("Tree.fit".into(), others.iter()), "Churn.predict|Fraud.predict|Tree.fit");
        let many: Vec<_> = ["D", "C", "B", "E"].map(|class| name(class, "fit")).into();
        assert_eq!(joined("A.fit".into(), many.iter()), "A|B|C|\u{2026}.fit");
        assert_eq!(joined("A.fit".into(), [name("A", "fit")].iter()), "A.fit");
    }

    #[test]
    fn the_others_are_named_once_and_not_without_end() {
        let mut others = Vec::new();
        let names: Vec<_> = (0..50).flat_map(|index| [name(&format!("M{index}"), "fit"), name("A", "fit")]).collect();
        add(&mut others, &name("A", "fit"), names.iter());
        assert_eq!(others.len(), OTHERS_LIMIT);
        assert!(!others.contains(&"ml::A::fit".to_owned()) && others.contains(&"ml::M0::fit".to_owned()));
    }
}
