//! Chain mode with few witnesses, in a process that passes all of them too often: every call is seen, however it is called.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use tracer_tests::process::Running;
use tracer_tests::python::Interpreter;
use tracer_tests::spans::SpanRow;
use tracer_tests::suite::{Case, Need, case_of};
use tracer_tests::tracer::Tracer;

/// Interpreters with each way to tell what C code enters.
const PYTHONS: [Interpreter; 3] = [
    Interpreter::Environment("sklearn-3.11"),
    Interpreter::Environment("sklearn-3.12"),
    Interpreter::Environment("sklearn-3.13"),
];

/// What stderr says once few are placed.
const FEW: &str = "the probes at few places saw all calls of its last seconds";

/// The steps of the two pipelines.
const STEPS: [&[&str]; 2] = [
    &["LogisticRegression.predict", "PolynomialFeatures.transform", "StandardScaler.transform"],
    &["ColumnTransformer.transform", "MinMaxScaler.transform", "RandomForestClassifier.predict"],
];

/// The tests.
pub fn cases() -> Vec<Case> {
    let case = |interpreter: Interpreter| {
        let needs = vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
        let name = format!("every_call_is_seen_at_few_witnesses_{}", interpreter.label());
        case_of(name, needs, move || every_call(interpreter))
    };
    PYTHONS.map(case).into()
}

/// So many predictions of each pipeline were made in one way, between two instants.
struct Made {
    way: String,
    began: u64,
    ended: u64,
    predictions: usize,
}

fn made(line: &str) -> Option<Made> {
    let mut words = line.split_whitespace();
    let way = words.next()?.to_owned();
    let mut number = || words.next()?.parse().ok();
    Some(Made { way, began: number()?, ended: number()?, predictions: usize::try_from(number()?).ok()? })
}

fn every_call(interpreter: Interpreter) -> Result<()> {
    let mut target = Running::start(interpreter.command("targets/python_sparse/target.py")?)?;
    target.wait_output("ready")?;
    let mut attached = Tracer::attach(target.pid())?.arguments(["--python", "auto"]).start()?;
    attached.running.wait_errors(FEW)?;
    target.send_line("go")?;
    target.wait_output("counted")?;
    let trace = attached.stop()?;
    target.close_input();
    let finished = target.finish()?;
    ensure!(finished.code == Some(0), "the target did not end well");
    trace.check_whole()?;
    let python = &trace.summary.0["python"][0];
    let few = python["few_witnesses"].as_array().context("no list of witnesses")?;
    ensure!(few.iter().any(|function| function == "PyEval_SaveThread"), "{python}");
    ensure!(few.iter().all(|function| function != "_PyEval_EvalFrameDefault"), "{python}");

    let mut children: BTreeMap<&[u8], Vec<&str>> = BTreeMap::new();
    for row in &trace.spans.0 {
        children.entry(&row.span.parent_span_id).or_default().push(&row.span.name);
    }
    let ways: Vec<Made> = finished.output.lines().filter_map(made).collect();
    ensure!(ways.len() == 5, "{}", finished.output);
    for Made { way, began, ended, predictions } in ways {
        let is_of_way = |row: &&SpanRow| (began..ended).contains(&row.span.start_time_unix_nano);
        let roots: Vec<&SpanRow> = trace.spans.named("Pipeline.predict").filter(is_of_way).collect();
        for steps in STEPS {
            let mut whole = 0;
            for row in &roots {
                let mut parts = children.get(row.span.span_id.as_slice()).cloned().unwrap_or_default();
                parts.sort_unstable();
                whole += usize::from(parts == steps && row.span.parent_span_id.is_empty());
            }
            ensure!(
                whole == predictions,
                "{way}: {whole} of {predictions} are whole with {steps:?}, {} roots",
                roots.len()
            );
        }
        ensure!(roots.len() == 2 * predictions, "{way}: {} roots", roots.len());
    }
    Ok(())
}
