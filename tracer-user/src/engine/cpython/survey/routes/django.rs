//! Routes as Django keeps them.

use std::sync::Arc;

use super::super::super::ReadProblem;
use super::reader::{Fields, Reader};
use super::unknown;
use crate::memory::Memory;
use crate::model::{RemoteAddress, Route, RoutePaths};

/// Resolvers inside resolvers that are followed.
const DEPTH_LIMIT: usize = 16;

/// The pattern of the resolver that holds all others (`_get_cached_resolver`, django/urls/resolvers.py, Django 3.2 to 5.2).
const ROOT: &str = "^/";

/// Where the converters are that refuse nothing that their pattern fits.
const CONVERTERS: &str = "django.urls.converters.";

/// The routes of a resolver that no other one holds. `None`: another one holds it, or nothing was asked of it yet.
pub fn routes_of<M: Memory>(
    reader: &Reader<'_, M>,
    resolver: RemoteAddress,
) -> Result<Option<Vec<Route>>, ReadProblem> {
    let fields = reader.fields(resolver)?;
    let Some(pattern) = fields.get("pattern") else { return Ok(None) };
    let is_root = reader.text(reader.fields(pattern)?.get("_regex"))?.is_some_and(|pattern| *pattern == *ROOT);
    if !is_root || fields.get("url_patterns").is_none() {
        return Ok(None);
    }
    Ok(Some(vec![route(reader, resolver, "/", 0)?]))
}

/// A route, or a resolver and what it holds. `before`: what stands before the path in its template.
fn route<M: Memory>(
    reader: &Reader<'_, M>,
    object: RemoteAddress,
    before: &str,
    depth: usize,
) -> Result<Route, ReadProblem> {
    let paths = reader.class_paths(object)?;
    let fields = reader.fields(object)?;
    let Some(pattern) = fields.get("pattern") else { return Ok(unknown()) };
    let Some((text, pattern)) = pattern_of(reader, pattern)? else { return Ok(unknown()) };
    let written = if depth == 0 { "" } else { text.strip_prefix('^').unwrap_or(&text) };
    let (template, methods) = (format!("{before}{written}").into(), Vec::new());
    // What an application derives from them may answer for other paths.
    match paths.first().map(String::as_str) {
        Some("django.urls.resolvers.URLPattern") => Ok(Route { template, methods, paths: RoutePaths::Whole(pattern) }),
        Some("django.urls.resolvers.URLResolver") if depth < DEPTH_LIMIT => {
            let Some(list) = patterns_in(reader, &fields)? else { return Ok(unknown()) };
            let mut routes = Vec::new();
            for item in reader.items(list)? {
                routes.push(if reader.takes_one() { route(reader, item, "", depth + 1)? } else { unknown() });
            }
            Ok(Route {
                template,
                methods,
                paths: RoutePaths::Beginning { pattern, routes: Some(routes), goes_on: true },
            })
        }
        _ => Ok(unknown()),
    }
}

/// What a resolver holds: it puts that aside when it is first asked, and has it from a list or a module.
fn patterns_in<M: Memory>(reader: &Reader<'_, M>, fields: &Fields) -> Result<Option<RemoteAddress>, ReadProblem> {
    if let Some(patterns) = fields.get("url_patterns") {
        return Ok(Some(patterns));
    }
    let Some(holder) = fields.get("urlconf_name") else { return Ok(None) };
    let is_list = reader.items(holder).is_ok();
    if is_list { Ok(Some(holder)) } else { reader.variable(holder, "urlpatterns") }
}

/// A path as the application writes it, and its pattern.
type Written = (Arc<str>, Arc<str>);

/// The path of a route, and its pattern: it may be searched for anywhere unless it says that it begins here.
fn pattern_of<M: Memory>(reader: &Reader<'_, M>, object: RemoteAddress) -> Result<Option<Written>, ReadProblem> {
    let fields = reader.fields(object)?;
    let pattern = match reader.text(fields.get("_regex"))? {
        Some(pattern) => Some(pattern),
        // Before Django 5.0, once it was asked for.
        None => reader.pattern(fields.get("regex"))?,
    };
    let Some(pattern) = pattern.filter(|pattern| pattern.starts_with('^')) else { return Ok(None) };
    match reader.class_paths(object)?.first().map(String::as_str) {
        Some("django.urls.resolvers.RegexPattern") => Ok(Some((Arc::clone(&pattern), pattern))),
        Some("django.urls.resolvers.RoutePattern") if !may_refuse(reader, &fields)? => {
            Ok(reader.text(fields.get("_route"))?.map(|text| (text, pattern)))
        }
        _ => Ok(None),
    }
}

/// Whether a converter of the application's own looks at what the pattern fits.
fn may_refuse<M: Memory>(reader: &Reader<'_, M>, fields: &Fields) -> Result<bool, ReadProblem> {
    let Some(converters) = fields.get("converters") else { return Ok(true) };
    for converter in reader.values(converters)? {
        if !reader.class_paths(converter)?.first().is_some_and(|path| path.starts_with(CONVERTERS)) {
            return Ok(true);
        }
    }
    Ok(false)
}
