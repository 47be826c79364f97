//! Routes of web applications in running interpreters.

use std::sync::Arc;

use super::live::{modules, start, supported};
use crate::engine::contract::Instance as _;
use crate::engine::cpython::CpythonEngine;
use crate::memory::ReadLimit;
use crate::model::{PartedRoute, ProcessId, ProgramImage, Route, RoutePart, RoutePaths, RouteTable, Service, Target};

const SCRIPT: &str = include_str!("routes.py");

fn route(template: &str, methods: &[&str], paths: RoutePaths) -> Route {
    let methods = methods.iter().map(|method| Arc::from(*method)).collect();
    Route { template: template.into(), methods, paths }
}

fn whole(pattern: &str) -> RoutePaths {
    RoutePaths::Whole(pattern.into())
}

fn beginning(pattern: &str, routes: Option<Vec<Route>>, goes_on: bool) -> RoutePaths {
    RoutePaths::Beginning { pattern: pattern.into(), routes, goes_on }
}

fn parted(template: &str, parts: Vec<RoutePart>) -> PartedRoute {
    let parts = [vec![RoutePart::Text("".into()), RoutePart::Text("".into())], parts].concat();
    PartedRoute { template: template.into(), methods: vec!["GET".into()], parts, is_strict: true }
}

/// What the script has made.
fn expected() -> Vec<RouteTable> {
    let starlette = vec![
        route("/plain", &[], whole("^/plain$")),
        route("/inner", &[], beginning("^/inner", Some(vec![route("/x", &["GET"], whole("^/x$"))]), false)),
        route("/static", &[], beginning("^/static", None, false)),
        route(
            "/v1",
            &[],
            beginning("^/v1", Some(vec![route("/{id}", &["GET", "PUT"], whole("^/(?P<id>[^/]+)$"))]), true),
        ),
        route("", &[], RoutePaths::Unknown),
    ];
    let variable = RoutePart::Fitting {
        pattern: r"a(?P<__werkzeug_0>\d+)\Z".into(),
        rank: vec![-1, 0, -1, -1, 50],
        is_last: false,
    };
    let flask = vec![parted("/a<int:id>", vec![variable]), parted("/b", vec![RoutePart::Text("b".into())])];
    let books = vec![route("<int:id>", &[], whole(r"^(?P<id>[0-9]+)\Z")), route("", &[], RoutePaths::Unknown)];
    let in_root = vec![
        route("books/", &[], beginning("^books/", Some(books), true)),
        route("none/", &[], beginning("^none/", Some(Vec::new()), true)),
        route("old/$", &[], whole("^old/$")),
    ];
    let django = vec![route("/", &[], beginning("^/", Some(in_root), true))];
    vec![RouteTable::InOrder(starlette), RouteTable::InOrder(django), RouteTable::ByParts(flask)]
}

#[test]
fn every_python_here_tells_the_routes_of_its_applications() {
    let by_kind = |table: &RouteTable| match table {
        RouteTable::InOrder(routes) => (0, std::cmp::Reverse(routes.len())),
        RouteTable::ByParts(rules) => (1, std::cmp::Reverse(rules.len())),
    };
    for (name, command) in supported() {
        let (running, _) = start(&command, SCRIPT, &[]);
        let pid = running.0.id();
        let target = Target {
            process: ProcessId { pid, start_time: 0 },
            command_line: Vec::new(),
            executable: "python".into(),
            modules: modules(pid),
            container_id: None,
            image: ProgramImage::default(),
            service: Service::default(),
        };
        let look = |reads_routes| {
            let mut engine = CpythonEngine::new(&[]).reading_routes(reads_routes);
            let mut instance = engine.find(&target, &ReadLimit::default()).expect("it is running").expect("CPython");
            instance.look().expect("it is running").survey.routes
        };
        let mut found = look(true);
        found.sort_by_key(by_kind);
        assert_eq!(found, expected(), "{name}");
        assert_eq!(look(false), [], "{name}: nobody asks");
    }
}
