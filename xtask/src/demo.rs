//! `cargo xtask demo`: a real model server is traced while it answers requests; everything it needs is set up first.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::process::{Process, poll};
use crate::{provision, python, workspace};

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked for: a pipeline of scikit-learn, one that ends in a classifier of XGBoost, a booster of LightGBM.
const MODELS: [&str; 3] = ["pipeline", "pipeline-xgboost", "lightgbm"];

/// Requests to each model.
const REQUESTS: u32 = 2;

/// Methods beside the pipeline's own that these requests call. The tracer chooses what it watches, so they are waited for.
const METHODS: [&str; 3] = ["StandardScaler.transform", "LogisticRegression.predict", "XGBClassifier.predict"];

/// How long the tracer may try out what to watch, while clients keep the server busy.
const EXPLORATION: Duration = Duration::from_secs(30);

/// After this pause, the trace of a request is on the terminal.
const PRINTED: Duration = Duration::from_millis(150);

/// Sets up, traces, prints the tree, and leaves the files in `target/demo`.
///
/// # Errors
/// When something cannot be set up, or the server or the tracer does not do its part.
pub fn run() -> Result<()> {
    let started = Instant::now();
    let root = workspace::root();
    eprintln!(
        "This demo installs pinned Python packages into target/venv/models (about 350 MB: scikit-learn, XGBoost, LightGBM, \
         FastAPI, uvicorn and what they need), builds ml-tracer, and listens on loopback only."
    );
    let environment = python::models()?;
    let mut build = provision::cargo();
    build.args(["build", "--release", "--locked", "--package", "tracer-user"]);
    provision::run("cargo build --release", &mut build)?;

    let folder = root.join("target/demo");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (mut server, port) = start_server(&environment, &root.join("tests/targets/model_server/server.py"))?;
    // A tracer with a few watchpoints for many methods wants to see which ones are called: it finds a busy server.
    eprintln!("==> clients keep the server busy");
    let clients = Clients::start(port);
    let (mut tracer, messages) = start_tracer(&root.join("target/release/ml-tracer"), server.0.id(), &folder)?;
    clients.stop()?;
    sleep(PRINTED);
    eprintln!("==> the clients have stopped; what they asked for last is above");
    ask_each(port, 0)?;
    let spans = folder.join("spans.jsonl");
    if !are_traced(&spans)? {
        eprintln!("==> the tracer is still trying out what to watch: clients keep the server busy again");
        let clients = Clients::start(port);
        let began = Instant::now();
        while !are_traced(&spans)? && began.elapsed() < EXPLORATION {
            sleep(PRINTED);
        }
        clients.stop()?;
    }
    eprintln!("==> {REQUESTS} requests to each model");
    for number in 1..=REQUESTS {
        ask_each(port, number)?;
    }
    // The tracer follows its target to the end, flushes everything and says what it saw.
    server.stop()?;
    tracer.wait("the tracer")?;
    messages.join().map_err(|_| anyhow!("the thread that passes on the tracer's messages has panicked"))?;
    eprintln!(
        "\nWith `--python frames` the tracer sees every method, at a price for every Python call.\nThe same trace as files:"
    );
    for (file, use_of_it) in FILES {
        let file = folder.join(file);
        ensure!(file.exists(), "the tracer has left no {}", file.display());
        eprintln!("    {}  {use_of_it}", file.display());
    }
    eprintln!("{:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

const FILES: [(&str, &str); 3] = [
    ("spans.jsonl", "OpenTelemetry file format, an OTLP/JSON TracesData a line"),
    ("trace.json", "open it at https://ui.perfetto.dev"),
    ("summary.json", "what was counted"),
];

fn start_server(environment: &Path, script: &Path) -> Result<(Process, u16)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    eprintln!("==> model server on 127.0.0.1:{port}: training");
    let mut command = Command::new(environment.join("bin/python"));
    let child = command.arg(script).arg(port.to_string()).stdin(Stdio::null()).spawn();
    let mut server = Process(child.context("cannot start the model server")?);
    poll("the model server to answer", || {
        if let Some(status) = server.0.try_wait()? {
            bail!("the model server ended with {status}");
        }
        Ok(request(port, "GET /health HTTP/1.1", "").ok().map(drop))
    })?;
    Ok((server, port))
}

fn start_tracer(program: &Path, pid: u32, folder: &Path) -> Result<(Process, JoinHandle<()>)> {
    let file = |name: &str| -> PathBuf { folder.join(name) };
    let arguments = [
        "attach".to_owned(),
        format!("--pid={pid}"),
        "--requests=sockets".to_owned(),
        "--export=console".to_owned(),
        format!("--export=jsonl={}", file("spans.jsonl").display()),
        format!("--export=perfetto={}", file("trace.json").display()),
        format!("--summary={}", file("summary.json").display()),
    ];
    let mut command = provision::as_root(program);
    command.args(arguments).stderr(Stdio::piped());
    eprintln!("==> {command:?}");
    let mut tracer = Process(command.spawn().context("cannot start the tracer")?);
    let mut errors = BufReader::new(tracer.0.stderr.take().context("the tracer's standard error is a pipe")?);
    loop {
        let mut line = String::new();
        if errors.read_line(&mut line)? == 0 {
            bail!("the tracer has ended; `{} doctor` says what this machine lacks", program.display());
        }
        eprint!("    {line}");
        if line.contains("ml-tracer: attached ") {
            break;
        }
    }
    let messages = spawn(move || {
        for line in errors.lines().map_while(Result::ok) {
            eprintln!("    {line}");
        }
    });
    Ok((tracer, messages))
}

/// One request to each model, with a pause in which its trace is printed.
fn ask_each(port: u16, number: u32) -> Result<()> {
    for model in MODELS {
        let answer = post(port, &format!("/predict/{model}"), &rows(number))?;
        eprintln!("    POST /predict/{model}: {answer}");
        sleep(PRINTED);
    }
    Ok(())
}

/// Whether every method that matters has had a span.
fn are_traced(spans: &Path) -> Result<bool> {
    let written = fs::read_to_string(spans).with_context(|| format!("cannot read {}", spans.display()))?;
    Ok(METHODS.iter().all(|method| written.contains(&format!("\"{method}\""))))
}

/// Clients that send requests, one for each model, until they are stopped.
struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Clients {
    fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |model: &'static str| {
            let stop = Arc::clone(&stop);
            spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    post(port, &format!("/predict/{model}"), &rows(0))?;
                }
                Ok(())
            })
        };
        let threads = MODELS.into_iter().map(client).collect();
        Self { stop, threads }
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow!("a client has panicked"))?)
    }
}

/// A request body: four rows of eight numbers.
fn rows(number: u32) -> String {
    let row =
        |row: u32| (0..8).map(|column| format!("{}.5", (number + row * column) % 5)).collect::<Vec<_>>().join(",");
    let rows: Vec<String> = (0..4).map(|index| format!("[{}]", row(index))).collect();
    format!("[{}]", rows.join(","))
}

fn post(port: u16, path: &str, body: &str) -> Result<String> {
    request(port, &format!("POST {path} HTTP/1.1"), body)
}

/// One HTTP request on a connection of its own; gives the body of the answer.
fn request(port: u16, line: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{line}\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no body")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{line}: {}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}
