//! Rows and columns of the array that a call is given.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use tracer_tests::python::{CHAIN, Interpreter, MODES};
use tracer_tests::python_run::PythonRun;
use tracer_tests::suite::{Case, Need, case_of};

/// Interpreters whose bytecode is known.
const PYTHONS: [Interpreter; 4] = [
    Interpreter::Environment("sklearn-3.11"),
    Interpreter::Environment("sklearn-3.12"),
    Interpreter::Environment("sklearn-3.13"),
    Interpreter::Sid,
];

/// Predictions of each of two batches; the one of number n is given 1 + n % 7 rows of 5 columns.
const PREDICTIONS: i64 = 40;

/// What each method is given: columns, once those of the second power are there.
const COLUMNS: [(&str, i64); 4] = [
    ("Pipeline.predict", 5),
    ("StandardScaler.transform", 5),
    ("PolynomialFeatures.transform", 5),
    ("LogisticRegression.predict", 21),
];

/// The tests.
pub fn cases() -> Vec<Case> {
    let case = |interpreter: Interpreter| {
        let needs = vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
        case_of(format!("rows_and_columns_{}", interpreter.label()), needs, move || rows_and_columns(interpreter))
    };
    PYTHONS.map(case).into()
}

fn rows_and_columns(interpreter: Interpreter) -> Result<()> {
    for mode in MODES.into_iter().chain([CHAIN]) {
        let run = PythonRun::of(interpreter, "python_sklearn_pipeline", &[&PREDICTIONS.to_string(), "4"]).forked();
        let trace = run.tracer_arguments(&["--python", mode]).traced()?.trace;
        trace.check_whole().context(mode)?;
        let mut rows_of = HashMap::new();
        for (name, columns) in COLUMNS {
            let (mut sum, mut told) = (0, 0);
            for row in trace.spans.named(name) {
                let Some(rows) = row.integer("ml.rows") else { continue };
                ensure!(
                    row.integer("ml.columns") == Some(columns),
                    "{mode}: {:?} of {name}",
                    row.integer("ml.columns")
                );
                rows_of.insert(row.span.span_id.clone(), rows);
                let around = rows_of.get(&row.span.parent_span_id);
                ensure!(around.is_none_or(|around| *around == rows), "{mode}: {rows} rows of {name} inside {around:?}");
                (sum, told) = (sum + rows, told + 1);
            }
            let expected: i64 = 2 * (0..PREDICTIONS).map(|number| 1 + number % 7).sum::<i64>();
            // What watch mode learns of a call it learns at the next event of its thread: the variable may hold something else by then.
            let is_all = told == 2 * PREDICTIONS;
            ensure!(
                if is_all { sum == expected } else { mode == "watch" },
                "{mode}: {sum} rows in {told} calls of {name}"
            );
        }
        ensure!(!rows_of.is_empty(), "{mode}: no rows");
    }
    Ok(())
}
