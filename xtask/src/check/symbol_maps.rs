//! Symbol maps and layouts are data: each says where its facts come from.

use std::path::Path;

use super::finding::{Finding, Rule};
use super::tree::Tree;

/// Every YAML file below `symbols/` has a comment `# Source: ...`.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let is_map =
        |path: &Path| path.starts_with("symbols") && path.extension().is_some_and(|it| it == "yaml" || it == "yml");
    let has_source = |text: &str| {
        text.lines()
            .filter_map(|line| line.strip_prefix('#'))
            .any(|comment| comment.trim().strip_prefix("Source:").is_some_and(|source| !source.trim().is_empty()))
    };
    tree.texts
        .iter()
        .filter(|(path, text)| is_map(path) && !has_source(text))
        .map(|(path, _)| {
            Finding::new(
                Rule::SymbolMap,
                path,
                1,
                "a comment `# Source: ...` must say which project, file and version this is from",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::{places, seeded};
    use super::*;

    #[test]
    fn a_map_without_its_source_is_found() {
        let (_folder, tree) = seeded(&[
            ("symbols/good.yaml", "# A map.\n# Source: xgboost 3.2, include/xgboost/c_api.h\nschema: x\n"),
            ("symbols/empty.yaml", "# Source:\nschema: x\n"),
            ("symbols/cpython/none.yaml", "schema: x # Source: not a line of its own\n"),
            ("deploy/daemon.yaml", "kind: DaemonSet\n"),
        ]);
        assert_eq!(places(&check(&tree)), ["symbols/cpython/none.yaml:1", "symbols/empty.yaml:1"]);
    }
}
