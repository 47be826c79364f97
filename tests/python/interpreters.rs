//! Interpreters in places of their own: as in a container, the tracer sees them from outside.
//!
//! All environments of the suites are virtual ones (`python -m venv`), and Debian sid is another root directory.

use anyhow::{Result, ensure};
use tracer_tests::python::{Interpreter, SCIKIT_LEARN};
use tracer_tests::python_run::PythonRun;
use tracer_tests::suite::{Case, Need, case_of};

use crate::scikit_learn::in_both_modes;

/// The tests: an interpreter in the tracer's own root directory, and one in another.
pub fn cases() -> Vec<Case> {
    let case = |interpreter: Interpreter| {
        let needs = vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
        let name = format!("first_process_of_a_container_{}", interpreter.label());
        case_of(name, needs, move || contained(interpreter))
    };
    [SCIKIT_LEARN[0], Interpreter::Sid].map(case).into()
}

fn contained(interpreter: Interpreter) -> Result<()> {
    let run = PythonRun::of(interpreter, "python_sklearn_pipeline", &["40", "4"]).contained();
    let traced = in_both_modes(&run, &["Pipeline.predict", "StandardScaler.transform"])?;
    // It is process 1 to itself, and has another number here.
    let outside = traced.trace.spans.0.first().and_then(|row| row.resource("process.pid"));
    ensure!(outside.as_deref().is_some_and(|pid| pid != "1"), "{outside:?}");
    Ok(())
}
