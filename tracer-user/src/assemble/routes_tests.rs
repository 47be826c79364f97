//! Paths against tables as Starlette, FastAPI and werkzeug make them.

use super::*;

fn methods(methods: &[&str]) -> Vec<Arc<str>> {
    methods.iter().map(|method| Arc::from(*method)).collect()
}

fn whole(template: &str, pattern: &str, answered: &[&str]) -> Route {
    Route { template: template.into(), methods: methods(answered), paths: RoutePaths::Whole(pattern.into()) }
}

fn beginning(template: &str, routes: Option<Vec<Route>>, goes_on: bool) -> Route {
    let pattern = format!("^{template}").into();
    Route { template: template.into(), methods: Vec::new(), paths: RoutePaths::Beginning { pattern, routes, goes_on } }
}

/// `parts` of the path; those of the domain come first.
fn parted(template: &str, parts: Vec<RoutePart>) -> PartedRoute {
    let parts = std::iter::once(text("")).chain(parts).collect();
    PartedRoute { template: template.into(), methods: methods(&["GET", "HEAD"]), parts, is_strict: true }
}

fn text(text: &str) -> RoutePart {
    RoutePart::Text(text.into())
}

fn fitting(pattern: &str, rank: i64, is_last: bool) -> RoutePart {
    RoutePart::Fitting { pattern: pattern.into(), rank: vec![0, -1, rank], is_last }
}

const ANY: &str = r"(?P<__werkzeug_0>[^/]{1,})\Z";
const INTEGER: &str = r"(?P<__werkzeug_0>\d+)\Z";
const PATH: &str = r"(?P<__werkzeug_0>[^/].*?)\Z";

fn routes(tables: Vec<RouteTable>) -> Routes {
    let mut routes = Routes::default();
    routes.learn(7, tables);
    routes
}

fn taken(routes: &Routes, method: &str, path: &str) -> Option<String> {
    taken_with(routes, method, path, 200)
}

fn taken_with(routes: &Routes, method: &str, path: &str, status: u16) -> Option<String> {
    let taken = routes.taken(7, &RequestFacts::plain(method, path, status))?;
    assert_eq!(*taken.span_name, format!("{method} {}", taken.template));
    Some(taken.template.to_string())
}

#[test]
fn routes_in_order_are_tried_as_starlette_tries_them() {
    let items = [whole("/{id}", "^/(?P<id>[^/]+)$", &["GET"]), whole("", "^$", &["GET"])];
    let inner = [whole("/x", "^/x$", &["GET"])];
    let routes = routes(vec![RouteTable::InOrder(vec![
        whole("/items/{id:int}", "^/items/(?P<id>[0-9]+)$", &["GET", "HEAD"]),
        whole("/items/{id:int}", "^/items/(?P<id>[0-9]+)$", &["PUT"]),
        beginning("/users", Some(items.to_vec()), true),
        beginning("/v1", Some(inner.to_vec()), false),
        beginning("/static", None, false),
        whole("/files/{path:path}", "^/files/(?P<path>.*)$", &[]),
        whole(r"/a-b c", r"^/a\-b\ c$", &[]),
        whole("/users/{who}/late", "^/users/(?P<who>[^/]+)/late$", &[]),
    ])]);
    let right = [
        ("GET", "/items/7", Some("/items/{id:int}")),
        ("PUT", "/items/7", Some("/items/{id:int}")),
        ("DELETE", "/items/7", Some("/items/{id:int}")),
        ("GET", "/items/x", None),
        ("GET", "/items/7/", None),
        ("GET", "/users/ann", Some("/users/{id}")),
        ("GET", "/users/a%2Fb", None),
        ("GET", "/users/%C3%A4", Some("/users/{id}")),
        ("GET", "/users", Some("/users")),
        ("POST", "/users/ann", Some("/users/{id}")),
        ("GET", "/users/ann/late", Some("/users/{who}/late")),
        ("GET", "/v1/x", Some("/v1/x")),
        ("GET", "/v1/y", None),
        ("GET", "/v1x", None),
        ("GET", "/static/a/b.css", Some("/static")),
        ("GET", "/files/a/b", Some("/files/{path:path}")),
        ("GET", "/a-b%20c", Some("/a-b c")),
        ("GET", "/", None),
    ];
    for (method, path, route) in right {
        assert_eq!(taken(&routes, method, path).as_deref(), route, "{method} {path}");
    }
    assert_eq!(routes.taken(8, &RequestFacts::plain("GET", "/items/7", 200)), None, "another process");
}

#[test]
fn what_cannot_be_tried_keeps_those_behind_it_from_being_told() {
    let unknown = Route { template: "".into(), methods: Vec::new(), paths: RoutePaths::Unknown };
    let strange = whole("/{x}", "^/(?=a)(?P<x>[^/]+)$", &[]);
    for obstacle in [unknown, strange] {
        let routes = routes(vec![RouteTable::InOrder(vec![
            whole("/first", "^/first$", &[]),
            obstacle,
            whole("/last", "^/last$", &[]),
        ])]);
        assert_eq!(taken(&routes, "GET", "/first").as_deref(), Some("/first"));
        assert_eq!(taken(&routes, "GET", "/last"), None);
    }
}

#[test]
fn parts_are_tried_as_werkzeug_tries_them() {
    let slash = || text("");
    let mut loose = parted("/loose/", vec![slash(), text("loose"), slash()]);
    loose.is_strict = false;
    let routes = routes(vec![RouteTable::ByParts(vec![
        parted("/items/<name>", vec![slash(), text("items"), fitting(ANY, 100, false)]),
        parted("/items/<int:id>", vec![slash(), text("items"), fitting(INTEGER, 50, false)]),
        parted("/items/new", vec![slash(), text("items"), text("new")]),
        parted("/items/<int(min=3):id>/x", vec![slash(), text("items"), fitting(INTEGER, 50, false), text("x")]),
        parted("/files/<path:path>", vec![slash(), text("files"), fitting(PATH, 200, true)]),
        parted("/strict/", vec![slash(), text("strict"), slash()]),
        parted("/<name>", vec![slash(), fitting(ANY, 100, false)]),
        loose,
        parted("/same/<a>", vec![slash(), text("same"), fitting(ANY, 100, false)]),
        parted("/same/<b(x):b>", vec![slash(), text("same"), fitting(r"(?P<__werkzeug_0>\w+)\Z", 100, false)]),
        parted("/odd/<odd:a>", vec![slash(), text("odd"), fitting(r"(?P<__werkzeug_0>(?<!/)a)\Z", 100, false)]),
    ])]);
    let right = [
        ("/items/ann", Some("/items/<name>")),
        ("/items/12", Some("/items/<int:id>")),
        ("/items/new", Some("/items/new")),
        ("/items/12/x", Some("/items/<int(min=3):id>/x")),
        ("/items/", None),
        ("/items", Some("/<name>")),
        ("/files/a/b/c", Some("/files/<path:path>")),
        ("/files/", None),
        ("/strict/", Some("/strict/")),
        ("/strict", None),
        ("/other", Some("/<name>")),
        ("/loose/", Some("/loose/")),
        ("/loose", Some("/loose/")),
        // Which of the two comes first is not known.
        ("/same/a", None),
        ("/same/-", Some("/same/<a>")),
        ("/odd/a", None),
    ];
    for (path, route) in right {
        assert_eq!(taken(&routes, "GET", path).as_deref(), route, "{path}");
    }
    assert_eq!(taken(&routes, "POST", "/items/new"), None, "it answers 405 without a route");
    assert_eq!(taken_with(&routes, "GET", "/items/ann", 404).as_deref(), Some("/items/<name>"));
    assert_eq!(taken_with(&routes, "GET", "/items/1/x", 404), None, "the converter may have refused the number");
}

#[test]
fn of_several_applications_a_route_is_told_where_they_agree() {
    let table = |template: &str| RouteTable::InOrder(vec![whole(template, "^/a/(?P<x>[^/]+)$", &["GET"])]);
    let other = RouteTable::InOrder(vec![whole("/b", "^/b$", &["GET"])]);
    let agree = routes(vec![table("/a/{x}"), other.clone(), table("/a/{x}")]);
    assert_eq!(taken(&agree, "GET", "/a/1").as_deref(), Some("/a/{x}"));
    assert_eq!(taken(&agree, "GET", "/b").as_deref(), Some("/b"));
    assert_eq!(taken_with(&agree, "GET", "/b", 404), None, "one that does not have it was asked, perhaps");
    let differ = routes(vec![table("/a/{x}"), table("/a/{y}")]);
    assert_eq!(taken(&differ, "GET", "/a/1"), None);
}

#[test]
fn new_tables_take_the_place_of_the_old_ones() {
    let table = |template: &str| RouteTable::InOrder(vec![whole(template, "^/a$", &[])]);
    let mut routes = routes(vec![table("/old")]);
    routes.learn(7, vec![table("/new")]);
    assert_eq!(taken(&routes, "GET", "/a").as_deref(), Some("/new"));
    routes.learn(7, Vec::new());
    assert_eq!(taken(&routes, "GET", "/a"), None);
}
