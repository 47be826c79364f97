//! The routes of applications go in as their frameworks keep them; the one that a request has taken comes out.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use regex::{Regex, RegexBuilder};
use rustc_hash::FxHashMap;
use tracer_common::limits::MAX_PROCESSES;

use crate::model::{PartedRoute, RequestFacts, Route, RoutePart, RoutePaths, RouteTable, RouteTaken};

/// Processes remembered at one time: twice what can be traced, because the end of a process is not always told.
const MAX_TRACKED_PROCESSES: usize = 2 * MAX_PROCESSES as usize;

/// Bytes that a compiled pattern may take: the traced program chooses them.
const PATTERN_BYTES: usize = 1 << 18;

/// The status of what an application has no route for, or of what a route has not found.
const NOT_FOUND: u16 = 404;

/// The routes of the traced processes.
#[derive(Default)]
pub struct Routes(FxHashMap<u32, Vec<Table>>);

/// The routes of one application, and their patterns as far as these were needed.
struct Table {
    told: RouteTable,
    patterns: Patterns,
}

/// Compiled patterns; `None`: the pattern is none for us.
#[derive(Default)]
struct Patterns(BTreeMap<Arc<str>, OnceCell<Option<Regex>>>);

/// Routes that have the same next part, by its pattern and whether that is the last one.
type Alike<'table> = BTreeMap<(&'table str, bool), Vec<&'table PartedRoute>>;

/// How a path fits routes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fit {
    /// This one is for it.
    Route(String),
    /// This one is for the path, and not for the method.
    OtherMethod(String),
    /// None is.
    None,
    /// That cannot be told.
    Unknown,
}

/// What is asked: a method, and a path without its percent signs.
#[derive(Clone, Copy)]
struct Asked<'request> {
    method: &'request str,
    path: &'request str,
}

impl Routes {
    /// Takes the routes of the applications of a process, in place of those that were known.
    pub fn learn(&mut self, process: u32, tables: Vec<RouteTable>) {
        if tables.is_empty() {
            self.0.remove(&process);
            return;
        }
        if self.0.len() >= MAX_TRACKED_PROCESSES && !self.0.contains_key(&process) {
            self.0.clear();
        }
        let known = self.0.entry(process).or_default();
        // They come again with everything that is new in the process.
        if !known.iter().map(|table| &table.told).eq(&tables) {
            *known = tables.into_iter().map(Table::new).collect();
        }
    }

    /// The process number belongs to another process now, or to another program.
    pub fn forget(&mut self, process: u32) {
        self.0.remove(&process);
    }

    /// The route that a request has taken; `None` where that is not certain.
    pub fn taken(&self, process: u32, facts: &RequestFacts) -> Option<RouteTaken> {
        let tables = self.0.get(&process)?;
        let path = percent_decode_str(&facts.path).decode_utf8_lossy();
        let asked = Asked { method: &facts.method, path: &path };
        let template = match &tables[..] {
            [table] => match (table.fit(asked), &table.told) {
                (Fit::Route(template), _) => {
                    Some(template).filter(|template| !table.may_refuse(template, facts.status))
                }
                (Fit::OtherMethod(template), RouteTable::InOrder(_)) => Some(template),
                (Fit::OtherMethod(_) | Fit::None | Fit::Unknown, _) => None,
            },
            // Which of several applications was asked is known only where all say the same.
            _ if facts.status == Some(NOT_FOUND) => None,
            several => only_route(several.iter().map(|table| table.fit(asked))),
        }?;
        let span_name = format!("{} {template}", facts.method_in_name()).into();
        Some(RouteTaken { template: template.into(), span_name })
    }
}

/// The route that all say that have one.
fn only_route(fits: impl Iterator<Item = Fit>) -> Option<String> {
    let mut only = None;
    for fit in fits {
        match fit {
            Fit::Route(template) if only.as_ref().is_none_or(|only| *only == template) => only = Some(template),
            Fit::Route(_) | Fit::Unknown => return None,
            Fit::OtherMethod(_) | Fit::None => {}
        }
    }
    only
}

impl Table {
    fn new(told: RouteTable) -> Self {
        let mut patterns = Patterns::default();
        match &told {
            RouteTable::InOrder(routes) => patterns.add_of(routes),
            RouteTable::ByParts(routes) => routes.iter().flat_map(|route| &route.parts).for_each(|part| {
                if let RoutePart::Fitting { pattern, .. } = part {
                    patterns.add(pattern);
                }
            }),
        }
        Self { told, patterns }
    }

    fn fit(&self, asked: Asked<'_>) -> Fit {
        match &self.told {
            RouteTable::InOrder(routes) => self.patterns.in_order(routes, asked, ""),
            RouteTable::ByParts(routes) => {
                let parts: Vec<&str> = std::iter::once("").chain(asked.path.split('/')).collect();
                let routes: Vec<&PartedRoute> = routes.iter().collect();
                self.patterns.by_parts(&routes, 0, &parts, asked.method)
            }
        }
    }

    /// Whether the application may have refused what the pattern of a route fits: converters with arguments look at the value.
    fn may_refuse(&self, template: &str, status: Option<u16>) -> bool {
        matches!(self.told, RouteTable::ByParts(_)) && template.contains('(') && status == Some(NOT_FOUND)
    }
}

impl Patterns {
    fn add(&mut self, pattern: &Arc<str>) {
        self.0.entry(Arc::clone(pattern)).or_default();
    }

    fn add_of(&mut self, routes: &[Route]) {
        for route in routes {
            match &route.paths {
                RoutePaths::Whole(pattern) => self.add(pattern),
                RoutePaths::Beginning { pattern, routes, .. } => {
                    self.add(pattern);
                    routes.iter().for_each(|routes| self.add_of(routes));
                }
                RoutePaths::Unknown => {}
            }
        }
    }

    /// What follows the part of a text that a pattern fits from its beginning. `Err`: the pattern is none for us.
    fn rest<'text>(&self, pattern: &str, text: &'text str) -> Result<Option<&'text str>, ()> {
        let compiled = self.0.get(pattern).and_then(|place| place.get_or_init(|| compile(pattern)).as_ref());
        let found = compiled.ok_or(())?.find(text);
        Ok(found.and_then(|found| text.get(found.end()..)))
    }

    /// As Starlette does it (`Router.app`, `Mount.matches`, starlette/routing.py 0.27 to 1.10; `_IncludedRouter`, fastapi/routing.py 0.165):
    /// the first route that fits, or else the first one that only another method keeps from it.
    fn in_order(&self, routes: &[Route], asked: Asked<'_>, before: &str) -> Fit {
        let mut other_method = None;
        for route in routes {
            let template = || format!("{before}{}", route.template);
            match &route.paths {
                RoutePaths::Unknown => return Fit::Unknown,
                RoutePaths::Whole(pattern) => match self.rest(pattern, asked.path) {
                    Err(()) => return Fit::Unknown,
                    Ok(None) => {}
                    Ok(Some(_)) if answers(&route.methods, asked.method) => return Fit::Route(template()),
                    Ok(Some(_)) => other_method = other_method.or_else(|| Some(template())),
                },
                RoutePaths::Beginning { pattern, routes, goes_on } => {
                    let Ok(rest) = self.rest(pattern, asked.path) else { return Fit::Unknown };
                    let Some(path) = rest.filter(|rest| *goes_on || rest.starts_with('/')) else { continue };
                    let inside = match routes {
                        Some(routes) => self.in_order(routes, Asked { path, ..asked }, &template()),
                        None => Fit::Route(template()),
                    };
                    match inside {
                        Fit::None if *goes_on => {}
                        Fit::OtherMethod(template) if *goes_on => other_method = other_method.or(Some(template)),
                        inside => return inside,
                    }
                }
            }
        }
        other_method.map_or(Fit::None, Fit::OtherMethod)
    }

    /// As werkzeug does it (`StateMachineMatcher.match`, werkzeug/routing/matcher.py 2.2 to 3.1). `routes` are those whose first `depth`
    /// parts fit what stands before these ones.
    fn by_parts(&self, routes: &[&PartedRoute], depth: usize, parts: &[&str], method: &str) -> Fit {
        let answering = |route: &&&PartedRoute| answers(&route.methods, method);
        let whole = || routes.iter().filter(|route| route.parts.len() == depth);
        let Some((part, others)) = parts.split_first() else {
            let with_slash =
                |route: &&&PartedRoute| route.parts.len() == depth + 1 && is_text(route.parts.get(depth), "");
            let found = whole().find(answering).or_else(|| routes.iter().filter(with_slash).find(answering));
            return match found {
                None => Fit::None,
                // The client is sent to the path with the slash, whatever else would fit.
                Some(route) if route.parts.len() > depth && route.is_strict => Fit::Unknown,
                Some(route) => Fit::Route(route.template.to_string()),
            };
        };
        let of_text: Vec<&PartedRoute> =
            routes.iter().copied().filter(|route| is_text(route.parts.get(depth), part)).collect();
        if !of_text.is_empty() {
            match self.by_parts(&of_text, depth + 1, others, method) {
                Fit::None => {}
                fit => return fit,
            }
        }
        let mut fitting: BTreeMap<&[i64], Alike<'_>> = BTreeMap::new();
        for route in routes {
            if let Some(RoutePart::Fitting { pattern, rank, is_last }) = route.parts.get(depth) {
                fitting.entry(rank.as_slice()).or_default().entry((&**pattern, *is_last)).or_default().push(route);
            }
        }
        for same_rank in fitting.values() {
            let fits = same_rank.iter().map(|((pattern, is_last), routes)| {
                let all = parts.join("/");
                let (text, others) = if *is_last { (all.as_str(), &[][..]) } else { (*part, others) };
                match self.rest(pattern, text) {
                    Err(()) => Fit::Unknown,
                    Ok(None) => Fit::None,
                    Ok(Some(_)) => self.by_parts(routes, depth + 1, others, method),
                }
            });
            let mut fits: Vec<Fit> = fits.filter(|fit| *fit != Fit::None).collect();
            match fits.len() {
                0 => {}
                1 => return fits.remove(0),
                // The order in which they were added decides, which is not known.
                _ => return only_route(fits.into_iter()).map_or(Fit::Unknown, Fit::Route),
            }
        }
        let found = whole().filter(|route| parts == [""] && !route.is_strict).find(answering);
        found.map_or(Fit::None, |route| Fit::Route(route.template.to_string()))
    }
}

fn answers(methods: &[Arc<str>], method: &str) -> bool {
    methods.is_empty() || methods.iter().any(|known| **known == *method)
}

fn is_text(part: Option<&RoutePart>, text: &str) -> bool {
    matches!(part, Some(RoutePart::Text(known)) if **known == *text)
}

/// A pattern of Python's `re`, as `match` takes it: from the beginning on. `None`: it has what only Python knows.
fn compile(pattern: &str) -> Option<Regex> {
    let pattern = match pattern.strip_suffix(r"\Z") {
        Some(before) => format!(r"\A(?:{before})\z"),
        None => format!(r"\A(?:{pattern})"),
    };
    RegexBuilder::new(&pattern).size_limit(PATTERN_BYTES).build().ok()
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
