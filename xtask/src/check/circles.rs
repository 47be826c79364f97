//! Files of one room that use each other: neither can be read, tested or moved without the other.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Finding, Rule};
use super::modules::Modules;
use super::tree::Tree;

const SOURCES: &str = "tracer-user/src";

/// A file by its module path.
type File<'tree> = &'tree [String];

/// One finding for each circle, in the first of its files.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let modules = Modules::of(&tree.rust, SOURCES);
    let files = modules.files();
    let mut graph: BTreeMap<File<'_>, BTreeSet<File<'_>>> = BTreeMap::new();
    for (module, _) in files.iter().filter(|(module, _)| !is_test(module)) {
        let used = modules.uses(module).iter().filter(|used| !used.in_test);
        let used = used.filter_map(|used| modules.resolve(&used.path));
        let in_room = used.filter(|other| other != module && other.first() == module.first() && !is_test(other));
        graph.insert(module, in_room.collect());
    }
    let circles = circles(&graph);
    let finding = |circle: &BTreeSet<File<'_>>| {
        let first = circle.first()?;
        let (_, source) = files.iter().find(|(module, _)| module == first)?;
        let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
        let sentence = format!("files that use each other: {}", names.join(", "));
        Some(Finding::new(Rule::Circle, &source.path, 1, sentence))
    };
    circles.iter().filter_map(finding).collect()
}

fn is_test(module: File<'_>) -> bool {
    module.iter().any(|part| part == "tests" || part.ends_with("_tests"))
}

/// Sets of more than one file each of which leads to all others.
fn circles<'tree>(graph: &BTreeMap<File<'tree>, BTreeSet<File<'tree>>>) -> Vec<BTreeSet<File<'tree>>> {
    let reached: BTreeMap<_, _> = graph.keys().map(|file| (*file, reached_from(graph, file))).collect();
    let mut found: Vec<BTreeSet<File<'tree>>> = Vec::new();
    for (file, others) in &reached {
        let is_back = |other: &&File<'tree>| reached.get(**other).is_some_and(|reached| reached.contains(file));
        let circle: BTreeSet<File<'tree>> = others.iter().filter(is_back).copied().collect();
        if circle.len() > 1 && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

fn reached_from<'tree>(
    graph: &BTreeMap<File<'tree>, BTreeSet<File<'tree>>>,
    from: File<'tree>,
) -> BTreeSet<File<'tree>> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from];
    while let Some(file) = next.pop() {
        let new = graph.get(file).into_iter().flatten().copied().filter(|other| reached.insert(*other));
        next.extend(new.collect::<Vec<_>>());
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::seeded;
    use super::*;

    fn sentences(files: &[(&str, &str)]) -> Vec<String> {
        let (_folder, tree) = seeded(files);
        check(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn files_that_use_each_other_are_found_once() {
        let found = sentences(&[
            ("tracer-user/src/plan/mod.rs", "//! A.\nmod a;\nmod b;\nmod c;\nmod d;\npub use a::A;\n"),
            ("tracer-user/src/plan/a.rs", "//! A.\nuse super::b::B;\npub struct A;\n"),
            ("tracer-user/src/plan/b.rs", "//! A.\nfn f() { super::c::g() }\npub struct B;\n"),
            ("tracer-user/src/plan/c.rs", "//! A.\nuse crate::plan::a::A;\n"),
            ("tracer-user/src/plan/d.rs", "//! A.\nuse super::{a::A, b::B};\n"),
        ]);
        assert_eq!(found, ["tracer-user/src/plan/a.rs:1: files that use each other: plan::a, plan::b, plan::c"]);
    }

    #[test]
    fn a_name_that_is_exported_again_is_followed_to_its_file() {
        let room = "//! A.\nmod a;\nmod b;\npub use a::A;\npub use b::B as C;\n";
        let found = sentences(&[
            ("tracer-user/src/plan/mod.rs", room),
            ("tracer-user/src/plan/a.rs", "//! A.\nuse super::C;\n"),
            ("tracer-user/src/plan/b.rs", "//! A.\nuse crate::plan::A;\n"),
        ]);
        assert_eq!(found, ["tracer-user/src/plan/a.rs:1: files that use each other: plan::a, plan::b"]);
        // What a room's own file defines is in a circle with what it names.
        let found = sentences(&[
            ("tracer-user/src/plan/mod.rs", "//! A.\nmod a;\npub use a::A;\npub struct Own;\n"),
            ("tracer-user/src/plan/a.rs", "//! A.\nuse super::Own;\n"),
        ]);
        assert_eq!(found, ["tracer-user/src/plan/mod.rs:1: files that use each other: plan, plan::a"]);
    }

    #[test]
    fn tests_and_other_rooms_make_no_circle() {
        let found = sentences(&[
            ("tracer-user/src/plan/a.rs", "//! A.\nuse super::b::B;\n"),
            ("tracer-user/src/plan/b.rs", "//! A.\n#[cfg(test)]\nmod tests {\n    use super::super::a::A;\n}\n"),
            ("tracer-user/src/plan/b_tests.rs", "//! A.\nuse super::a::A;\nuse super::b::B;\n"),
            ("tracer-user/src/plan/tests/mod.rs", "//! A.\nuse super::a::A;\n"),
            ("tracer-user/src/ring/a.rs", "//! A.\nuse crate::model::M;\nuse serde::a;\n"),
            ("tracer-user/src/model/m.rs", "//! A.\nuse crate::ring::a::A;\n"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
