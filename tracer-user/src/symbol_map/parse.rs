//! YAML text -> checked symbol maps, with bounded work for any input.

use std::path::Path;

use serde_saphyr::Spanned;

use crate::model::{Origin, SymbolMap};

use super::check::check;
use super::document::Document;
use super::pattern::has_wildcards;
use super::problem::{MapError, MapErrors, MapProblem};

/// Longest symbol map file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Mistakes that are reported of one file.
const MAX_ERRORS: usize = 100;

/// Patterns with wildcards in one file: each takes tens of kilobytes once it is in force.
const MAX_GLOBS: usize = 512;

/// Reads all documents of a symbol map. `file` is where the text comes from and stands in front of each error.
///
/// # Errors
/// Everything that was found wrong: all mistakes of meaning, and of each document with a mistake of form the first one.
pub fn parse(text: &str, file: &Path, built_in: bool) -> Result<Vec<SymbolMap>, MapErrors> {
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(MapError::whole(file, MapProblem::TooBig).into());
    }
    if let Some(error) = forbidden_character(text, file) {
        return Err(error.into());
    }
    let mut errors = Vec::new();
    let mut maps: Vec<SymbolMap> = Vec::new();
    let mut bytes = text.as_bytes();
    for read in serde_saphyr::read_with_options::<_, Spanned<Document>>(&mut bytes, options()) {
        if errors.len() > MAX_ERRORS {
            break;
        }
        let document = match read {
            Ok(document) => document,
            Err(error) => {
                errors.push(MapError::from_yaml(file, &error));
                continue;
            }
        };
        let place = document.referenced;
        let origin = Origin { file: file.to_owned(), line: place.line(), built_in };
        let Some(map) = check(document, origin, &mut errors) else { continue };
        if let Some(first) = maps.iter().find(|other| same_subject(other, &map)) {
            let problem = MapProblem::DuplicateDocument { first_line: first.origin.line };
            errors.push(MapError::at(file, place, problem));
        }
        maps.push(map);
    }
    let globs = maps.iter().flat_map(patterns).filter(|pattern| has_wildcards(pattern)).count();
    if globs > MAX_GLOBS {
        let why = format!("{globs} patterns with wildcards, {MAX_GLOBS} are possible");
        errors.push(MapError::whole(file, MapProblem::TooComplex(why)));
    }
    if maps.is_empty() && errors.is_empty() {
        errors.push(MapError::whole(file, MapProblem::Empty));
    }
    if errors.len() > MAX_ERRORS {
        errors.truncate(MAX_ERRORS);
        errors.push(MapError::whole(file, MapProblem::MoreMistakes));
    }
    if errors.is_empty() { Ok(maps) } else { Err(MapErrors(errors)) }
}

fn patterns(map: &SymbolMap) -> impl Iterator<Item = &str> {
    let symbols = map.functions.iter().map(|rule| rule.symbol.as_str());
    symbols.chain(map.exclude.iter().map(String::as_str)).chain(map.module.as_deref())
}

/// Whether a later map takes the place of an earlier one.
pub(super) fn same_subject(left: &SymbolMap, right: &SymbolMap) -> bool {
    left.library == right.library && left.language == right.language && left.module == right.module
}

/// Far more than a real map needs, far less than would be felt.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 16,
            flow_nesting_limit: 16,
            max_events: 200_000,
            max_nodes: 200_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: 100_000,
            max_recorded_anchor_bytes: 1 << 20,
            max_total_scalar_bytes: 4 << 20,
            max_documents: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 50_000,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        merge_keys: serde_saphyr::MergeKeyPolicy::Error,
        strict_booleans: true,
        no_schema: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// The first character that YAML does not allow (YAML 1.2.2, production 1). The reader takes a NUL for the end of the
/// text and would ignore whatever follows.
fn forbidden_character(text: &str, file: &Path) -> Option<MapError> {
    let allowed = |character: char| matches!(character, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..);
    let (offset, character) = text.char_indices().find(|(_, character)| !allowed(*character))?;
    let position = Some(position(text.get(..offset).unwrap_or_default()));
    Some(MapError { file: file.to_owned(), position, problem: MapProblem::ForbiddenCharacter(character) })
}

/// Line and column, from 1, of what follows this text.
pub(super) fn position(before: &str) -> (u64, u64) {
    let line = before.matches('\n').count() as u64 + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
    (line, column)
}
