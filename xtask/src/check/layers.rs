//! The layer table: which room of tracer-user may use which.

use std::path::Path;

use super::finding::{Finding, Rule};
use super::rust_source::{Kind, RustSource, Token};
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
    ("cli", &["session", "daemon", "view", "model"]),
    ("main", &["cli"]),
    // Declares the rooms, uses none.
    ("lib", &[]),
];

/// Parts of a room that must not know each other.
const STRANGERS: &[(&str, &[&str])] = &[
    ("engine", &["native", "cpython", "request"]),
    ("export", &["otlp", "json_lines", "console", "chrome_trace", "prometheus"]),
    ("view", &["tui", "html_report"]),
];

/// The two ends that only [`WIRING`] may bring together: where probes go, and where spans go. What lies between (ring,
/// decode) belongs to neither.
const FRONT: [&str; 5] = ["target", "symbol", "engine", "plan", "attach"];
const BACK: [&str; 3] = ["assemble", "export", "view"];
const WIRING: &str = "tracer-user/src/session/wiring.rs";

/// Holds every file of tracer-user against the table.
pub fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust.iter().filter(|source| source.is_below(SOURCES)).flat_map(check_file).collect()
}

fn check_file(source: &RustSource) -> Vec<Finding> {
    let module = module_of(&source.path);
    let room = module.first().map_or("lib", String::as_str);
    let finding = |line: usize, sentence: String| Finding::new(Rule::Layer, &source.path, line, sentence);
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![finding(1, format!("`{room}` is no room of the layer table in xtask/src/check/layers.rs"))];
    };
    let uses = uses_of(source, &module);
    let mut findings = Vec::new();
    for used in &uses {
        let Some(name) = used.path.first().map(String::as_str) else { continue };
        if name == "*" {
            findings.push(finding(used.line, "a glob on the crate hides which rooms are used: name them".into()));
        } else if name != room && !allowed.contains(&name) && ROOMS.iter().any(|(known, _)| *known == name) {
            findings.push(finding(used.line, format!("`{room}` must not use `{name}`; it may use {}", list(allowed))));
        } else if name == room
            && let Some(other) = stranger(room, &module, &used.path)
        {
            findings.push(finding(
                used.line,
                format!("parts of `{room}` must not know each other, and this one uses `{other}`"),
            ));
        }
    }
    if room == "session" && source.path != Path::new(WIRING) {
        let first =
            |end: &[&str]| uses.iter().find(|used| used.path.first().is_some_and(|name| end.contains(&name.as_str())));
        if let (Some(front), Some(back)) = (first(&FRONT), first(&BACK)) {
            findings.push(finding(
                front.line.max(back.line),
                format!(
                    "only session/wiring.rs sees both ends: this file uses `{}` and `{}`",
                    front.path[0], back.path[0]
                ),
            ));
        }
    }
    findings
}

fn list(allowed: &[&str]) -> String {
    if allowed.is_empty() { "no room".into() } else { allowed.join(", ") }
}

/// The part of the same room that `used` belongs to, if the file must not know it.
fn stranger<'a>(room: &str, module: &[String], used: &'a [String]) -> Option<&'a str> {
    let (_, parts) = STRANGERS.iter().find(|(name, _)| *name == room)?;
    let (own, other) = (module.get(1)?.as_str(), used.get(1)?.as_str());
    (own != other && parts.contains(&own) && parts.contains(&other)).then_some(other)
}

/// The module path of a file: `tracer-user/src/plan/mod.rs` is `plan`.
fn module_of(path: &Path) -> Vec<String> {
    let relative = path.strip_prefix(SOURCES).unwrap_or(path).with_extension("");
    let mut module: Vec<String> = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|name| name == "mod" || name == "lib") {
        module.pop();
    }
    module
}

/// A path of the crate that a file mentions.
struct Used {
    path: Vec<String>,
    line: usize,
}

/// Every path that begins with `crate`, `super`, `self` or the crate's name, made absolute.
fn uses_of(source: &RustSource, module: &[String]) -> Vec<Used> {
    let tokens = &source.tokens;
    let mut uses = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let starts_path = matches!(tokens.get(index + 1), Some(Token { kind: Kind::PathSeparator, .. }));
        let continues = index > 0 && tokens[index - 1].kind == Kind::PathSeparator;
        if !starts_path || continues {
            continue;
        }
        let mut base = module.to_vec();
        base.extend((0..token.inline_modules).map(|_| "inline".to_owned()));
        match token.word() {
            Some("crate" | "tracer_user") => base.clear(),
            Some("super") => drop(base.pop()),
            Some("self") => {}
            _ => continue,
        }
        read_tree(tokens, index + 2, base, &mut uses);
    }
    uses
}

/// Reads `a::b`, `{a, b::{c}}` or `*` from `index` on; gives the index after it.
fn read_tree(tokens: &[Token], mut index: usize, mut base: Vec<String>, uses: &mut Vec<Used>) -> usize {
    while let Some(token) = tokens.get(index) {
        match &token.kind {
            Kind::Word(word) if word == "super" => drop(base.pop()),
            Kind::Word(word) if word == "self" => {}
            Kind::Word(word) => base.push(word.clone()),
            Kind::Sign('{') => {
                index += 1;
                while tokens.get(index).is_some_and(|token| !token.is_sign('}')) {
                    let after = read_tree(tokens, index, base.clone(), uses);
                    // Past the comma, or past whatever is no path.
                    index = if tokens.get(after).is_some_and(|token| token.is_sign('}')) { after } else { after + 1 };
                }
                return index + 1;
            }
            Kind::Sign('*') => base.push("*".into()),
            _ => break,
        }
        if !matches!(tokens.get(index + 1), Some(Token { kind: Kind::PathSeparator, .. })) {
            uses.push(Used { path: base, line: token.line });
            return rename_end(tokens, index + 1);
        }
        index += 2;
    }
    index
}

/// Past an `as name`.
fn rename_end(tokens: &[Token], index: usize) -> usize {
    if tokens.get(index).is_some_and(|token| token.is_word("as")) { index + 2 } else { index }
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
    fn only_wiring_sees_both_ends() {
        let text = "//! A.\nuse crate::attach;\nuse crate::export;\n";
        let found = findings(&[("tracer-user/src/session/run.rs", text), ("tracer-user/src/session/wiring.rs", text)]);
        assert_eq!(found, ["tracer-user/src/session/run.rs:3"]);
    }

    #[test]
    fn strangers_in_one_room_are_found() {
        let path = "tracer-user/src/export/otlp/mod.rs";
        let text =
            "//! A.\nuse super::super::json_lines::Writer;\nuse super::sink::Sink;\nuse crate::export::console;\n";
        assert_eq!(findings(&[(path, text)]), [format!("{path}:4")]);
        let path = "tracer-user/src/export/otlp.rs";
        assert_eq!(findings(&[(path, "//! A.\nuse super::json_lines::Writer;\n")]), [format!("{path}:2")]);
    }
}
