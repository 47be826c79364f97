//! The languages of functions, and what is to be said of each: one line of a table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Kind of code that a map is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// CPython methods.
    Python,
    /// C++ functions (Itanium mangling).
    Cpp,
    /// Rust functions (legacy and v0 mangling).
    Rust,
    /// C functions.
    C,
    /// Functions of Cython modules that Python calls.
    Cython,
}

/// What a map of a language names: methods of classes, functions one by one, or either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// `methods`.
    Methods,
    /// `functions`.
    Functions,
    /// Either of them.
    Either,
}

/// What is to be said of a language.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// How a map writes it, and `ml.language`.
    word: &'static str,
    /// For people.
    name: &'static str,
    named_by: NamedBy,
    /// Whether methods are compared without regard to the case of letters.
    ignores_case: bool,
}

impl Language {
    const fn facts(self) -> Facts {
        use NamedBy::{Either, Functions, Methods};
        match self {
            Self::Python => Facts { word: "python", name: "Python", named_by: Methods, ignores_case: false },
            Self::Cpp => Facts { word: "cpp", name: "C++", named_by: Either, ignores_case: true },
            Self::Rust => Facts { word: "rust", name: "Rust", named_by: Either, ignores_case: true },
            Self::C => Facts { word: "c", name: "C", named_by: Functions, ignores_case: false },
            Self::Cython => Facts { word: "cython", name: "Cython", named_by: Either, ignores_case: false },
        }
    }

    /// How a symbol map writes it, and the attribute `ml.language`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.facts().word
    }

    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// What a map of it names.
    #[must_use]
    pub const fn named_by(self) -> NamedBy {
        self.facts().named_by
    }

    /// Whether methods are compared without regard to the case of letters.
    #[must_use]
    pub const fn ignores_case(self) -> bool {
        self.facts().ignores_case
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_and_spans_written_with_the_same_words() {
        for language in [Language::Python, Language::Cpp, Language::Rust, Language::C, Language::Cython] {
            assert_eq!(serde_json::to_value(language).expect("JSON"), language.word());
        }
    }
}
