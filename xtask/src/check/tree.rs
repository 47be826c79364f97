//! The files of the workspace as the rules see them: folder in, parsed sources and texts out.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::finding::{Finding, Rule};
use super::rust_source::RustSource;

/// Folders that hold nothing to check.
const SKIPPED: [&str; 4] = ["target", "tools", "node_modules", "__pycache__"];

/// All files of a workspace, paths from its root.
pub struct Tree {
    /// The root.
    pub root: PathBuf,
    /// Every Rust file that could be split into tokens.
    pub rust: Vec<RustSource>,
    /// Every Markdown, YAML and TOML file with its text.
    pub texts: Vec<(PathBuf, String)>,
    unreadable: Vec<Finding>,
}

impl Tree {
    /// Reads the files below `root`; hidden folders and built things are left out.
    ///
    /// # Errors
    /// When a folder or a file cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self { root: root.to_path_buf(), rust: Vec::new(), texts: Vec::new(), unreadable: Vec::new() };
        tree.read_folder(Path::new(""))?;
        tree.rust.sort_by(|left, right| left.path.cmp(&right.path));
        tree.texts.sort();
        Ok(tree)
    }

    fn read_folder(&mut self, folder: &Path) -> Result<()> {
        let full = self.root.join(folder);
        for entry in fs::read_dir(&full).with_context(|| format!("cannot list {}", full.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            let (text, path) = (name.to_string_lossy(), folder.join(&name));
            let kind = entry.file_type()?;
            if text.starts_with('.') || SKIPPED.contains(&text.as_ref()) {
                continue;
            }
            if kind.is_dir() {
                self.read_folder(&path)?;
            } else if kind.is_file() {
                self.read_file(path)?;
            }
        }
        Ok(())
    }

    fn read_file(&mut self, path: PathBuf) -> Result<()> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !["rs", "md", "yaml", "yml", "toml"].contains(&extension) {
            return Ok(());
        }
        let is_rust = extension == "rs";
        let full = self.root.join(&path);
        let text = fs::read_to_string(&full).with_context(|| format!("cannot read {}", full.display()))?;
        if !is_rust {
            self.texts.push((path, text));
            return Ok(());
        }
        match RustSource::parse(&path, &text) {
            Ok(source) => self.rust.push(source),
            Err(error) => self.unreadable.push(Finding::new(Rule::File, &path, error.line, error.sentence)),
        }
        Ok(())
    }

    /// The Rust files that are no Rust.
    pub fn unreadable(&self) -> Vec<Finding> {
        self.unreadable.clone()
    }

    /// The text of one file, from the root.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.texts.iter().find(|(found, _)| found == Path::new(path)).map(|(_, text)| text.as_str())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// What a check finds in a workspace of these files, as places.
    pub fn findings_of(check: impl Fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)]) -> Vec<String> {
        let (_folder, tree) = seeded(files);
        places(&check(&tree))
    }

    /// A workspace in a temporary folder with these files; the folder lives as long as the first value.
    pub fn seeded(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in files {
            let full = folder.path().join(path);
            fs::create_dir_all(full.parent().expect("a file has a folder")).expect("a new folder");
            fs::write(full, text).expect("a new file");
        }
        let tree = Tree::read(folder.path()).expect("a readable tree");
        (folder, tree)
    }

    /// `path:line` of each finding.
    pub fn places(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(|finding| format!("{}:{}", finding.path.display(), finding.line)).collect()
    }

    #[test]
    fn skips_hidden_and_built_folders_and_reports_broken_rust() {
        let (_folder, tree) = seeded(&[
            ("src/good.rs", "//! Good.\n"),
            ("src/bad.rs", "//! Bad.\nfn f( {\n"),
            (".hidden/x.rs", "nonsense("),
            ("target/x.rs", "nonsense("),
            ("README.md", "text"),
        ]);
        assert_eq!(tree.rust.len(), 1);
        assert_eq!(tree.text("README.md"), Some("text"));
        assert_eq!(tree.unreadable().len(), 1);
        assert_eq!(tree.unreadable()[0].path, Path::new("src/bad.rs"));
    }
}
