//! The layer table: which room of tracer-user may use which.

use std::path::Path;

use super::finding::{Finding, Rule};
use super::modules::{Modules, Used};
use super::rust_source::RustSource;
use super::tree::Tree;

const SOURCES: &str = "tracer-user/src";

/// A room and the rooms that it may use. ARCHITECTURE.md explains the table.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("symbol_map", &["model"]),
    ("memory", &["model"]),
    ("target", &["model"]),
    ("symbol", &["model"]),
    ("engine", &["model", "symbol", "symbol_map", "memory"]),
    ("plan", &["model"]),
    ("attach", &["model", "memory"]),
    ("ring", &["model"]),
    ("decode", &["model"]),
    ("assemble", &["model", "symbol_map"]),
    ("export", &["model"]),
    ("view", &["model", "export"]),
    (
        "session",
        &[
            "model",
            "symbol_map",
            "memory",
            "target",
            "symbol",
            "engine",
            "plan",
            "attach",
            "ring",
            "decode",
            "assemble",
            "export",
            "view",
        ],
    ),
    ("daemon", &["session", "target", "model"]),
    ("cli", &["session", "daemon", "view", "model", "target", "symbol_map", "attach", "export"]),
    ("main", &["cli"]),
    // Declares the rooms, uses none.
    ("lib", &[]),
];

/// Rooms whose parts must not know each other: those with a file that implements this trait.
const STRANGERS: &[(&str, &str)] = &[("engine", "Engine"), ("export", "Sink"), ("view", "Sink")];

/// The two ends that only [`WIRING`] may bring together: where probes go, and where spans go. What lies between (ring,
/// decode) belongs to neither.
const FRONT: [&str; 5] = ["target", "symbol", "engine", "plan", "attach"];
const BACK: [&str; 3] = ["assemble", "export", "view"];
const WIRING: &str = "tracer-user/src/session/wiring.rs";

/// Holds every file of tracer-user against the table. A name counts for the room that it comes from, whoever exports it again.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let modules = Modules::of(&tree.rust, SOURCES);
    let files = modules.files();
    let strangers: Vec<&[String]> =
        files.iter().filter_map(|(module, source)| is_stranger(module, source).then(|| module.get(..2))?).collect();
    files.iter().flat_map(|(module, source)| check_file(&modules, &strangers, module, source)).collect()
}

/// Whether a file implements what the parts of its room implement that must not know each other.
fn is_stranger(module: &[String], source: &RustSource) -> bool {
    let of_room = STRANGERS.iter().find(|(room, _)| module.first().is_some_and(|own| own == room));
    of_room.is_some_and(|(_, implemented)| source.find(&["impl", implemented, "for"]).next().is_some())
}

fn check_file(modules: &Modules<'_>, strangers: &[&[String]], module: &[String], source: &RustSource) -> Vec<Finding> {
    let room = module.first().map_or("lib", String::as_str);
    let finding = |line: usize, sentence: String| Finding::new(Rule::Layer, &source.path, line, sentence);
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![finding(1, format!("`{room}` is no room of the layer table in xtask/src/check/layers.rs"))];
    };
    let is_forbidden =
        |name: &str| name != room && !allowed.contains(&name) && ROOMS.iter().any(|(known, _)| *known == name);
    let uses = modules.uses(module);
    let mut findings = Vec::new();
    for used in uses {
        let Some(name) = used.path.first().map(String::as_str) else { continue };
        let origin = origin(modules, used);
        if name == "*" {
            findings.push(finding(used.line, "a glob on the crate hides which rooms are used: name them".into()));
        } else if is_forbidden(name) {
            findings.push(finding(used.line, format!("`{room}` must not use `{name}`; it may use {}", list(allowed))));
        } else if is_forbidden(origin) {
            let sentence =
                format!("`{room}` must not use `{origin}`, nor by way of `{name}`; it may use {}", list(allowed));
            findings.push(finding(used.line, sentence));
        } else if name == room
            && let Some(other) = stranger(strangers, module, &used.path)
        {
            findings.push(finding(
                used.line,
                format!("parts of `{room}` must not know each other, and this one uses `{other}`"),
            ));
        }
    }
    if room == "session" && source.path != Path::new(WIRING) {
        let first = |end: &[&str]| uses.iter().find(|used| end.contains(&origin(modules, used)));
        if let (Some(front), Some(back)) = (first(&FRONT), first(&BACK)) {
            let (line, front, back) = (front.line.max(back.line), origin(modules, front), origin(modules, back));
            let sentence = format!("only session/wiring.rs sees both ends: this file uses `{front}` and `{back}`");
            findings.push(finding(line, sentence));
        }
    }
    findings
}

/// The room in which that stands which a file uses.
fn origin<'used>(modules: &'used Modules<'_>, used: &'used Used) -> &'used str {
    let module = modules.resolve(&used.path).unwrap_or(&used.path);
    module.first().map_or("", String::as_str)
}

fn list(allowed: &[&str]) -> String {
    if allowed.is_empty() { "no room".into() } else { allowed.join(", ") }
}

/// The part of the same room that `used` belongs to, if the file must not know it.
fn stranger<'a>(strangers: &[&[String]], module: &[String], used: &'a [String]) -> Option<&'a str> {
    let (own, other) = (module.get(..2)?, used.get(..2)?);
    let is_one = |part: &[String]| strangers.contains(&part);
    (own != other && is_one(own) && is_one(other)).then(|| other.last().map(String::as_str))?
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::findings_of;
    use super::*;

    fn findings(files: &[(&str, &str)]) -> Vec<String> {
        findings_of(check, files)
    }

    #[test]
    fn allowed_uses_pass() {
        let clean = findings(&[
            ("tracer-user/src/plan/mod.rs", "//! A.\nmod choice;\npub use choice::X;\nuse crate::model::Y;\n"),
            (
                "tracer-user/src/plan/choice.rs",
                "//! A.\nuse super::super::model::Y;\nuse super::Z;\npub(crate) fn f() {}\n",
            ),
            (
                "tracer-user/src/engine/native/mod.rs",
                "//! A.\nuse crate::{model::{A, B as C}, symbol, symbol_map::*};\n",
            ),
            ("tracer-user/src/main.rs", "//! A.\nfn main() { tracer_user::cli::run() }\n"),
            ("tracer-user/src/lib.rs", "//! A.\npub mod plan;\n"),
            ("tracer-user/src/session/wiring.rs", "//! A.\nuse crate::{attach, export};\n"),
            ("xtask/src/main.rs", "//! A.\nuse crate::attach;\n"),
        ]);
        assert!(clean.is_empty(), "{clean:?}");
    }

    #[test]
    fn a_use_line_against_the_table_is_found() {
        let text = "//! A.\nuse crate::model::A;\nuse crate::attach::B;\n";
        assert_eq!(findings(&[("tracer-user/src/plan/mod.rs", text)]), ["tracer-user/src/plan/mod.rs:3"]);
    }

    #[test]
    fn groups_renames_and_inline_paths_are_found() {
        let text = "//! A.\nuse crate::{\n    model::{A, B as C},\n    ring as events,\n    session::S,\n};\n\
                    fn f() { crate::cli::run(); }\nfn g() { vec![crate::export::X] }\n";
        let path = "tracer-user/src/decode/mod.rs";
        assert_eq!(findings(&[(path, text)]), [4, 5, 7, 8].map(|line| format!("{path}:{line}")));
    }

    #[test]
    fn super_paths_are_made_absolute() {
        let path = "tracer-user/src/plan/choice.rs";
        let text = "//! A.\nuse super::super::ring::R;\n#[cfg(test)]\nmod tests {\n    use super::super::attach;\n    \
                    use super::super::super::attach;\n    use super::{super::super::ring, X};\n}\n";
        // Line 5 is `plan::attach`, no room.
        assert_eq!(findings(&[(path, text)]), [2, 6, 7].map(|line| format!("{path}:{line}")));
    }

    #[test]
    fn globs_main_and_unknown_rooms_are_found() {
        let found = findings(&[
            ("tracer-user/src/cli/mod.rs", "//! A.\nuse crate::*;\n"),
            ("tracer-user/src/main.rs", "//! A.\nuse tracer_user::session;\n"),
            ("tracer-user/src/plumbing/mod.rs", "//! A.\n"),
        ]);
        assert_eq!(
            found,
            ["tracer-user/src/cli/mod.rs:2", "tracer-user/src/main.rs:2", "tracer-user/src/plumbing/mod.rs:1"]
        );
    }

    #[test]
    fn a_name_counts_for_the_room_that_it_comes_from() {
        let found = findings(&[
            ("tracer-user/src/engine/mod.rs", "//! A.\nmod native;\npub use native::N;\n"),
            ("tracer-user/src/session/mod.rs", "//! A.\nmod run;\npub use run::R;\npub use crate::engine::N as M;\n"),
            ("tracer-user/src/session/run.rs", "//! A.\npub use crate::ring::K;\npub struct R;\n"),
            ("tracer-user/src/engine/native.rs", "//! A.\npub struct N;\n"),
            ("tracer-user/src/ring/mod.rs", "//! A.\npub struct K;\n"),
            (
                "tracer-user/src/cli/mod.rs",
                "//! A.\nuse crate::session::{R, M};\nuse crate::session::run::{self, K};\n",
            ),
        ]);
        assert_eq!(found, ["tracer-user/src/cli/mod.rs:2", "tracer-user/src/cli/mod.rs:3"]);
        let found = findings(&[
            ("tracer-user/src/session/run.rs", "//! A.\nuse crate::attach::P;\nuse super::wiring::S;\n"),
            ("tracer-user/src/session/wiring.rs", "//! A.\npub use crate::export::S;\n"),
            ("tracer-user/src/export/mod.rs", "//! A.\npub struct S;\n"),
        ]);
        assert_eq!(found, ["tracer-user/src/session/run.rs:3"]);
    }

    #[test]
    fn only_wiring_sees_both_ends() {
        let text = "//! A.\nuse crate::attach;\nuse crate::export;\n";
        let found = findings(&[("tracer-user/src/session/run.rs", text), ("tracer-user/src/session/wiring.rs", text)]);
        assert_eq!(found, ["tracer-user/src/session/run.rs:3"]);
    }

    #[test]
    fn strangers_in_one_room_are_found() {
        let sink = "//! A.\nimpl Sink for A {}\n";
        let others = [("tracer-user/src/export/json_lines.rs", sink), ("tracer-user/src/export/console/sink.rs", sink)];
        let path = "tracer-user/src/export/otlp/mod.rs";
        let text =
            "//! A.\nuse super::super::json_lines::Writer;\nuse super::sink::Sink;\nuse crate::export::console;\n";
        let own = ("tracer-user/src/export/otlp/sink.rs", sink);
        assert_eq!(findings(&[others[0], others[1], own, (path, text)]), [format!("{path}:4")]);
        let path = "tracer-user/src/export/otlp.rs";
        let text = "//! A.\nuse super::json_lines::Writer;\nimpl Sink for A {}\n";
        assert_eq!(findings(&[others[0], (path, text)]), [format!("{path}:2")]);
        // What is no sink is for all of them.
        let writer = ("tracer-user/src/export/json_lines.rs", "//! A.\n");
        assert!(findings(&[writer, (path, text)]).is_empty());
    }
}
