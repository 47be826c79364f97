//! scikit-learn: pipelines and what can be in them, watched, and with probes that every call passes.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use tracer_tests::python::{Interpreter, SCIKIT_LEARN};
use tracer_tests::python_run::{PythonRun, PythonTrace};
use tracer_tests::suite::{Case, Need, case_of};

type Test = fn(Interpreter) -> Result<()>;

/// What is tested, on each version.
const TESTS: &[(&str, Test)] = &[
    ("pipeline_from_four_threads", pipeline),
    ("pipeline_from_late_threads", late_threads),
    ("steps_on_other_threads", n_jobs),
    ("two_calls_on_one_container", together),
    ("estimators_of_a_user", user_estimators),
    ("exceptions_in_steps", exceptions),
    ("coroutines", coroutines),
    ("recursion_and_generators", recursion),
    ("modules_called_as_in_torch", torch),
];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let mut cases = Vec::new();
    for (name, test) in TESTS {
        for interpreter in SCIKIT_LEARN {
            let name = format!("{name}_{}", interpreter.label());
            cases.push(case_of(name, needs(interpreter), move || test(interpreter)));
        }
    }
    cases
}

/// In watch mode the spans of what is watched are exact, and what these names stand for is watched; in frames mode all
/// are.
pub fn in_both_modes(run: &PythonRun, watched: &[&str]) -> Result<PythonTrace> {
    let traced = run.exact_where_watched().context("watching")?;
    let methods = traced.trace.summary.watched();
    for method in watched {
        ensure!(methods.contains(*method), "{method} is not watched: {}", traced.trace.summary.0);
    }
    run.clone().tracer_arguments(&["--python", "frames"]).exact().context("frames")
}

fn forked(interpreter: Interpreter, target: &str, arguments: &[&str]) -> PythonRun {
    PythonRun::of(interpreter, target, arguments).forked()
}

/// 2,000 predictions, 1,000 in each batch.
fn pipeline(interpreter: Interpreter) -> Result<()> {
    let traced = forked(interpreter, "python_sklearn_pipeline", &["1000", "4"]).exact()?;
    ensure!(traced.trace.summary.spans() == 8000, "{:?}", traced.trace.summary);
    Ok(())
}

fn late_threads(interpreter: Interpreter) -> Result<()> {
    let run = forked(interpreter, "python_sklearn_pipeline", &["40", "4", "--late"]);
    in_both_modes(&run, &["Pipeline.predict", "StandardScaler.transform"])?;
    let run = forked(interpreter, "python_sklearn_pipeline", &["40", "4", "--late", "--probabilities"]);
    in_both_modes(&run, &["StandardScaler.transform"]).map(drop)
}

fn n_jobs(interpreter: Interpreter) -> Result<()> {
    let run = forked(interpreter, "python_n_jobs", &["40"]);
    in_both_modes(&run, &["FeatureUnion.transform", "ColumnTransformer.transform", "MinMaxScaler.transform"]).map(drop)
}

/// Which of two calls on a container a step on another thread belongs to is not known: it has no parent then, and none is
/// made up.
fn together(interpreter: Interpreter) -> Result<()> {
    const TRANSFORMS: u32 = 10;
    for mode in ["watch", "frames"] {
        let run = forked(interpreter, "python_n_jobs", &[&TRANSFORMS.to_string(), "--together"]);
        let trace = run.tracer_arguments(&["--python", mode]).traced()?.trace;
        trace.check_whole().context(mode)?;
        // Two batches, two threads.
        let expected = 4 * TRANSFORMS as usize;
        for name in ["FeatureUnion.transform", "StandardScaler.transform", "PolynomialFeatures.transform"] {
            ensure!(trace.spans.count(name) == expected, "{mode}: {} of {expected} {name}", trace.spans.count(name));
        }
        let mut steps = HashSet::new();
        for row in trace.spans.0.iter().filter(|row| !row.span.parent_span_id.is_empty()) {
            let step = (&row.span.parent_span_id, row.text("ml.step"));
            ensure!(steps.insert(step), "{mode}: a call has its step {:?} twice", row.text("ml.step"));
        }
    }
    Ok(())
}

fn user_estimators(interpreter: Interpreter) -> Result<()> {
    let run = forked(interpreter, "python_user_estimator", &["30"]);
    in_both_modes(&run, &["Shift.transform", "Captured.transform", "Local.transform"]).map(drop)
}

fn exceptions(interpreter: Interpreter) -> Result<()> {
    for keep in [&[][..], &["--keep"]] {
        let mut arguments = vec!["30"];
        arguments.extend(keep);
        let run = forked(interpreter, "python_exceptions", &arguments).map("targets/python_exceptions/map.yaml");
        in_both_modes(&run, &[])?;
    }
    Ok(())
}

fn coroutines(interpreter: Interpreter) -> Result<()> {
    let run = forked(interpreter, "python_asyncio", &["20"]);
    in_both_modes(&run, &["Pipeline.predict", "StandardScaler.transform"]).map(drop)
}

fn recursion(interpreter: Interpreter) -> Result<()> {
    in_both_modes(&forked(interpreter, "python_recursion", &["10", "4"]), &[]).map(drop)
}

fn torch(interpreter: Interpreter) -> Result<()> {
    let run = PythonRun::of(interpreter, "torch_shape", &["30"]);
    run.exact()?;
    in_both_modes(&run, &["Net.__call__", "Linear.__call__"]).map(drop)
}
