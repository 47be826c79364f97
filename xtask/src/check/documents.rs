//! Documents name only what exists: links, and the rooms in ARCHITECTURE.md.

use std::path::Path;

use super::finding::{Finding, Rule};
use super::tree::Tree;

const MAP: &str = "ARCHITECTURE.md";

/// Holds every Markdown file against the files of the workspace.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = rooms(tree);
    for (path, text) in tree.texts.iter().filter(|(path, _)| path.extension().is_some_and(|it| it == "md")) {
        for (line, prose) in prose_lines(text) {
            for link in links(&prose) {
                let folder = path.parent().unwrap_or(Path::new(""));
                let file = link.split('#').next().unwrap_or_default();
                if !is_elsewhere(link) && !file.is_empty() && !tree.root.join(folder).join(file).exists() {
                    findings.push(Finding::new(Rule::Document, path, line, format!("the link `{link}` leads nowhere")));
                }
            }
        }
    }
    findings
}

/// Lines outside code blocks, numbered, without their `code` parts.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut in_block = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            return None;
        }
        let prose = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        (!in_block).then_some((index + 1, prose))
    })
}

/// Targets of `[text](target)`, `[name]: target` and of `src` and `href`.
fn links(prose: &str) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for (opening, closing) in [("](", [')', ' ']), ("src=\"", ['"', '"']), ("href=\"", ['"', '"'])] {
        let targets = prose.split(opening).skip(1).filter_map(|rest| rest.split(closing).next());
        found.extend(targets.map(|target| target.trim_matches(['<', '>'])));
    }
    if prose.starts_with('[')
        && let Some((_, target)) = prose.split_once("]: ")
    {
        found.extend(target.split_whitespace().next());
    }
    found
}

fn is_elsewhere(link: &str) -> bool {
    link.contains("://") || link.starts_with("mailto:") || link.starts_with('/')
}

/// ARCHITECTURE.md names each room as `` `room/` ``, and no folder that is not there.
fn rooms(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(MAP) else {
        return vec![Finding::new(Rule::Document, Path::new(MAP), 1, "the map of the rooms is missing")];
    };
    let sources = Path::new("tracer-user/src");
    let mut existing: Vec<&str> = tree
        .rust
        .iter()
        .filter_map(|source| source.path.strip_prefix(sources).ok())
        .filter(|path| path.iter().count() > 1)
        .filter_map(|path| path.iter().next()?.to_str())
        .collect();
    existing.sort_unstable();
    existing.dedup();
    let named: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .flat_map(|(index, line)| line.split('`').skip(1).step_by(2).map(move |code| (index + 1, code)))
        .filter_map(|(line, code)| Some((line, code.strip_suffix('/')?)))
        .filter(|(_, folder)| folder.chars().all(|letter| letter.is_ascii_lowercase() || "_-".contains(letter)))
        .collect();
    let missing = existing
        .iter()
        .filter(|room| !named.iter().any(|(_, folder)| folder == *room))
        .map(|room| Finding::new(Rule::Document, Path::new(MAP), 1, format!("the room `{room}/` is not on the map")));
    let gone = named
        .iter()
        .filter(|(_, folder)| !tree.root.join(sources).join(folder).is_dir() && !tree.root.join(folder).is_dir())
        .map(|(line, folder)| {
            Finding::new(Rule::Document, Path::new(MAP), *line, format!("`{folder}/` does not exist"))
        });
    missing.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::findings_of;
    use super::*;

    fn findings(files: &[(&str, &str)]) -> Vec<String> {
        findings_of(check, files)
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let page = "[a](b.md) [c](gone.md#part) [d](https://x.org/y) [e](#here)\n\
                    ```\n[f](gone.md)\n```\n`[g](gone.md)` [h](../README.md \"title\")\n<img src=\"gone.svg\">\n[i]: gone.txt\n";
        let found = findings(&[("ARCHITECTURE.md", ""), ("README.md", ""), ("docs/b.md", ""), ("docs/page.md", page)]);
        assert_eq!(found, ["docs/page.md:1", "docs/page.md:6", "docs/page.md:7"]);
    }

    #[test]
    fn the_map_names_every_room_and_no_other() {
        let room = ("tracer-user/src/plan/mod.rs", "//! A.\n");
        assert!(findings(&[("ARCHITECTURE.md", "`plan/` is a room, `tracer-user/` a crate\n"), room]).is_empty());
        assert_eq!(findings(&[("ARCHITECTURE.md", "nothing\n"), room]), ["ARCHITECTURE.md:1"]);
        assert_eq!(findings(&[("ARCHITECTURE.md", "`plan/`\n`gone/`\n"), room]), ["ARCHITECTURE.md:2"]);
        assert_eq!(findings(&[room]), ["ARCHITECTURE.md:1"]);
    }
}
