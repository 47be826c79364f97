//! Methods behind decorators, caches and the wrappers of monitoring agents: they are seen, and their spans point to where
//! they are written.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tracer_tests::python::{Interpreter, SCIKIT_LEARN, all};
use tracer_tests::python_run::{PythonRun, PythonTrace};
use tracer_tests::suite::{Case, Need, case_of};

/// Wrappers of the standard library, and others that need no package.
const PLAIN: &[&str] = &["wraps", "silent", "twice", "cache", "partial", "dispatch", "available", "slots"];

/// Wrappers written in C, and several at once.
const WATCHED: &[&str] = &["cache", "wrapt", "agents"];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let mut cases = Vec::new();
    // They are packages.
    for interpreter in all().into_iter().filter(|interpreter| *interpreter != Interpreter::Newest) {
        let name = format!("methods_behind_wrappers_{}", interpreter.label());
        cases.push(case_of(name, needs(interpreter), move || all_at_once(interpreter)));
    }
    for interpreter in SCIKIT_LEARN {
        let name = format!("methods_behind_agents_{}", interpreter.label());
        cases.push(case_of(name, needs(interpreter), move || agents(interpreter)));
    }
    cases
}

fn run(interpreter: Interpreter, mode: &str, kinds: &[&str]) -> Result<()> {
    let arguments = [&["60"], kinds].concat();
    let run = PythonRun::of(interpreter, "python_wrappers", &arguments)
        .map("targets/python_plain/map.yaml")
        .tracer_arguments(&["--python", mode]);
    let traced = run.exact()?;
    positions(&traced)
}

/// In frames mode there is room for all of them.
fn all_at_once(interpreter: Interpreter) -> Result<()> {
    run(interpreter, "frames", PLAIN)
}

fn agents(interpreter: Interpreter) -> Result<()> {
    for kind in WATCHED {
        run(interpreter, "watch", &[kind])?;
    }
    run(interpreter, "frames", WATCHED)
}

/// Each span says the first line of the method itself, with the decorators that stand above it, and its name.
fn positions(traced: &PythonTrace) -> Result<()> {
    let told: Value = serde_json::from_str(traced.finished.output.lines().last().context("no output")?)?;
    let lines: BTreeMap<String, i64> = serde_json::from_value(told["lines"].clone())?;
    for row in &traced.trace.spans.0 {
        let name = &row.span.name;
        let line = lines.get(name).with_context(|| format!("{name} is no method of the target"))?;
        ensure!(row.integer("code.line.number") == Some(*line), "{name}: {:?}", row.integer("code.line.number"));
        let function = row.text("code.function.name").unwrap_or_default();
        ensure!(function == format!("__main__.{name}"), "{name} is called {function}");
        let file = row.text("code.file.path").unwrap_or_default();
        ensure!(file.ends_with("python_wrappers/target.py"), "{name} is in {file}");
    }
    Ok(())
}
