//! One breach of a rule.

use std::fmt;
use std::path::{Path, PathBuf};

/// The rules, as exemptions name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The layer table.
    Layer,
    /// Files of a room that use each other.
    Circle,
    /// A word that only some rooms may use: `aya`, `unsafe`, `println!`, `process::exit`.
    Ban,
    /// Length, name and first line of a file.
    File,
    /// Declared dependencies.
    Dependency,
    /// Symbol maps.
    SymbolMap,
    /// The stack of the BPF programs.
    StackDepth,
    /// Links in documents, and the rooms that ARCHITECTURE.md names.
    Document,
}

/// A breach: where, and one sentence that says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// File, from the root of the workspace.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// The rule that is broken.
    pub rule: Rule,
    /// What is wrong.
    pub sentence: String,
}

impl Finding {
    /// A breach of `rule` in `path`.
    pub fn new(rule: Rule, path: &Path, line: usize, sentence: impl Into<String>) -> Self {
        Self { path: path.to_path_buf(), line, rule, sentence: sentence.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path.display(), self.line, self.sentence)
    }
}
