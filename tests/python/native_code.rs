//! Python and what it calls in one tree: functions of a BLAS library, and methods that Cython has made, as a map asks for them.

use anyhow::{Context, Result, ensure};
use tracer_tests::python::{Interpreter, SYSTEM};
use tracer_tests::python_run::{PythonRun, PythonTrace};
use tracer_tests::suite::{Case, Need, case_of};

type Test = fn(Interpreter) -> Result<()>;

/// Shared and with symbols, and static and stripped.
const INTERPRETERS: [Interpreter; 2] = [Interpreter::Environment("sklearn-3.12"), SYSTEM];

/// What is tested, on each of them.
const TESTS: &[(&str, Test)] =
    &[("products_of_matrices", products), ("trees_of_a_forest", trees), ("walks_of_trees_that_no_map_asks_for", walks)];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let mut cases = Vec::new();
    for (name, test) in TESTS {
        for interpreter in INTERPRETERS {
            let name = format!("{name}_{}", interpreter.label());
            cases.push(case_of(name, needs(interpreter), move || test(interpreter)));
        }
    }
    cases
}

/// Exact in all modes; gives what was seen while watching.
fn in_both_modes(run: &PythonRun) -> Result<PythonTrace> {
    let traced = run.exact().context("watching")?;
    for mode in ["frames", "chain"] {
        run.clone().tracer_arguments(&["--python", mode]).exact().context(mode)?;
    }
    Ok(traced)
}

/// `LogisticRegression.predict > BLAS.dgemm`, with the size of the product.
fn products(interpreter: Interpreter) -> Result<()> {
    let run = PythonRun::of(interpreter, "python_blas", &["20"]).forked().map("../symbols/optional/openblas.yaml");
    let traced = in_both_modes(&run)?;
    let product = traced.trace.spans.0.iter().find(|row| row.span.name == "BLAS.dgemm").context("no product")?;
    let size = (product.integer("ml.rows"), product.integer("ml.columns"));
    ensure!(size == (Some(16), Some(3)), "{size:?}");
    Ok(())
}

/// Each tree is a child of its forest, on whichever thread, and the walk through it a child of the tree.
fn trees(interpreter: Interpreter) -> Result<()> {
    for jobs in ["1", "2"] {
        let run = PythonRun::of(interpreter, "python_forest", &["20", jobs, "trees"])
            .forked()
            .map("../symbols/optional/scikit-learn-trees.yaml");
        in_both_modes(&run).with_context(|| format!("{jobs} jobs"))?;
    }
    Ok(())
}

/// Where only the walks are asked for, they are folded into the forest on its thread. On other threads nothing tells
/// whose they are: they begin traces of their own.
fn walks(interpreter: Interpreter) -> Result<()> {
    for (jobs, folded) in [("1", 120), ("2", 0)] {
        let run = PythonRun::of(interpreter, "python_forest", &["20", jobs, "walks"])
            .forked()
            .map("targets/python_forest/walks.yaml");
        let traced = run.exact().with_context(|| format!("{jobs} jobs"))?;
        ensure!(traced.trace.summary.folded() == folded, "{jobs} jobs: {}", traced.trace.summary.0);
    }
    Ok(())
}
