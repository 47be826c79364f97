//! Processes that a traced one forks: followed, unless `--no-follow` is given.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::Value;
use tracer_tests::spans::Spans;
use tracer_tests::suite::{Case, Need, case, report};
use tracer_tests::targets::{Target, build};
use tracer_tests::tracer::{Attached, NEST_ALL, Trace, Tracer, ml_tracer};

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel];
    vec![
        case("forked_workers_are_followed", NEEDS, forked),
        case("workers_that_execute_a_program_are_followed", NEEDS, executed),
        case("workers_from_before_attach_are_followed", NEEDS, from_before),
        case("workers_of_a_command_are_followed", NEEDS, of_a_command),
        case("workers_are_left_alone_if_asked", NEEDS, left_alone),
        case("children_too_short_to_be_seen_are_counted", NEEDS, short_children),
        case("more_workers_than_there_is_room_for", NEEDS, too_many),
        case("a_helper_that_outlives_its_server_is_not_waited_for", NEEDS, helper),
        case("workers_that_have_the_name_of_their_server_come_with_it", NEEDS, by_name),
    ]
}

const REQUESTS: usize = 20;

fn start(workers: usize, more: &[&str]) -> Result<Target> {
    let (workers, requests) = (workers.to_string(), REQUESTS.to_string());
    let mut arguments = vec!["--workers", &workers, "--requests", &requests];
    arguments.extend(more);
    Target::start("cpp_workers", &arguments)
}

/// Spans of each process by its number, as the resource tells it.
fn spans_by_process(spans: &Spans) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for row in &spans.0 {
        *counts.entry(row.resource("process.pid").unwrap_or_default()).or_insert(0) += 1;
    }
    counts
}

/// Every worker has made so many predictions, and the parent one for each worker and batch.
fn check(trace: &Trace, parent: u32, workers: usize, batches: usize) -> Result<()> {
    trace.check_whole()?;
    let mut counts = spans_by_process(&trace.spans);
    let of_parent = counts.remove(&parent.to_string()).unwrap_or(0);
    ensure!(of_parent == 2 * workers * batches, "{of_parent} spans of the parent");
    ensure!(counts.len() == workers, "spans of {} workers: {counts:?}", counts.len());
    ensure!(counts.values().all(|count| *count == 2 * REQUESTS * batches), "{counts:?}");
    let lines = trace.spans.tree_lines();
    ensure!(lines.iter().all(|line| line == "Model.predict(Model.transform)"), "{lines:?}");
    Ok(())
}

/// Has the workers begin, and waits until the tracer says that it follows each.
fn begin(target: &mut Target, attached: &mut Attached, workers: usize) -> Result<()> {
    let began = Instant::now();
    target.batch()?;
    for _ in 0..workers {
        attached.running.wait_errors("following process")?;
    }
    report(&format!("{workers} workers followed {} ms after the first was asked for", began.elapsed().as_millis()));
    Ok(())
}

fn traced(more: &[&str]) -> Result<()> {
    let mut alone = start(2, more)?;
    (0..3).try_for_each(|_| alone.batch())?;
    let alone = alone.finish()?;
    let mut target = start(2, more)?;
    let pid = target.pid();
    let mut attached = Tracer::attach(pid)?.map(NEST_ALL)?.start()?;
    begin(&mut target, &mut attached, 2)?;
    (0..2).try_for_each(|_| target.batch())?;
    let finished = target.finish()?;
    ensure!(finished == alone, "traced: {finished:?}\nalone: {alone:?}");
    // The end of all of them ends the tracer.
    let trace = attached.finish()?;
    check(&trace, pid, 2, 2)?;
    let processes = trace.summary.0["processes"].as_array().map_or(0, Vec::len);
    ensure!(processes == 3 && trace.summary.0["not_followed"] == 0, "{}", trace.summary.0);
    ensure!(!trace.finished.errors.contains("warning"), "{}", trace.finished.errors);
    Ok(())
}

fn forked() -> Result<()> {
    traced(&[])
}

fn executed() -> Result<()> {
    traced(&["--exec"])
}

fn from_before() -> Result<()> {
    let mut target = start(3, &[])?;
    target.batch()?;
    let pid = target.pid();
    let attached = Tracer::attach(pid)?.map(NEST_ALL)?.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    check(&trace, pid, 3, 1)
}

fn of_a_command() -> Result<()> {
    let program = build("cpp_workers")?;
    let requests = REQUESTS.to_string();
    let words = ["--", program.to_str().unwrap_or_default(), "--requests", &requests, "--gate"];
    let mut attached = Tracer::run()?.map(NEST_ALL)?.arguments(words).start()?;
    attached.running.wait_output("ready")?;
    attached.running.send_line("go")?;
    attached.running.wait_output("ready")?;
    let followed =
        [attached.running.wait_errors("following process")?, attached.running.wait_errors("following process")?];
    attached.running.send_line("go")?;
    attached.running.wait_output("ready")?;
    let trace = attached.finish()?;
    let parent = followed[0].split_whitespace().rev().nth(2).map(|word| word.trim_end_matches(':').parse::<u32>());
    check(&trace, parent.unwrap_or(Ok(0))?, 2, 1)
}

fn left_alone() -> Result<()> {
    let mut target = start(2, &[])?;
    let pid = target.pid();
    let attached = Tracer::attach(pid)?.map(NEST_ALL)?.arguments(["--no-follow"]).start()?;
    (0..2).try_for_each(|_| target.batch())?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    let counts = spans_by_process(&trace.spans);
    ensure!(counts == BTreeMap::from([(pid.to_string(), 4)]), "{counts:?}");
    Ok(())
}

/// What ends within a millisecond is over before anybody can look at it; every such process is counted, those that share their
/// parent's memory too.
fn short_children() -> Result<()> {
    const EACH: usize = 5;
    let each = EACH.to_string();
    let mut target = Target::start("cpp_short_children", &["--children", &each])?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.batch()?;
    target.finish()?;
    let trace = attached.finish()?;
    trace.check_books()?;
    let followed = trace.summary.0["processes"].as_array().map_or(0, Vec::len) - 1;
    let unseen = trace.summary.0["not_followed"].as_u64().unwrap_or(0);
    ensure!(unseen >= 1, "some must be too short: {}", trace.summary.0);
    ensure!(followed as u64 + unseen == 3 * EACH as u64, "{followed} followed, {unseen} not: {}", trace.summary.0);
    ensure!(
        trace.finished.errors.contains(&format!("not followed: {unseen} forked processes")),
        "{:?}",
        trace.finished
    );
    Ok(())
}

fn by_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let name = format!("serving-{}", std::process::id());
    let program = folder.path().join(&name);
    fs::copy(build("cpp_workers")?, &program)?;
    let mut command = Command::new(&program);
    command.args(["--workers", "2", "--requests", "20", "--gate"]);
    let mut target = Target::start_command(command)?;
    target.batch()?;
    let summary = folder.path().join("summary");
    let parents = |more: &[&str]| {
        let words = ["attach", "--name", &name, "--duration", "100ms", "--summary", &summary.to_string_lossy()];
        let attached = ml_tracer([&words, more].concat())?;
        ensure!(attached.code == Some(0), "{attached:?}");
        let report: Value = serde_json::from_slice(&fs::read(&summary)?)?;
        let mut parents: Vec<Option<u64>> =
            report["processes"].as_array().into_iter().flatten().map(|it| it["forked_by"].as_u64()).collect();
        parents.sort_unstable();
        Ok(parents)
    };
    let server = Some(u64::from(target.pid()));
    let followed = parents(&[])?;
    ensure!(followed == [None, server, server], "{followed:?}");
    let all_named = parents(&["--no-follow"])?;
    ensure!(all_named == [None; 3], "{all_named:?}");
    target.finish().map(drop)
}

/// What has nothing to trace is no noise while its server runs, and does not keep the tracer when that has ended.
fn helper() -> Result<()> {
    let program = build("cpp_pipeline")?;
    let mut command = Command::new("sh");
    // The server comes from the shell, and the helper is its child.
    command.args(["-c", "sleep 60 </dev/null >/dev/null 2>&1 & exec \"$@\"", "sh"]);
    command.arg(program).args(["--requests", "20", "--gate"]);
    let mut target = Target::start_command(command)?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.batch()?;
    target.finish()?;
    let trace = attached.finish()?;
    trace.check_whole()?;
    ensure!(trace.finished.code == Some(0) && trace.summary.spans() > 0, "{:?}", trace.finished);
    let processes = trace.summary.0["processes"].as_array().map_or(0, Vec::len);
    ensure!(processes == 1 && trace.summary.0["not_followed"] == 0, "{}", trace.summary.0);
    ensure!(!trace.finished.errors.contains("following"), "{}", trace.finished.errors);
    Ok(())
}

/// Processes that one tracer has room for.
const ROOM: usize = 512;

fn too_many() -> Result<()> {
    let workers = ROOM + 44;
    let mut target = start(workers, &[])?;
    let pid = target.pid();
    let mut attached = Tracer::attach(pid)?.map(NEST_ALL)?.start()?;
    begin(&mut target, &mut attached, ROOM - 1)?;
    target.batch()?;
    let trace = attached.stop()?;
    let finished = target.finish()?;
    ensure!(finished.code == Some(0), "{finished:?}");
    trace.check_whole()?;
    let counts = spans_by_process(&trace.spans);
    ensure!(counts.len() == ROOM, "spans of {} processes", counts.len());
    ensure!(trace.summary.0["not_followed"] == workers - (ROOM - 1), "{}", trace.summary.0["not_followed"]);
    let said = trace.finished.errors.matches("ml-tracer: warning").count();
    ensure!(said == 1, "said {said} times: {}", trace.finished.errors);
    Ok(())
}
