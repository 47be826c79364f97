//! The typed form of a symbol map: which methods become spans, and which containers are looked into.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::language::Language;

/// One YAML document of a symbol map.
#[derive(Clone, Debug, PartialEq)]
pub struct SymbolMap {
    /// Name of the library, as its users write it.
    pub library: String,
    /// What kind of code the rules are about.
    pub language: Language,
    /// Glob on the name of the mapped file (no directories); `None` for every file of that language.
    pub module: Option<String>,
    /// Method names. For C++ and Rust matched case-insensitively with the last component of the demangled path.
    pub methods: Vec<String>,
    /// Python: classes (bare or dotted) that the rules are about, with their subclasses. Empty: every class that has one
    /// of the methods.
    pub bases: Vec<String>,
    /// Which calls inside a span become spans of their own.
    pub recurse: Recurse,
    /// Classes whose inside is folded even when everything nests.
    pub leaf: Vec<String>,
    /// Classes (or paths) that are never traced. Globs on the demangled path; for Python on the dotted path of the class,
    /// where a name without wildcards stands for its subclasses too.
    pub exclude: Vec<String>,
    /// Single functions with a span name, attributes and an error rule of their own.
    pub functions: Vec<FunctionRule>,
    /// Python: whether the rules are only about classes of the application's own modules, not those of what is installed. No
    /// document says so, an option does.
    pub of_application: bool,
    /// Where the document was read from.
    pub origin: Origin,
}

/// Which calls inside a span become spans of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recurse {
    /// All, except inside the classes under `leaf`.
    All,
    /// Only inside these classes, and calls on the same object.
    Only(Vec<Container>),
}

/// A class that is looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Class as the map writes it: a bare name or a qualified one (`.` or `::`).
    pub class: String,
    /// Where its children are kept.
    pub children: Children,
}

/// Where a container keeps its children: names of its fields. A field that an object does not have, or not yet, is no
/// mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Children {
    /// Each child span gets its step name. A field holds a list or tuple of (name, child, ...), or a dictionary with names
    /// for keys, or one child, which is named after the field.
    Named(Vec<String>),
    /// A field holds a list, tuple or dictionary of children, or one child.
    Plain(Vec<String>),
    /// The same, and the class is looked into only where none of its objects has more than [`FEW`] children.
    Few(Vec<String>),
}

/// As many children are few.
pub const FEW: usize = 16;

impl Children {
    /// The fields.
    #[must_use]
    pub fn fields(&self) -> &[String] {
        let (Self::Named(fields) | Self::Plain(fields) | Self::Few(fields)) = self;
        fields
    }
}

/// One function with a span of its own making.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionRule {
    /// Exact symbol (mangled or not), or a glob on the demangled path without parameters.
    pub symbol: String,
    /// Span name `Class.method`; `None`: taken from the symbol.
    pub span: Option<String>,
    /// Captured arguments by attribute name, in the order of the file.
    pub attributes: Vec<ArgumentRule>,
    /// When the returned value means an error.
    pub error: Option<ErrorRule>,
    /// Line of the rule in its file, from 1.
    pub line: u64,
}

/// One argument that becomes a span attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArgumentRule {
    /// Attribute name.
    pub attribute: String,
    /// Position among the integer arguments, from 0.
    pub argument: u32,
    /// How its bits are read.
    pub kind: ArgumentType,
}

/// How the 64 bits of an argument or a returned value are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ArgumentType {
    /// Signed, 32 bits.
    I32,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 64 bits.
    I64,
    /// Unsigned, 64 bits.
    U64,
    /// 0 or not, 8 bits.
    Bool,
}

/// A returned value that means an error: `return != 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRule {
    /// How the two sides are compared.
    pub comparison: Comparison,
    /// Right-hand side.
    pub value: i64,
    /// How the returned value is read; a C `int` unless told otherwise.
    pub kind: ArgumentType,
}

/// Comparison of a returned value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// Where a map was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file; for a built-in map its name in the source tree.
    pub file: PathBuf,
    /// First line of the document, from 1.
    pub line: u64,
    /// Whether the map is embedded in the program.
    pub built_in: bool,
}

impl SymbolMap {
    /// Whether it is one of the built-in maps about any file, which know nothing but names that many libraries have.
    #[must_use]
    pub fn is_generic(&self) -> bool {
        self.origin.built_in && self.module.is_none()
    }
}

impl ArgumentType {
    /// The value as a signed number wide enough for all types.
    #[must_use]
    pub fn read(self, bits: u64) -> i128 {
        match self {
            Self::I32 => i128::from(bits as u32 as i32),
            Self::U32 => i128::from(bits as u32),
            Self::I64 => i128::from(bits as i64),
            Self::U64 => i128::from(bits),
            Self::Bool => i128::from(bits as u8 != 0),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}

impl ErrorRule {
    /// Whether this returned value means an error.
    #[must_use]
    pub fn matches(&self, returned: u64) -> bool {
        let left = self.kind.read(returned);
        let right = i128::from(self.value);
        match self.comparison {
            Comparison::Equal => left == right,
            Comparison::NotEqual => left != right,
            Comparison::Less => left < right,
            Comparison::LessOrEqual => left <= right,
            Comparison::Greater => left > right,
            Comparison::GreaterOrEqual => left >= right,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_c_int_is_compared_on_its_low_half() {
        let rule = ErrorRule { comparison: Comparison::NotEqual, value: 0, kind: ArgumentType::I32 };
        assert!(!rule.matches(0xdead_beef_0000_0000));
        assert!(rule.matches(0x0000_0000_ffff_ffff));
        let negative = ErrorRule { comparison: Comparison::Less, value: 0, kind: ArgumentType::I32 };
        assert!(negative.matches(0x0000_0000_ffff_ffff));
    }
}
