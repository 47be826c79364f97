//! A name in its parts, as every demangler gives it.

/// A demangled name in its parts; see `FunctionName` for their meaning.
pub(super) struct NameParts {
    pub path: String,
    pub class: Option<String>,
    pub class_path: Option<String>,
    pub method: String,
}
