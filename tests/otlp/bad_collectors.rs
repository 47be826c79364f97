//! Collectors that are down, slow, or answer nonsense: the target is not delayed, memory stays bounded, the tracer
//! ends in time, and the loss is counted and printed.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tracer_tests::bad_collector::{BadCollector, Misbehaviour};
use tracer_tests::receiver::unused_address;
use tracer_tests::suite::{Case, Need, case, report};
use tracer_tests::targets::Target;
use tracer_tests::tracer::{NEST_ALL, Summary, Tracer};

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel];
    vec![
        case("collector_that_is_down", NEEDS, down),
        case("collector_that_is_silent", NEEDS, silent),
        case("collector_that_answers_garbage", NEEDS, garbage),
        case("collector_that_is_overloaded", NEEDS, overloaded),
        case("collector_that_hangs_up", NEEDS, hangs_up),
        case("collector_with_an_endless_answer", NEEDS, endless),
    ]
}

/// 36,000 spans on each of two batches: more than any queue holds.
const LOAD: &[&str] = &["--threads", "2", "--requests", "6000"];

/// Memory of the tracer with a queue full of spans.
const MEMORY_KIB: u64 = 96 * 1024;

struct Seen {
    /// What a batch of the target took at best.
    batch: Duration,
    /// Peak memory of the tracer.
    memory_kib: u64,
    /// How long the tracer took to give up what was left.
    ending: Duration,
}

/// Traces two batches into `export`.
fn measure(export: Option<&str>, protocol: &str) -> Result<Seen> {
    let mut target = Target::start("cpp_threads", LOAD)?;
    let mut tracer = Tracer::attach(target.pid())?.map(NEST_ALL)?;
    if let Some(export) = export {
        tracer = tracer.arguments(["--export", &format!("otlp={export}")]);
    }
    tracer = tracer.variable("OTEL_EXPORTER_OTLP_PROTOCOL", protocol).variable("OTEL_EXPORTER_OTLP_TIMEOUT", "1000");
    let attached = tracer.start()?;
    let mut batch = Duration::MAX;
    for _ in 0..2 {
        let started = Instant::now();
        target.batch()?;
        batch = batch.min(started.elapsed());
    }
    let status = fs::read_to_string(format!("/proc/{}/status", attached.running.pid()))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in the status")?;
    let memory_kib = peak.trim().trim_end_matches("kB").trim().parse()?;
    let started = Instant::now();
    let trace = attached.stop()?;
    let ending = started.elapsed();
    ensure!(ending < Duration::from_secs(20), "the tracer took {ending:?} to end");
    target.finish()?;
    trace.check_books()?;
    ensure!(trace.summary.entries() == 2 * 2 * 6_000 * 3, "{:?}", trace.summary);
    if export.is_some() {
        let lost = lost_by_otlp(&trace.summary).with_context(|| format!("{:?}", trace.summary))?;
        ensure!(lost > 0, "nothing was lost: {:?}", trace.summary);
        let told = trace.finished.errors.lines().any(|line| line.contains("otlp") && line.contains(&lost.to_string()));
        ensure!(told, "no line says that otlp lost {lost} spans: {}", trace.finished.errors);
    }
    Ok(Seen { batch, memory_kib, ending })
}

/// Spans that did not reach the collector; with those that did they must be all.
fn lost_by_otlp(summary: &Summary) -> Result<u64> {
    let exports = summary.0.get("exports").and_then(Value::as_array).context("no exports in the summary")?;
    let otlp = exports.iter().find(|export| export.get("sink").and_then(Value::as_str) == Some("otlp"));
    let number = |key: &str| otlp.and_then(|export| export.get(key)?.as_u64()).with_context(|| format!("no {key}"));
    let (delivered, lost) = (number("delivered")?, number("lost")?);
    // A machine that is busy may lose calls before: what stands for one as a parent is delivered like the others.
    let made = summary.spans() + summary.open() + summary.placeholders();
    ensure!(delivered + lost == made, "{delivered} delivered, {lost} lost");
    Ok(lost)
}

/// Compares with a run that has no collector at all; the best batch of two, so that a busy machine forgives.
fn survives(name: &str, address: &str) -> Result<()> {
    let without = measure(None, "grpc")?;
    for protocol in ["http/protobuf", "grpc"] {
        let with = measure(Some(address), protocol)?;
        report(&format!(
            "{name}, {protocol}: {:.0} ms a batch, {:.0} ms without; {:.1} MiB at most; ended in {:.1} s",
            with.batch.as_secs_f64() * 1e3,
            without.batch.as_secs_f64() * 1e3,
            with.memory_kib as f64 / 1024.0,
            with.ending.as_secs_f64()
        ));
        // A target that waits for the collector would take minutes: a time limit of a second for each few hundred spans.
        let limit = without.batch * 3 + Duration::from_secs(1);
        ensure!(with.batch < limit, "{protocol}: a batch took {:?}, {:?} without", with.batch, without.batch);
        ensure!(with.memory_kib < MEMORY_KIB, "{protocol}: {} KiB of memory", with.memory_kib);
    }
    Ok(())
}

fn down() -> Result<()> {
    survives("down", &format!("http://{}", unused_address()?))
}

fn misbehaving(misbehaviour: Misbehaviour) -> Result<()> {
    let collector = BadCollector::start(misbehaviour)?;
    survives(&format!("{misbehaviour:?}"), &collector.address)?;
    ensure!(collector.connections() > 0, "nobody came");
    Ok(())
}

fn silent() -> Result<()> {
    misbehaving(Misbehaviour::Silent)
}

fn garbage() -> Result<()> {
    misbehaving(Misbehaviour::Garbage)
}

fn overloaded() -> Result<()> {
    misbehaving(Misbehaviour::Overloaded)
}

fn hangs_up() -> Result<()> {
    misbehaving(Misbehaviour::HangsUp)
}

fn endless() -> Result<()> {
    misbehaving(Misbehaviour::EndlessBody)
}
