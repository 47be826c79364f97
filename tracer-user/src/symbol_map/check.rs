//! One document as it is written -> a symbol map, or everything that is wrong with what it means.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_saphyr::{Location, Spanned};
use tracer_common::limits::MAX_ARGUMENTS;

use crate::model::{
    ArgumentRule, ArgumentType, Children, Comparison, Container, ErrorRule, FunctionRule, Language, NamedBy, Origin,
    Recurse, SymbolMap,
};

use super::document::{Argument, ContainerFields, Document, Entries, Failure, Function, List, Recursion, Text};
use super::pattern::Pattern;
use super::problem::{MAX_ARGUMENT_POSITION, MapError, MapProblem, printable};

/// Checks a document. Mistakes are added to `errors`; `None` if there was one.
pub(super) fn check(document: Spanned<Document>, origin: Origin, errors: &mut Vec<MapError>) -> Option<SymbolMap> {
    let place = document.referenced;
    let document = document.value;
    let language = document.language.value;
    let errors_before = errors.len();
    let mut checker = Checker { file: &origin.file, language, errors };

    checker.rules_exist(&document, place);
    let library = checker.name(document.library, "library");
    let module = document.module.map(|module| checker.module(module));
    let methods = checker.methods(document.methods);
    let bases = checker.bases(document.bases);
    let leaf = checker.list(document.leaf);
    let leaf = checker.unique_names(leaf, "leaf class", class_key);
    let recurse = checker.recurse(document.recurse, &leaf);
    let exclude = checker.excluded(document.exclude);
    let functions = checker.functions(document.functions);

    let unharmed = checker.errors.len() == errors_before;
    let leaf = leaf.into_iter().map(|class| class.value).collect();
    unharmed.then_some(SymbolMap {
        library,
        language,
        module,
        methods,
        bases,
        recurse,
        leaf,
        exclude,
        functions,
        of_application: false,
        origin,
    })
}

const NOTHING_FOR_LIST: &str = "expected a list (`[]` for an empty one), found nothing";

struct Checker<'checked> {
    file: &'checked Path,
    language: Language,
    errors: &'checked mut Vec<MapError>,
}

impl Checker<'_> {
    fn report(&mut self, place: Location, problem: MapProblem) {
        self.errors.push(MapError::at(self.file, place, problem));
    }

    fn rules_exist(&mut self, document: &Document, place: Location) {
        let named_by = self.language.named_by();
        let enough = match named_by {
            NamedBy::Functions => document.functions.is_some(),
            NamedBy::Either => document.methods.is_some() || document.functions.is_some(),
            NamedBy::Methods => document.methods.is_some(),
        };
        if let (NamedBy::Functions, Some(methods)) = (named_by, &document.methods) {
            self.report(methods.referenced, MapProblem::MethodsInC);
        } else if !enough {
            self.report(place, MapProblem::NothingToTrace(self.language));
        }
        let module = document.module.as_ref().map(|module| module.referenced);
        let functions = document.functions.as_ref().map(|functions| functions.referenced);
        let bases = document.bases.as_ref().map(|bases| bases.referenced);
        match named_by {
            NamedBy::Functions => {
                self.not_for_language(bases, "bases", "its functions are told by `module` and `functions`");
            }
            NamedBy::Either => {
                self.not_for_language(bases, "bases", "its classes are told by `module`, `methods` and `exclude`");
            }
            NamedBy::Methods if enough => {
                self.not_for_language(module, "module", "name the classes under `bases`");
                let instead = "list `methods`, and the classes that have them under `bases`";
                self.not_for_language(functions, "functions", instead);
            }
            NamedBy::Methods => {}
        }
    }

    fn not_for_language(&mut self, place: Option<Location>, key: &'static str, instead: &'static str) {
        if let Some(place) = place {
            self.report(place, MapProblem::KeyOfOtherLanguage { key, language: self.language, instead });
        }
    }

    fn list<T>(&mut self, list: Option<List<T>>) -> Vec<T> {
        match list {
            Some(Spanned { value: None, referenced, .. }) => {
                self.report(referenced, MapProblem::WrongType(NOTHING_FOR_LIST.to_owned()));
                Vec::new()
            }
            Some(Spanned { value: Some(items), .. }) => items,
            None => Vec::new(),
        }
    }

    fn name(&mut self, text: Text, what: &'static str) -> String {
        if text.value.trim().is_empty() {
            self.report(text.referenced, MapProblem::EmptyText(what));
        } else if let Some(character) = text.value.chars().find(|character| character.is_control()) {
            // From an escape in quotes; it would reach terminals and trace back ends.
            self.report(text.referenced, MapProblem::ForbiddenCharacter(character));
        }
        text.value
    }

    fn pattern(&mut self, text: Text, what: &'static str) -> String {
        if let Err(reason) = Pattern::new(&text.value) {
            self.report(text.referenced, MapProblem::BadGlob { pattern: printable(&text.value), reason });
        }
        self.name(text, what)
    }

    fn module(&mut self, module: Text) -> String {
        if module.value.contains('/') {
            self.report(module.referenced, MapProblem::ModuleHasDirectory(printable(&module.value)));
        }
        self.pattern(module, "module")
    }

    fn methods(&mut self, methods: Option<List<Text>>) -> Vec<String> {
        let methods = self.list(methods);
        let ignores_case = self.language.ignores_case();
        let key = |method: &str| if ignores_case { method.to_ascii_lowercase() } else { method.to_owned() };
        let methods = self.unique_names(methods, "method", key);
        for method in &methods {
            if !method.value.is_empty() && !is_method_name(&method.value) {
                self.report(method.referenced, MapProblem::NotAMethodName(printable(&method.value)));
            }
        }
        methods.into_iter().map(|method| method.value).collect()
    }

    fn bases(&mut self, bases: Option<List<Text>>) -> Vec<String> {
        if let Some(Spanned { value: Some(listed), referenced, .. }) = &bases
            && listed.is_empty()
        {
            self.report(*referenced, MapProblem::NoBases);
        }
        let bases = self.list(bases);
        let bases = self.unique_names(bases, "base class", class_key);
        for base in &bases {
            if !base.value.trim().is_empty() && !is_class_name(&class_key(&base.value)) {
                self.report(base.referenced, MapProblem::NotAClassName(printable(&base.value)));
            }
        }
        bases.into_iter().map(|base| base.value).collect()
    }

    fn recurse(&mut self, recurse: Option<Spanned<Recursion>>, leaf: &[Text]) -> Recurse {
        let Some(Spanned { value, referenced, .. }) = recurse else { return Recurse::All };
        match value {
            Recursion::Only(entries) => return Recurse::Only(self.containers(entries.0, leaf)),
            Recursion::Word(word) if word == "all" => {}
            Recursion::Word(word) => {
                let problem = MapProblem::UnknownValue { value: printable(&word), known: vec!["all"] };
                self.report(referenced, problem);
            }
            Recursion::Nothing => {
                let expected = "expected `all` or a mapping of classes (`{}` for none), found nothing";
                self.report(referenced, MapProblem::WrongType(expected.to_owned()));
            }
        }
        Recurse::All
    }

    fn excluded(&mut self, patterns: Option<List<Text>>) -> Vec<String> {
        let patterns = self.list(patterns);
        let patterns = self.unique_names(patterns, "exclude pattern", str::to_owned);
        patterns.into_iter().map(|pattern| self.pattern(pattern, "exclude pattern")).collect()
    }

    /// Names none of which is empty and none of which has the key of another.
    fn unique_names(&mut self, names: Vec<Text>, what: &'static str, key: impl Fn(&str) -> String) -> Vec<Text> {
        let mut seen = HashMap::new();
        for name in &names {
            if name.value.trim().is_empty() {
                self.report(name.referenced, MapProblem::EmptyText(what));
                continue;
            }
            self.once(&mut seen, key(&name.value), name, what);
        }
        names
    }

    fn once(&mut self, seen: &mut HashMap<String, u64>, key: String, name: &Text, what: &'static str) {
        match seen.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(name.referenced.line());
            }
            Entry::Occupied(entry) => {
                let first_line = *entry.get();
                self.report(name.referenced, MapProblem::Duplicate { what, name: printable(&name.value), first_line });
            }
        }
    }

    fn containers(&mut self, entries: Vec<(Text, ContainerFields)>, leaf: &[Text]) -> Vec<Container> {
        let mut seen = HashMap::new();
        let leaf: HashSet<String> = leaf.iter().map(|class| class_key(&class.value)).collect();
        let mut containers = Vec::with_capacity(entries.len());
        for (class, fields) in entries {
            let key = class_key(&class.value);
            if leaf.contains(&key) {
                self.report(class.referenced, MapProblem::RecurseAndLeaf(printable(&class.value)));
            }
            self.once(&mut seen, key, &class, "container");
            let children = match fields {
                ContainerFields::Named(fields) => Children::Named(self.fields(fields)),
                ContainerFields::Children(fields) => Children::Plain(self.fields(fields)),
                ContainerFields::Few(fields) => Children::Few(self.fields(fields)),
            };
            containers.push(Container { class: self.name(class, "class"), children });
        }
        containers
    }

    fn fields(&mut self, fields: List<Text>) -> Vec<String> {
        let fields = self.list(Some(fields));
        self.unique_names(fields, "field", str::to_owned).into_iter().map(|field| field.value).collect()
    }

    fn functions(&mut self, functions: Option<List<Spanned<Function>>>) -> Vec<FunctionRule> {
        let mut seen = HashMap::new();
        let functions = self.list(functions);
        functions
            .into_iter()
            .map(|function| {
                let line = function.referenced.line();
                let function = function.value;
                self.once(&mut seen, function.symbol.value.clone(), &function.symbol, "function");
                FunctionRule {
                    symbol: self.pattern(function.symbol, "symbol"),
                    span: function.span.map(|span| self.span_name(span)),
                    attributes: self.attributes(function.attributes),
                    error: function.error.and_then(|error| self.error_rule(error)),
                    line,
                }
            })
            .collect()
    }

    fn span_name(&mut self, span: Text) -> String {
        if !span.value.is_empty() && span.value.split('.').any(|part| part.trim().is_empty()) {
            self.report(span.referenced, MapProblem::BadSpanName(printable(&span.value)));
        }
        self.name(span, "span")
    }

    fn attributes(&mut self, attributes: Option<Spanned<Option<Entries<Argument>>>>) -> Vec<ArgumentRule> {
        let Some(Spanned { value, referenced, .. }) = attributes else { return Vec::new() };
        let Some(Entries(attributes)) = value else {
            self.report(referenced, MapProblem::WrongType("expected a mapping, found nothing".to_owned()));
            return Vec::new();
        };
        if let Some((first_surplus, _)) = attributes.get(MAX_ARGUMENTS) {
            self.report(first_surplus.referenced, MapProblem::TooManyAttributes(attributes.len()));
        }
        attributes
            .into_iter()
            .map(|(attribute, rule)| {
                let position = rule.arg.value;
                let argument = u32::try_from(position).ok().filter(|_| position <= MAX_ARGUMENT_POSITION);
                if argument.is_none() {
                    self.report(rule.arg.referenced, MapProblem::ArgumentOutOfRange(position));
                }
                ArgumentRule {
                    attribute: self.name(attribute, "attribute"),
                    argument: argument.unwrap_or_default(),
                    kind: rule.kind,
                }
            })
            .collect()
    }

    fn error_rule(&mut self, error: Failure) -> Option<ErrorRule> {
        let Some((comparison, value)) = condition(&error.when.value) else {
            self.report(error.when.referenced, MapProblem::BadCondition(printable(&error.when.value)));
            return None;
        };
        Some(ErrorRule { comparison, value, kind: error.kind.unwrap_or(ArgumentType::I32) })
    }
}

/// `return (==|!=|<|<=|>|>=) INTEGER`
fn condition(text: &str) -> Option<(Comparison, i64)> {
    const COMPARISONS: [(&str, Comparison); 6] = [
        // The longer ones first, so that `<=` is not read as `<`.
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let rest = text.trim().strip_prefix("return")?.trim_start();
    let (comparison, number) =
        COMPARISONS.iter().find_map(|(sign, comparison)| Some((*comparison, rest.strip_prefix(sign)?.trim_start())))?;
    let digits = number.strip_prefix('-').unwrap_or(number);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((comparison, number.parse().ok().filter(|_| plain)?))
}

/// Whether a text can be a class of Python, bare or dotted; `<locals>` stands in the path of one made inside a function.
pub(super) fn is_class_name(text: &str) -> bool {
    let identifier = |part: &str| part.chars().all(|character| character.is_alphanumeric() || character == '_');
    text.split('.').all(|part| part == "<locals>" || (!part.is_empty() && identifier(part)))
}

/// Whether a text can be the plain name of a method.
pub(super) fn is_method_name(text: &str) -> bool {
    let plain = |character: char| character.is_alphanumeric() || character == '_' || character == '$';
    !text.is_empty() && text.chars().all(plain)
}

/// A class name with one kind of separator: `.` and `::` mean the same.
pub(super) fn class_key(class: &str) -> String {
    class.replace("::", ".")
}
