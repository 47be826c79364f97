//! Declared dependencies: each is used, and each version stands in one place.

use std::path::Path;

use anyhow::{Context, Result};

use super::finding::{Finding, Rule};
use super::rust_source::{Kind, RustSource};
use super::tree::Tree;

/// Holds every manifest of the workspace against the sources of its package.
///
/// # Errors
/// When the manifest of the workspace is missing or is no TOML.
pub fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let text = tree.text("Cargo.toml").context("the workspace has no Cargo.toml")?;
    let manifest: toml::Table = text.parse().context("Cargo.toml is not TOML")?;
    let workspace = manifest.get("workspace").context("Cargo.toml has no [workspace]")?;
    let members = workspace.get("members").and_then(toml::Value::as_array).into_iter().flatten();
    let mut used = Vec::new();
    let mut findings = Vec::new();
    for member in members.filter_map(toml::Value::as_str) {
        let path = format!("{member}/Cargo.toml");
        let text = tree.text(&path).with_context(|| format!("member {member} has no Cargo.toml"))?;
        let manifest: toml::Table = text.parse().with_context(|| format!("{path} is not TOML"))?;
        findings.extend(check_member(tree, member, text, &manifest, &mut used));
    }
    let declared = workspace.get("dependencies").and_then(toml::Value::as_table);
    for (name, value) in declared.into_iter().flatten() {
        let add =
            |sentence: String| Finding::new(Rule::Dependency, Path::new("Cargo.toml"), line_of(text, name), sentence);
        if !used.contains(name) {
            findings.push(add(format!("no member uses `{name}`: take it out of [workspace.dependencies]")));
        }
        let is_path = value.get("path").is_some();
        if !is_path && value.get("default-features").and_then(toml::Value::as_bool) != Some(false) {
            findings.push(add(format!("`{name}` must say `default-features = false` and list the features in use")));
        }
    }
    Ok(findings)
}

fn check_member(tree: &Tree, member: &str, text: &str, manifest: &toml::Table, used: &mut Vec<String>) -> Vec<Finding> {
    let build_script = Path::new(member).join("build.rs");
    let (build, code): (Vec<&RustSource>, Vec<&RustSource>) =
        tree.rust.iter().filter(|source| source.is_below(member)).partition(|source| source.path == build_script);
    let build = with_included(tree, build);
    let code = with_included(tree, code);
    let path = Path::new(member).join("Cargo.toml");
    let mut findings = Vec::new();
    for (section, sources) in [("dependencies", &code), ("dev-dependencies", &code), ("build-dependencies", &build)] {
        for (name, value) in manifest.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
            used.push(name.clone());
            let add = |sentence: String| Finding::new(Rule::Dependency, &path, line_of(text, name), sentence);
            if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                findings
                    .push(add(format!("`{name}` must take its version from the workspace: `{name}.workspace = true`")));
            }
            let word = name.replace('-', "_");
            if !sources.iter().any(|source| source.tokens.iter().any(|token| token.is_word(&word))) {
                findings.push(add(format!("`{name}` is declared in [{section}] and used nowhere")));
            }
        }
    }
    findings
}

/// The sources and those that they include by `#[path = "..."]`.
fn with_included<'a>(tree: &'a Tree, sources: Vec<&'a RustSource>) -> Vec<&'a RustSource> {
    let mut all = sources.clone();
    for source in sources {
        for window in source.tokens.windows(3) {
            let [word, equals, value] = window else { continue };
            let Kind::Literal(literal) = &value.kind else { continue };
            if word.is_word("path") && equals.is_sign('=') {
                let folder = source.path.parent().unwrap_or(Path::new(""));
                let included = std::fs::canonicalize(tree.root.join(folder).join(literal.trim_matches('"')));
                let same = |other: &&RustSource| {
                    included.as_ref().is_ok_and(|path| {
                        std::fs::canonicalize(tree.root.join(&other.path)).is_ok_and(|it| it == *path)
                    })
                };
                all.extend(tree.rust.iter().find(same));
            }
        }
    }
    all
}

/// Line of the first `name = ...` or `name.workspace = ...`.
fn line_of(text: &str, name: &str) -> usize {
    let is_it = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', ' ', '=']));
    text.lines().position(is_it).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::seeded;
    use super::*;

    const WORKSPACE: &str = "[workspace]\nmembers = [\"a\"]\n[workspace.dependencies]\n\
        serde-json = { version = \"1\", default-features = false }\n";

    fn findings(files: &[(&str, &str)]) -> Vec<String> {
        let (_folder, tree) = seeded(files);
        check(&tree).expect("readable manifests").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_used_dependency_passes() {
        let member = "[package]\nname = \"a\"\n[dependencies]\nserde-json.workspace = true\n";
        let found = findings(&[
            ("Cargo.toml", WORKSPACE),
            ("a/Cargo.toml", member),
            ("a/src/lib.rs", "//! A.\nuse serde_json::X;\n"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn unused_ones_are_found_on_both_levels() {
        let member = "[package]\nname = \"a\"\n[dependencies]\nserde-json = { workspace = true }\n";
        let found = findings(&[
            ("Cargo.toml", &format!("{WORKSPACE}libc = {{ version = \"1\", default-features = false }}\n")),
            ("a/Cargo.toml", member),
            ("a/src/lib.rs", "//! serde_json in words only.\n"),
        ]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("a/Cargo.toml:4: `serde-json` is declared in [dependencies]"));
        assert!(found[1].starts_with("Cargo.toml:5: no member uses `libc`"));
    }

    #[test]
    fn a_version_in_a_member_and_default_features_are_found() {
        let member = "[dependencies]\nlibc = \"0.2\"\n";
        let found = findings(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"a\"]\n[workspace.dependencies]\nlibc = \"0.2\"\n"),
            ("a/Cargo.toml", member),
            ("a/src/lib.rs", "//! A.\nuse libc;\n"),
        ]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("libc.workspace = true"));
        assert!(found[1].contains("default-features = false"));
    }

    #[test]
    fn build_dependencies_are_looked_for_in_the_build_script_and_what_it_includes() {
        let member = "[build-dependencies]\nserde-json.workspace = true\n";
        let files = |script: &'static str| {
            findings(&[
                ("Cargo.toml", WORKSPACE),
                ("a/Cargo.toml", member),
                ("a/src/lib.rs", "//! A.\nuse serde_json;\n"),
                ("b/other.rs", "//! B.\nuse serde_json;\n"),
                ("a/build.rs", script),
            ])
        };
        assert_eq!(files("//! Build.\n").len(), 1);
        assert!(files("//! Build.\n#[path = \"../b/other.rs\"]\nmod other;\n").is_empty());
    }
}
