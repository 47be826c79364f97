//! Declared dependencies: each version stands in one place, and says which features are in use. That each is used, and what its
//! licence and source are, is what cargo-shear and cargo-deny look at.

use std::path::Path;

use anyhow::{Context, Result};

use super::finding::{Finding, Rule};
use super::tree::Tree;

/// Holds every manifest of the workspace against the rules.
///
/// # Errors
/// When the manifest of the workspace is missing or is no TOML.
pub fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let text = tree.text("Cargo.toml").context("the workspace has no Cargo.toml")?;
    let manifest: toml::Table = text.parse().context("Cargo.toml is not TOML")?;
    let workspace = manifest.get("workspace").context("Cargo.toml has no [workspace]")?;
    let mut findings = Vec::new();
    let declared = workspace.get("dependencies").and_then(toml::Value::as_table);
    for (name, value) in declared.into_iter().flatten() {
        let is_path = value.get("path").is_some();
        if !is_path && value.get("default-features").and_then(toml::Value::as_bool) != Some(false) {
            let sentence = format!("`{name}` must say `default-features = false` and list the features in use");
            findings.push(Finding::new(Rule::Dependency, Path::new("Cargo.toml"), line_of(text, name), sentence));
        }
    }
    let members = workspace.get("members").and_then(toml::Value::as_array).into_iter().flatten();
    for member in members.filter_map(toml::Value::as_str) {
        let path = format!("{member}/Cargo.toml");
        let text = tree.text(&path).with_context(|| format!("member {member} has no Cargo.toml"))?;
        let manifest: toml::Table = text.parse().with_context(|| format!("{path} is not TOML"))?;
        let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
        let tables = sections.iter().filter_map(|section| manifest.get(*section)?.as_table());
        for (name, value) in tables.flatten() {
            if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                let sentence = format!("`{name}` must take its version from the workspace: `{name}.workspace = true`");
                findings.push(Finding::new(Rule::Dependency, Path::new(&path), line_of(text, name), sentence));
            }
        }
    }
    Ok(findings)
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
    fn a_dependency_of_the_workspace_passes() {
        let found = findings(&[
            ("Cargo.toml", WORKSPACE),
            ("a/Cargo.toml", "[package]\nname = \"a\"\n[dependencies]\nserde-json = { workspace = true }\n"),
        ]);
        assert!(found.is_empty(), "{found:?}");
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
        assert!(found[0].contains("default-features = false"));
        assert!(found[1].contains("libc.workspace = true"));
    }
}
