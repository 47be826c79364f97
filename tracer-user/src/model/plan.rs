//! What is asked for, what will be probed, and what a probed function is called.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::function::{ResolvedFunction, Skipped};
use super::language::Language;
use super::symbol_map::{ArgumentRule, ErrorRule};
use super::target::{FileNumber, Mapping, Module};
use super::units::{FunctionId, ProcessId};

/// A file in one process that probes go into.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModuleFile {
    /// Process that has mapped it.
    pub process: ProcessId,
    /// Path as the process sees it.
    pub path: PathBuf,
    /// Path through which the tracer opens the very same file.
    pub access_path: PathBuf,
    /// Device and inode of what is mapped; inode 0: not mapped by any process.
    pub number: FileNumber,
    /// The executable ranges; none where the process is still to map it.
    pub mappings: Vec<Mapping>,
    /// Whether it is the program itself, or a file that was named, and no library.
    pub is_program: bool,
}

impl ModuleFile {
    /// A module of a process.
    #[must_use]
    pub fn of(process: ProcessId, module: &Module) -> Self {
        Self {
            process,
            path: module.path.clone(),
            access_path: module.access_path.clone(),
            number: module.number(),
            mappings: module.mappings.clone(),
            is_program: false,
        }
    }

    /// Name of the file without its directories.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// What an engine asks for: one function of one file, and what a call of it means.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeRequest {
    /// File that holds the function.
    pub module: ModuleFile,
    /// The function.
    pub function: ResolvedFunction,
    /// Span name, `{Class}.{method}`.
    pub span_name: String,
    /// Library of the map that matched.
    pub library: String,
    /// Whether matching calls inside become spans of their own.
    pub nests: bool,
    /// Captured arguments.
    pub attributes: Vec<ArgumentRule>,
    /// When the returned value means an error.
    pub error: Option<ErrorRule>,
    /// Paths of other functions that have the same code: a call may be one of theirs.
    pub shared_code: Vec<String>,
}

/// What will be probed, and what will not and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProbePlan {
    /// The functions, in the order of their numbers.
    pub functions: Vec<PlannedFunction>,
    /// Candidates that are not probed.
    pub skipped: Vec<Skipped>,
}

/// One function of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedFunction {
    /// Its number.
    pub id: FunctionId,
    /// What was asked for.
    pub request: ProbeRequest,
}

/// What a function is called and how its calls are read: shared by all its spans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionDescription {
    /// Its number.
    pub id: FunctionId,
    /// Span name, `{Class}.{method}`.
    pub span_name: Arc<str>,
    /// Demangled path, for `code.function.name`.
    pub path: Arc<str>,
    /// File that holds it, as the process names it, for `ml.module`.
    pub module: Arc<str>,
    /// Library of the map that matched, for `ml.library`.
    pub library: Arc<str>,
    /// Language of the function, for `ml.language`.
    pub language: Language,
    /// Captured arguments.
    pub attributes: Vec<ArgumentRule>,
    /// When the returned value means an error.
    pub error: Option<ErrorRule>,
    /// Python: the method. The span is then named after the class of the receiver, `{Class}.{method}`, and `span_name`
    /// stands where that was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Arc<str>>,
    /// Source file and first line, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<(Arc<str>, u32)>,
    /// Paths of other functions that have the same code, separated by `, `; none of a function that shares its code with nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_code: Option<Arc<str>>,
}

impl PlannedFunction {
    /// The description that travels with the function's spans.
    #[must_use]
    pub fn description(&self) -> FunctionDescription {
        let request = &self.request;
        FunctionDescription {
            id: self.id,
            span_name: request.span_name.as_str().into(),
            path: request.function.name.path.as_str().into(),
            module: request.module.path.to_string_lossy().into(),
            library: request.library.as_str().into(),
            language: request.function.name.language,
            attributes: request.attributes.clone(),
            error: request.error,
            method: None,
            source: None,
            shared_code: (!request.shared_code.is_empty()).then(|| request.shared_code.join(", ").into()),
        }
    }
}
