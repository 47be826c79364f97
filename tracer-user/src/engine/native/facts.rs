//! One ELF file and the rules in force for it to the functions that are asked for, and those that are passed over.

use std::cell::RefCell;
use std::fs::File;
use std::path::Path;

use object::read::ReadCache;

use super::moving_code::Signs;
use crate::model::{
    ArgumentRule, ErrorRule, FunctionName, Language, ObjectLocation, Recurse, ResolvedFunction, SkipReason,
};
use crate::symbol::{Candidate, ElfFile, Functions, SymbolError};
use crate::symbol_map::{Match, Matcher, Verdict};

/// What one file holds for the rules in force.
#[derive(Debug, Default)]
pub struct NativeFacts {
    pub(super) functions: Vec<NativeFunction>,
    pub(super) skipped: Vec<(FunctionName, SkipReason)>,
    /// A function that moves the code of this file to other memory.
    pub(super) moved_by: Option<String>,
}

/// A function and what the rules say about its calls.
#[derive(Clone, Debug)]
pub(super) struct NativeFunction {
    pub function: ResolvedFunction,
    pub span_name: String,
    pub library: String,
    pub nests: bool,
    pub attributes: Vec<ArgumentRule>,
    pub error: Option<ErrorRule>,
}

/// How the object of a function is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ObjectSearch {
    /// Nothing depends on it.
    NotNeeded,
    /// By the code and the debugging information.
    Method,
    /// The rule names a class for a C function: its first argument is the handle.
    Handle,
}

impl NativeFacts {
    /// Reads a file and finds the functions that the rules ask for.
    pub(super) fn read(file: File, path: &Path, matcher: &Matcher) -> Result<Self, SymbolError> {
        let cache = ReadCache::new(file);
        let functions = Functions::read(ElfFile::parse(&cache, path)?)?;
        let mut facts = Self::default();
        let mut searches = Vec::new();
        let (signs, moved_by) = (Signs::new(), RefCell::new(None));
        let may_match = |symbol: &str| {
            if signs.are_in(symbol) {
                moved_by.borrow_mut().get_or_insert_with(|| symbol.to_owned());
            }
            matcher.may_match(symbol)
        };
        let candidates = functions.candidates(may_match, |name| matcher.match_name(name).is_some())?;
        facts.moved_by = moved_by.into_inner();
        for mut candidate in candidates {
            let Some(verdict) = choose(&mut candidate, matcher) else { continue };
            let Some(name) = candidate.names.first().cloned() else { continue };
            match verdict {
                Verdict::Excluded { pattern, .. } => {
                    facts.skipped.push((name, SkipReason::Excluded { pattern: pattern.to_owned() }));
                }
                Verdict::Traced(rule) => match functions.resolve(&candidate) {
                    Ok(function) => {
                        searches.push(object_search(&rule, &function));
                        facts.functions.push(NativeFunction::new(function, &rule));
                    }
                    Err(reason) => facts.skipped.push((name, reason)),
                },
            }
        }
        facts.locate_objects(&functions, &searches);
        Ok(facts)
    }

    fn locate_objects<'data>(
        &mut self,
        functions: &Functions<'data, &'data ReadCache<File>>,
        searches: &[ObjectSearch],
    ) {
        let mut methods = Vec::new();
        for (function, search) in self.functions.iter_mut().zip(searches) {
            match search {
                ObjectSearch::NotNeeded => {}
                ObjectSearch::Handle => function.function.object = ObjectLocation::FirstArgument,
                ObjectSearch::Method => methods.push(&mut function.function),
            }
        }
        functions.locate_objects(&mut methods);
    }
}

/// What the rules say about a candidate, by the first of its names that they know; a name that is traced comes before
/// one that is excluded. That name is put first.
fn choose<'matcher>(candidate: &mut Candidate, matcher: &'matcher Matcher) -> Option<Verdict<'matcher>> {
    let verdicts: Vec<_> = candidate.names.iter().map(|name| matcher.match_name(name)).collect();
    let is_traced = |verdict: &Option<Verdict<'_>>| matches!(verdict, Some(Verdict::Traced(_)));
    let index = verdicts.iter().position(is_traced).or_else(|| verdicts.iter().position(Option::is_some))?;
    candidate.names.swap(0, index);
    verdicts.into_iter().nth(index).flatten()
}

fn object_search(rule: &Match<'_>, function: &ResolvedFunction) -> ObjectSearch {
    let names_a_class = rule.rule.and_then(|rule| rule.span.as_ref()).is_some_and(|span| span.contains('.'));
    match function.name.language {
        Language::C if names_a_class => ObjectSearch::Handle,
        // Only where not everything nests does it matter whether two calls are on the same object.
        Language::Cpp if matches!(rule.map.recurse, Recurse::Only(_)) => ObjectSearch::Method,
        _ => ObjectSearch::NotNeeded,
    }
}

impl NativeFunction {
    fn new(function: ResolvedFunction, rule: &Match<'_>) -> Self {
        Self {
            function,
            span_name: rule.span_name.clone(),
            library: rule.library().to_owned(),
            nests: rule.nests,
            attributes: rule.attributes().to_vec(),
            error: rule.error(),
        }
    }
}
