//! The names of requests: the routes of the applications that answer them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tracer_tests::process::Running;
use tracer_tests::suite::{Case, Need, case_of};
use tracer_tests::tracer::{Attached, Tracer};

use super::conversation::answer;
use super::{MODELS, requests};

/// What is asked of a framework's application: method, path, and the route.
type Question = (&'static str, &'static str, Option<&'static str>);

const FASTAPI: [Question; 13] = [
    ("GET", "/v1/items/7", Some("/v1/items/{item}")),
    ("PUT", "/v1/items/8", Some("/v1/items/{item}")),
    ("DELETE", "/v1/items/9", Some("/v1/items/{item}")),
    ("GET", "/v1/items/missing", Some("/v1/items/{item}")),
    ("GET", "/v1/items/a%20b", Some("/v1/items/{item}")),
    ("GET", "/v1/items/deep/3", Some("/v1/items/deep/{number:int}")),
    ("GET", "/v1/items/deep/x", None),
    ("GET", "/inner/ping/a", Some("/inner/ping/{x}")),
    ("GET", "/inner/none", None),
    ("GET", "/files/a/b.txt", Some("/files/{path:path}")),
    ("POST", "/fail", Some("/fail")),
    ("GET", "/docs", Some("/docs")),
    ("GET", "/none", None),
];

const FLASK: [Question; 12] = [
    ("GET", "/v1/items/7", Some("/v1/items/<int:item>")),
    ("PUT", "/v1/items/8", Some("/v1/items/<int:item>")),
    ("PUT", "/v1/items/x", None),
    ("GET", "/v1/items/ann", Some("/v1/items/<name>")),
    ("GET", "/v1/items/missing", Some("/v1/items/<name>")),
    ("GET", "/v1/items/new", Some("/v1/items/new")),
    ("GET", "/v1/items/", None),
    ("GET", "/files/a/b.txt", Some("/files/<path:path>")),
    ("GET", "/strict/", Some("/strict/")),
    ("GET", "/strict", None),
    ("POST", "/fail", Some("/fail")),
    ("GET", "/static/none", Some("/static/<path:filename>")),
];

const DJANGO: [Question; 7] = [
    ("GET", "/books/7/", Some("/books/<int:book>/")),
    ("GET", "/books/a-b/read", Some("/books/<slug:title>/read")),
    ("GET", "/books/a-b/", None),
    ("GET", "/old/1999/", Some("/old/(?P<year>[0-9]{4})/$")),
    ("POST", "/fail", Some("/fail")),
    ("GET", "/", Some("/")),
    ("GET", "/none", None),
];

/// The tests.
pub fn cases() -> Vec<Case> {
    let frameworks = [("fastapi", &FASTAPI[..]), ("flask", &FLASK[..]), ("django", &DJANGO[..])];
    let case = |(framework, questions): (&'static str, &'static [Question])| {
        let needs = vec![Need::Program, Need::Kernel, Need::Python(MODELS)];
        case_of(format!("requests_are_named_after_their_routes_{framework}"), needs, move || {
            named(framework, questions)
        })
    };
    frameworks.into_iter().map(case).collect()
}

fn named(framework: &str, questions: &[Question]) -> Result<()> {
    let mut command = MODELS.command("targets/python_routes/server.py")?;
    command.arg(framework);
    let mut running = Running::start(command)?;
    let port = port_of(&mut running)?;
    // Django reads its routes when it is first asked.
    ask(port, "GET", "/first")?;
    let attached: Attached =
        Tracer::attach(running.pid())?.arguments(["--requests", "sockets", "--python", "watch"]).start()?;
    for (method, path, _) in questions {
        ask(port, method, path)?;
    }
    let trace = attached.stop()?;
    let found: BTreeMap<_, _> = requests(&trace.spans)?;
    ensure!(found.len() == questions.len(), "{} spans: {}", found.len(), trace.summary.0["requests"]);
    for (method, path, route) in questions {
        let row = found.get(*path).with_context(|| format!("no span of {path}"))?;
        ensure!(row.text("http.route") == *route, "{method} {path}: {:?}", row.text("http.route"));
        let name = route.map_or_else(|| (*method).to_owned(), |route| format!("{method} {route}"));
        ensure!(row.span.name == name, "{method} {path} is called {}", row.span.name);
    }
    Ok(())
}

/// The port that a server says.
pub fn port_of(running: &mut Running) -> Result<u16> {
    let line = running.wait_output("port ")?;
    line.rsplit(' ').next().unwrap_or_default().trim().parse().with_context(|| line.clone())
}

/// Asks one question over a connection of its own.
pub fn ask(port: u16, method: &str, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let length = if method == "GET" { "" } else { "Content-Length: 0\r\n" };
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: models\r\n{length}\r\n").as_bytes())?;
    answer(&mut stream, &mut Vec::new(), method).with_context(|| format!("the answer to {method} {path}"))?;
    Ok(())
}
