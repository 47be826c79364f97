//! A command that calls its models straight after its imports: its first calls are in the trace.

use std::ffi::OsStr;
use std::fs;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tracer_tests::process::{poll, run};
use tracer_tests::python::{CHAIN, Interpreter};
use tracer_tests::spans::Spans;
use tracer_tests::suite::{Case, Need, case_of, is_full};
use tracer_tests::tracer::{Trace, Tracer};

const SCRIPT: &str = "targets/python_first_calls/target.py";

/// What is the default for users.
const AUTO: [&str; 2] = ["--python", "auto"];

/// Interpreters in which every first call is seen by default.
const PYTHONS: [Interpreter; 4] = [
    Interpreter::Environment("sklearn-3.11"),
    Interpreter::Environment("sklearn-3.12"),
    Interpreter::Environment("sklearn-3.13"),
    Interpreter::Environment("sklearn-system"),
];

/// One in which calls are watched, at most four methods.
const WATCHED: Interpreter = Interpreter::Environment("oracle-3.9");

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let mut cases: Vec<Case> = Vec::new();
    // Without `--full` each way to tell what C code enters, and each mode, once.
    for interpreter in PYTHONS.into_iter().skip(if is_full() { 0 } else { 2 }) {
        let name = format!("a_script_is_seen_from_its_first_call_{}", interpreter.label());
        cases.push(case_of(name, needs(interpreter), move || whole_script(interpreter, &AUTO)));
    }
    let (first, mode) = (PYTHONS[0], ["--python", CHAIN]);
    let name = "a_script_is_seen_from_its_first_call_chain".to_owned();
    cases.push(case_of(name, needs(first), move || whole_script(first, &mode)));
    if is_full() {
        let mode = ["--python", "frames"];
        let name = "a_script_is_seen_from_its_first_call_frames".to_owned();
        cases.push(case_of(name, needs(first), move || whole_script(first, &mode)));
    }
    let name = "a_watched_script_goes_on_as_without_a_tracer".to_owned();
    cases.push(case_of(name, needs(WATCHED), || unchanged(WATCHED, &["--python", "watch"], &[]).map(drop)));
    let name = "a_search_is_seen_from_its_first_call".to_owned();
    cases.push(case_of(name, needs(first), move || search(first)));
    let name = "an_interpreter_that_ends_takes_nothing_back".to_owned();
    cases.push(case_of(name, needs(first), move || ending(first)));
    let name = "a_command_that_stands_still_goes_on_without_its_tracer".to_owned();
    cases.push(case_of(name, needs(first), move || killed(first)));
    cases
}

/// Runs the script by itself and traced: it prints the same and ends alike.
fn unchanged(interpreter: Interpreter, how: &[&str], arguments: &[&str]) -> Result<Trace> {
    let mut alone = interpreter.command(SCRIPT)?;
    alone.args(arguments);
    let command = interpreter.command(SCRIPT)?;
    let arguments = arguments.iter().map(OsStr::new);
    let words: Vec<&OsStr> = [command.get_program()].into_iter().chain(command.get_args()).chain(arguments).collect();
    let mut tracer = Tracer::run()?.arguments(how);
    for (name, value) in command.get_envs() {
        let value = value.and_then(OsStr::to_str).unwrap_or_default();
        tracer = tracer.variable(&name.to_string_lossy(), value);
    }
    let trace = tracer.finish_with(&words)?;
    let alone = run(alone)?;
    let (traced, alone) = ((&trace.finished.output, trace.finished.code), (&alone.output, alone.code));
    ensure!(traced == alone, "traced: {traced:?}, {}\nalone: {alone:?}", trace.finished.errors);
    Ok(trace)
}

fn steps_of<'spans>(spans: &'spans Spans, root: &str) -> Vec<Vec<&'spans str>> {
    let children = |id: &[u8]| {
        let mut of_it: Vec<_> = spans.0.iter().filter(|row| row.span.parent_span_id == id).collect();
        of_it.sort_by_key(|row| row.span.start_time_unix_nano);
        of_it.iter().map(|row| row.span.name.as_str()).collect()
    };
    spans.named(root).map(|row| children(&row.span.span_id)).collect()
}

fn whole_script(interpreter: Interpreter, how: &[&str]) -> Result<()> {
    let trace = unchanged(interpreter, how, &[])?;
    trace.check_books()?;
    let lines = || format!("{:#?}\n{}", trace.spans.tree_lines(), trace.finished.errors);
    let fits = steps_of(&trace.spans, "Pipeline.fit");
    let is_fitted = fits.len() == 1 && fits.iter().all(|steps| steps.contains(&"LogisticRegression.fit"));
    ensure!(is_fitted, "fits: {fits:?}: {}", lines());
    // What scikit-learn's `fit_transform` calls in turn.
    ensure!(trace.spans.count("Clipper.fit") == 1 && trace.spans.count("StandardScaler.fit") == 1, "{}", lines());
    let predictions = steps_of(&trace.spans, "Pipeline.predict");
    let expected = ["Clipper.transform", "StandardScaler.transform", "LogisticRegression.predict"];
    let are_whole = predictions.len() == 3 && predictions.iter().all(|steps| *steps == expected);
    ensure!(are_whole, "predictions: {predictions:?}: {}", lines());
    Ok(())
}

fn search(interpreter: Interpreter) -> Result<()> {
    let trace = unchanged(interpreter, &AUTO, &["search"])?;
    trace.check_books()?;
    let lines = || format!("{:#?}\n{}", trace.spans.tree_lines(), trace.finished.errors);
    ensure!(trace.spans.count("GridSearchCV.fit") == 1, "{}", lines());
    // The best one is fitted by the command itself, the others by the workers that it starts.
    let own = steps_of(&trace.spans, "GridSearchCV.fit");
    ensure!(own.iter().flatten().any(|step| *step == "LogisticRegression.fit"), "{own:?}: {}", lines());
    Ok(())
}

/// While an interpreter ends its modules and classes go: what was seen before was seen all the same.
fn ending(interpreter: Interpreter) -> Result<()> {
    let trace = unchanged(interpreter, &AUTO, &["linger"])?;
    trace.check_books()?;
    ensure!(trace.spans.count("Pipeline.predict") == 3, "{:#?}", trace.spans.tree_lines());
    let errors = &trace.finished.errors;
    ensure!(!errors.contains("could not be understood"), "{errors}");
    let watched = trace.summary.watched();
    for method in ["Pipeline.predict", "Clipper.transform"] {
        ensure!(watched.contains(method), "{method} is not told: {}", trace.summary.0);
    }
    Ok(())
}

/// A tracer that is stopped cannot let its command go on, which waits for it; once it is killed, the command does.
fn killed(interpreter: Interpreter) -> Result<()> {
    let command = interpreter.command(SCRIPT)?;
    let words: Vec<&OsStr> = [command.get_program()].into_iter().chain(command.get_args()).collect();
    let attached = Tracer::run()?.arguments(AUTO).arguments(["--"]).arguments(&words).start()?;
    let tracer = attached.running.pid();
    // The first one is the command: it was started before any guard.
    let children = fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children"))?;
    let child: u32 = children.split_ascii_whitespace().next().context("no child")?.parse()?;
    poll("the command's interpreter", || {
        let name = fs::read_to_string(format!("/proc/{child}/comm"))?;
        Ok(name.starts_with("python").then_some(()))
    })?;
    attached.running.signal(Signal::STOP)?;
    poll("the command that stands still", || Ok((state_of(child) == Some('T')).then_some(())))?;
    attached.running.signal(Signal::KILL)?;
    poll("the end of the command", || Ok(state_of(child).is_none_or(|state| state == 'Z').then_some(())))
}

/// What a process does, as proc_pid_stat(5) says; `None` if it is gone.
fn state_of(process: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
