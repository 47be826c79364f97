//! Servers answer the same, and end the same, whatever becomes of the tracer that looks at their requests.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tracer_tests::suite::{Case, Need, case_of, is_full};
use tracer_tests::targets;
use tracer_tests::tracer::{NEST_ALL, Tracer};

use super::conversation::whole_answer;
use super::parents::{BOTH, Server};

/// Connections at one time, and requests on each.
const CONNECTIONS: usize = 6;
const EACH: usize = 200;

/// What is asked for, in turns.
const KINDS: [&str; 5] = ["direct", "nested", "executor", "stream", "none"];

/// Status and body of each answer, by connection.
type Answers = Vec<Vec<(u16, Vec<u8>)>>;

/// The tests.
pub fn cases() -> Vec<Case> {
    let kinds = ["tasks", "streams", "threads", "native"];
    let case = |kind: &'static str| {
        let needs = vec![Need::Program, Need::Kernel, Need::Python(BOTH)];
        case_of(format!("servers_that_are_looked_at_answer_the_same_{kind}"), needs, move || same(kind))
    };
    kinds.into_iter().map(case).collect()
}

fn start(kind: &'static str) -> Result<Server> {
    if kind == "native" {
        return Server::of(Command::new(targets::build("cpp_server")?), kind);
    }
    Server::start(kind, BOTH)
}

fn same(kind: &'static str) -> Result<()> {
    let alone = start(kind)?;
    let expected = ask_all(alone.port, || Ok(()))?;
    alone.end()?;
    for round in 0..if is_full() { 20 } else { 1 } {
        let server = start(kind)?;
        let attach = || {
            let tracer = Tracer::attach(server.running.pid())?.map(NEST_ALL)?;
            tracer.arguments(["--requests", "sockets", "--class", "Model", "--methods", "predict,transform"]).start()
        };
        // It comes, is killed, comes again, and goes, all in the middle of it.
        let answers = ask_all(server.port, || {
            let killed = attach()?;
            std::thread::sleep(Duration::from_millis(300));
            killed.running.signal(Signal::KILL)?;
            killed.running.finish()?;
            let stopped = attach()?;
            std::thread::sleep(Duration::from_millis(300));
            stopped.stop().map(drop)
        })?;
        ensure!(answers == expected, "round {round}: other answers than alone");
        let attached = attach()?;
        ask_all(server.port, || Ok(()))?;
        // It ends while it is looked at, with its threads in the middle of waiting.
        server.end().with_context(|| format!("round {round}"))?;
        let summary = attached.finish()?.summary;
        ensure!(summary.0["identity_holds"] == true && summary.lost() == 0, "{}", summary.0);
    }
    Ok(())
}

/// Asks over several connections at one time, while something else is done.
fn ask_all(port: u16, meanwhile: impl FnOnce() -> Result<()>) -> Result<Answers> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CONNECTIONS).map(|client| scope.spawn(move || ask(port, client * EACH))).collect();
        let done = meanwhile();
        let answers =
            clients.into_iter().map(|client| client.join().map_err(|_| anyhow::anyhow!("a client has ended"))?);
        let answers = answers.collect();
        done.and(answers)
    })
}

fn ask(port: u16, first: usize) -> Result<Vec<(u16, Vec<u8>)>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    let (mut unread, mut answers) = (Vec::new(), Vec::new());
    for number in first..first + EACH {
        let kind = KINDS[number % KINDS.len()];
        stream.write_all(format!("GET /{kind}/{number} HTTP/1.1\r\nHost: models\r\n\r\n").as_bytes())?;
        answers.push(whole_answer(&mut stream, &mut unread, "GET").with_context(|| format!("/{kind}/{number}"))?);
        // The conversation lasts as long as what is done meanwhile.
        std::thread::sleep(Duration::from_millis(8));
    }
    Ok(answers)
}
