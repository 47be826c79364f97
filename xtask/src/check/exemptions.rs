//! The known exemptions from the rules, each with its reason. One that is no longer needed is a finding itself.

use std::path::Path;

use super::finding::{Finding, Rule};

/// A file that may break a rule.
pub struct Exemption {
    /// The rule.
    pub rule: Rule,
    /// The file, from the root of the workspace.
    pub path: &'static str,
    /// What the sentence of the finding must contain.
    pub about: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// All of them.
pub const EXEMPTIONS: &[Exemption] = &[
    Exemption {
        rule: Rule::Layer,
        path: "tracer-user/src/session/error.rs",
        about: "sees both ends",
        reason: "it lists the errors of all rooms and passes no data between them",
    },
    Exemption {
        rule: Rule::Layer,
        path: "tracer-user/src/session/settings.rs",
        about: "sees both ends",
        reason: "it lists the settings of all rooms and passes no data between them",
    },
    Exemption {
        rule: Rule::Circle,
        path: "tracer-user/src/symbol_map/check.rs",
        about: "symbol_map::parse",
        reason: "older than the rule; this list only shrinks",
    },
    Exemption {
        rule: Rule::Ban,
        path: "tracer-user/src/symbol/tests/mod.rs",
        about: "eprintln!",
        reason: "a test that cannot run without a compiler has to say so",
    },
    Exemption {
        rule: Rule::Ban,
        path: "tracer-user/src/engine/cpython/tests/live.rs",
        about: "eprintln!",
        reason: "a test that leaves out interpreters that are not there has to say so",
    },
];

/// Takes the exempted findings away and adds one for each exemption that matched nothing.
pub fn apply(mut findings: Vec<Finding>, exemptions: &[Exemption]) -> Vec<Finding> {
    for exemption in exemptions {
        let before = findings.len();
        findings.retain(|finding| {
            finding.rule != exemption.rule
                || finding.path != Path::new(exemption.path)
                || !finding.sentence.contains(exemption.about)
        });
        if findings.len() == before {
            findings.push(Finding::new(
                exemption.rule,
                Path::new("xtask/src/check/exemptions.rs"),
                1,
                format!("the exemption of {} ({}) is no longer needed", exemption.path, exemption.reason),
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exemption(path: &'static str) -> Exemption {
        Exemption { rule: Rule::Ban, path, about: "unsafe", reason: "a test" }
    }

    #[test]
    fn exempts_only_its_file_rule_and_subject() {
        let hit = Finding::new(Rule::Ban, Path::new("a.rs"), 3, "`unsafe` here");
        let other_file = Finding { path: "b.rs".into(), ..hit.clone() };
        let other_rule = Finding { rule: Rule::Layer, ..hit.clone() };
        let other_subject = Finding { sentence: "`aya` here".into(), ..hit.clone() };
        let left =
            apply(vec![hit, other_file.clone(), other_rule.clone(), other_subject.clone()], &[exemption("a.rs")]);
        assert_eq!(left, [other_file, other_rule, other_subject]);
    }

    #[test]
    fn an_exemption_without_a_breach_is_a_finding() {
        let left = apply(Vec::new(), &[exemption("a.rs")]);
        assert_eq!(left.len(), 1);
        assert!(left[0].sentence.contains("a.rs (a test) is no longer needed"));
    }
}
