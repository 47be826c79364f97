//! The applications of web frameworks in a process go in; their routes come out.

mod django;
mod reader;
mod starlette;
mod werkzeug;

use super::super::Interpreter;
use crate::memory::Memory;
use crate::model::{RemoteAddress, Route, RoutePaths, RouteTable};

use reader::Reader;

/// Who keeps routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framework {
    /// And FastAPI, which is built on it.
    Starlette,
    /// By werkzeug.
    Flask,
    /// In resolvers.
    Django,
}

/// The framework of an application whose class, and the bases of that, have these paths.
pub(super) fn framework_of(paths: &[String]) -> Option<Framework> {
    paths.iter().find_map(|path| match path.as_str() {
        "starlette.applications.Starlette" => Some(Framework::Starlette),
        "flask.app.Flask" => Some(Framework::Flask),
        "django.urls.resolvers.URLResolver" => Some(Framework::Django),
        _ => None,
    })
}

/// The routes of each of these applications that was asked something, and is part of no other one. Where they could not be read, the table
/// says so.
pub(super) fn of<M: Memory>(
    interpreter: &Interpreter<M>,
    applications: &[(RemoteAddress, Framework)],
) -> Vec<RouteTable> {
    let reader = Reader::new(interpreter);
    let read = |(address, framework): &(RemoteAddress, Framework)| {
        let table = interpreter.retrying(|_| match framework {
            Framework::Starlette => Ok(starlette::served(&reader, *address)?.map(RouteTable::InOrder)),
            Framework::Flask if !werkzeug::is_served(&reader, *address)? => Ok(None),
            Framework::Flask => {
                let rules = werkzeug::rules_of(&reader, *address)?;
                Ok(Some(rules.map_or_else(|| RouteTable::InOrder(vec![unknown()]), RouteTable::ByParts)))
            }
            Framework::Django => Ok(django::routes_of(&reader, *address)?.map(RouteTable::InOrder)),
        });
        let table = table.unwrap_or_else(|_| Some(RouteTable::InOrder(vec![unknown()])));
        table.map(|table| (*address, table))
    };
    let tables: Vec<(RemoteAddress, RouteTable)> = applications.iter().filter_map(read).collect();
    tables.into_iter().filter(|(address, _)| !reader.is_part(*address)).map(|(_, table)| table).collect()
}

/// A route of which nothing is known: it may be for any path.
fn unknown() -> Route {
    Route { template: "".into(), methods: Vec::new(), paths: RoutePaths::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applications_are_known_by_their_bases() {
        let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        let fastapi = paths(&["app.Mine", "fastapi.applications.FastAPI", "starlette.applications.Starlette"]);
        assert_eq!(framework_of(&fastapi), Some(Framework::Starlette));
        assert_eq!(framework_of(&paths(&["flask.app.Flask", "builtins.object"])), Some(Framework::Flask));
        assert_eq!(framework_of(&paths(&["app.Mine", "builtins.object"])), None);
    }
}
