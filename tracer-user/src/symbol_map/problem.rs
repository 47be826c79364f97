//! What can be wrong with a symbol map, and where.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde_saphyr::{Error as YamlError, Location, MessageFormatter, UserMessageFormatter};
use thiserror::Error;
use tracer_common::limits::MAX_ARGUMENTS;

use crate::model::{self, Language, NamedBy};

use super::parse::MAX_FILE_BYTES;

/// Highest argument position that a rule may name: six in registers, six on the stack.
pub(super) const MAX_ARGUMENT_POSITION: i64 = 11;

/// Names of floating-point types that users try as argument types.
const FLOAT_TYPES: [&str; 8] = ["f32", "f64", "float", "double", "float32", "float64", "f16", "half"];

/// Everything that is wrong with one or more symbol maps; at least one error, a line each when printed.
#[derive(Debug, Error)]
pub struct MapErrors(pub Vec<MapError>);

/// One thing that is wrong, and where. Prints as `FILE:LINE:COLUMN: what`.
#[derive(Debug, Error)]
pub struct MapError {
    /// The file.
    pub file: PathBuf,
    /// Line and column, both from 1 and counted in characters; `None` if it is about the file as a whole.
    pub position: Option<(u64, u64)>,
    /// What is wrong.
    #[source]
    pub problem: MapProblem,
}

/// What is wrong with a symbol map.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MapProblem {
    /// The operating system did not hand over the file or the directory.
    #[error("cannot read the symbol map: {0}; check the path and its permissions")]
    Unreadable(io::Error),
    /// A directory, a device, a pipe.
    #[error("is not a regular file; name a YAML file")]
    NotAFile,
    /// Longer than any symbol map.
    #[error("is longer than {} KiB, which no symbol map is; split it, or check that it is the right file", MAX_FILE_BYTES / 1024)]
    TooBig,
    /// Bytes that are not text.
    #[error("this byte is not UTF-8; save the file as UTF-8 text")]
    NotUtf8,
    /// A character that YAML does not allow.
    #[error("character U+{:04X} has no place in a symbol map; remove it", u32::from(*.0))]
    ForbiddenCharacter(char),
    /// No document at all.
    #[error("holds no symbol map; write at least `schema`, `library`, `language` and `methods` or `functions`")]
    Empty,
    /// Not YAML.
    #[error("is not valid YAML here: {0}")]
    Syntax(String),
    /// Nested or repeated beyond what any symbol map needs.
    #[error("is nested, repeated or expanded far beyond what a symbol map needs ({0}); write it out plainly")]
    TooComplex(String),
    /// The list of mistakes was cut off.
    #[error("there are more mistakes than these; mend them and check again")]
    MoreMistakes,
    /// A key that the format does not have.
    #[error("unknown key `{key}`; {}", advice(.key, .known))]
    UnknownKey {
        /// The key.
        key: String,
        /// The keys that are possible there.
        known: Vec<&'static str>,
    },
    /// A word that is not one of a fixed set.
    #[error("unknown value `{value}`; {}", advice(.value, .known))]
    UnknownValue {
        /// The value.
        value: String,
        /// The values that are possible there.
        known: Vec<&'static str>,
    },
    /// A list where a text is due, and the like.
    #[error("wrong type of value: {0}")]
    WrongType(String),
    /// A text that YAML reads as a number, a boolean or nothing.
    #[error("`{0}` must be a text here; put it in quotes")]
    NeedsQuotes(String),
    /// A key that must be there.
    #[error("key `{0}` is missing; add it to this document or mapping")]
    MissingKey(&'static str),
    /// The same key twice in one mapping.
    #[error("key `{0}` stands twice; keep one")]
    DuplicateKey(String),
    /// The same rule twice.
    #[error("{what} `{name}` is listed already on line {first_line}; keep one")]
    Duplicate {
        /// Kind of rule.
        what: &'static str,
        /// Its name.
        name: String,
        /// Where the first one stands.
        first_line: u64,
    },
    /// A second document about the same thing in one file.
    #[error(
        "the document on line {first_line} is about the same library, language and module; put the rules into one document"
    )]
    DuplicateDocument {
        /// Where the first one stands.
        first_line: u64,
    },
    /// A text with nothing in it.
    #[error("{0} is empty; write a name")]
    EmptyText(&'static str),
    /// A pattern that cannot be read.
    #[error(
        "bad glob `{pattern}`: {reason}; a literal `*`, `?`, `[` or `{{` is written as `[*]`, `[?]`, `[[]`, `[{{]`"
    )]
    BadGlob {
        /// The pattern.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// A module with directories.
    #[error("module `{0}` has a `/`; write the name of the file without directories")]
    ModuleHasDirectory(String),
    /// A method that is not one plain name.
    #[error("method `{0}` is not one plain name; write the last part of the path, or use `functions` for a path")]
    NotAMethodName(String),
    /// An error condition of another form.
    #[error("`{0}` is not a condition; write `return`, one of == != < <= > >=, and an integer, as in `return != 0`")]
    BadCondition(String),
    /// A floating-point argument.
    #[error("type `{0}` is not available: only integer registers are read; use i32, u32, i64, u64 or bool")]
    FloatArgument(String),
    /// An argument out of reach.
    #[error(
        "argument {0} is out of reach; integer and pointer arguments are counted from 0 to {MAX_ARGUMENT_POSITION}"
    )]
    ArgumentOutOfRange(i64),
    /// More attributes than a record has room for.
    #[error("{0} attributes are more than the {MAX_ARGUMENTS} that one call can carry; remove some")]
    TooManyAttributes(usize),
    /// A class that is to be looked into and not to be looked into.
    #[error("class `{0}` is under `recurse` and under `leaf`; keep it in one of them")]
    RecurseAndLeaf(String),
    /// A span name with a part missing.
    #[error("span `{0}` has an empty part; write `Class.method`")]
    BadSpanName(String),
    /// A document without rules.
    #[error("there is nothing to trace; language {} needs {}", .0.word(), needed_keys(*.0))]
    NothingToTrace(Language),
    /// A key that means nothing for the language of the document.
    #[error("key `{key}` is not for language {}; {instead}", .language.word())]
    KeyOfOtherLanguage {
        /// The key.
        key: &'static str,
        /// The language.
        language: Language,
        /// What to do instead.
        instead: &'static str,
    },
    /// A list of base classes with none in it.
    #[error("`bases` names no class; name one, or leave the key out for every class that has one of the methods")]
    NoBases,
    /// A base class that is a pattern or no name at all.
    #[error(
        "base class `{0}` is not the name of one class; write it bare or dotted, without wildcards, as in `sklearn.base.BaseEstimator`"
    )]
    NotAClassName(String),
    /// Methods of a language that has none.
    #[error("C functions have no methods; list their symbols under `functions`")]
    MethodsInC,
}

impl MapError {
    pub(super) fn at(file: &std::path::Path, location: Location, problem: MapProblem) -> Self {
        let known = location != Location::UNKNOWN && location.line() > 0;
        Self { file: file.to_owned(), position: known.then(|| (location.line(), location.column())), problem }
    }

    pub(super) fn whole(file: &std::path::Path, problem: MapProblem) -> Self {
        Self { file: file.to_owned(), position: None, problem }
    }

    /// Takes what the YAML reader says and puts it into the words of this program.
    pub(super) fn from_yaml(file: &std::path::Path, error: &YamlError) -> Self {
        let location = error.location().unwrap_or(Location::UNKNOWN);
        Self::at(file, location, MapProblem::from_yaml(error))
    }
}

impl From<MapError> for MapErrors {
    fn from(error: MapError) -> Self {
        Self(vec![error])
    }
}

impl MapProblem {
    fn from_yaml(error: &YamlError) -> Self {
        match error {
            YamlError::WithSnippet { error, .. } | YamlError::AliasError { error, .. } => Self::from_yaml(error),
            YamlError::SerdeUnknownField { field, expected, .. } => {
                Self::UnknownKey { key: printable(field), known: expected.clone() }
            }
            YamlError::SerdeUnknownVariant { variant, expected, .. } => {
                if expected.contains(&"i32") && FLOAT_TYPES.contains(&variant.to_ascii_lowercase().as_str()) {
                    Self::FloatArgument(printable(variant))
                } else {
                    Self::UnknownValue { value: printable(variant), known: expected.clone() }
                }
            }
            YamlError::SerdeMissingField { field, .. } => Self::MissingKey(field),
            YamlError::DuplicateMappingKey { key, .. } => {
                Self::DuplicateKey(printable(key.as_deref().unwrap_or("(a list or mapping)")))
            }
            YamlError::QuotingRequired { value, .. } => Self::NeedsQuotes(printable(value)),
            YamlError::NullIntoString { .. } => Self::WrongType("expected a text, found nothing".to_owned()),
            YamlError::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => {
                Self::WrongType("expected one word or a mapping".to_owned())
            }
            YamlError::ExpectedMappingEndAfterEnumVariantValue { .. } => {
                Self::WrongType("expected only one of `named`, `children` and `few`".to_owned())
            }
            YamlError::UnexpectedValueForUnitEnumVariant { .. } => {
                Self::WrongType("expected one word, found a mapping".to_owned())
            }
            YamlError::MergeKeyNotAllowed { .. } => Self::UnknownKey { key: "<<".to_owned(), known: Vec::new() },
            YamlError::InvalidUtf8Input => Self::NotUtf8,
            YamlError::Budget { .. }
            | YamlError::AliasReplayCounterOverflow { .. }
            | YamlError::AliasReplayLimitExceeded { .. }
            | YamlError::AliasExpansionLimitExceeded { .. }
            | YamlError::AliasReplayStackDepthExceeded { .. } => Self::TooComplex(message(error)),
            YamlError::Unexpected { expected, .. } => Self::WrongType(format!("expected {}", plain_words(expected))),
            YamlError::InvalidScalar { ty: "i64", .. } => Self::WrongType("expected an integer".to_owned()),
            YamlError::SerdeInvalidType { unexpected, expected, .. } => {
                Self::WrongType(format!("expected {expected}, found {}", printable(unexpected)))
            }
            YamlError::InvalidScalar { .. }
            | YamlError::SerdeInvalidValue { .. }
            | YamlError::SerdeInvalidLength { .. }
            | YamlError::ExpectedStringKeyForExternallyTaggedEnum { .. }
            | YamlError::SerdeVariantId { .. } => Self::WrongType(message(error)),
            _ => Self::Syntax(message(error)),
        }
    }
}

/// The reader's words for a kind of value, in the words of a map's author.
fn plain_words(expected: &'static str) -> &'static str {
    match expected {
        "string scalar" => "a text",
        "sequence start" => "a list",
        "mapping start" => "a mapping",
        other => other,
    }
}

/// The reader's own words, without a place.
fn message(error: &YamlError) -> String {
    printable(&UserMessageFormatter.format_message(error))
}

/// Text from the file, fit for a terminal.
pub(super) fn printable(text: &str) -> String {
    const SHOWN: usize = 120;
    let (shown, rest) = text.split_at(text.char_indices().nth(SHOWN).map_or(text.len(), |(place, _)| place));
    let shown = model::printable(shown);
    if rest.is_empty() { shown.into_owned() } else { format!("{shown}…") }
}

/// `did you mean`, if a known word is near; otherwise the known words.
fn advice(word: &str, known: &[&'static str]) -> String {
    const NEAR: f64 = 0.8;
    let lower = word.to_lowercase();
    let nearest = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
        .max_by(|left, right| left.0.total_cmp(&right.0));
    match nearest {
        Some((likeness, candidate)) if likeness >= NEAR => format!("did you mean `{candidate}`?"),
        Some(_) => format!("known here: {}", known.join(", ")),
        None => "remove it".to_owned(),
    }
}

const fn needed_keys(language: Language) -> &'static str {
    match language.named_by() {
        NamedBy::Methods => "`methods`",
        NamedBy::Either => "`methods` or `functions`",
        NamedBy::Functions => "`functions`",
    }
}

impl fmt::Display for MapErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A path may hold a line end, and each error is a line.
        write!(formatter, "{}:", model::printable(&self.file.to_string_lossy()))?;
        if let Some((line, column)) = self.position {
            write!(formatter, "{line}:{column}:")?;
        }
        write!(formatter, " {}", self.problem)
    }
}
