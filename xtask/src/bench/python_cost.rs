//! What tracing costs a Python process: code that is not traced, a span, a real prediction, and the tracer itself.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::python_target::PythonTarget;
use super::statistics::Spread;
use super::sustained::{memory, processor_seconds};
use super::target::{Place, pinned};
use super::tracer::{Tracer, start, wait_for_line};
use crate::process::Process;

/// Units of work in a round.
const UNTRACED: u32 = 4_000;
const CALLS: u32 = 300;
const PLAIN_CALLS: u32 = 20_000;
const PREDICTIONS: u32 = 20;
const SWITCHES: u32 = 1_000;
/// Rounds before those that count.
const WARM_UP: usize = 2;
/// The tracer finds out by watching which methods are called: the target is busy meanwhile.
const BUSY_MS: u32 = 1_500;
/// How long it may take until the method of `calls` is among those watched.
const MOST_FOR_CHOICE: Duration = Duration::from_secs(60);
/// A call that a watchpoint sees takes more than this; one that it does not, a twentieth.
const SEEN_NS: f64 = 1_500.0;
/// Seconds of the windows that are measured with `--duty`: two periods of 0.1 s of 2 s.
const DUTY_SECONDS: f64 = 4.0;

/// How often things are measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Interleaved rounds of each configuration.
    pub rounds: usize,
    /// Times that the tracer changes sides between two processes, to measure code that is not traced.
    pub sides: usize,
    /// Attachments.
    pub attachments: usize,
    /// Seconds of rest and of load.
    pub seconds: u32,
}

/// What was measured.
pub struct PythonCosts {
    /// Version of the interpreter.
    pub interpreter: String,
    /// Rounds that count.
    pub rounds: usize,
    /// Time of untraced code with four watchpoints live, as a ratio of without.
    pub untraced: Spread,
    /// Nanoseconds of a call of an almost empty method.
    pub call: Call,
    /// Nanoseconds of a change between two threads of a process that is not traced, and what four watchpoints add.
    pub switch: (Spread, Spread),
    /// What ml-tracer's four spans add to a prediction, as a ratio of what four spans of the SDK add.
    pub prediction_above_sdk: Spread,
    /// Nanoseconds of a prediction, and ratios to an untraced one.
    pub prediction: Vec<(&'static str, Spread, Spread)>,
    /// Calls that ml-tracer lost, in all configurations.
    pub lost: u64,
    /// The tracer.
    pub tracer: TracerCosts,
}

/// Nanoseconds of a call of an almost empty method.
pub struct Call {
    /// Not traced.
    pub plain: Spread,
    /// An empty program on the watchpoint.
    pub floor: Spread,
    /// ml-tracer.
    pub watched: Spread,
    /// OpenTelemetry's SDK in the process.
    pub sdk: Spread,
    /// What ml-tracer adds, as a ratio of what the empty program adds.
    pub above_floor: Spread,
    /// The same of what the SDK adds.
    pub above_sdk: Spread,
}

/// What the tracer takes for itself.
pub struct TracerCosts {
    /// Milliseconds from its start until all watchpoints were live, with the calibration.
    pub attach_ms: Spread,
    /// Milliseconds for the look at the process alone.
    pub look_ms: Spread,
    /// Share of a processor, and MiB, while the target rests.
    pub at_rest: (f64, f64),
    /// The same while it predicts all the time.
    pub at_work: (f64, f64),
    /// Spans a second meanwhile.
    pub spans_per_second: f64,
}

/// A process and the way it is traced.
pub struct Side {
    /// The process.
    pub target: PythonTarget,
    tracer: Option<Tracer>,
    /// Ends when it is dropped.
    _floor: Option<Process>,
}

impl Side {
    /// A process that is not traced.
    ///
    /// # Errors
    /// When it does not start.
    pub fn plain(place: &Place, python: &Path) -> Result<Self> {
        Ok(Self { target: PythonTarget::start(place, python)?, tracer: None, _floor: None })
    }

    fn floor(place: &Place, python: &Path) -> Result<Self> {
        let target = PythonTarget::start(place, python)?;
        let mut command = pinned(&[place.tracer_processor], &place.tracer);
        command.args(["place-empty-probes", &format!("--pid={}", target.pid()), &format!("--watch={}", target.code)]);
        // Nothing is probed in it.
        command.arg("--file").arg(python);
        let (process, mut errors) = start(command.stdin(Stdio::piped()))?;
        wait_for_line(&mut errors, "ml-tracer: placed")?;
        Ok(Self { target, tracer: None, _floor: Some(process) })
    }

    fn traced(place: &Place, python: &Path, name: &str, more: &[String]) -> Result<Self> {
        let mut side = Self::plain(place, python)?;
        side.attach(place, name, more)?;
        Ok(side)
    }

    /// Attaches while the target is busy, so that the calibration sees calls.
    fn attach(&mut self, place: &Place, name: &str, more: &[String]) -> Result<()> {
        self.target.begin("busy", BUSY_MS)?;
        self.attach_idle(place, name, more)?;
        self.target.end().map(drop)
    }

    /// Attaches to it as it is.
    ///
    /// # Errors
    /// When the tracer ends before all probes are live.
    pub fn attach_idle(&mut self, place: &Place, name: &str, more: &[String]) -> Result<()> {
        self.tracer = Some(Tracer::attach(place, &[place.tracer_processor], self.target.pid(), name, more)?);
        Ok(())
    }

    /// Waits until the method of `calls` is watched.
    fn wait_until_seen(&mut self) -> Result<()> {
        let began = Instant::now();
        while self.target.work("calls", CALLS)? < SEEN_NS {
            ensure!(
                began.elapsed() < MOST_FOR_CHOICE,
                "the tracer does not watch a method that is called all the time"
            );
            self.target.work("busy", 200)?;
        }
        Ok(())
    }

    /// Ends the tracer and gives its summary.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn let_go(&mut self) -> Result<Option<Value>> {
        self.tracer.take().map(Tracer::finish).transpose()
    }
}

/// Measures.
///
/// # Errors
/// When something does not start, or ends.
pub fn measure(place: &Place, python: &Path, effort: Effort) -> Result<PythonCosts> {
    eprintln!("==> Python: {} rounds of 4 configurations", effort.rounds);
    let (tracer, interpreter) = tracer_costs(place, python, effort)?;
    let untraced = untraced_code(place, python, effort.sides)?;
    let mut plain = Side::plain(place, python)?;
    let mut floor = Side::floor(place, python)?;
    let mut watched = Side::traced(place, python, "python_watch", &[])?;
    let mut frames = Side::traced(place, python, "python_frames", &["--python=frames".to_owned()])?;
    watched.wait_until_seen()?;
    let mut rounds = Rounds::default();
    for round in 0..effort.rounds + WARM_UP {
        let one = Round {
            plain: plain.target.work("calls", PLAIN_CALLS)?,
            floor: floor.target.work("calls", CALLS)?,
            watched: watched.target.work("calls", CALLS)?,
            sdk: plain.target.work("calls-sdk", CALLS)?,
            prediction: plain.target.work("pipeline", PREDICTIONS)?,
            prediction_watched: watched.target.work("pipeline", PREDICTIONS)?,
            prediction_frames: frames.target.work("pipeline", PREDICTIONS)?,
            prediction_sdk: plain.target.work("pipeline-sdk", PREDICTIONS)?,
            switch: plain.target.work("switches", SWITCHES)?,
            switch_watched: watched.target.work("switches", SWITCHES)?,
        };
        if round >= WARM_UP {
            rounds.0.push(one);
        }
    }
    let mut lost = 0;
    for side in [&mut watched, &mut frames] {
        lost += figure(&side.let_go()?.context("it was traced")?, "lost")?;
    }
    drop((floor, watched, frames));
    let (duty, duty_ratio, lost_in_windows) = in_windows(place, python, &mut plain, effort.sides)?;
    let mut prediction = vec![
        ("not traced", rounds.spread(|round| round.prediction)?, rounds.spread(|_| 1.0)?),
        (
            "watch mode",
            rounds.spread(|round| round.prediction_watched)?,
            rounds.ratio(|round| round.prediction_watched)?,
        ),
        (
            "in-process SDK, 4 spans",
            rounds.spread(|round| round.prediction_sdk)?,
            rounds.ratio(|round| round.prediction_sdk)?,
        ),
        (
            "`--python frames`",
            rounds.spread(|round| round.prediction_frames)?,
            rounds.ratio(|round| round.prediction_frames)?,
        ),
    ];
    prediction.push(("`--python frames --duty 5%`", duty, duty_ratio));
    Ok(PythonCosts {
        interpreter,
        rounds: effort.rounds,
        untraced,
        call: Call {
            plain: rounds.spread(|round| round.plain)?,
            floor: rounds.spread(|round| round.floor)?,
            watched: rounds.spread(|round| round.watched)?,
            sdk: rounds.spread(|round| round.sdk)?,
            above_floor: rounds.spread(|round| (round.watched - round.plain) / (round.floor - round.plain))?,
            above_sdk: rounds.spread(|round| (round.watched - round.plain) / (round.sdk - round.plain))?,
        },
        switch: (rounds.spread(|round| round.switch)?, rounds.spread(|round| round.switch_watched - round.switch)?),
        prediction_above_sdk: rounds.spread(|round| {
            (round.prediction_watched - round.prediction) / (round.prediction_sdk - round.prediction)
        })?,
        prediction,
        lost: lost + lost_in_windows,
        tracer,
    })
}

/// Nanoseconds of one round.
struct Round {
    plain: f64,
    floor: f64,
    watched: f64,
    sdk: f64,
    prediction: f64,
    prediction_watched: f64,
    prediction_frames: f64,
    prediction_sdk: f64,
    switch: f64,
    switch_watched: f64,
}

#[derive(Default)]
struct Rounds(Vec<Round>);

impl Rounds {
    fn spread(&self, of: impl Fn(&Round) -> f64) -> Result<Spread> {
        Spread::of(self.0.iter().map(of)).context("no rounds")
    }

    fn ratio(&self, of: impl Fn(&Round) -> f64) -> Result<Spread> {
        self.spread(|round| of(round) / round.prediction)
    }
}

/// Code that is not traced, with four watchpoints live and without. Two processes of the same program differ by some per
/// cent for good, so the tracer changes sides: the process that was traced is then not, and the other is. What two turns
/// have in common is what the tracer does.
fn untraced_code(place: &Place, python: &Path, times: usize) -> Result<Spread> {
    const ROUNDS_IN_TURN: usize = 12;
    let mut sides = [Side::plain(place, python)?, Side::plain(place, python)?];
    let mut turns: Vec<Vec<f64>> = Vec::new();
    for _ in 0..2 * times {
        let [traced, other] = &mut sides;
        traced.attach(place, "python_untraced", &[])?;
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS_IN_TURN {
            let without = other.target.work("untraced", UNTRACED)?;
            let with = traced.target.work("untraced", UNTRACED)?;
            ratios.push(with / without);
        }
        turns.push(ratios);
        let summary = traced.let_go()?.context("it was traced")?;
        ensure!(watched_codes(&summary) == 4, "four watchpoints were not live: {summary}");
        sides.reverse();
    }
    // A turn with the one process traced and a turn with the other make a pair.
    let pairs = turns.chunks_exact(2).flat_map(|pair| {
        let [one, other] = pair else { return Vec::new() };
        one.iter().zip(other).map(|(one, other)| (one * other).sqrt()).collect()
    });
    Spread::of(pairs).context("no turns")
}

fn watched_codes(summary: &Value) -> usize {
    summary.pointer("/python/0/watched").and_then(Value::as_array).map_or(0, Vec::len)
}

fn figure(summary: &Value, name: &str) -> Result<u64> {
    summary.get(name).and_then(Value::as_u64).with_context(|| format!("no `{name}` in the summary"))
}

/// Predictions while probes are live in windows: means over whole periods.
fn in_windows(place: &Place, python: &Path, plain: &mut Side, times: usize) -> Result<(Spread, Spread, u64)> {
    let more = ["--python=frames".to_owned(), "--duty=5%".to_owned()];
    let mut traced = Side::traced(place, python, "python_windows", &more)?;
    let (mut means, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let one = plain.target.work("pipeline", PREDICTIONS)?;
        let count = (DUTY_SECONDS * 1e9 / one) as u32;
        let mean = traced.target.work("pipeline", count)?;
        let without = plain.target.work("pipeline", count / 4)?;
        means.push(mean);
        ratios.push(mean / without);
    }
    let lost = figure(&traced.let_go()?.context("it was traced")?, "lost")?;
    Ok((Spread::of(means).context("no means")?, Spread::of(ratios).context("no ratios")?, lost))
}

/// The tracer's own costs, and the interpreter that it found.
fn tracer_costs(place: &Place, python: &Path, effort: Effort) -> Result<(TracerCosts, String)> {
    let mut side = Side::plain(place, python)?;
    let (mut attach_ms, mut look_ms) = (Vec::new(), Vec::new());
    let processors = [place.tracer_processor, place.target_processor];
    for _ in 0..effort.attachments {
        let tracer = Tracer::attach(place, &processors, side.target.pid(), "python_attach", &[])?;
        attach_ms.push(tracer.attach_ms);
        tracer.finish()?;
        look_ms.push(look(place, side.target.pid())?);
    }
    side.attach(place, "python_tracer", &[])?;
    let pid = side.tracer.as_ref().context("it is traced")?.process.0.id();
    let seconds = f64::from(effort.seconds);
    let before = processor_seconds(pid)?;
    std::thread::sleep(Duration::from_secs(u64::from(effort.seconds)));
    let at_rest = ((processor_seconds(pid)? - before) / seconds, memory(pid, "VmRSS")?);
    let one = side.target.work("pipeline", PREDICTIONS)?;
    let count = (seconds * 1e9 / one) as u32;
    let before = processor_seconds(pid)?;
    let took = side.target.work("pipeline", count)? * f64::from(count) / 1e9;
    let at_work = ((processor_seconds(pid)? - before) / took, memory(pid, "VmRSS")?);
    let summary = side.let_go()?.context("it was traced")?;
    let interpreter = summary.pointer("/python/0/interpreter").and_then(Value::as_str).unwrap_or("CPython").to_owned();
    let spread = |measurements: Vec<f64>| Spread::of(measurements).context("no measurements");
    let costs = TracerCosts {
        attach_ms: spread(attach_ms)?,
        look_ms: spread(look_ms)?,
        at_rest,
        at_work,
        // A prediction is four spans.
        spans_per_second: 4.0 * f64::from(count) / took,
    };
    Ok((costs, interpreter))
}

/// Milliseconds of one look at a process.
fn look(place: &Place, pid: u32) -> Result<f64> {
    let map = crate::workspace::root().join("tests/targets/python_span_cost/map.yaml");
    let mut command = pinned(&[place.tracer_processor], &place.tracer);
    command.args(["soak", &format!("--pid={pid}"), "--cycles=0"]).arg("--map").arg(map);
    let said: Value = serde_json::from_str(&crate::provision::output_of(&mut command)?)?;
    said.get("look_ms").and_then(Value::as_f64).context("no `look_ms`")
}
