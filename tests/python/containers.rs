//! Models that contain models: whole trees where all calls are seen.

use anyhow::Result;
use tracer_tests::python::{CHAIN, Interpreter, SCIKIT_LEARN};
use tracer_tests::python_run::PythonRun;
use tracer_tests::suite::{Case, Need, case_of, do_meet};

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let mut cases = Vec::new();
    for (version, interpreter) in SCIKIT_LEARN.into_iter().enumerate() {
        let label = interpreter.label();
        for (place, mode) in ["frames", CHAIN].into_iter().enumerate() {
            if do_meet(0, version, place) {
                let name = format!("models_in_models_{mode}_{label}");
                cases.push(case_of(name, needs(interpreter), move || whole_trees(interpreter, mode)));
            }
        }
    }
    cases
}

/// Every kind of container, each call of which has its span at its place, with the name of its step; and one of many models, which
/// is not looked into.
fn whole_trees(interpreter: Interpreter, mode: &str) -> Result<()> {
    for kinds in [&["3"][..], &["3", "many"]] {
        let run = PythonRun::of(interpreter, "python_containers", kinds).forked();
        run.tracer_arguments(&["--python", mode]).exact()?;
    }
    Ok(())
}
