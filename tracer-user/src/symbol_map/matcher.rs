//! Symbol maps compiled for one file: which of its functions become spans, under which name, and what nests in them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use aho_corasick::AhoCorasick;

use crate::model::{ArgumentRule, ErrorRule, FunctionName, FunctionRule, Language, Recurse, SymbolMap};

use super::check::class_key;
use super::pattern::{Pattern, has_wildcards, needle};

/// Needles that are compared with each other, at most.
const COMPARED_LIMIT: usize = 256;

/// The rules that are in force for one file.
///
/// Of several rules that match a function the first of this order decides:
/// 1. an entry of `functions` before `methods`;
/// 2. a map whose `module` matches the file before a map without `module`;
/// 3. a later map before an earlier one; within one map an exact symbol before patterns, patterns in their order.
///
/// Where a map's `module` matches the file, `methods` of maps without `module` are not in force: the specific map says
/// what is to be seen in that file.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// First the one that wins.
    maps: Vec<CompiledMap>,
    finder: Option<AhoCorasick>,
    /// Symbols of C functions, which are compared as a whole.
    literals: HashSet<String>,
}

/// What the rules say about a function that they know.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict<'matcher> {
    /// Its calls become spans.
    Traced(Match<'matcher>),
    /// A method rule matches, but the map excludes it.
    Excluded {
        /// Library of the map.
        library: &'matcher str,
        /// The pattern under `exclude`.
        pattern: &'matcher str,
    },
}

/// How the calls of a function become spans.
#[derive(Clone, Debug, PartialEq)]
pub struct Match<'matcher> {
    /// The map that decided.
    pub map: &'matcher SymbolMap,
    /// Its entry under `functions`, if one decided.
    pub rule: Option<&'matcher FunctionRule>,
    /// Span name, `Class.method`.
    pub span_name: String,
    /// Whether matching calls inside become spans of their own.
    pub nests: bool,
}

#[derive(Clone, Debug)]
struct CompiledMap {
    map: SymbolMap,
    methods_in_force: bool,
    /// Methods, in lower case where the language's libraries write them in either.
    methods: HashSet<String>,
    /// The entries of `functions`.
    functions: PatternSet,
    /// The entries of `exclude`, with `.` for each `::`.
    exclude: PatternSet,
    /// The classes that `recurse` or `leaf` lists.
    listed: HashSet<String>,
}

impl Match<'_> {
    /// Name of the library.
    #[must_use]
    pub fn library(&self) -> &str {
        &self.map.library
    }

    /// Arguments that become attributes.
    #[must_use]
    pub fn attributes(&self) -> &[ArgumentRule] {
        self.rule.map_or(&[], |rule| &rule.attributes)
    }

    /// When the returned value means an error.
    #[must_use]
    pub fn error(&self) -> Option<ErrorRule> {
        self.rule.and_then(|rule| rule.error)
    }
}

impl Matcher {
    /// Compiles the maps, in the order of [`super::MapSet::maps`], for a file of this name (no directories). `None` if
    /// no rule can match anything in it.
    #[must_use]
    pub fn new(maps: &[SymbolMap], module_file_name: &str) -> Option<Self> {
        let matchers = Matchers::new(maps.to_vec());
        matchers.build(&matchers.specific(module_file_name))
    }

    fn compile(maps: Vec<CompiledMap>) -> Option<Self> {
        if maps.is_empty() {
            return None;
        }
        let mut needles = Vec::new();
        let mut literals = HashSet::new();
        for compiled in &maps {
            for rule in &compiled.map.functions {
                if compiled.map.language == Language::C && !has_wildcards(&rule.symbol) {
                    literals.insert(rule.symbol.clone());
                    continue;
                }
                // Without a path it may be a symbol as the file has it.
                needles.push(if compiled.map.language == Language::Cython {
                    cython_needle(&rule.symbol)
                } else if rule.symbol.contains("::") {
                    identifier_needle(&rule.symbol, compiled.map.language)
                } else {
                    needle(&rule.symbol)
                });
            }
            if compiled.methods_in_force {
                let language = compiled.map.language;
                needles.extend(compiled.map.methods.iter().map(|method| identifier_needle(method, language)));
            }
        }
        let finder = AhoCorasick::builder().ascii_case_insensitive(true).build(without_longer(needles)).ok();
        Some(Self { maps, finder, literals })
    }

    /// Whether all of them are generic.
    #[must_use]
    pub fn is_generic(&self) -> bool {
        self.maps.iter().all(|compiled| compiled.map.is_generic())
    }

    /// Whether a symbol as the file has it can match at all; quick, to be asked before demangling.
    #[must_use]
    pub fn may_match(&self, raw_symbol: &str) -> bool {
        // What follows tells a version, or a copy that the compiler has made.
        let literal = raw_symbol.split(['.', '@']).next().unwrap_or(raw_symbol);
        let is_literal = self.literals.contains(literal) || self.literals.contains(raw_symbol);
        is_literal || self.finder.as_ref().is_none_or(|finder| finder.is_match(raw_symbol))
    }

    /// What the rules say about a function; `None` if they do not know it.
    #[must_use]
    pub fn match_name(&self, name: &FunctionName) -> Option<Verdict<'_>> {
        let names = Names::new(name);
        self.maps
            .iter()
            .find_map(|compiled| compiled.match_function(name, &names))
            .or_else(|| self.maps.iter().find_map(|compiled| compiled.match_method(name, &names)))
    }
}

/// The matchers for all files of a process: most files share the one of the maps without `module`.
#[derive(Clone, Debug)]
pub struct Matchers {
    maps: Vec<SymbolMap>,
    /// One for each map that names a `module`.
    modules: Vec<Option<Pattern>>,
    built: HashMap<Vec<usize>, Option<Arc<Matcher>>>,
}

impl Matchers {
    /// For these maps, in the order of [`super::MapSet::maps`].
    #[must_use]
    pub fn new(maps: Vec<SymbolMap>) -> Self {
        let modules = maps.iter().map(|map| map.module.as_deref().map(pattern)).collect();
        Self { maps, modules, built: HashMap::new() }
    }

    /// The matcher for a file of this name (no directories). `None` if no rule can match anything in it.
    pub fn for_file(&mut self, name: &str) -> Option<Arc<Matcher>> {
        let specific = self.specific(name);
        if let Some(built) = self.built.get(&specific) {
            return built.clone();
        }
        let built = self.build(&specific).map(Arc::new);
        self.built.insert(specific, built.clone());
        built
    }

    /// Positions of the maps whose `module` matches a file.
    fn specific(&self, name: &str) -> Vec<usize> {
        let matching = self.modules.iter().enumerate().filter(|(position, module)| {
            let native = self.maps.get(*position).is_some_and(|map| map.language != Language::Python);
            native && module.as_ref().is_some_and(|module| module.matches(name))
        });
        matching.map(|(position, _)| position).collect()
    }

    fn build(&self, specific: &[usize]) -> Option<Matcher> {
        let general = self.maps.iter().filter(|map| map.module.is_none() && map.language != Language::Python);
        let general: Vec<&SymbolMap> = general.rev().collect();
        let general_methods = specific.is_empty();
        let specific = specific.iter().rev().filter_map(|position| self.maps.get(*position));
        let specific = specific.map(|map| CompiledMap::new(map, true));
        let general = in_force(&general).into_iter().filter(|map| general_methods || !map.is_generic());
        let general = general.map(|map| CompiledMap::new(&map, general_methods));
        Matcher::compile(specific.chain(general).filter(CompiledMap::has_rules).collect())
    }
}

/// The maps without `module` that are in force. A map of the user's takes the place of the built-in one of its language,
/// but the language's own runtime, which the built-in one excludes, stays excluded.
fn in_force(general: &[&SymbolMap]) -> Vec<SymbolMap> {
    let users = |language: Language| general.iter().any(|map| map.language == language && !map.origin.built_in);
    let mut maps = Vec::new();
    for map in general.iter().filter(|map| !(map.origin.built_in && users(map.language))) {
        let mut map = (*map).clone();
        let built_in = general.iter().filter(|other| other.origin.built_in && other.language == map.language);
        for pattern in built_in.flat_map(|other| &other.exclude) {
            if !map.exclude.contains(pattern) {
                map.exclude.push(pattern.clone());
            }
        }
        maps.push(map);
    }
    maps
}

impl CompiledMap {
    fn new(map: &SymbolMap, methods_in_force: bool) -> Self {
        let listed = match &map.recurse {
            Recurse::All => map.leaf.iter().map(|class| class_key(class)).collect(),
            Recurse::Only(containers) => containers.iter().map(|container| class_key(&container.class)).collect(),
        };
        Self {
            methods_in_force,
            methods: map.methods.iter().map(|method| method_key(method, map.language)).collect(),
            functions: PatternSet::new(map.functions.iter().map(|rule| rule.symbol.as_str())),
            exclude: PatternSet::new(map.exclude.iter().map(|text| class_key(text))),
            listed,
            map: map.clone(),
        }
    }

    fn has_rules(&self) -> bool {
        !self.map.functions.is_empty() || (self.methods_in_force && !self.map.methods.is_empty())
    }

    fn match_function(&self, name: &FunctionName, names: &Names) -> Option<Verdict<'_>> {
        // As the file has it, or by its path.
        let exact = self.functions.literal(&name.symbol);
        let position = exact.or_else(|| {
            let paths = [name.path.as_str(), &names.plain_path];
            let globs = || !(names.not_a_method || self.excludes(names).is_some());
            self.functions.first(&paths, globs).filter(|_| self.map.language == name.language)
        })?;
        let rule = self.map.functions.get(position)?;
        let span_name = rule.span.clone().unwrap_or_else(|| name.span_name());
        let nests = match &rule.span {
            Some(span) => {
                let class = span.rsplit_once('.').map(|(class, _)| class);
                self.nests(class.map(|class| class.rsplit('.').next().unwrap_or(class)), class)
            }
            None => self.nests(name.class.as_deref(), name.class_path.as_deref()),
        };
        Some(Verdict::Traced(Match { map: &self.map, rule: Some(rule), span_name, nests }))
    }

    fn match_method(&self, name: &FunctionName, names: &Names) -> Option<Verdict<'_>> {
        let listed = self.methods_in_force
            && self.map.language == name.language
            && !names.not_a_method
            && self.methods.contains(&method_key(&names.method, name.language));
        if !listed {
            return None;
        }
        if let Some(pattern) = self.excludes(names) {
            return Some(Verdict::Excluded { library: &self.map.library, pattern });
        }
        let nests = self.nests(name.class.as_deref(), name.class_path.as_deref());
        Some(Verdict::Traced(Match { map: &self.map, rule: None, span_name: name.span_name(), nests }))
    }

    fn excludes(&self, names: &Names) -> Option<&str> {
        let position = self.exclude.first(&names.keys, || true)?;
        self.map.exclude.get(position).map(String::as_str)
    }

    /// Whether spans of this class (bare and qualified name) get child spans.
    fn nests(&self, class: Option<&str>, class_path: Option<&str>) -> bool {
        let is_listed = [class, class_path].into_iter().flatten().any(|name| self.listed.contains(&class_key(name)));
        match &self.map.recurse {
            Recurse::All => !is_listed,
            Recurse::Only(_) => is_listed,
        }
    }
}

/// The names of a function in the forms that rules compare with, made once for all rules.
struct Names {
    /// Method without an ABI tag such as `[abi:cxx11]`.
    method: String,
    /// Path without template arguments.
    plain_path: String,
    /// Class, class path and paths, with `.` for each `::`.
    keys: Vec<String>,
    /// Whether it is a constructor, a destructor, or a piece that the compiler cut out of a function.
    not_a_method: bool,
}

impl Names {
    fn new(name: &FunctionName) -> Self {
        let method = name.method.split('[').next().filter(|plain| !plain.is_empty()).unwrap_or(&name.method);
        let plain_path = match &name.class_path {
            Some(class_path) => format!("{class_path}::{method}"),
            None => method.to_owned(),
        };
        let paths = [name.class.as_deref(), name.class_path.as_deref(), Some(&name.path), Some(&plain_path)];
        let keys = paths.into_iter().flatten().map(class_key).collect();
        let is_constructor = name.language == Language::Cpp && name.class.as_deref() == Some(method);
        // GCC's names: code for unlikely paths, and the body of an OpenMP region (run by every thread of the team).
        let is_piece = name.symbol.contains(".cold") || name.symbol.contains("._omp_fn.");
        let not_a_method = is_constructor || is_piece || method.starts_with('~');
        Self { method: method.to_owned(), plain_path, keys, not_a_method }
    }
}

/// C++ and Rust libraries write the names of scikit-learn's methods in either case; Python does not.
fn method_key(method: &str, language: Language) -> String {
    if language == Language::Cython { method.to_owned() } else { method.to_ascii_lowercase() }
}

/// The needle of a rule or method whose last component, where it is a plain identifier, stands in the symbol with its
/// length before it: all manglings of C++ and Rust do that. It keeps `predictor` and `PredictBatch` apart from `predict`
/// before anything is demangled.
fn identifier_needle(text: &str, language: Language) -> String {
    let needle = needle(text);
    let last = text.rsplit("::").next().unwrap_or(text);
    match language {
        Language::Cpp | Language::Rust if !needle.is_empty() && needle.len() == last.len() => {
            format!("{}{needle}", needle.len())
        }
        _ => needle,
    }
}

/// The needle of a dotted path. Where there are alternatives, a dot may stand in one of them: then nothing is certain.
fn cython_needle(text: &str) -> String {
    if text.contains(['[', '{']) { String::new() } else { needle(text.rsplit('.').next().unwrap_or(text)) }
}

/// A pattern that a parsed map was checked to hold; one made by other means counts as plain text if it is no glob.
fn pattern(text: &str) -> Pattern {
    Pattern::new(text).unwrap_or_else(|_| Pattern::Literal(text.to_owned()))
}

/// Patterns in their order. Of those that are plain text there may be any number: they are looked up.
#[derive(Clone, Debug, Default)]
struct PatternSet {
    /// The first position of each.
    literals: HashMap<String, usize>,
    globs: Vec<(usize, Pattern)>,
}

impl PatternSet {
    fn new(texts: impl Iterator<Item = impl AsRef<str>>) -> Self {
        let mut set = Self::default();
        for (position, text) in texts.enumerate() {
            match pattern(text.as_ref()) {
                Pattern::Literal(literal) => {
                    set.literals.entry(literal).or_insert(position);
                }
                glob @ Pattern::Glob(_) => set.globs.push((position, glob)),
            }
        }
        set
    }

    /// Position of a text that stands in the set as it is.
    fn literal(&self, text: &str) -> Option<usize> {
        self.literals.get(text).copied()
    }

    /// Position of the first pattern that matches one of the texts; those with wildcards count if `globs` says so.
    fn first(&self, texts: &[impl AsRef<str>], globs: impl FnOnce() -> bool) -> Option<usize> {
        let literal = texts.iter().filter_map(|text| self.literal(text.as_ref())).min();
        if self.globs.is_empty() || !globs() {
            return literal;
        }
        let before = self.globs.iter().filter(|(position, _)| literal.is_none_or(|literal| *position < literal));
        let matching = before.into_iter().find(|(_, glob)| texts.iter().any(|text| glob.matches(text.as_ref())));
        matching.map(|(position, _)| *position).or(literal)
    }
}

/// Drops each needle that contains another one: the shorter one finds its symbols as well, and a few needles are found quicker. Of
/// many only those are dropped that are there twice.
fn without_longer(mut needles: Vec<String>) -> Vec<String> {
    needles.sort_by(|left, right| left.len().cmp(&right.len()).then_with(|| left.cmp(right)));
    needles.dedup();
    if needles.len() > COMPARED_LIMIT {
        return needles;
    }
    let mut kept: Vec<String> = Vec::new();
    for needle in needles {
        if !kept.iter().any(|shorter| needle.contains(shorter.as_str())) {
            kept.push(needle);
        }
    }
    kept
}
