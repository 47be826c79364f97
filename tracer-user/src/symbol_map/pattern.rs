//! A pattern of a symbol map: a plain text or a glob, where `*` crosses `::` and `.` alike.

use std::sync::OnceLock;

use globset::{Glob, GlobBuilder, GlobMatcher};

/// Longest pattern with wildcards, in bytes: compiling takes time and room for each.
const MAX_GLOB_BYTES: usize = 512;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// Matches itself.
    Literal(String),
    /// Matches by wildcards.
    Glob(Box<LazyGlob>),
}

/// A glob that has been checked. Compiling takes about a millisecond, and in most files no symbol ever asks for it.
#[derive(Clone, Debug)]
pub(super) struct LazyGlob {
    glob: Glob,
    matcher: OnceLock<GlobMatcher>,
}

impl Pattern {
    /// Compiles a pattern; the error is a sentence part about what is wrong.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if !has_wildcards(text) {
            return Ok(Self::Literal(text.to_owned()));
        }
        if text.len() > MAX_GLOB_BYTES {
            return Err(format!("it is longer than {MAX_GLOB_BYTES} bytes"));
        }
        GlobBuilder::new(text)
            .literal_separator(false)
            .build()
            .map(|glob| Self::Glob(Box::new(LazyGlob { glob, matcher: OnceLock::new() })))
            .map_err(|error| error.kind().to_string())
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == text,
            Self::Glob(lazy) => lazy.matcher.get_or_init(|| lazy.glob.compile_matcher()).is_match(text),
        }
    }
}

/// Whether a text has a character that globs give a meaning to.
pub(super) fn has_wildcards(text: &str) -> bool {
    text.contains(['*', '?', '[', ']', '{', '}', '\\'])
}

/// A piece of text that every mangled symbol matching the pattern contains, in lower case; empty if there is no telling.
///
/// Itanium and Rust mangling keep the identifiers of a path as they are, so the last component, which is never
/// abbreviated, is what is looked at.
pub(super) fn needle(pattern: &str) -> String {
    let last = pattern.rsplit("::").next().unwrap_or(pattern);
    if !pattern.is_ascii() || last.starts_with("operator") || last.contains(['<', '(']) {
        return String::new();
    }
    let mut best = "";
    let mut run_start = None;
    let mut closing = None;
    for (index, character) in last.char_indices() {
        if let Some(close) = closing {
            // Inside [..] or {..}: nothing there is certain.
            if character == close {
                closing = None;
            }
            continue;
        }
        if character.is_ascii_alphanumeric() || character == '_' {
            let start = *run_start.get_or_insert(index);
            let run = last.get(start..=index).unwrap_or_default();
            if run.len() > best.len() {
                best = run;
            }
        } else {
            run_start = None;
            closing = match character {
                '[' => Some(']'),
                // Alternatives may be nested; give up on the rest.
                '{' => break,
                _ => None,
            };
        }
    }
    best.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_crosses_separators() {
        let pattern = Pattern::new("std::*").expect("a good glob");
        assert!(pattern.matches("std::vector::fit"));
        assert!(!pattern.matches("mystd::fit"));
        assert!(matches!(Pattern::new("a::b"), Ok(Pattern::Literal(_))));
    }

    #[test]
    fn needles_are_certain_text() {
        assert_eq!(needle("xgboost::gbm::GBTree::PredictBatch"), "predictbatch");
        assert_eq!(needle("LGBM_BoosterPredictFor*"), "lgbm_boosterpredictfor");
        assert_eq!(needle("a::Fit[AB]long_tail"), "long_tail");
        assert_eq!(needle("a::{Fit,Predict}All"), "");
        assert_eq!(needle("a::*"), "");
        assert_eq!(needle("a::operator()"), "");
        assert_eq!(needle("a::größe"), "");
        assert_eq!(needle("_ZN1a3fitEv"), "_zn1a3fitev");
    }
}
