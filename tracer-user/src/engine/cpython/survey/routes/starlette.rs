//! Routes as Starlette and FastAPI keep them.

use super::super::super::ReadProblem;
use super::reader::{Fields, Reader};
use super::unknown;
use crate::memory::Memory;
use crate::model::{RemoteAddress, Route, RoutePaths};

/// Applications inside applications that are followed.
const DEPTH_LIMIT: usize = 8;

/// What a pattern of a mounted application ends with (`Mount.__init__`, starlette/routing.py).
const MOUNTED: &str = "/(?P<path>.*)$";

/// What is in a list of routes of Starlette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Route,
    WebSocket,
    Mount,
    Included,
    Unknown,
}

/// The classes of routes by their paths.
const KINDS: [(&str, Kind); 4] = [
    ("starlette.routing.Route", Kind::Route),
    ("starlette.routing.WebSocketRoute", Kind::WebSocket),
    ("starlette.routing.Mount", Kind::Mount),
    ("fastapi.routing._IncludedRouter", Kind::Included),
];

/// Classes that answer for paths as those that they are derived from do.
const LIKE_THEIR_BASES: [&str; 2] = ["starlette.", "fastapi."];

/// The routes of an application that was asked something, its own start at least: then it has put its middleware together
/// (`Starlette.__call__`, starlette/applications.py, since 0.24; before, it had when it was made). `None`: it was not, and something else
/// answers, perhaps.
pub fn served<M: Memory>(
    reader: &Reader<'_, M>,
    application: RemoteAddress,
) -> Result<Option<Vec<Route>>, ReadProblem> {
    match reader.fields(application)?.get("middleware_stack") {
        Some(stack) if reader.is_none(stack)? => Ok(None),
        _ => Ok(Some(routes_of(reader, application, 0)?.unwrap_or_else(|| vec![unknown()]))),
    }
}

/// The routes of an application or router; `None`: it is something else.
fn routes_of<M: Memory>(
    reader: &Reader<'_, M>,
    application: RemoteAddress,
    depth: usize,
) -> Result<Option<Vec<Route>>, ReadProblem> {
    let paths = reader.class_paths(application)?;
    let fields = reader.fields(application)?;
    let is = |name: &str| paths.iter().any(|path| path == name);
    let router = if is("starlette.applications.Starlette") {
        let Some(router) = fields.get("router") else { return Ok(None) };
        reader.fields(router)?
    } else if is("starlette.routing.Router") {
        fields
    } else {
        return Ok(None);
    };
    let Some(list) = router.get("routes") else { return Ok(None) };
    routes_in(reader, list, depth).map(Some)
}

fn routes_in<M: Memory>(reader: &Reader<'_, M>, list: RemoteAddress, depth: usize) -> Result<Vec<Route>, ReadProblem> {
    if depth >= DEPTH_LIMIT {
        return Ok(vec![unknown()]);
    }
    let mut routes = Vec::new();
    for item in reader.items(list)? {
        if !reader.takes_one() {
            routes.push(unknown());
            break;
        }
        let fields = reader.fields(item)?;
        let route = match kind_of(reader, item)? {
            Kind::WebSocket => continue,
            Kind::Route => route(reader, &fields)?,
            Kind::Mount => mount(reader, &fields, depth)?,
            Kind::Included => included(reader, &fields, depth)?,
            Kind::Unknown => None,
        };
        routes.push(route.unwrap_or_else(unknown));
    }
    Ok(routes)
}

fn kind_of<M: Memory>(reader: &Reader<'_, M>, route: RemoteAddress) -> Result<Kind, ReadProblem> {
    for path in &*reader.class_paths(route)? {
        if let Some((_, kind)) = KINDS.iter().find(|(known, _)| known == path) {
            return Ok(*kind);
        }
        // What an application derives from it may answer for other paths.
        if !LIKE_THEIR_BASES.iter().any(|module| path.starts_with(module)) {
            break;
        }
    }
    Ok(Kind::Unknown)
}

fn route<M: Memory>(reader: &Reader<'_, M>, fields: &Fields) -> Result<Option<Route>, ReadProblem> {
    let (Some(template), Some(pattern), Some(methods)) = (
        reader.text(fields.get("path"))?,
        reader.pattern(fields.get("path_regex"))?,
        reader.methods(fields.get("methods"))?,
    ) else {
        return Ok(None);
    };
    Ok(Some(Route { template, methods, paths: RoutePaths::Whole(pattern) }))
}

fn mount<M: Memory>(reader: &Reader<'_, M>, fields: &Fields, depth: usize) -> Result<Option<Route>, ReadProblem> {
    let (Some(template), Some(pattern), Some(application)) = (
        reader.text(fields.get("path"))?,
        reader.pattern(fields.get("path_regex"))?,
        fields.get("_base_app").or_else(|| fields.get("app")),
    ) else {
        return Ok(None);
    };
    reader.add_part(application);
    // Where a variable may hold slashes, where it ends is not told by the beginning alone.
    let Some(pattern) = pattern.strip_suffix(MOUNTED).filter(|pattern| !pattern.contains(".*")) else {
        return Ok(None);
    };
    let routes = routes_of(reader, application, depth + 1)?;
    let paths = RoutePaths::Beginning { pattern: pattern.into(), routes, goes_on: false };
    Ok(Some(Route { template, methods: Vec::new(), paths }))
}

/// A router that FastAPI has included as it is, with what comes before its paths.
fn included<M: Memory>(reader: &Reader<'_, M>, fields: &Fields, depth: usize) -> Result<Option<Route>, ReadProblem> {
    let (Some(router), Some(context)) = (fields.get("original_router"), fields.get("include_context")) else {
        return Ok(None);
    };
    let Some(template) = reader.text(reader.fields(context)?.get("prefix"))? else { return Ok(None) };
    let Some(list) = reader.fields(router)?.get("routes") else { return Ok(None) };
    let Some(pattern) = beginning_of(&template) else { return Ok(None) };
    let routes = Some(routes_in(reader, list, depth + 1)?);
    let paths = RoutePaths::Beginning { pattern: pattern.into(), routes, goes_on: true };
    Ok(Some(Route { template, methods: Vec::new(), paths }))
}

/// The pattern for what begins with the path of a template, as Starlette makes it (`compile_path` and its convertors, starlette/routing.py and
/// starlette/convertors.py). `None`: it has a convertor of the application's own, or one for slashes, too.
fn beginning_of(template: &str) -> Option<String> {
    let mut pattern = String::from("^");
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (variable, after) = after.split_once('}')?;
        escape(before, &mut pattern);
        pattern.push_str(match variable.split_once(':').map_or("str", |(_, convertor)| convertor) {
            "str" => "[^/]+",
            "int" => "[0-9]+",
            "float" => r"[0-9]+(\.[0-9]+)?",
            "uuid" => "[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}",
            _ => return None,
        });
        rest = after;
    }
    escape(rest, &mut pattern);
    Some(pattern)
}

fn escape(text: &str, pattern: &mut String) {
    for character in text.chars() {
        // In Rust's expressions `\<` and `\>` are something else.
        if character.is_ascii_punctuation() && !matches!(character, '_' | '/' | '<' | '>') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_become_patterns() {
        assert_eq!(beginning_of("/a-b/{id}/v1.0").as_deref(), Some(r"^/a\-b/[^/]+/v1\.0"));
        assert_eq!(beginning_of("/n/{n:int}").as_deref(), Some("^/n/[0-9]+"));
        assert_eq!(beginning_of("").as_deref(), Some("^"));
        assert_eq!(beginning_of("/n/{n:own}"), None);
        assert_eq!(beginning_of("/n/{n:path}"), None);
    }
}
