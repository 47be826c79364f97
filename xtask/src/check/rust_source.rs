//! A Rust file as a flat list of tokens that know their line, their module and whether they are test code.
//!
//! Tokens rather than a syntax tree: a path inside a macro's arguments counts like any other, and a word in a comment
//! or in a string does not.

use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A word.
    Word(String),
    /// `::`.
    PathSeparator,
    /// Any other sign, and the brackets of groups.
    Sign(char),
    /// A literal, as written.
    Literal(String),
}

/// One token.
#[derive(Clone, Debug)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its line, from 1.
    pub line: usize,
    /// Inline modules around it.
    pub inline_modules: usize,
    /// Whether it belongs to a test.
    pub in_test: bool,
}

impl Token {
    /// Whether it is this word.
    pub fn is_word(&self, word: &str) -> bool {
        matches!(&self.kind, Kind::Word(found) if found == word)
    }

    /// Whether it is this sign.
    pub fn is_sign(&self, sign: char) -> bool {
        self.kind == Kind::Sign(sign)
    }

    /// The word, if it is one.
    pub fn word(&self) -> Option<&str> {
        if let Kind::Word(word) = &self.kind { Some(word) } else { None }
    }
}

/// Why a file cannot be split into tokens.
#[derive(Debug)]
pub struct NotRust {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub sentence: String,
}

/// One Rust file.
pub struct RustSource {
    /// From the root of the workspace.
    pub path: PathBuf,
    /// All tokens in order, groups flattened.
    pub tokens: Vec<Token>,
    /// Its first line.
    pub first_line: String,
    /// Lines outside `#[cfg(test)]` items; 0 for a file of tests.
    pub code_lines: usize,
}

impl RustSource {
    /// Splits a file.
    ///
    /// # Errors
    /// When the text is no Rust.
    pub fn parse(path: &Path, text: &str) -> Result<Self, NotRust> {
        let stream: TokenStream = text.parse().map_err(|error: proc_macro2::LexError| NotRust {
            line: error.span().start().line,
            sentence: format!("this is no Rust: {error}"),
        })?;
        let mut flattening = Flattening { tokens: Vec::new(), test_lines: 0 };
        let is_test_file = path.file_name().is_some_and(|name| name == "tests.rs");
        flattening.flatten(stream, 0, is_test_file);
        Ok(Self {
            path: path.to_path_buf(),
            tokens: flattening.tokens,
            first_line: text.lines().next().unwrap_or_default().to_owned(),
            code_lines: if is_test_file { 0 } else { text.lines().count().saturating_sub(flattening.test_lines) },
        })
    }

    /// Whether the file lies below this folder.
    pub fn is_below(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// Every place where these tokens follow each other; a word, a sign or `::` each.
    pub fn find<'a>(&'a self, pattern: &'a [&str]) -> impl Iterator<Item = &'a Token> {
        self.tokens.windows(pattern.len()).filter_map(move |window| {
            let same = window.iter().zip(pattern).all(|(token, wanted)| match &token.kind {
                Kind::Word(word) => word == wanted,
                Kind::PathSeparator => *wanted == "::",
                Kind::Sign(sign) => wanted.chars().eq([*sign]),
                Kind::Literal(_) => false,
            });
            if same { window.first() } else { None }
        })
    }
}

struct Flattening {
    tokens: Vec<Token>,
    test_lines: usize,
}

impl Flattening {
    fn flatten(&mut self, stream: TokenStream, inline_modules: usize, in_test: bool) {
        let trees: Vec<TokenTree> = stream.into_iter().collect();
        // Line of a `#[cfg(test)]` whose item has not ended yet.
        let mut test_since: Option<usize> = None;
        for (index, tree) in trees.iter().enumerate() {
            let (line, last_line) = (tree.span().start().line, tree.span().end().line);
            let kind = match tree {
                TokenTree::Ident(word) => Kind::Word(word.to_string()),
                TokenTree::Literal(literal) => Kind::Literal(literal.to_string()),
                TokenTree::Punct(sign) if sign.as_char() == ':' => match trees.get(index + 1) {
                    Some(TokenTree::Punct(next)) if next.as_char() == ':' && sign.spacing() == Spacing::Joint => {
                        Kind::PathSeparator
                    }
                    // The second half of a `::`.
                    _ if joins_before(&trees, index) => continue,
                    _ => Kind::Sign(':'),
                },
                TokenTree::Punct(sign) => Kind::Sign(sign.as_char()),
                TokenTree::Group(group) => {
                    let (open, close) = brackets(group.delimiter());
                    let is_attribute = open == '[' && index > 0 && is_hash(&trees[index - 1]);
                    if is_attribute && !in_test && test_since.is_none() && is_cfg_test(group.stream()) {
                        test_since = Some(line);
                    }
                    let is_module = open == '{' && index >= 2 && is_ident(&trees[index - 2], "mod");
                    let inner_test = in_test || test_since.is_some();
                    self.push(Kind::Sign(open), line, inline_modules, inner_test);
                    self.flatten(group.stream(), inline_modules + usize::from(is_module), inner_test);
                    self.push(Kind::Sign(close), last_line, inline_modules, inner_test);
                    if open == '{' {
                        self.end_test_item(&mut test_since, last_line);
                    }
                    continue;
                }
            };
            let ends_item = kind == Kind::Sign(';');
            self.push(kind, line, inline_modules, in_test || test_since.is_some());
            if ends_item {
                self.end_test_item(&mut test_since, last_line);
            }
        }
    }

    fn end_test_item(&mut self, test_since: &mut Option<usize>, last_line: usize) {
        if let Some(first_line) = test_since.take() {
            self.test_lines += last_line + 1 - first_line;
        }
    }

    fn push(&mut self, kind: Kind, line: usize, inline_modules: usize, in_test: bool) {
        self.tokens.push(Token { kind, line, inline_modules, in_test });
    }
}

fn joins_before(trees: &[TokenTree], index: usize) -> bool {
    matches!(index.checked_sub(1).and_then(|before| trees.get(before)),
        Some(TokenTree::Punct(sign)) if sign.as_char() == ':' && sign.spacing() == Spacing::Joint)
}

fn is_hash(tree: &TokenTree) -> bool {
    matches!(tree, TokenTree::Punct(sign) if sign.as_char() == '#')
}

fn is_ident(tree: &TokenTree, word: &str) -> bool {
    matches!(tree, TokenTree::Ident(found) if found == word)
}

/// `cfg(test)`, or `cfg(all(test, ...))`; not `cfg(not(test))`.
fn is_cfg_test(attribute: TokenStream) -> bool {
    let mut trees = attribute.into_iter();
    let is_cfg = trees.next().is_some_and(|tree| is_ident(&tree, "cfg"));
    let words = trees.next().map(|tree| tree.to_string()).unwrap_or_default();
    is_cfg && words.split(|letter: char| !letter.is_alphanumeric()).any(|word| word == "test") && !words.contains("not")
}

fn brackets(delimiter: Delimiter) -> (char, char) {
    match delimiter {
        Delimiter::Brace => ('{', '}'),
        Delimiter::Bracket => ('[', ']'),
        Delimiter::Parenthesis | Delimiter::None => ('(', ')'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RustSource {
        RustSource::parse(Path::new("a.rs"), text).expect("Rust")
    }

    #[test]
    fn comments_and_strings_are_no_tokens() {
        let source = parse("//! unsafe\n/* unsafe */\nfn f() { let _ = \"unsafe\"; }\n");
        assert_eq!(source.find(&["unsafe"]).count(), 0);
        assert_eq!(source.find(&["f", "(", ")"]).count(), 1);
    }

    #[test]
    fn finds_paths_in_macros_with_their_line() {
        let source = parse("//! A.\nfn f() {\n  format!(\"{}\", crate::plan::x());\n}\n");
        let lines: Vec<usize> = source.find(&["crate", "::", "plan"]).map(|token| token.line).collect();
        assert_eq!(lines, [3]);
    }

    #[test]
    fn a_type_annotation_is_no_path() {
        let source = parse("//! A.\nfn f(x: u8, y:u8) {}\n");
        assert_eq!(source.find(&["x", ":", "u8"]).count(), 1);
        assert_eq!(source.find(&["y", ":", "u8"]).count(), 1);
        assert_eq!(source.find(&["::"]).count(), 0);
    }

    #[test]
    fn test_items_do_not_count_as_code() {
        let source =
            parse("//! A.\nfn f() {}\n#[cfg(test)]\nmod tests {\n    fn g() {\n    }\n}\n#[cfg(test)]\nuse x;\n");
        assert_eq!(source.code_lines, 2);
        let is_test = |word| source.tokens.iter().filter(move |token| token.is_word(word)).all(|token| token.in_test);
        assert_eq!(["f", "g", "x"].map(is_test), [false, true, true]);
        let source = parse("//! A.\n#[cfg(not(test))]\nfn f() {\n}\n");
        assert_eq!(source.code_lines, 4);
    }

    #[test]
    fn knows_the_depth_of_inline_modules() {
        let source = parse("//! A.\nmod a { mod b { x } }\ny\n");
        let depth = |word| source.tokens.iter().find(|token| token.is_word(word)).map(|token| token.inline_modules);
        assert_eq!((depth("x"), depth("y")), (Some(2), Some(0)));
    }
}
