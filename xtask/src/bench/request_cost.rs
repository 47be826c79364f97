//! What looking at requests costs a FastAPI server, and every system call of the machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::statistics::Spread;
use super::target::{Place, pinned};
use super::tracer::Tracer;
use crate::process::{Process, poll};
use crate::workspace;

/// Clients, each with one connection, which ask one after the other.
const CLIENTS: usize = 4;

/// A window of asking.
const WINDOW: Duration = Duration::from_secs(2);

/// Time in which a tracer that has just attached chooses what it sees.
const SETTLING: Duration = Duration::from_secs(2);

/// System calls in one measurement.
const SYSTEM_CALLS: u32 = 300_000;

/// A prediction of one row by a pipeline of three steps.
const BODY: &str = "[[0.5,1.5,2.5,3.5,4.5,0.5,1.5,2.5]]";

/// How the server is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracing {
    /// Not at all.
    Untraced,
    /// The calls of its models.
    Calls,
    /// These, and its requests.
    Requests,
}

impl Tracing {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Untraced, Self::Calls, Self::Requests];

    /// In a table.
    pub fn words(self) -> &'static str {
        match self {
            Self::Untraced => "untraced",
            Self::Calls => "ml-tracer",
            Self::Requests => "ml-tracer, `--requests sockets`",
        }
    }
}

/// What was measured.
pub struct RequestCosts {
    windows: [Vec<Window>; Tracing::ALL.len()],
}

/// What came of one window.
struct Window {
    /// Requests a second.
    rate: f64,
    /// Milliseconds of a request.
    median: f64,
    /// Of a hundred requests, one takes longer.
    longest: f64,
    /// Nanoseconds of the shortest system call of a process that is not traced.
    system_call: f64,
}

impl RequestCosts {
    fn of(&self, tracing: Tracing, figure: fn(&Window) -> f64) -> Vec<f64> {
        self.windows[tracing as usize].iter().map(figure).collect()
    }

    /// Requests a second, and the milliseconds of one: in the middle, and of the longest of a hundred.
    pub fn figures(&self, tracing: Tracing) -> [Option<Spread>; 3] {
        let figures: [fn(&Window) -> f64; 3] = [|window| window.rate, |window| window.median, |window| window.longest];
        figures.map(|figure| Spread::of(self.of(tracing, figure)))
    }

    /// Requests a second, as a ratio of another configuration in the same round.
    pub fn rate(&self, above: Tracing, below: Tracing) -> Option<Spread> {
        Spread::of_ratios(&self.of(above, |window| window.rate), &self.of(below, |window| window.rate))
    }

    /// The same of the time of a system call.
    pub fn system_call(&self, above: Tracing, below: Tracing) -> Option<Spread> {
        Spread::of_ratios(&self.of(above, |window| window.system_call), &self.of(below, |window| window.system_call))
    }
}

/// Measures in turns.
///
/// # Errors
/// When something does not start, or ends.
pub fn measure(place: &Place, environment: &Path, rounds: usize) -> Result<RequestCosts> {
    eprintln!("==> requests: {rounds} rounds of 3 configurations");
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = pinned(&[place.target_processor], &environment.join("bin/python"));
    command.arg(workspace::root().join("tests/targets/model_server/server.py")).arg(port.to_string());
    command.env("OMP_NUM_THREADS", "1").stdin(Stdio::null());
    let server = Process(command.spawn().context("cannot start the model server")?);
    poll("the model server to answer", || Ok(Client::connect(port).and_then(|mut client| client.ask()).ok()))?;
    let mut costs = RequestCosts { windows: Default::default() };
    for round in 0..rounds {
        for turn in 0..Tracing::ALL.len() {
            let tracing = Tracing::ALL[(round + turn) % Tracing::ALL.len()];
            let more: &[String] = match tracing {
                Tracing::Untraced => &[],
                Tracing::Calls => &["--requests=off".to_owned()],
                Tracing::Requests => &["--requests=sockets".to_owned()],
            };
            let tracer = match tracing {
                Tracing::Untraced => None,
                Tracing::Calls | Tracing::Requests => {
                    Some(Tracer::attach(place, &[place.tracer_processor], server.0.id(), "requests", more)?)
                }
            };
            window(port, SETTLING)?;
            costs.windows[tracing as usize].push(window(port, WINDOW)?);
            if let Some(tracer) = tracer {
                let summary = tracer.finish()?;
                let seen = summary.pointer("/requests/seen").and_then(serde_json::Value::as_u64).unwrap_or(0);
                ensure!((seen > 0) == (tracing == Tracing::Requests), "{seen} requests were seen");
            }
        }
    }
    Ok(costs)
}

/// Asks over several connections for so long.
fn window(port: u16, time: Duration) -> Result<Window> {
    let system_call = system_call();
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let taken = std::thread::scope(|scope| {
        let client = || -> Result<Vec<Duration>> {
            let mut client = Client::connect(port)?;
            let mut taken = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                client.ask()?;
                taken.push(asked.elapsed());
            }
            Ok(taken)
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let ended = clients.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client has panicked"))?);
        ended.collect::<Result<Vec<_>>>()
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let mut taken: Vec<f64> = taken.into_iter().flatten().map(|taken| taken.as_secs_f64() * 1e3).collect();
    taken.sort_by(f64::total_cmp);
    let at = |share: f64| taken.get((taken.len() as f64 * share) as usize).copied().context("nothing was answered");
    Ok(Window { rate: taken.len() as f64 / seconds, median: at(0.5)?, longest: at(0.99)?, system_call })
}

/// Nanoseconds of a system call of this process, which nobody traces.
fn system_call() -> f64 {
    let began = Instant::now();
    for _ in 0..SYSTEM_CALLS {
        std::hint::black_box(std::os::unix::process::parent_id());
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(SYSTEM_CALLS)
}

/// One connection that stays open.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn ask(&mut self) -> Result<()> {
        let head = "POST /predict/pipeline HTTP/1.1\r\nHost: models\r\nContent-Type: application/json\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{BODY}", BODY.len());
        self.0.get_mut().write_all(request.as_bytes())?;
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            ensure!(self.0.read_line(&mut line)? > 0, "the server has closed the connection");
            let line = line.trim_end().to_ascii_lowercase();
            ensure!(!line.starts_with("http/") || line.contains(" 200"), "{line}");
            if let Some(bytes) = line.strip_prefix("content-length:") {
                length = bytes.trim().parse()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        Ok(self.0.read_exact(&mut body)?)
    }
}
