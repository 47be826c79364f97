//! What a look did not get through goes in; sentences about it come out.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{NotLookedAt, counted};

/// Classes whose containers are named.
const MOST_NAMED: usize = 8;

/// Counts what a look leaves out.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Memory that was not gone through, bytes.
    pub memory: u64,
    /// Objects of traced classes beyond those that are kept.
    pub objects: u64,
    /// Classes beyond those that are kept.
    pub classes: u64,
    /// Functions beyond those that are kept.
    pub functions: u64,
    /// Traced classes whose methods were not looked up.
    pub undescribed: u64,
    /// Whether the way from the variables of modules to objects was cut short.
    pub walk: bool,
    /// Containers with children that were not read, by their class.
    containers: BTreeMap<Arc<str>, u64>,
}

impl LeftOut {
    /// A container has children that were not read.
    pub(super) fn add_container(&mut self, class: &Arc<str>) {
        if self.containers.len() < MOST_NAMED || self.containers.contains_key(class) {
            *self.containers.entry(Arc::clone(class)).or_default() += 1;
        }
    }

    /// What is to be told.
    pub(super) fn told(&self) -> Vec<NotLookedAt> {
        const LONG: &str = "this would take too long";
        const MANY: &str = "there are more than are kept";
        let mut told = Vec::new();
        let mut tell = |what: String, reason: &str| told.push(NotLookedAt { what, reason: reason.to_owned() });
        for (class, count) in &self.containers {
            let objects = if *count == 1 { "one object".to_owned() } else { format!("{count} objects") };
            tell(
                format!("some of what {objects} of {class} may list as children"),
                "the lists are too long or too many: names of steps may be missing",
            );
        }
        if self.memory >> 20 > 0 {
            let reason = "it cannot be read, or would take too long: models in it may be missing";
            tell(format!("{} MiB of memory", self.memory >> 20), reason);
        }
        let numbers = [
            (self.undescribed, "traced class", "traced classes", LONG),
            (self.classes, "class", "classes", MANY),
            (self.objects, "object of a traced class", "objects of traced classes", MANY),
            (self.functions, "function", "functions", MANY),
        ];
        for (count, one, many, reason) in numbers.into_iter().filter(|(count, ..)| *count > 0) {
            tell(counted(count, one, many), reason);
        }
        if self.walk {
            tell("some of what the variables of modules lead to".to_owned(), LONG);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told() {
        assert_eq!(LeftOut::default().told(), []);
        let mut left = LeftOut { memory: 5 << 20, classes: 7, walk: true, ..LeftOut::default() };
        for class in ["Pipe", "Forest", "Pipe"] {
            left.add_container(&class.into());
        }
        let told: Vec<String> = left.told().into_iter().map(|it| it.what).collect();
        assert_eq!(
            told,
            [
                "some of what one object of Forest may list as children",
                "some of what 2 objects of Pipe may list as children",
                "5 MiB of memory",
                "7 classes",
                "some of what the variables of modules lead to",
            ]
        );
        for number in 0..100 {
            left.add_container(&format!("Class{number}").into());
        }
        assert_eq!(left.told().len(), MOST_NAMED + 3);
    }
}
