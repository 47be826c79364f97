//! How fast records become events, spans and bytes: a tape of a small tree, replayed from memory.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::receiver::Receiver;
use super::statistics::Spread;
use super::target::{Place, Target, pinned};
use super::tracer::Tracer;
use crate::provision;

/// Batches on the tape, of so many calls with three calls inside.
const BATCHES: u32 = 60;
const TREES_IN_BATCH: u32 = 1_000;

/// Spans a second, by where they went.
pub struct Throughput {
    /// Records on the tape.
    pub records: u64,
    /// Decoded and assembled on one processor, and forgotten.
    pub assembled: Spread,
    /// Written to a file on two processors: one of them does everything up to the text, one writes it.
    pub json_lines: Spread,
    /// Taken by a collector on loopback, by OTLP over HTTP.
    pub otlp: Spread,
    /// Bytes of a span in OTLP.
    pub otlp_bytes: f64,
}

/// Measures.
///
/// # Errors
/// When the tape cannot be recorded or replayed.
pub fn measure(place: &Place, replays: usize) -> Result<Throughput> {
    eprintln!("==> throughput: {replays} replays for each destination");
    record(place)?;
    let one = [place.tracer_processor];
    let two = [place.tracer_processor, place.target_processor];
    let (records, assembled) = replay(place, &one, replays, None)?;
    let file = format!("jsonl={}", place.file("replay.jsonl").display());
    let (_, json_lines) = replay(place, &two, replays, Some(&file))?;
    let receiver = Receiver::start().context("cannot listen on loopback")?;
    let (_, otlp) = replay(place, &two, replays, Some(&format!("otlp={}", receiver.url)))?;
    let delivered: f64 = otlp.iter().map(|round| round.delivered).sum();
    Ok(Throughput {
        records,
        assembled: rate(&assembled)?,
        json_lines: rate(&json_lines)?,
        otlp: rate(&otlp)?,
        otlp_bytes: receiver.bytes() as f64 / delivered,
    })
}

fn record(place: &Place) -> Result<()> {
    let mut target = Target::start(place, &place.copy_of_target("tape")?)?;
    let more =
        [format!("--map={}", place.map.display()), format!("--record-tape={}", place.file("bench.tape").display())];
    let tracer = Tracer::attach(place, &[place.tracer_processor], target.pid(), "tape", &more)?;
    for _ in 0..BATCHES {
        target.calls("pipeline", TREES_IN_BATCH)?;
        std::thread::sleep(Duration::from_millis(10));
    }
    let lost = tracer.finish()?.get("lost").and_then(Value::as_u64);
    ensure!(lost == Some(0), "{lost:?} calls are not on the tape");
    Ok(())
}

struct Round {
    seconds: f64,
    delivered: f64,
}

fn replay(place: &Place, processors: &[usize], times: usize, export: Option<&str>) -> Result<(u64, Vec<Round>)> {
    let mut command: Command = pinned(processors, &place.tracer);
    command.arg("replay").arg(place.file("bench.tape")).arg(format!("--measure={times}"));
    command.args(export.map(|destination| format!("--export={destination}")));
    let answer: Value = serde_json::from_str(&provision::output_of(&mut command)?)?;
    let records = answer.get("records").and_then(Value::as_u64).context("no number of records")?;
    let rounds = answer.get("rounds").and_then(Value::as_array).context("no rounds")?.iter().map(|round| {
        let figure = |name: &str| round.get(name).and_then(Value::as_f64).with_context(|| format!("no `{name}`"));
        Ok(Round { seconds: figure("seconds")?, delivered: figure("delivered")? })
    });
    Ok((records, rounds.collect::<Result<_>>()?))
}

fn rate(rounds: &[Round]) -> Result<Spread> {
    Spread::of(rounds.iter().map(|round| round.delivered / round.seconds)).context("no rounds")
}
