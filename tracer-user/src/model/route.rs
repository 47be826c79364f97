//! The routes of a web application, as its framework keeps them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The routes of one application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteTable {
    /// Tried one after the other (Starlette, FastAPI).
    InOrder(Vec<Route>),
    /// Tried part by part of the path, parts without variables first (werkzeug: Flask).
    ByParts(Vec<PartedRoute>),
}

/// A route of an application that tries its routes one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The path as the application writes it, e.g. `/items/{id}`; of one that has routes inside, what comes before theirs.
    pub template: Arc<str>,
    /// Methods that it answers; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Arc<str>>,
    /// Paths that it is for.
    pub paths: RoutePaths,
}

/// Which paths a route is for. Patterns are Python's regular expressions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoutePaths {
    /// Those that fit as a whole.
    Whole(Arc<str>),
    /// Those of which the beginning fits; what is left is for the routes inside.
    Beginning {
        /// The pattern.
        pattern: Arc<str>,
        /// The routes inside; `None`: it is another application, of which nothing is known.
        routes: Option<Vec<Route>>,
        /// Where none of them fits, the routes that come next are tried.
        goes_on: bool,
    },
    /// It is not known which.
    Unknown,
}

/// A route of an application that tries parts of paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartedRoute {
    /// The path as the application writes it, e.g. `/items/<int:id>`.
    pub template: Arc<str>,
    /// Methods that it answers; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Arc<str>>,
    /// The domain, mostly no text, then what is to stand between the slashes of the path.
    pub parts: Vec<RoutePart>,
    /// Whether a slash at the end makes a difference.
    pub is_strict: bool,
}

/// What stands between two slashes of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoutePart {
    /// This text.
    Text(Arc<str>),
    /// What fits a pattern.
    Fitting {
        /// Python's regular expression, for the whole part.
        pattern: Arc<str>,
        /// Of several that fit, the one whose numbers are lower is tried first.
        rank: Vec<i64>,
        /// It is for all that is left of the path, with the slashes.
        is_last: bool,
    },
}

/// The route that a request has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTaken {
    /// Its path as the application writes it.
    pub template: Arc<str>,
    /// The name of the request's span: method and route.
    pub span_name: Arc<str>,
}
