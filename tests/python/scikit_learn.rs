//! scikit-learn: pipelines and what can be in them, watched, and with probes that every call passes.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use tracer_tests::python::{CHAIN, Interpreter, MODES, SCIKIT_LEARN};
use tracer_tests::python_run::{PythonRun, PythonTrace};
use tracer_tests::suite::{Case, Need, case_of, do_meet};

type Test = fn(Setting) -> Result<()>;

/// An interpreter, and which modes a test is to try on it.
#[derive(Clone, Copy)]
struct Setting {
    interpreter: Interpreter,
    version: usize,
    number: usize,
}

/// What is tested, on each version; in which modes is said by [`do_meet`].
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
    for (number, (name, test)) in TESTS.iter().enumerate() {
        for (version, interpreter) in SCIKIT_LEARN.into_iter().enumerate() {
            let name = format!("{name}_{}", interpreter.label());
            let setting = Setting { interpreter, version, number };
            cases.push(case_of(name, needs(interpreter), move || test(setting)));
        }
    }
    cases
}

/// In watch mode the spans of what is watched are exact, and what these names stand for is watched; in the other modes all
/// are, and they are given.
pub fn in_both_modes(run: &PythonRun, watched: &[&str]) -> Result<PythonTrace> {
    in_mode("watch", run, watched)?;
    in_mode("frames", run, watched)
}

fn in_mode(mode: &'static str, run: &PythonRun, watched: &[&str]) -> Result<PythonTrace> {
    if mode != "watch" {
        return run.clone().tracer_arguments(&["--python", mode]).exact().context(mode);
    }
    let traced = run.exact_where_watched().context(mode)?;
    let methods = traced.trace.summary.watched();
    for method in watched {
        ensure!(methods.contains(*method), "{method} is not watched: {}", traced.trace.summary.0);
    }
    Ok(traced)
}

impl Setting {
    fn run(self, target: &str, arguments: &[&str]) -> PythonRun {
        PythonRun::of(self.interpreter, target, arguments).forked()
    }

    /// The modes for one of several runs.
    fn modes(self, number: usize) -> impl Iterator<Item = &'static str> {
        let modes = MODES.into_iter().chain([CHAIN]).enumerate();
        modes.filter(move |(place, _)| do_meet(self.number + number, self.version, *place)).map(|(_, mode)| mode)
    }

    /// As [`Self::in_modes`], where chain mode does not see all.
    fn in_all_but_chain(self, number: usize, run: &PythonRun, watched: &[&str]) -> Result<()> {
        let mut modes = self.modes(number).filter(|mode| *mode != CHAIN);
        modes.try_for_each(|mode| in_mode(mode, run, watched).map(drop))
    }

    /// As [`in_both_modes`], for one of several runs.
    fn in_modes(self, number: usize, run: &PythonRun, watched: &[&str]) -> Result<()> {
        self.modes(number).try_for_each(|mode| in_mode(mode, run, watched).map(drop))
    }
}

/// 2,000 predictions, 1,000 in each batch.
fn pipeline(setting: Setting) -> Result<()> {
    let traced = setting.run("python_sklearn_pipeline", &["1000", "4"]).exact()?;
    ensure!(traced.trace.summary.spans() == 8000, "{:?}", traced.trace.summary);
    if setting.interpreter == Interpreter::Sid {
        // A thread that waits there when the tracer comes passes nothing before it predicts: when that began is not known.
        return Ok(());
    }
    let traced =
        setting.run("python_sklearn_pipeline", &["1000", "4"]).tracer_arguments(&["--python", CHAIN]).exact()?;
    ensure!(traced.trace.summary.spans() == 8000, "{:?}", traced.trace.summary);
    Ok(())
}

fn late_threads(setting: Setting) -> Result<()> {
    let run = setting.run("python_sklearn_pipeline", &["40", "4", "--late"]);
    setting.in_modes(0, &run, &["Pipeline.predict", "StandardScaler.transform"])?;
    let run = setting.run("python_sklearn_pipeline", &["40", "4", "--late", "--probabilities"]);
    setting.in_modes(1, &run, &["StandardScaler.transform"])
}

fn n_jobs(setting: Setting) -> Result<()> {
    let run = setting.run("python_n_jobs", &["40"]);
    setting.in_modes(0, &run, &["FeatureUnion.transform", "ColumnTransformer.transform", "MinMaxScaler.transform"])
}

/// Which of two calls on a container a step on another thread belongs to is not known: it has no parent then, and none is
/// made up.
fn together(setting: Setting) -> Result<()> {
    const TRANSFORMS: u32 = 10;
    for mode in setting.modes(0) {
        let run = setting.run("python_n_jobs", &[&TRANSFORMS.to_string(), "--together"]);
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

fn user_estimators(setting: Setting) -> Result<()> {
    let run = setting.run("python_user_estimator", &["30"]);
    if setting.modes(0).any(|mode| mode == CHAIN) {
        // Methods that call nothing but C code, which calls no Python code, are not seen.
        run.clone().tracer_arguments(&["--python", CHAIN]).with_nothing_made_up()?;
    }
    setting.in_all_but_chain(0, &run, &["Shift.transform", "Captured.transform", "Local.transform"])
}

fn exceptions(setting: Setting) -> Result<()> {
    for (number, arguments) in [&["30"][..], &["30", "--keep"]].into_iter().enumerate() {
        let run = setting.run("python_exceptions", arguments).map("targets/python_exceptions/map.yaml");
        setting.in_modes(number, &run, &[])?;
    }
    Ok(())
}

fn coroutines(setting: Setting) -> Result<()> {
    let run = setting.run("python_asyncio", &["20"]);
    setting.in_modes(0, &run, &["Pipeline.predict", "StandardScaler.transform"])
}

fn recursion(setting: Setting) -> Result<()> {
    let run = setting.run("python_recursion", &["10", "4"]);
    if setting.modes(0).any(|mode| mode == CHAIN) {
        // The innermost calls end at once.
        run.clone().tracer_arguments(&["--python", CHAIN]).with_nothing_made_up()?;
    }
    setting.in_all_but_chain(0, &run, &[])
}

fn torch(setting: Setting) -> Result<()> {
    // It needs no scikit-learn.
    let run = |options: &[&str]| PythonRun::of(setting.interpreter, "torch_shape", options);
    run(&["30"]).exact()?;
    run(&["30", "ordered"]).exact().context("modules in an OrderedDict")?;
    in_both_modes(&run(&["30"]), &["Net.__call__", "Linear.__call__"]).map(drop)
}
