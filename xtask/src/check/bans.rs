//! Words that only some places may use, and what every Rust file must look like.

use super::finding::{Finding, Rule};
use super::rust_source::RustSource;
use super::tree::Tree;

/// Tokens that are banned outside some files and folders.
struct Ban {
    /// What is banned: any of these sequences.
    patterns: &'static [&'static [&'static str]],
    /// Where the ban holds.
    inside: &'static [&'static str],
    /// Where it does not.
    except: &'static [&'static str],
    /// Whether tests may use it anywhere.
    allowed_in_tests: bool,
    /// What to do instead.
    sentence: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        patterns: &[&["aya"], &["aya_obj"], &["aya_log"]],
        inside: &["tracer-user/src"],
        except: &["tracer-user/src/attach", "tracer-user/src/ring"],
        allowed_in_tests: false,
        sentence: "only the rooms attach and ring know aya",
    },
    Ban {
        patterns: &[&["unsafe"]],
        inside: &["tracer-user", "xtask", "tests"],
        except: &["tests/targets", "tracer-user/src/attach", "tracer-user/src/ring"],
        allowed_in_tests: false,
        sentence: "`unsafe` is for attach and ring",
    },
    Ban {
        patterns: &[&["println", "!"], &["print", "!"], &["eprintln", "!"], &["eprint", "!"]],
        inside: &["tracer-user/src"],
        except: &["tracer-user/src/cli", "tracer-user/src/export/console"],
        allowed_in_tests: true,
        sentence: "only cli and export/console talk to the terminal; elsewhere use `tracing`",
    },
    Ban {
        patterns: &[&["process", "::", "exit"], &["process", "::", "abort"]],
        inside: &["tracer-user/src", "xtask/src"],
        except: &["tracer-user/src/main.rs"],
        allowed_in_tests: false,
        sentence: "only main ends the process: return an error",
    },
];

const MOST_CODE_LINES: usize = 600;
const NAMES_THAT_SAY_NOTHING: [&str; 8] =
    ["utils", "util", "common", "helpers", "helper", "misc", "manager", "managers"];

/// Holds every Rust file against the bans and the rules for files.
pub fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust.iter().flat_map(|source| bans(source).chain(shape(source)).collect::<Vec<_>>()).collect()
}

fn bans(source: &RustSource) -> impl Iterator<Item = Finding> {
    BANS.iter()
        .filter(|ban| {
            // A room may be a folder or a file.
            let below = |folder: &&str| source.is_below(folder) || source.path.with_extension("").starts_with(folder);
            ban.inside.iter().any(below) && !ban.except.iter().any(below)
        })
        .flat_map(|ban| {
            let hits = ban.patterns.iter().flat_map(|pattern| {
                source
                    .find(pattern)
                    .filter(|token| !(ban.allowed_in_tests && token.in_test))
                    .map(move |token| (pattern, token.line))
            });
            hits.map(|(pattern, line)| {
                Finding::new(Rule::Ban, &source.path, line, format!("`{}`: {}", pattern.concat(), ban.sentence))
            })
            .collect::<Vec<_>>()
        })
}

fn shape(source: &RustSource) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |sentence: String| findings.push(Finding::new(Rule::File, &source.path, 1, sentence));
    if !source.first_line.starts_with("//!") {
        add("the first line must say what the file is for: `//! ...`".into());
    }
    if source.code_lines > MOST_CODE_LINES {
        add(format!("{} lines without tests; at most {MOST_CODE_LINES}, better 300", source.code_lines));
    }
    let path = source.path.with_extension("");
    if let Some(name) = path.iter().filter_map(|part| part.to_str()).find(|part| NAMES_THAT_SAY_NOTHING.contains(part))
    {
        add(format!("`{name}` says nothing: name the file after what it holds"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::findings_of;
    use super::*;

    fn findings(files: &[(&str, &str)]) -> Vec<String> {
        findings_of(check, files)
    }

    #[test]
    fn each_banned_word_is_found_and_allowed_where_it_may_be() {
        for (line, allowed) in [
            ("use aya::Ebpf;", "tracer-user/src/attach/programs.rs"),
            ("use {aya_obj::Object};", "tracer-user/src/ring/kernel.rs"),
            ("fn f() { unsafe { g() } }", "tracer-user/src/attach/guard/ptrace.rs"),
            ("fn f() { unsafe { g() } }", "tracer-user/src/ring.rs"),
            ("fn f() { println!(); }", "tracer-user/src/export/console.rs"),
            ("fn f() { eprint!(); }", "tracer-user/src/cli/report.rs"),
            ("fn f() { std::process::exit(1) }", "tracer-user/src/main.rs"),
        ] {
            let text = format!("//! A.\n{line}\n");
            let path = "tracer-user/src/plan/mod.rs";
            assert_eq!(findings(&[(path, &text)]), [format!("{path}:2")], "{line}");
            assert!(findings(&[(allowed, &text)]).is_empty(), "{line} in {allowed}");
        }
    }

    #[test]
    fn tests_may_print_and_nothing_else() {
        let text = "//! A.\n#[cfg(test)]\nmod tests {\n    fn f() { println!(); }\n    use aya::Ebpf;\n}\n";
        assert_eq!(findings(&[("tracer-user/src/plan/mod.rs", text)]), ["tracer-user/src/plan/mod.rs:5"]);
        assert!(findings(&[("tracer-user/src/plan/tests.rs", "//! A.\nfn f() { eprintln!(); }\n")]).is_empty());
    }

    #[test]
    fn words_in_comments_strings_and_names_are_not_banned() {
        let text = "//! aya, unsafe.\n// println!()\nfn print() { exit(\"unsafe println!()\"); Cookie::exit(1); }\n";
        assert!(findings(&[("tracer-user/src/plan/mod.rs", text)]).is_empty());
    }

    #[test]
    fn long_files_count_only_their_code() {
        let code = |lines: usize| format!("//! A.\n{}", "fn f() {}\n".repeat(lines - 1));
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(500));
        assert!(findings(&[("a/src/long.rs", &(code(600) + &tests))]).is_empty());
        assert_eq!(findings(&[("a/src/long.rs", &code(601))]), ["a/src/long.rs:1"]);
        assert!(findings(&[("a/src/tests.rs", &code(900))]).is_empty());
    }

    #[test]
    fn names_and_first_lines_are_held() {
        assert_eq!(findings(&[("a/src/utils.rs", "//! A.\n")]), ["a/src/utils.rs:1"]);
        assert_eq!(findings(&[("a/src/common/x.rs", "//! A.\n")]), ["a/src/common/x.rs:1"]);
        assert_eq!(findings(&[("a/src/x.rs", "use y;\n")]), ["a/src/x.rs:1"]);
        assert_eq!(findings(&[("a/src/x.rs", "")]), ["a/src/x.rs:1"]);
        assert!(findings(&[("tracer-common/src/x.rs", "//! A.\n")]).is_empty());
    }
}
