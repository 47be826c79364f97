//! `--python auto`: watched as long as the debug registers suffice, in chain mode from then on, and watched again where that sees nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use tracer_tests::process::Running;
use tracer_tests::python::Interpreter;
use tracer_tests::spans::SpanRow;
use tracer_tests::suite::{Case, Need, case_of};
use tracer_tests::tracer::{Attached, Trace, Tracer};

/// CPython 3.11 and newer goes over to chain mode.
const PYTHON: Interpreter = Interpreter::Environment("sklearn-3.12");

/// This one does not.
const OLD_PYTHON: Interpreter = Interpreter::Environment("oracle-3.9");

/// What stderr says then.
const GOES_OVER: &str = "are seen in chain mode from now on";

/// And of a process that calls nothing when the tracer comes.
const IS_IDLE: &str = "was seen called so far";

/// The steps of the two pipelines.
const STEPS: [&[&str]; 2] = [
    &["LogisticRegression.predict", "PolynomialFeatures.transform", "StandardScaler.transform"],
    &["MinMaxScaler.transform", "RandomForestClassifier.predict"],
];

type Test = fn() -> Result<()>;

const TESTS: [(&str, Test); 7] = [
    ("more_methods_than_registers_are_all_seen", || many(Calls::Before)),
    ("more_methods_than_registers_are_all_seen_once_they_are_called", || many(Calls::MoreAfter)),
    ("an_idle_process_is_seen_whole_from_its_first_call", || many(Calls::After)),
    ("idle_workers_are_seen_whole_from_their_first_calls", idle_workers),
    ("as_many_methods_as_registers_stay_watched", || stays(PYTHON, "few")),
    ("an_old_interpreter_stays_watched", || stays(OLD_PYTHON, "many")),
    ("what_chain_mode_does_not_see_is_watched_again", plain),
];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = || vec![Need::Program, Need::Kernel, Need::Python(PYTHON), Need::Python(OLD_PYTHON)];
    TESTS.into_iter().map(|(name, test)| case_of(name.to_owned(), needs(), test)).collect()
}

fn start(python: Interpreter, arguments: &[&str]) -> Result<Running> {
    let mut command = python.command("targets/python_auto/target.py")?;
    command.args(arguments);
    let mut target = Running::start(command)?;
    target.wait_output("ready")?;
    Ok(target)
}

fn attach(target: &Running) -> Result<Attached> {
    Tracer::attach(target.pid())?.arguments(["--python", "auto"]).start()
}

/// The trace, and how its only interpreter was seen in the end.
fn finish(mut target: Running, attached: Attached) -> Result<(Trace, String)> {
    let trace = attached.stop()?;
    target.close_input();
    ensure!(target.finish()?.code == Some(0), "the target did not end well");
    trace.check_whole()?;
    let mode = trace.summary.0["python"][0]["mode"].as_str().unwrap_or_default().to_owned();
    Ok((trace, mode))
}

/// When the models are called.
#[derive(Clone, Copy, PartialEq)]
enum Calls {
    /// All of them before the tracer comes.
    Before,
    /// One before, the other after it has come.
    MoreAfter,
    /// None before.
    After,
}

fn many(calls: Calls) -> Result<()> {
    let mut target = start(PYTHON, if calls == Calls::MoreAfter { &["more"] } else { &["many"] })?;
    if calls != Calls::After {
        target.send_line("go")?;
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut attached = attach(&target)?;
    let mut went_over = SystemTime::UNIX_EPOCH;
    if calls == Calls::MoreAfter {
        attached.wait_for_span()?;
        target.send_line("more")?;
        attached.running.wait_errors(GOES_OVER)?;
        // Until then what is watched is seen, which may be some whole trees and parts of others.
        went_over = SystemTime::now() + Duration::from_millis(500);
    }
    if calls == Calls::After {
        target.send_line("go")?;
    }
    std::thread::sleep(Duration::from_secs(4));
    let (trace, mode) = finish(target, attached)?;
    ensure!(mode == "chain", "{mode} mode: {}", trace.finished.errors);
    let why = if calls == Calls::After { IS_IDLE } else { GOES_OVER };
    ensure!(trace.finished.errors.contains(why), "{}", trace.finished.errors);
    ensure!(trace.finished.errors.contains("chain mode costs process"), "{}", trace.finished.errors);
    let trees = Trees::of(&trace);
    let is_whole = |row: &&SpanRow| trees.is_whole(row);
    let went_over = went_over.duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
    let is_after = |row: &&SpanRow| u128::from(row.span.start_time_unix_nano) >= went_over;
    let mut roots: Vec<&SpanRow> = trace.spans.named("Pipeline.predict").filter(is_after).collect();
    roots.sort_by_key(|row| row.span.start_time_unix_nano);
    let first = roots.iter().position(is_whole).unwrap_or(roots.len());
    let (before, after) = roots.split_at(first);
    // The one that is cut by the end may lack some.
    let whole = after.iter().filter(|row| is_whole(row)).count();
    ensure!(whole + 1 >= after.len() && whole > 50, "{whole} of {} trees are whole", after.len());
    // One may be under way when the tracer comes.
    let most = match calls {
        Calls::Before => 1,
        Calls::MoreAfter => before.len(),
        Calls::After => 0,
    };
    ensure!(before.len() <= most, "{} trees at the beginning are not whole", before.len());
    let kinds: BTreeSet<Vec<&str>> = after.iter().map(|row| trees.parts(row)).collect();
    ensure!(STEPS.iter().all(|steps| kinds.contains(*steps)), "{kinds:?}");
    Ok(())
}

/// The names of the steps of each call, in order of their names.
struct Trees<'trace>(BTreeMap<&'trace [u8], Vec<&'trace str>>);

impl<'trace> Trees<'trace> {
    fn of(trace: &'trace Trace) -> Self {
        let mut children: BTreeMap<&[u8], Vec<&str>> = BTreeMap::new();
        for row in &trace.spans.0 {
            children.entry(&row.span.parent_span_id).or_default().push(&row.span.name);
        }
        children.values_mut().for_each(|names| names.sort_unstable());
        Self(children)
    }

    fn parts(&self, row: &SpanRow) -> Vec<&'trace str> {
        self.0.get(row.span.span_id.as_slice()).cloned().unwrap_or_default()
    }

    fn is_whole(&self, row: &SpanRow) -> bool {
        STEPS.contains(&self.parts(row).as_slice())
    }
}

/// More of them than are watched for a moment before they begin.
const WORKERS: usize = 5;

fn idle_workers() -> Result<()> {
    let mut target = start(PYTHON, &["many", &WORKERS.to_string()])?;
    let mut attached = attach(&target)?;
    for _ in 0..WORKERS {
        attached.running.wait_errors("following process")?;
    }
    target.send_line("go")?;
    std::thread::sleep(Duration::from_secs(3));
    let (trace, _) = finish(target, attached)?;
    ensure!(trace.finished.errors.contains(IS_IDLE), "{}", trace.finished.errors);
    let trees = Trees::of(&trace);
    let mut roots: Vec<&SpanRow> = trace.spans.named("Pipeline.predict").collect();
    roots.sort_by_key(|row| row.span.start_time_unix_nano);
    // Of each worker the last one may be cut by the end.
    let cut = roots.split_off(roots.len().saturating_sub(4 * WORKERS));
    let whole = roots.iter().filter(|row| trees.is_whole(row)).count();
    // On a busy machine the last worker may be taken in when the others are called already: it is watched for a moment then.
    ensure!(
        whole * 100 >= roots.len() * 95 && whole > 100,
        "{whole} of {} trees are whole: {}",
        roots.len(),
        trace.finished.errors
    );
    let in_pieces = cut.iter().filter(|row| !trees.is_whole(row)).count();
    ensure!(in_pieces <= WORKERS, "{in_pieces} of the last {} trees are not whole", cut.len());
    Ok(())
}

fn stays(python: Interpreter, kind: &str) -> Result<()> {
    let mut target = start(python, &[kind])?;
    target.send_line("go")?;
    let attached = attach(&target)?;
    attached.wait_for_span()?;
    std::thread::sleep(Duration::from_secs(2));
    let (trace, mode) = finish(target, attached)?;
    ensure!(mode == "watch" && !trace.finished.errors.contains(GOES_OVER), "{mode} mode: {}", trace.finished.errors);
    ensure!(trace.spans.count("Pipeline.predict") > 50, "{} predictions", trace.spans.count("Pipeline.predict"));
    Ok(())
}

fn plain() -> Result<()> {
    let mut target = start(PYTHON, &["plain"])?;
    target.send_line("go")?;
    let mut attached = attach(&target)?;
    attached.running.wait_errors("they are watched again")?;
    std::thread::sleep(Duration::from_secs(2));
    let (trace, mode) = finish(target, attached)?;
    ensure!(mode == "watch", "{mode} mode: {}", trace.finished.errors);
    ensure!(trace.spans.0.len() > 400, "{} spans", trace.spans.0.len());
    Ok(())
}
