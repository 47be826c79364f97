//! scikit-learn: pipelines and what can be in them.

use anyhow::{Result, ensure};
use tracer_tests::python::{Interpreter, SCIKIT_LEARN};
use tracer_tests::python_run::PythonRun;
use tracer_tests::suite::{Case, Need, case_of};

const TESTS: &[(&str, fn(Interpreter) -> Result<()>)] = &[("pipeline_from_four_threads", pipeline)];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let mut cases = Vec::new();
    for (name, test) in TESTS {
        for interpreter in SCIKIT_LEARN {
            cases.push(case_of(format!("{name}_{}", interpreter.label()), needs(interpreter), move || {
                test(interpreter)
            }));
        }
    }
    cases
}

/// 2,000 predictions, 1,000 in each batch.
fn pipeline(interpreter: Interpreter) -> Result<()> {
    let traced = PythonRun::of(interpreter, "python_sklearn_pipeline", &["1000", "4"]).exact()?;
    ensure!(traced.trace.summary.spans() == 8000, "{:?}", traced.trace.summary);
    Ok(())
}
