//! One ELF file and the rules in force for it to the functions that are asked for, and those that are passed over.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use object::read::ReadCache;

use super::moving_code::Signs;
use super::shared_code;
use crate::model::{
    ArgumentRule, ErrorRule, FunctionName, Language, LibraryOwner, ObjectLocation, Recurse, ResolvedFunction,
    SkipReason, VirtualAddress,
};
use crate::symbol::{Candidate, ElfFile, Found, Functions, MATCH_LIMIT, SymbolError};
use crate::symbol_map::{Match, Matcher, Verdict};

/// What one file holds for the rules in force.
#[derive(Debug, Default)]
pub struct NativeFacts {
    pub(super) functions: Vec<NativeFunction>,
    pub(super) skipped: Vec<(FunctionName, SkipReason)>,
    /// What else is to be said of the file, one sentence each.
    pub(super) remarks: Vec<String>,
    /// What may be the reason if nothing at all is found.
    pub(super) hints: Vec<String>,
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
    pub shared_code: Vec<String>,
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
    /// `owner`: who has brought it, if it is not the program's own.
    pub(super) fn read(
        file: File,
        (path, owner): (&Path, Option<LibraryOwner>),
        matcher: &Matcher,
    ) -> Result<Self, SymbolError> {
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
        let found = functions.find(may_match, |name| rank(matcher, name));
        facts.moved_by = moved_by.into_inner();
        facts.say_what_is_left_out(&found, path);
        let Found { candidates, left_out, not_understood, .. } = found;
        // Functions that do nothing but jump to another one, by that one's address.
        let mut jumps: HashMap<VirtualAddress, Vec<FunctionName>> = HashMap::new();
        for mut candidate in candidates {
            let Some(verdict) = choose(&mut candidate, matcher) else { continue };
            let Some(name) = candidate.names.first().cloned() else { continue };
            match verdict {
                // The language's own runtime: nobody asks for it there.
                Verdict::Excluded { .. } if owner.is_some() && matcher.is_generic() => {}
                Verdict::Excluded { pattern, .. } => {
                    facts.skipped.push((name, SkipReason::Excluded { pattern: pattern.to_owned() }));
                }
                Verdict::Traced(Match { map, .. }) if owner.is_some() && map.is_generic() => {
                    facts.skipped.extend(owner.map(|owner| (name, SkipReason::OfOthers { owner })));
                }
                Verdict::Traced(rule) => match functions.resolve(&candidate) {
                    Ok(function) => {
                        searches.push(object_search(&rule, &function));
                        facts.functions.push(NativeFunction::new(function, &rule, &candidate, matcher));
                    }
                    Err(reason) => {
                        if let Some(target) = functions.same_code_behind(&candidate, &reason) {
                            jumps.entry(target).or_default().push(name.clone());
                        }
                        facts.skipped.push((name, reason));
                    }
                },
            }
        }
        facts.leave_out_futures(&functions, &mut searches);
        for function in &mut facts.functions {
            let jumping = jumps.get(&function.function.address).into_iter().flatten();
            shared_code::add(&mut function.shared_code, &function.function.name, jumping);
        }
        facts.skipped.extend(left_out.into_iter().map(|name| (name, SkipReason::OverBudget)));
        facts.skipped.extend(not_understood.into_iter().map(|symbol| (unread(symbol), SkipReason::NameNotUnderstood)));
        if let Some(problem) = facts.locate_objects(&functions, &searches) {
            facts.remarks.push(format!(
                "reading {}: its debugging information {problem}; calls on the same object are folded where the code alone does \
                 not tell the object",
                path.display()
            ));
        }
        if facts.functions.is_empty() && functions.is_stripped_program() {
            facts.hints.push(format!(
                "{} is stripped, so that only what it exports has a name (separate debug files are not looked at)",
                path.display()
            ));
        }
        Ok(facts)
    }

    fn say_what_is_left_out(&mut self, found: &Found, path: &Path) {
        let left_out = found.left_out.len() + found.uncounted;
        if left_out > 0 {
            self.remarks.push(format!(
                "looking for functions in {}: {MATCH_LIMIT} of those that match are traced, {left_out} are left out; narrow the \
                 patterns of the symbol maps",
                path.display()
            ));
        }
    }

    fn locate_objects<'data>(
        &mut self,
        functions: &Functions<'data, &'data ReadCache<File>>,
        searches: &[ObjectSearch],
    ) -> Option<&'static str> {
        let mut methods = Vec::new();
        for (function, search) in self.functions.iter_mut().zip(searches) {
            match search {
                ObjectSearch::NotNeeded => {}
                ObjectSearch::Handle => function.function.object = ObjectLocation::FirstArgument,
                ObjectSearch::Method => methods.push(&mut function.function),
            }
        }
        functions.locate_objects(&mut methods)
    }

    /// Passes over Rust functions of which debugging information says that they return a future.
    fn leave_out_futures<'data>(
        &mut self,
        functions: &Functions<'data, &'data ReadCache<File>>,
        searches: &mut Vec<ObjectSearch>,
    ) {
        let rust = self.functions.iter().filter(|function| function.function.name.language == Language::Rust);
        let rust: Vec<ResolvedFunction> = rust.map(|function| function.function.clone()).collect();
        let futures = functions.returning_futures(&rust);
        if futures.is_empty() {
            return;
        }
        let found = std::mem::take(&mut self.functions).into_iter().zip(std::mem::take(searches));
        for (function, search) in found {
            if futures.contains(&function.function.address.0) {
                self.skipped.push((function.function.name, SkipReason::MakesCoroutine));
            } else {
                self.functions.push(function);
                searches.push(search);
            }
        }
    }
}

/// What comes first where a file has too much: what a map names one by one, then what it has a list for. What is excluded needs no
/// room.
fn rank(matcher: &Matcher, name: &FunctionName) -> Option<u8> {
    Some(match matcher.match_name(name)? {
        Verdict::Traced(Match { rule: Some(_), .. }) => 0,
        Verdict::Traced(Match { map, .. }) if map.module.is_some() => 1,
        Verdict::Traced(_) => 2,
        Verdict::Excluded { .. } => 3,
    })
}

/// A symbol that nobody could read.
fn unread(symbol: String) -> FunctionName {
    FunctionName {
        path: symbol.clone(),
        method: symbol.clone(),
        symbol,
        class: None,
        class_path: None,
        language: Language::C,
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
    fn new(function: ResolvedFunction, rule: &Match<'_>, candidate: &Candidate, matcher: &Matcher) -> Self {
        let shared = shared_code::Names::of(candidate, rule, matcher);
        Self {
            function,
            span_name: shared.span_name,
            library: rule.library().to_owned(),
            nests: shared.nests,
            attributes: rule.attributes().to_vec(),
            error: rule.error(),
            shared_code: shared.others,
        }
    }
}
