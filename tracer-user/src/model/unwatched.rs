//! What the time of a container's call may hide: steps whose calls nobody looks at.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::printable::printable;
use super::units::{MonotonicNs, RemoteAddress};

/// Names of steps that are kept with one call.
const MOST_NAMES: usize = 8;

/// Characters of one name that are kept.
const MOST_CHARACTERS: usize = 64;

/// Methods of steps of containers whose calls are not seen from an instant on; takes the place of what was told of the
/// process before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnwatchedMethods {
    /// Process id in the initial pid namespace.
    pub process: u32,
    /// From when on.
    pub since: MonotonicNs,
    /// By the address of the step's class; of a class of which nothing is ever seen none is named.
    pub methods: Vec<(RemoteAddress, Vec<Arc<str>>)>,
    /// Whether there are other methods that the maps ask for and nobody sees: a container that nobody has looked into may hide those.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub are_others: bool,
}

/// Steps of a container whose methods were not all watched during a call of it, and of which no call was seen inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnwatchedSteps {
    /// Their names, fit to be shown; only the first ones.
    names: Vec<Arc<str>>,
    /// How many there are besides.
    others: usize,
}

/// In the place of a name: the steps of a container that nobody has looked into.
pub const UNKNOWN_STEPS: &str = "unknown steps";

impl UnwatchedSteps {
    /// None so far.
    #[must_use]
    pub const fn none() -> Self {
        Self { names: Vec::new(), others: 0 }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Adds one. The name is the target's.
    pub fn add(&mut self, name: &str) {
        if self.names.len() >= MOST_NAMES {
            self.others += 1;
            return;
        }
        let is_whole = name.chars().nth(MOST_CHARACTERS).is_none();
        let name: String = name.chars().take(MOST_CHARACTERS).collect();
        let shown = printable(&name);
        self.names.push(if is_whole { shown.into() } else { format!("{shown}…").into() });
    }

    /// The names that are kept, fit to be shown.
    #[must_use]
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.names.len() + self.others
    }

    /// The names, `scaler, clf and 3 more`.
    #[must_use]
    pub fn text(&self) -> String {
        let names = self.names.join(", ");
        if self.others == 0 { names } else { format!("{names} and {} more", self.others) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_target_are_escaped_and_bounded() {
        let mut steps = UnwatchedSteps::none();
        assert!(steps.is_empty());
        steps.add("a\u{1b}[2Jb");
        steps.add(&"x".repeat(1_000));
        (0..100).for_each(|number| steps.add(&format!("step{number}")));
        let text = steps.text();
        assert!(
            text.starts_with("a\\u{1b}[2Jb, xxxx")
                && text.ends_with("x…, step0, step1, step2, step3, step4, step5 and 94 more"),
            "{text}"
        );
        assert_eq!((steps.count(), text.chars().count() < 200), (102, true));
    }
}
