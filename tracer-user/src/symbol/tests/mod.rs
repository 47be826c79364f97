//! The room as a whole, against programs that the system's compilers make, and against damaged files.

mod contexts;
mod damaged;
mod interpreters;
mod jump_tables;
mod programs;
mod variables;

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{Candidate, ElfFile, Functions};
use crate::model::{ResolvedFunction, SkipReason};

/// A file made by a compiler; its folder is removed when it is dropped.
pub(super) struct Program {
    _folder: TempDir,
    path: PathBuf,
}

/// Says on the test's output that it tested nothing, and why.
#[expect(clippy::print_stderr, reason = "the only place where a test that tested nothing can say so")]
pub(super) fn not_tested(reason: &str) {
    eprintln!("not tested: {reason}");
}

/// Compiles a source text; `None`, with a line on the test's output that says why, where the compiler is missing.
pub(super) fn compile(compiler: &str, extension: &str, source: &str, options: &[&str]) -> Option<Program> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let input = folder.path().join(format!("input.{extension}"));
    let path = folder.path().join("output");
    std::fs::write(&input, source).expect("the source is written");
    let output = match Command::new(compiler).args(options).arg("-o").arg(&path).arg(&input).output() {
        Ok(output) => output,
        Err(error) => {
            not_tested(&format!("{compiler} does not start: {error}"));
            return None;
        }
    };
    assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
    Some(Program { _folder: folder, path })
}

impl Program {
    pub(super) fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).expect("the compiled file is readable")
    }

    /// Everything found in the file under one method or symbol, resolved.
    pub(super) fn find(&self, word: &str) -> Vec<(Candidate, Result<ResolvedFunction, SkipReason>)> {
        let bytes = self.bytes();
        let file = ElfFile::parse(bytes.as_slice(), &self.path).expect("an ELF file");
        let functions = Functions::read(file).expect("whole symbol tables");
        let mut found: Vec<_> = functions
            .find(|symbol| symbol.contains(word), |name| (name.method == word).then_some(0))
            .candidates
            .into_iter()
            .map(|candidate| {
                let resolved = functions.resolve(&candidate);
                (candidate, resolved)
            })
            .collect();
        functions
            .locate_objects(&mut found.iter_mut().filter_map(|(_, result)| result.as_mut().ok()).collect::<Vec<_>>());
        found
    }

    /// The one function of a name.
    pub(super) fn function(&self, word: &str) -> Result<ResolvedFunction, SkipReason> {
        let mut found = self.find(word);
        assert_eq!(found.len(), 1, "{word}: {found:?}");
        found.remove(0).1
    }

    /// The method of a class.
    pub(super) fn method(&self, class: &str, word: &str) -> ResolvedFunction {
        let found = self.find(word);
        let of_class = |candidate: &Candidate| candidate.names.iter().any(|name| name.class.as_deref() == Some(class));
        let (_, result) = found.into_iter().find(|(candidate, _)| of_class(candidate)).expect("the class has it");
        result.expect("it can be probed")
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
