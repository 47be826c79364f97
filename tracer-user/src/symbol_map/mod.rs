//! YAML symbol maps in; typed rules, and a matcher that tells which functions of a file become spans, out.

mod check;
mod document;
mod library;
mod matcher;
mod parse;
mod pattern;
mod problem;
mod schema;
mod summary;
#[cfg(test)]
mod tests;

pub use library::{MAP_DIRECTORY, MapSet, built_in, load, read_file};
pub use matcher::{Match, Matcher, Matchers, Verdict};
pub use parse::{MAX_FILE_BYTES, parse};
pub use problem::{MapError, MapErrors, MapProblem};
pub use schema::json_schema;
pub use summary::Summary;
