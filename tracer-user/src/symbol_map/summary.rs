//! What a symbol map contains, for people: one line each for the map and its parts.

use std::fmt;

use crate::model::{Children, Language, Recurse, SymbolMap};

/// Prints what a map contains, as `check-map` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'map>(pub &'map SymbolMap);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let map = self.0;
        let place = map.module.as_deref().unwrap_or(match map.language {
            Language::Python if map.bases.is_empty() => "every class that has one of the methods",
            Language::Python => "these classes and their subclasses",
            _ => "every file that no other map names",
        });
        write!(formatter, "{} ({}, in {place})", map.library, map.language.name())?;
        line(formatter, "bases", &map.bases)?;
        line(formatter, "methods", &map.methods)?;
        match &map.recurse {
            Recurse::All => write!(formatter, "\n  recurse: everything nests")?,
            Recurse::Only(containers) if containers.is_empty() => write!(formatter, "\n  recurse: nothing nests")?,
            Recurse::Only(containers) => {
                for container in containers {
                    let kind = match &container.children {
                        Children::Named(_) => "named",
                        Children::Plain(_) => "children",
                        Children::Few(_) => "few",
                    };
                    let fields = container.children.fields();
                    let fields = if fields.is_empty() { "none".to_owned() } else { fields.join(", ") };
                    write!(formatter, "\n  recurse: {} ({kind} {fields})", container.class)?;
                }
            }
        }
        line(formatter, "leaf", &map.leaf)?;
        line(formatter, "exclude", &map.exclude)?;
        for function in &map.functions {
            write!(formatter, "\n  function: {}", function.symbol)?;
            if let Some(span) = &function.span {
                write!(formatter, " as {span}")?;
            }
            for rule in &function.attributes {
                write!(formatter, ", {} = argument {}", rule.attribute, rule.argument)?;
            }
            if let Some(error) = function.error {
                write!(formatter, ", error when return {} {}", error.comparison, error.value)?;
            }
        }
        Ok(())
    }
}

fn line(formatter: &mut fmt::Formatter<'_>, key: &str, words: &[String]) -> fmt::Result {
    if words.is_empty() { Ok(()) } else { write!(formatter, "\n  {key}: {}", words.join(", ")) }
}
