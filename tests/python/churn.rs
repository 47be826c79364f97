//! Workers that come and go for a long time: those that stay are seen whole, and nothing is left of those that are gone.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tracer_tests::bpf_maps::bpf_maps;
use tracer_tests::process::{Running, poll};
use tracer_tests::python::{CHAIN, Interpreter};
use tracer_tests::suite::{Case, Need, case_of, is_full, report};
use tracer_tests::tracer::Tracer;
use tracer_tests::workspace;

use crate::resources::Resources;

/// The interpreter with all modes.
const PYTHON: Interpreter = Interpreter::Environment("sklearn-3.11");

/// Workers at a time, besides those that stay.
const OTHERS: &str = "4";

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = || vec![Need::Program, Need::Kernel, Need::Python(PYTHON), Need::Command("bpftool")];
    let case = |(name, mode): (&str, &'static str)| case_of(name.to_owned(), needs(), move || churn(mode));
    let modes = [
        ("churn_of_workers_watched", "watch"),
        ("churn_of_workers_in_frames_mode", "frames"),
        ("churn_of_workers_in_chain_mode", CHAIN),
    ];
    modes.map(case).into()
}

/// Seconds before what the tracer holds is looked at, and from then to the second look.
fn seconds() -> (u32, u32) {
    if is_full() { (60, 240) } else { (4, 6) }
}

fn churn(mode: &str) -> Result<()> {
    let mut command = PYTHON.command("targets/python_churn/target.py")?;
    command.arg(OTHERS).args((mode == CHAIN).then_some("through-c"));
    let mut target = Running::start(command)?;
    let stay: Vec<String> =
        target.wait_output("ready")?.split(' ').skip(1).map(|word| word.trim().to_owned()).collect();
    // Named, too: with it the tracer goes on when all the others have ended.
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    let last = Running::start(sleep)?;
    let attached = Tracer::attach(target.pid())?.map_file(&workspace::tests("targets/python_churn/map.yaml"))?;
    let attached = attached.arguments(["--pid", &last.pid().to_string(), "--follow", "--python", mode]).start()?;
    let tracer = attached.running.pid();
    order(&mut target, "go")?;

    let (first, second) = seconds();
    work(&mut target, first)?;
    wait_for_ends(tracer, 3)?;
    let before = Resources::lasting(tracer)?;
    work(&mut target, second)?;
    wait_for_ends(tracer, 3)?;
    before.is_much_like(Resources::lasting(tracer)?)?;

    let told = order(&mut target, "stop")?;
    target.close_input();
    drop(target.finish()?);
    wait_for_ends(tracer, 0)?;
    ensure!(guards(tracer)? == 0, "guards are left");
    let followed = [last.pid()];
    for map in bpf_maps(tracer)?.into_iter().filter(|map| map.kind != "array") {
        // Whose forks are counted: the one that goes on.
        let expected = if map.name == "FOLLOWED" { followed.len() } else { 0 };
        let first = map.elements.first().map(|element| &element["key"]);
        ensure!(map.elements.len() == expected, "{} of {}: {first:?}", map.elements.len(), map.name);
    }

    let trace = attached.stop()?;
    trace.check_whole()?;
    for (worker, count) in stay.iter().zip(told.split(' ').skip(1)) {
        let count: usize = count.trim().parse().with_context(|| format!("a number of predictions: {told}"))?;
        let of_worker = |name: &str| {
            let rows = trace.spans.named(name);
            rows.filter(|row| row.resource("process.pid").as_ref() == Some(worker)).count()
        };
        let seen = (of_worker("Sum.predict"), of_worker("Scale.transform"));
        ensure!(seen == (count, count), "{seen:?} spans of {count} predictions of worker {worker}");
    }
    let processes = trace.summary.0["processes"].as_array().map_or(0, Vec::len);
    report(&format!("{processes} processes were followed, {} were not", trace.summary.0["not_followed"]));
    ensure!(processes > 6, "{}", trace.summary.0);
    Ok(())
}

/// Seconds of one order.
const PIECE: u32 = 30;

/// Has workers come and go for so many seconds.
fn work(target: &mut Running, seconds: u32) -> Result<()> {
    (0..seconds.div_ceil(PIECE)).try_for_each(|_| order(target, &format!("churn {}", seconds.min(PIECE))).map(drop))
}

/// Has the target do something; gives its answer.
fn order(target: &mut Running, what: &str) -> Result<String> {
    target.send_line(what)?;
    target.wait_output("ready")
}

/// Waits until the tracer has slots for so many processes, and has taken away all that belonged to others.
fn wait_for_ends(tracer: u32, processes: usize) -> Result<()> {
    poll("the ends of processes", || {
        let maps = bpf_maps(tracer)?;
        let slots = maps.iter().find(|map| map.name == "PROCESSES").context("the map of processes")?.elements.len();
        Ok((slots <= processes && guards(tracer)? <= processes).then_some(()))
    })?;
    // What takes probes away goes on for a moment.
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// Guards that the tracer has posted.
fn guards(tracer: u32) -> Result<usize> {
    let children = std::fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children"))?;
    let is_guard = |pid: &&str| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("ml-tracer-guard"))
    };
    Ok(children.split_whitespace().filter(is_guard).count())
}
