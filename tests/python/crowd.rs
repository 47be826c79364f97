//! What happens to one process stays with it: workers that die, named processes that fail, tables that are full, and calls that
//! are open when probes come and go.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use tracer_tests::process::Running;
use tracer_tests::python::Interpreter;
use tracer_tests::spans::{SpanRow, Spans};
use tracer_tests::suite::{Case, Need, case_of};
use tracer_tests::tracer::{Trace, Tracer};
use tracer_tests::workspace;

type Test = fn() -> Result<()>;

const TESTS: [(&str, Test); 7] = [
    ("workers_that_die_leave_the_others", || workers(&["--python", "frames"])),
    ("workers_that_die_between_two_windows_leave_the_others", || workers(&["--python", "frames", "--duty", "50%"])),
    ("workers_that_die_leave_the_others_watched", || workers(&[])),
    ("a_named_process_that_is_not_there_or_dies_leaves_the_others", dies),
    ("an_error_that_ends_the_session_gives_its_code", ends_late),
    ("full_tables_are_shared_out_and_said", full_tables),
    ("trees_that_were_cut_say_so", cut_trees),
];

/// The interpreter with both modes.
const PYTHON: Interpreter = Interpreter::Environment("sklearn-3.11");

/// The tests.
pub fn cases() -> Vec<Case> {
    let case = |(name, test): (&str, Test)| {
        case_of(name.to_owned(), vec![Need::Program, Need::Kernel, Need::Python(PYTHON)], test)
    };
    TESTS.into_iter().map(case).collect()
}

/// Starts the target; gives its first line.
fn start(arguments: &[&str]) -> Result<(Running, String)> {
    let mut command = PYTHON.command("targets/python_crowd/target.py")?;
    command.args(arguments);
    let mut target = Running::start(command)?;
    let line = target.wait_output("ready")?;
    Ok((target, line))
}

fn tracer(targets: &[&Running]) -> Result<Tracer> {
    let [first, others @ ..] = targets else { anyhow::bail!("no target") };
    let tracer = Tracer::attach(first.pid())?.map_file(&workspace::tests("targets/python_crowd/map.yaml"))?;
    Ok(others.iter().fold(tracer, |tracer, other| tracer.arguments(["--pid".to_owned(), other.pid().to_string()])))
}

/// Spans of each process.
fn by_process(spans: &Spans) -> BTreeMap<String, Vec<&SpanRow>> {
    let mut found: BTreeMap<String, Vec<&SpanRow>> = BTreeMap::new();
    for row in &spans.0 {
        found.entry(row.resource("process.pid").unwrap_or_default()).or_default().push(row);
    }
    found
}

/// The longest time without a span of some, in milliseconds.
fn longest_pause(rows: &[&SpanRow]) -> u64 {
    let mut starts: Vec<u64> = rows.iter().map(|row| row.span.start_time_unix_nano / 1_000_000).collect();
    starts.sort_unstable();
    starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(u64::MAX)
}

/// A worker that stays is seen all the time, whatever becomes of the others; and nobody is left out.
fn workers(arguments: &[&str]) -> Result<()> {
    let (target, line) = start(&["workers", "3"])?;
    let stays = line.split(' ').nth(1).context("the worker that stays")?.to_owned();
    let attached = tracer(&[&target])?.arguments(["--follow"]).arguments(arguments).start()?;
    std::thread::sleep(Duration::from_secs(4));
    let trace = attached.stop()?;
    target.signal(Signal::TERM)?;
    trace.check_whole()?;
    let processes = by_process(&trace.spans);
    let of_stays = processes.get(&stays).with_context(|| format!("the worker that stays: {:?}", processes.keys()))?;
    ensure!(of_stays.len() > 60, "{} spans of the worker that stays", of_stays.len());
    let first = trace.spans.0.iter().map(|row| row.span.start_time_unix_nano).min().unwrap_or_default();
    let last = of_stays.iter().map(|row| row.span.start_time_unix_nano).max().unwrap_or_default();
    ensure!(last - first > 3_000_000_000, "the worker that stays is seen for {} ns", last - first);
    let pause = longest_pause(of_stays);
    ensure!(pause < 1_000, "the worker that stays is not seen for {pause} ms");
    ensure!(processes.len() > 5, "{} processes", processes.len());
    // Some live for less than it takes to look at them; those are counted, and nobody else is left out.
    let unseen = trace.summary.0["not_followed"].as_u64().unwrap_or(u64::MAX);
    let followed = trace.summary.0["processes"].as_array().map_or(0, Vec::len) as u64;
    // Where probes come and go with each window, looking takes longer.
    ensure!(unseen < followed || arguments.contains(&"--duty"), "{unseen} not followed, {followed} followed");
    ensure!(!trace.finished.errors.contains("is not followed:"), "{}", trace.finished.errors);
    Ok(())
}

/// Of three named processes one is not there and one dies: the third one is traced as ever.
fn dies() -> Result<()> {
    let (target, _) = start(&["classes", "3"])?;
    let (dying, _) = start(&["classes", "3"])?;
    let (gone, _) = start(&["classes", "3"])?;
    let number = gone.pid().to_string();
    gone.signal(Signal::KILL)?;
    drop(gone.finish()?);
    let mut attached = tracer(&[&target, &dying])?.arguments(["--pid", &number]).start()?;
    attached.wait_for_span()?;
    dying.signal(Signal::KILL)?;
    attached.running.wait_errors(&format!("process {} has ended; the others are traced on", dying.pid()))?;
    let before = Spans::read(&attached.file("spans.jsonl"))?.0.len();
    std::thread::sleep(Duration::from_secs(1));
    let trace = attached.stop()?;
    trace.check_whole()?;
    ensure!(trace.finished.errors.contains(&number), "{number} is not told: {}", trace.finished.errors);
    let processes = by_process(&trace.spans);
    let rows = processes.get(&target.pid().to_string()).context("the process that stays")?;
    ensure!(trace.spans.0.len() > before + 50, "{before} spans before, {} after", trace.spans.0.len());
    ensure!(longest_pause(rows) < 1_000, "not seen for {} ms", longest_pause(rows));
    Ok(())
}

/// The only process cannot be traced any more: the spans are delivered, the counts add up, and the exit code tells.
fn ends_late() -> Result<()> {
    let (target, _) = start(&["classes", "3"])?;
    let mut attached = tracer(&[&target])?.arguments(["--python", "frames", "--duty", "50%"]).start()?;
    attached.wait_for_span()?;
    let pid = i32::try_from(attached.running.pid()).ok().and_then(Pid::from_raw).context("a process")?;
    // No descriptor for the probes of the next window.
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(3), maximum: Some(3) })?;
    attached.running.wait_errors("spans=")?;
    let spans = Spans::read(&attached.file("spans.jsonl"))?.0.len();
    let finished = attached.running.finish()?;
    ensure!(finished.code == Some(3), "{finished:?}");
    ensure!(spans > 0 && finished.errors.contains(&format!("spans={spans} ")), "{spans} spans: {}", finished.errors);
    Ok(())
}

/// Two processes want more than the tables hold: both are traced, the live models first, and what is left out is told.
fn full_tables() -> Result<()> {
    let (large, _) = start(&["classes", "400"])?;
    let (other, _) = start(&["classes", "30"])?;
    for mode in ["watch", "frames"] {
        let attached = tracer(&[&large, &other])?.arguments(["--python", mode, "--python-entries", "100"]).start()?;
        std::thread::sleep(Duration::from_millis(1_500));
        let trace = attached.stop()?;
        trace.check_whole()?;
        let processes = by_process(&trace.spans);
        ensure!(processes.len() == 2, "{mode}: spans of {:?}", processes.keys());
        for (target, live) in [(&large, 397..400), (&other, 27..30)] {
            let rows = processes.get(&target.pid().to_string()).map(Vec::as_slice).unwrap_or_default();
            for number in live {
                let name = format!("Model{number}.predict");
                ensure!(rows.iter().any(|row| row.span.name == name), "{mode}: {name} is missing");
            }
        }
        // In watch mode no more is told than is watched.
        if mode == "frames" {
            check_left_out(&trace, large.pid())?;
        }
    }
    Ok(())
}

fn check_left_out(trace: &Trace, large: u32) -> Result<()> {
    let of_one = |python: &&serde_json::Value| python["process"] == large;
    let python = trace.summary.0["python"].as_array().and_then(|all| all.iter().find(of_one));
    let left_out = python.map(|python| python["left_out"]["codes"].as_u64().unwrap_or_default());
    // It has 100 entries less those of the other one, for 400 methods.
    ensure!(left_out.is_some_and(|count| count >= 300), "{python:?}");
    ensure!(trace.finished.errors.contains("left out for want of room"), "{}", trace.finished.errors);
    Ok(())
}

/// Whenever the tracer lets go of a process that calls without a pause, the tree that it cuts says that it may lack children.
fn cut_trees() -> Result<()> {
    let (target, _) = start(&["chain"])?;
    let mut cut = 0;
    for how in [&[][..], &[], &[], &[], &["--python", "frames", "--duty", "50%"]] {
        let attached = tracer(&[&target])?.arguments(how).start()?;
        attached.wait_for_span()?;
        std::thread::sleep(Duration::from_millis(300));
        let trace = attached.stop()?;
        trace.check_whole()?;
        let mut children: HashMap<&[u8], usize> = HashMap::new();
        for row in &trace.spans.0 {
            *children.entry(&row.span.parent_span_id).or_default() += 1;
        }
        let roots: Vec<&SpanRow> = trace.spans.named("Chain.predict").collect();
        let whole = roots.iter().filter(|row| children.get(row.span.span_id.as_slice()) == Some(&4)).count();
        for row in &roots {
            let count = children.get(row.span.span_id.as_slice()).copied().unwrap_or_default();
            let says_so = row.ending() == "still_open" || row.boolean("ml.children_observed") == Some(false);
            ensure!(count == 4 || says_so, "{how:?}: {count} children of a call that {}", row.ending());
            cut += usize::from(says_so);
        }
        ensure!(whole > 0, "{how:?}: no tree of {} is whole", roots.len());
        let marked = trace.spans.0.iter().filter(|row| row.boolean("ml.children_observed") == Some(false)).count();
        ensure!(!how.is_empty() || marked <= 4, "{marked} of {} spans are marked", trace.spans.0.len());
    }
    ensure!(cut > 0, "there is always one that is cut");
    Ok(())
}
