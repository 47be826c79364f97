//! The maps of further libraries, and of an older scikit-learn, on the real packages.

use anyhow::{Context, Result, ensure};
use tracer_tests::python::{Interpreter, LIBRARIES, SCIKIT_LEARN_1_2};
use tracer_tests::python_run::PythonRun;
use tracer_tests::suite::{Case, Need, case_of};

use crate::machine::tested;
use crate::scikit_learn::in_both_modes;

type Test = fn(Interpreter) -> Result<()>;

/// What is tested, and where.
const TESTS: &[(&str, Interpreter, Test)] = &[
    ("scikit_learn_1_2", SCIKIT_LEARN_1_2, scikit_learn),
    ("imbalanced_learn_0_10", SCIKIT_LEARN_1_2, imbalanced_learn),
    ("imbalanced_learn_0_14", LIBRARIES, imbalanced_learn),
    ("xgboost_classifier", LIBRARIES, xgboost),
    ("lightgbm_classifier", LIBRARIES, lightgbm),
    ("catboost_classifier", LIBRARIES, catboost),
];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let case = |(name, interpreter, test): &(&str, Interpreter, Test)| {
        let (interpreter, test) = (*interpreter, *test);
        case_of((*name).to_owned(), needs(interpreter), move || tested(|| test(interpreter)))
    };
    TESTS.iter().map(case).collect()
}

/// Three steps from four threads; every kind of a user's estimators.
fn scikit_learn(interpreter: Interpreter) -> Result<()> {
    let pipeline = PythonRun::of(interpreter, "python_sklearn_pipeline", &["100", "4"]);
    let traced = pipeline.exact().context("watching")?;
    ensure!(traced.trace.summary.spans() == 800, "{:?}", traced.trace.summary);
    pipeline.tracer_arguments(&["--python", "frames"]).exact().context("frames")?;
    let run = PythonRun::of(interpreter, "python_user_estimator", &["30"]);
    in_both_modes(&run, &["Shift.transform", "Captured.transform", "Local.transform"]).map(drop)
}

/// Four registers are enough for what predicts; with probes that every call passes, the training is whole too.
fn imbalanced_learn(interpreter: Interpreter) -> Result<()> {
    let run = |fits: &str| PythonRun::of(interpreter, "python_imbalanced", &[fits, "20"]);
    run("0").exact().context("watching")?;
    run("2").tracer_arguments(&["--python", "frames"]).exact().context("frames").map(drop)
}

/// The classifier, the method of its base that it calls, and the library in C and C++ below them.
fn xgboost(interpreter: Interpreter) -> Result<()> {
    let run = PythonRun::of(interpreter, "python_boosting", &["xgboost", "20"]);
    run.exact().context("watching")?;
    run.tracer_arguments(&["--python", "frames"]).exact().context("frames").map(drop)
}

/// The same. Four registers leave out the base's method, which has no objects of its own.
fn lightgbm(interpreter: Interpreter) -> Result<()> {
    let run = |more: &[&str]| PythonRun::of(interpreter, "python_boosting", &[&["lightgbm", "20"], more].concat());
    run(&["--overriding"]).exact().context("watching")?;
    run(&[]).tracer_arguments(&["--python", "frames"]).exact().context("frames").map(drop)
}

fn catboost(interpreter: Interpreter) -> Result<()> {
    let run = PythonRun::of(interpreter, "python_boosting", &["catboost", "20"]);
    run.exact().context("watching")?;
    run.tracer_arguments(&["--python", "frames"]).exact().context("frames").map(drop)
}
