//! The modules of a crate: which file a path of it leads to, whatever re-exports it on the way.

use std::collections::HashMap;
use std::path::Path;

use super::rust_source::{Kind, RustSource, Token};

/// Re-exports of re-exports that are followed.
const MOST_STEPS: usize = 16;

/// A path of the crate that a file mentions, from the root.
#[derive(Clone, Debug)]
pub struct Used {
    /// Its parts; `*` last for a glob.
    pub path: Vec<String>,
    /// Its line, from 1.
    pub line: usize,
    /// Whether only a test mentions it.
    pub in_test: bool,
    /// The name that it has in the file afterwards, if it was brought there by `use`.
    name: Option<String>,
}

/// The files of a crate by their module path.
pub struct Modules<'tree> {
    files: HashMap<Vec<String>, &'tree RustSource>,
    /// What each file uses.
    uses: HashMap<Vec<String>, Vec<Used>>,
}

impl<'tree> Modules<'tree> {
    /// Of the crate whose sources lie in this folder.
    pub fn of(sources: &'tree [RustSource], folder: &str) -> Self {
        let of_crate = sources.iter().filter(|source| source.is_below(folder));
        let files: HashMap<_, _> = of_crate.map(|source| (module_of(&source.path, folder), source)).collect();
        let uses = files.iter().map(|(module, source)| (module.clone(), uses_of(source, module, &files))).collect();
        Self { files, uses }
    }

    /// Every file with its module path, in order.
    pub fn files(&self) -> Vec<(&[String], &'tree RustSource)> {
        let mut files: Vec<_> = self.files.iter().map(|(module, source)| (module.as_slice(), *source)).collect();
        files.sort_by(|left, right| left.0.cmp(right.0));
        files
    }

    /// What a file uses.
    pub fn uses(&self, module: &[String]) -> &[Used] {
        self.uses.get(module).map_or(&[], Vec::as_slice)
    }

    /// The module path of the file in which that stands which a path leads to; `None` outside the crate.
    pub fn resolve<'path>(&'path self, path: &'path [String]) -> Option<&'path [String]> {
        self.follow(path.to_vec(), MOST_STEPS)
    }

    fn follow(&self, path: Vec<String>, steps: usize) -> Option<&[String]> {
        let length = (1..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
        let (module, _) = self.files.get_key_value(&path[..length])?;
        let Some(name) = path.get(length).filter(|_| steps > 0) else { return Some(module) };
        let brought = self.uses(module).iter().find(|used| used.name.as_ref() == Some(name));
        match brought {
            // A path that leads to itself is a name of an outer crate.
            Some(used) if used.path != path[..=length] => {
                let onward = used.path.iter().chain(&path[length + 1..]).cloned().collect();
                self.follow(onward, steps - 1).or(Some(module))
            }
            _ => Some(module),
        }
    }
}

/// The module path of a file: `tracer-user/src/plan/mod.rs` is `plan`.
fn module_of(path: &Path, folder: &str) -> Vec<String> {
    let relative = path.strip_prefix(folder).unwrap_or(path).with_extension("");
    let mut module: Vec<String> = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|name| name == "mod" || name == "lib") {
        module.pop();
    }
    module
}

/// Every path that begins with `crate`, `super`, `self`, the crate's name, or in a `use` with a module of the file.
fn uses_of(source: &RustSource, module: &[String], files: &HashMap<Vec<String>, &RustSource>) -> Vec<Used> {
    let tokens = &source.tokens;
    let mut uses = Vec::new();
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        index += 1;
        let is_use = token.is_word("use");
        let start = if is_use { index } else { index - 1 };
        let Some(first) = tokens.get(start) else { break };
        let starts_path = matches!(tokens.get(start + 1), Some(Token { kind: Kind::PathSeparator, .. }));
        let continues = start > 0 && tokens[start - 1].kind == Kind::PathSeparator;
        if !starts_path || continues {
            continue;
        }
        let mut base = module.to_vec();
        base.extend((0..first.inline_modules).map(|_| "inline".to_owned()));
        let mut from = start + 2;
        match first.word() {
            Some("crate" | "tracer_user") => base.clear(),
            Some("super") => drop(base.pop()),
            Some("self") => {}
            // A module that the file declares.
            Some(word) if is_use => {
                let child: Vec<String> = base.iter().cloned().chain([word.to_owned()]).collect();
                if !files.contains_key(&child) {
                    continue;
                }
                from = start;
            }
            _ => continue,
        }
        let before = uses.len();
        let after = read_tree(tokens, from, base, &mut uses);
        if is_use {
            index = after;
        } else {
            // Nothing is brought into the file.
            uses[before..].iter_mut().for_each(|used| used.name = None);
        }
    }
    uses
}

/// Reads `a::b`, `{a, b::{c}}` or `*` from `index` on; gives the index after it.
fn read_tree(tokens: &[Token], mut index: usize, mut base: Vec<String>, uses: &mut Vec<Used>) -> usize {
    while let Some(token) = tokens.get(index) {
        match &token.kind {
            Kind::Word(word) if word == "super" => drop(base.pop()),
            Kind::Word(word) if word == "self" => {}
            Kind::Word(word) => base.push(word.clone()),
            Kind::Sign('{') => {
                index += 1;
                while tokens.get(index).is_some_and(|token| !token.is_sign('}')) {
                    let after = read_tree(tokens, index, base.clone(), uses);
                    // Past the comma, or past whatever is no path.
                    index = if tokens.get(after).is_some_and(|token| token.is_sign('}')) { after } else { after + 1 };
                }
                return index + 1;
            }
            Kind::Sign('*') => base.push("*".into()),
            _ => break,
        }
        if !matches!(tokens.get(index + 1), Some(Token { kind: Kind::PathSeparator, .. })) {
            let is_renamed = tokens.get(index + 1).is_some_and(|token| token.is_word("as"));
            let new_name = tokens.get(index + 2).and_then(Token::word).filter(|_| is_renamed);
            let name = new_name.map(str::to_owned).or_else(|| base.last().cloned());
            uses.push(Used { path: base, line: token.line, in_test: token.in_test, name });
            return if is_renamed { index + 3 } else { index + 1 };
        }
        index += 2;
    }
    index
}
