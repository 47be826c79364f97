//! The engines of language runtimes: a process goes in, the runtime that it runs comes out.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::PathBuf;

use super::contract::{EngineError, RuntimeInstance};
use super::cpython::{self, CpythonEngine};
use crate::memory::ReadLimit;
use crate::model::{InterpreterSite, RuntimeCoverage, SymbolMap, Target, counted, process_numbers};

/// Instances that are told of at length, each with those that say the same.
const MOST_TOLD: usize = 8;

/// One engine for each kind of runtime.
#[derive(Clone, Debug)]
pub struct Runtimes {
    cpython: CpythonEngine,
}

/// Where a process makes the first objects of the classes that are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstObjects {
    /// Path by which the runtime's file is opened.
    pub file: PathBuf,
    /// The place in it.
    pub site: InterpreterSite,
    /// Bare names of classes.
    pub classes: Vec<String>,
    /// Whether every class that a map asks for is one of these, or is derived from one.
    pub are_all: bool,
}

impl Runtimes {
    /// Engines for these maps; of two that are about the same class the later one wins.
    #[must_use]
    pub fn new(maps: &[SymbolMap]) -> Self {
        Self { cpython: CpythonEngine::new(maps) }
    }

    /// The same, which read the routes of web applications.
    #[must_use]
    pub fn reading_routes(self, reads_routes: bool) -> Self {
        Self { cpython: self.cpython.reading_routes(reads_routes) }
    }

    /// The runtime of a process; `None` if it runs none that is known. `limit` ends the readings of this and every later look.
    ///
    /// # Errors
    /// There is one and it cannot be read: it is of an unknown version or still starting, or the process is gone.
    pub fn find(&self, target: &Target, limit: &ReadLimit) -> Result<Option<Box<dyn RuntimeInstance>>, EngineError> {
        let found = self.cpython.clone().find(target, limit)?;
        Ok(found.map(|instance| Box::new(instance) as Box<dyn RuntimeInstance>))
    }

    /// Whether the process has mapped a file that may hold a runtime.
    #[must_use]
    pub fn may_be_in(target: &Target) -> bool {
        target.modules.iter().any(|module| CpythonEngine::may_be_in(&module.file_name()))
    }

    /// Where the runtime that a process runs, or will run, makes objects, and the bare names of the classes that the maps ask for; `None` if
    /// that is not known.
    #[must_use]
    pub fn first_objects(&self, target: &Target) -> Option<FirstObjects> {
        let mut cpython = self.cpython.clone();
        let (file, site) = cpython.object_site(target)?;
        let (classes, are_all) = cpython.class_names();
        Some(FirstObjects { file, site, classes, are_all })
    }

    /// What a person should know of what was traced of these instances, in sentences. `spans` gives the methods of a process that
    /// have spans, those with the most first.
    #[must_use]
    pub fn remarks<'span>(coverage: &[RuntimeCoverage], spans: impl Fn(u32) -> Vec<(&'span str, u64)>) -> Vec<String> {
        let spans: Vec<_> = coverage.iter().map(|coverage| spans(coverage.process)).collect();
        let mut in_all: HashMap<&str, u64> = HashMap::new();
        for (name, count) in spans.iter().flatten() {
            *in_all.entry(name).or_default() += count;
        }
        // The workers of a server say the same, if each tells what it did in the order of what all of them did.
        let mut groups: Vec<(&str, Vec<u32>, Vec<String>)> = Vec::new();
        // The process that starts the workers of a server has nothing itself, most of the time.
        let is_any = coverage.iter().zip(&spans).any(|(coverage, spans)| !coverage.is_empty() || !spans.is_empty());
        let is_worth_it =
            |(coverage, spans): &(&RuntimeCoverage, Vec<_>)| !(is_any && coverage.is_empty() && spans.is_empty());
        for (coverage, mut spans) in coverage.iter().zip(spans).filter(is_worth_it) {
            spans.sort_by_key(|(name, _)| (Reverse(in_all.get(name)), *name));
            let said = cpython::remarks(coverage, &spans);
            match groups.iter_mut().find(|(name, _, other)| *name == &*coverage.interpreter && *other == said) {
                Some((_, processes, _)) => processes.push(coverage.process),
                None => groups.push((&coverage.interpreter, vec![coverage.process], said)),
            }
        }
        let more = groups.iter().skip(MOST_TOLD).map(|(_, processes, _)| processes.len()).sum::<usize>();
        let told = groups.into_iter().take(MOST_TOLD).flat_map(|(interpreter, processes, said)| {
            let begin = |(number, sentence)| match number {
                0 => format!("{interpreter} of {}: {sentence}", process_numbers(&processes)),
                _ => format!("  {sentence}"),
            };
            said.into_iter().enumerate().map(begin).collect::<Vec<_>>()
        });
        let mut remarks: Vec<String> = told.collect();
        if more > 0 {
            let interpreters = counted(more as u64, "more interpreter", "more interpreters");
            remarks.push(format!("{interpreters} (`--summary` has everything)"));
        }
        remarks
    }

    /// What was left out of all of them for want of room, in a sentence.
    #[must_use]
    pub fn left_out(coverage: &[RuntimeCoverage]) -> Option<String> {
        cpython::left_out(coverage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WatchedCode;

    fn coverage(process: u32, methods: &[&str]) -> RuntimeCoverage {
        let code = |name: &&str| WatchedCode { code: (*name).into(), methods: vec![(*name).into()], calls_seen: 3 };
        RuntimeCoverage {
            process,
            interpreter: "CPython 3.11.7".into(),
            slots: 4,
            watched: methods.iter().map(code).collect(),
            ..RuntimeCoverage::default()
        }
    }

    #[test]
    fn workers_that_did_the_same_are_told_of_in_one_sentence() {
        let both = ["Pipeline.predict", "PCA.transform"];
        let all = [coverage(1, &[]), coverage(2, &both), coverage(3, &both), coverage(4, &both[..1])];
        let spans = |process: u32| match process {
            2 => vec![("Pipeline.predict", 7), ("PCA.transform", 6)],
            3 => vec![("PCA.transform", 2), ("Pipeline.predict", 1)],
            4 => vec![("Pipeline.predict", 1)],
            _ => Vec::new(),
        };
        assert_eq!(
            Runtimes::remarks(&all, spans),
            [
                "CPython 3.11.7 of processes 2, 3: covered Pipeline.predict, PCA.transform",
                "CPython 3.11.7 of process 4: covered Pipeline.predict"
            ]
        );
        assert_eq!(
            Runtimes::remarks(&all[..1], spans),
            ["CPython 3.11.7 of process 1: nothing to trace was found in it"]
        );
    }
}
