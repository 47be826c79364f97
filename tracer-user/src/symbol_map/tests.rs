//! Tests of the room: what is accepted, what is refused and in which words, and that no input does harm.

mod accepted;
mod hostile;
mod loaded;
mod matched;
mod python;
mod refused;

use std::path::Path;

use super::{MapErrors, parse};
use crate::model::SymbolMap;

fn parsed(text: &str) -> Vec<SymbolMap> {
    parse(text, Path::new("m.yaml"), false).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn refusal(text: &str) -> String {
    match parse(text, Path::new("m.yaml"), false) {
        Ok(maps) => panic!("accepted: {maps:?}\n{text}"),
        Err(errors) => errors.to_string(),
    }
}

fn document(language: &str, rest: &str) -> String {
    format!("schema: ml-tracer/v1\nlibrary: a\nlanguage: {language}\n{rest}")
}
