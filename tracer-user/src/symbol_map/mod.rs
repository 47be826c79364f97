//! YAML symbol maps in; typed rules, and matchers that tell which functions of a file and which methods of a Python class
//! become spans, out.

mod asked;
mod check;
mod document;
mod library;
mod matcher;
mod parse;
mod pattern;
mod problem;
mod python;
mod schema;
mod summary;
#[cfg(test)]
mod tests;

pub use asked::{APPLICATION, AskedClasses, AskedProblem, nearest, yaml_of_classes};
pub use library::{MAP_DIRECTORY, MapSet, built_in, load, read_file};
pub use matcher::{Match, Matcher, Matchers, Verdict};
pub use parse::{MAX_FILE_BYTES, parse};
pub use problem::{MapError, MapErrors, MapProblem};
pub use python::{PythonRules, PythonVerdict};
pub use schema::json_schema;
pub use summary::Summary;
