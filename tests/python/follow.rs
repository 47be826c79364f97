//! Workers of servers: forked, executed, started again by gunicorn and uvicorn, of joblib's loky; followed unless
//! `--no-follow` is given.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tracer_tests::process::{Finished, Running, poll};
use tracer_tests::python::{CHAIN, Interpreter, MODES, Truth, all};
use tracer_tests::python_run::PythonRun;
use tracer_tests::spans::{SpanRow, Spans};
use tracer_tests::suite::{Case, Need, case_of, do_meet, report};
use tracer_tests::targets::Target;
use tracer_tests::tracer::{Attached, Trace, Tracer, ml_tracer};
use tracer_tests::workspace;

/// How workers come, and what is tested with each.
const WAYS: [(&str, &str); 4] = [
    ("forked_workers_are_followed", "fork"),
    ("workers_that_execute_python_are_followed", "exec"),
    ("workers_behind_a_shell_are_followed", "shell"),
    ("workers_of_workers_are_followed", "nested"),
];

/// The environment that has gunicorn.
const MODELS: Interpreter = Interpreter::Environment("models");

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let mut cases = Vec::new();
    for (version, interpreter) in all().into_iter().enumerate() {
        for (number, (name, how)) in WAYS.into_iter().enumerate() {
            for (_, mode) in MODES.into_iter().enumerate().filter(|(place, _)| do_meet(number, version, *place)) {
                let name = format!("{name}_{mode}_{}", interpreter.label());
                cases.push(case_of(name, needs(interpreter), move || followed(interpreter, how, mode)));
            }
        }
        let name = format!("workers_are_left_alone_if_asked_{}", interpreter.label());
        cases.push(case_of(name, needs(interpreter), move || left_alone(interpreter)));
        let name = format!("workers_of_a_command_are_followed_{}", interpreter.label());
        cases.push(case_of(name, needs(interpreter), move || of_a_command(interpreter)));
    }
    // Each way of coming, and each way of seeing calls from 3.8 to 3.13.
    let chained = [
        Interpreter::Environment("plain-3.8"),
        Interpreter::Environment("sklearn-3.11"),
        Interpreter::Environment("sklearn-3.12"),
        Interpreter::Environment("sklearn-3.13"),
    ];
    for ((name, how), interpreter) in WAYS.into_iter().zip(chained) {
        let name = format!("{name}_{CHAIN}_{}", interpreter.label());
        cases.push(case_of(name, needs(interpreter), move || followed(interpreter, how, CHAIN)));
    }
    for (name, preload, mode) in [
        ("gunicorn_workers_are_followed", false, "watch"),
        ("gunicorn_with_preloaded_model", true, "watch"),
        ("gunicorn_with_preloaded_model_chain", true, CHAIN),
    ] {
        cases.push(case_of(name.to_owned(), needs(MODELS), move || gunicorn(preload, mode)));
    }
    cases.push(case_of("gunicorn_workers_that_take_turns_chain".to_owned(), needs(MODELS), workers_by_turns));
    for (name, workers) in [("uvicorn_workers_are_followed", Some(2)), ("uvicorn_with_reloader_is_followed", None)] {
        cases.push(case_of(name.to_owned(), needs(MODELS), move || uvicorn(workers)));
    }
    cases.push(case_of("workers_of_loky_are_followed".to_owned(), needs(MODELS), loky));
    cases.push(case_of("workers_are_listed".to_owned(), needs(MODELS), listed));
    cases
}

/// Predictions of each process in each batch.
const COUNT: u64 = 30;

fn run(interpreter: Interpreter, how: &str, mode: &str) -> PythonRun {
    let count = COUNT.to_string();
    // In this mode a call is seen only if C code calls Python code inside it.
    let through_c = if mode == CHAIN { Some("through-c") } else { None };
    let arguments: Vec<&str> = [how, &count].into_iter().chain(through_c).collect();
    PythonRun::of(interpreter, "python_workers", &arguments)
        .map("targets/python_workers/map.yaml")
        .tracer_arguments(&["--python", mode])
        .batches(3)
}

/// The processes that spans are of.
fn processes(spans: &Spans) -> BTreeSet<String> {
    spans.0.iter().filter_map(|row| row.resource("process.pid")).collect()
}

/// Waits until the tracer says of so many processes that it follows them.
fn wait_for_workers(tracer: &mut Running, count: usize) -> Result<Vec<u32>> {
    (0..count).map(|_| number_after("following process ", &tracer.wait_errors("following process")?)).collect()
}

/// The number that follows these words in a line.
fn number_after(words: &str, line: &str) -> Result<u32> {
    let number = line.split_once(words).and_then(|(_, rest)| rest.split(' ').next());
    number.and_then(|number| number.parse().ok()).with_context(|| line.to_owned())
}

/// Waits until two workers are followed with so many functions in all: one that was found in the middle of its imports is looked at
/// again soon.
fn wait_for_functions(tracer: &mut Running, functions: u32) -> Result<()> {
    let mut told = 0;
    for _ in 0..2 {
        told += number_after(": ", &tracer.wait_errors("following process")?.replace("ml-tracer: ", ""))?;
    }
    while told < functions {
        told += number_after("ml-tracer: ", &tracer.wait_errors("more functions")?)?;
    }
    Ok(())
}

/// Traces a program whose first batch makes two workers, and waits for `ready` then; its outcome has to be the one that it has alone.
fn traced_with_two_workers(
    run: &PythonRun,
    ready: impl FnOnce(&mut Running) -> Result<()>,
) -> Result<(Finished, Trace)> {
    let mut target = run.start()?;
    let mut attached = run.attach(&target)?;
    target.batch()?;
    ready(&mut attached.running)?;
    (0..2).try_for_each(|_| target.batch())?;
    let finished = target.finish()?;
    // Once all of them have ended, the tracer does.
    let trace = attached.finish()?;
    let alone = run.alone()?;
    ensure!(finished == alone, "traced: {finished:?}\nalone: {alone:?}");
    Ok((finished, trace))
}

fn followed(interpreter: Interpreter, how: &str, mode: &str) -> Result<()> {
    let run = run(interpreter, how, mode);
    let (finished, trace) = traced_with_two_workers(&run, |tracer| wait_for_functions(tracer, 4))?;
    trace.check_whole()?;
    Truth::of(&finished)?.check(&trace.spans).with_context(|| trace.summary.0.to_string())?;
    ensure!(processes(&trace.spans).len() == 3, "spans of {:?}", processes(&trace.spans));
    let told = trace.finished.errors.split("following process ").skip(1);
    let told: BTreeSet<&str> = told.filter_map(|rest| rest.split(' ').next()).collect();
    ensure!(told.len() == 2, "{told:?} are told of: {}", trace.finished.errors);
    Ok(())
}

fn left_alone(interpreter: Interpreter) -> Result<()> {
    let run = run(interpreter, "fork", "watch").tracer_arguments(&["--no-follow"]);
    let mut target = run.start()?;
    let pid = target.pid();
    let attached = run.attach(&target)?;
    (0..3).try_for_each(|_| target.batch())?;
    let trace = attached.stop()?;
    let (finished, alone) = (target.finish()?, run.alone()?);
    ensure!(finished == alone, "traced: {finished:?}\nalone: {alone:?}");
    trace.check_whole()?;
    ensure!(processes(&trace.spans) == BTreeSet::from([pid.to_string()]), "{:?}", processes(&trace.spans));
    ensure!(trace.summary.spans() == 2 * 2 * COUNT, "{:?}", trace.summary);
    Ok(())
}

fn of_a_command(interpreter: Interpreter) -> Result<()> {
    let command = interpreter.command("targets/python_workers/target.py")?;
    let count = COUNT.to_string();
    let mut tracer = Tracer::run()?.map_file(&workspace::tests("targets/python_workers/map.yaml"))?;
    tracer = tracer.arguments(["--"]).arguments([command.get_program()]).arguments(command.get_args());
    for (name, value) in command.get_envs() {
        if let (Some(name), Some(value)) = (name.to_str(), value.and_then(|value| value.to_str())) {
            tracer = tracer.variable(name, value);
        }
    }
    let mut attached = tracer.arguments(["fork", &count]).start()?;
    let running = &mut attached.running;
    running.wait_output("ready")?;
    // The command itself: an interpreter that begins.
    running.wait_errors("more functions")?;
    running.send_line("go")?;
    running.wait_output("ready")?;
    wait_for_workers(running, 2)?;
    running.send_line("go")?;
    running.wait_output("ready")?;
    let trace = attached.finish()?;
    trace.check_whole()?;
    ensure!(processes(&trace.spans).len() == 3, "spans of {:?}", processes(&trace.spans));
    ensure!(trace.summary.spans() == 3 * 2 * COUNT, "{:?}", trace.summary);
    Ok(())
}

/// A running server with workers, and where it listens.
struct Server {
    master: Target,
    address: String,
}

/// Who has answered a request, and what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Answer {
    pid: u32,
    digest: String,
}

impl Server {
    fn gunicorn(preload: bool, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(workspace::python_environment("models", "bin/gunicorn"));
        command.args(["--workers", "2", "--bind", "127.0.0.1:0", "--chdir"]);
        command.arg(workspace::tests("targets/gunicorn_server")).args(preload.then_some("--preload")).args(more);
        command.arg("app:application");
        Self::start(command, "Listening at: http://")
    }

    /// With a reloader, which has one worker, unless there are to be more.
    fn uvicorn(workers: Option<usize>) -> Result<Self> {
        let mut command = Command::new(workspace::python_environment("models", "bin/uvicorn"));
        let folder = workspace::tests("targets/gunicorn_server");
        command.args(["--port", "0", "--lifespan", "off", "--no-access-log", "--app-dir"]).arg(&folder);
        match workers {
            Some(count) => command.args(["--workers", &count.to_string()]),
            None => command.args(["--reload", "--reload-dir"]).arg(&folder),
        };
        command.arg("app:asgi_application");
        let server = Self::start(command, "running on http://")?;
        // Its workers listen, once they have made their models.
        poll("the first answer", || Ok(Self::ask(&server.address, 0).ok().map(drop)))?;
        Ok(server)
    }

    fn start(mut command: Command, told: &str) -> Result<Self> {
        command.env("OMP_NUM_THREADS", "1");
        let mut running = Running::start(command)?;
        let line = running.wait_errors(told)?;
        let address = line.split_once("http://").and_then(|(_, rest)| rest.split_whitespace().next());
        let address = address.with_context(|| line.clone())?.to_owned();
        Ok(Self { master: Target { running }, address })
    }

    fn ask(address: &str, number: usize) -> Result<Answer> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(stream, "GET /predict?{number} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (_, body) = text.split_once("\r\n\r\n").with_context(|| format!("no answer: {text}"))?;
        let answer: Value = serde_json::from_str(body).with_context(|| text.clone())?;
        let pid = answer["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).context("no pid")?;
        Ok(Answer { pid, digest: answer["digest"].as_str().unwrap_or_default().to_owned() })
    }

    /// Asks until this many requests are answered by each of so many workers.
    fn ask_all(&self, workers: usize, each: usize) -> Result<Vec<(usize, Answer)>> {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        let mut answers = Vec::new();
        while counts.len() < workers || counts.values().any(|count| *count < each) {
            // Two at a time, so that both workers have something to do.
            let first = answers.len();
            let address = self.address.as_str();
            let pair = std::thread::scope(|scope| {
                let other = scope.spawn(|| Self::ask(address, first + 1));
                [Ok(Self::ask(address, first)), other.join()]
            });
            for answer in pair {
                let answer = answer.map_err(|_| anyhow::anyhow!("a thread has ended"))??;
                *counts.entry(answer.pid).or_default() += 1;
                answers.push((answers.len(), answer));
            }
            ensure!(answers.len() < 100_000, "one worker answers all: {counts:?}");
        }
        Ok(answers)
    }
}

/// Nanoseconds since 1970.
fn now() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

/// What a request must look like.
const TREE: [&str; 4] =
    ["Pipeline.predict", "StandardScaler.transform", "PolynomialFeatures.transform", "LogisticRegression.predict"];

/// Waits until a request to each worker is seen whole: a worker that makes its model after it was forked is seen in parts
/// while it does so.
fn wait_until_whole(server: &Server, attached: &Attached) -> Result<()> {
    poll("a whole request of each worker", || {
        let since = now()?;
        let answers = server.ask_all(2, 1)?;
        std::thread::sleep(Duration::from_millis(300));
        let spans = Spans::read(&attached.file("spans.jsonl"))?;
        Ok(check(&spans, &answers, (since, u64::MAX)).is_ok().then_some(()))
    })
}

/// In this time each worker has made the spans of its requests, and no others.
fn check(spans: &Spans, answers: &[(usize, Answer)], (since, until): (u64, u64)) -> Result<()> {
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    for (_, answer) in answers {
        *asked.entry(answer.pid.to_string()).or_default() += 1;
    }
    let in_time = |row: &&SpanRow| (since..until).contains(&row.span.start_time_unix_nano);
    for name in TREE {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for row in spans.named(name).filter(in_time) {
            *seen.entry(row.resource("process.pid").unwrap_or_default()).or_default() += 1;
        }
        ensure!(seen == asked, "{name}: {asked:?} requests, {seen:?} spans");
    }
    let (requests, calls): (Vec<_>, Vec<_>) = spans.0.iter().filter(in_time).partition(|row| row.is_request());
    ensure!(calls.len() == TREE.len() * answers.len(), "{} spans of {} requests", calls.len(), answers.len());
    ensure!(requests.len() == answers.len(), "{} of {} requests have spans", requests.len(), answers.len());
    Ok(())
}

/// uvicorn's workers are interpreters of their own, which have made their models themselves.
fn uvicorn(workers: Option<usize>) -> Result<()> {
    let server = Server::uvicorn(workers)?;
    let count = workers.unwrap_or(1);
    let untraced: BTreeMap<usize, String> =
        server.ask_all(count, 40)?.into_iter().map(|(number, answer)| (number, answer.digest)).collect();
    let mut attached = Tracer::attach(server.master.pid())?.start()?;
    wait_for_workers(&mut attached.running, count)?;
    let since = now()?;
    let answers = server.ask_all(count, 40)?;
    let time = (since, now()?);
    server.master.running.signal(Signal::TERM)?;
    drop(server.master.finish()?);
    let trace = attached.finish()?;
    trace.check_whole()?;
    check(&trace.spans, &answers, time).with_context(|| trace.summary.0.to_string())?;
    for (number, answer) in &answers {
        let expected = untraced.get(number).unwrap_or(&answer.digest);
        ensure!(answer.digest == *expected, "another answer to request {number}");
    }
    // One sentence for both, if they have tried the same methods, and none for the process that has started them.
    let said = trace.finished.errors.matches(": covered ").count();
    let interpreters = trace.finished.errors.matches("CPython").count();
    ensure!((1..=count).contains(&said) && interpreters == said, "{}", trace.finished.errors);
    Ok(())
}

/// The processes that do the work where `n_jobs` is more than 1.
fn loky() -> Result<()> {
    let run = PythonRun::of(MODELS, "python_loky", &[&COUNT.to_string()]).batches(3);
    let (finished, trace) = traced_with_two_workers(&run, |tracer| {
        wait_for_workers(tracer, 2)?;
        // They are looked at again soon, once they have imported all that they need.
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    })?;
    trace.check_books()?;
    let predictions = Spans(trace.spans.0.iter().filter(|row| !row.span.name.ends_with(".fit")).cloned().collect());
    Truth::of(&finished)?.check(&predictions).with_context(|| trace.summary.0.to_string())
}

/// What would be traced is listed with the workers, those that say the same in one place.
fn listed() -> Result<()> {
    let run = run(MODELS, "fork", "watch");
    let mut target = run.start()?;
    target.batch()?;
    let pid = target.pid().to_string();
    let map = workspace::tests("targets/python_workers/map.yaml");
    let list = |arguments: &[&str]| {
        let words = arguments.iter().map(OsStr::new).chain([OsStr::new("--map"), map.as_os_str()]);
        let listing = ml_tracer(words)?;
        ensure!(listing.code == Some(0), "{listing:?}");
        Ok(listing.output)
    };
    let interpreters = |listing: &str| -> Vec<String> {
        let places = listing.lines().filter(|line| line.starts_with("CPython "));
        places.filter_map(|line| Some(line.split_once(" of ")?.1.split_once(':')?.0.to_owned())).collect()
    };
    for command in [&["symbols", "--pid", &pid][..], &["attach", "--dry-run", "--pid", &pid]] {
        let with_workers = interpreters(&list(command)?);
        let is_right = |places: &[String]| places.len() == 1 && places[0].split(", ").count() == 3;
        ensure!(
            is_right(&with_workers) && with_workers[0].starts_with(&format!("processes {pid}, ")),
            "{with_workers:?}"
        );
        let alone = interpreters(&list(&[command, &["--no-follow"]].concat())?);
        ensure!(alone == [format!("process {pid}")], "{alone:?}");
    }
    target.finish().map(drop)
}

fn gunicorn(preload: bool, mode: &str) -> Result<()> {
    let server = Server::gunicorn(preload, &[])?;
    let outcome = trace_gunicorn(server, preload, mode);
    outcome.with_context(|| format!("preload: {preload}"))
}

/// Workers that end by themselves after some requests: whoever takes their place is seen whole, and nothing is made up for those
/// that have ended.
fn workers_by_turns() -> Result<()> {
    const LIFE: &str = "20";
    let server = Server::gunicorn(true, &["--max-requests", LIFE])?;
    let attached = Tracer::attach(server.master.pid())?.arguments(["--python", CHAIN]).start()?;
    let mut answered: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..160 {
        // A worker that is just ending may take a connection and not answer it.
        if let Ok(answer) = Server::ask(&server.address, number) {
            *answered.entry(answer.pid.to_string()).or_default() += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    server.master.running.signal(Signal::TERM)?;
    ensure!(server.master.finish()?.code == Some(0), "gunicorn has not ended well");
    let trace = attached.finish()?;
    trace.check_whole()?;
    let roots: Vec<&SpanRow> = trace.spans.named(TREE[0]).filter(|row| row.ending() == "returned").collect();
    for root in &roots {
        let inside = trace.spans.0.iter().filter(|row| row.span.parent_span_id == root.span.span_id);
        let inside: BTreeSet<&str> = inside.map(|row| row.span.name.as_str()).collect();
        let is_whole =
            inside == TREE.into_iter().skip(1).collect() || root.boolean("ml.children_observed") == Some(false);
        ensure!(is_whole, "{inside:?} in a request of {:?}", root.resource("process.pid"));
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for root in &roots {
        *seen.entry(root.resource("process.pid").unwrap_or_default()).or_default() += 1;
    }
    let is_possible =
        |(pid, count): (&String, &usize)| answered.get(pid).is_some_and(|answers| count <= &(answers + 1));
    ensure!(seen.iter().all(is_possible), "{answered:?} requests were answered, {seen:?} were seen");
    report(&format!("of {} workers {} were seen, {seen:?} of {answered:?}", answered.len(), seen.len()));
    ensure!(answered.len() > 4 && seen.len() > 2, "{answered:?} requests were answered, {seen:?} were seen");
    Ok(())
}

fn trace_gunicorn(mut server: Server, preload: bool, mode: &str) -> Result<()> {
    let untraced: BTreeMap<usize, String> =
        server.ask_all(2, 40)?.into_iter().map(|(number, answer)| (number, answer.digest)).collect();
    let mut attached = Tracer::attach(server.master.pid())?.arguments(["--python", mode]).start()?;
    let first = wait_for_workers(&mut attached.running, 2)?;
    let mut phases = Vec::new();
    let since = now()?;
    let answers = server.ask_all(2, 40)?;
    phases.push((answers, (since, now()?)));

    let killed = *first.first().context("a worker")?;
    let pid = i32::try_from(killed).ok().and_then(Pid::from_raw).context("a process id")?;
    // Those of before have been told of.
    (0..2).try_for_each(|_| server.master.running.wait_errors("Booting worker").map(drop))?;
    kill_process(pid, Signal::KILL)?;
    server.master.running.wait_errors("Booting worker")?;
    let began = Instant::now();
    let second = wait_for_workers(&mut attached.running, 1)?;
    report(&format!("gunicorn, preload {preload}: followed {} ms after a worker began", began.elapsed().as_millis()));
    ensure!(!first.contains(second.first().context("a worker")?), "{first:?}, then {second:?}");
    if !preload {
        wait_until_whole(&server, &attached)?;
    }
    let since = now()?;
    let answers = server.ask_all(2, 40)?;
    phases.push((answers, (since, now()?)));

    server.master.running.signal(Signal::TERM)?;
    let finished = server.master.finish()?;
    ensure!(finished.code == Some(0), "{finished:?}");
    let trace = attached.finish()?;
    // A worker that imports and trains while it is watched calls functions before they are known.
    let unknown = if preload { 0 } else { trace.summary.lost_because("defined since the last look") };
    ensure!(trace.summary.lost() == unknown, "{}: {}", trace.finished.errors, finished.errors);
    trace.check_books()?;
    for (answers, time) in &phases {
        check(&trace.spans, answers, *time).with_context(|| format!("{}\n{}", finished.errors, trace.summary.0))?;
        for (number, answer) in answers {
            let expected = untraced.get(number).unwrap_or(&answer.digest);
            ensure!(answer.digest == *expected, "another answer to request {number}");
        }
    }
    Ok(())
}
