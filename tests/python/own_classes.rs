//! Classes of an application's own, which no symbol map names: they are told, and traced when asked for.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tracer_tests::python::{Interpreter, SCIKIT_LEARN, SYSTEM};
use tracer_tests::python_run::PythonRun;
use tracer_tests::suite::{Case, Need, case_of};
use tracer_tests::tracer::ml_tracer;

type Test = fn(Interpreter) -> Result<()>;

/// What is tested.
const TESTS: &[(&str, Test)] = &[
    ("named_classes_and_methods", named),
    ("all_classes_of_the_application", all),
    ("classes_without_a_map_are_listed", listed),
    ("classes_without_a_map_are_named_at_the_start", told),
];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let case = |interpreter: Interpreter, (name, test): &(&str, Test)| {
        let test = *test;
        case_of(format!("{name}_{}", interpreter.label()), needs(interpreter), move || test(interpreter))
    };
    // Objects are found by other means from 3.12 on.
    let [_, newer, ..] = SCIKIT_LEARN;
    [SYSTEM, newer].into_iter().flat_map(|interpreter| TESTS.iter().map(move |it| case(interpreter, it))).collect()
}

fn target(interpreter: Interpreter, asked: &str) -> PythonRun {
    PythonRun::of(interpreter, "python_own_classes", &["20", asked])
}

/// A class and what is derived from it, by these methods, one inside the other.
fn named(interpreter: Interpreter) -> Result<()> {
    let asked = ["--class", "app.PriceModel", "--methods", "predict,preprocess"];
    let run = target(interpreter, "price").tracer_arguments(&asked);
    run.exact()?;
    run.tracer_arguments(&["--python", "frames"]).exact().context("frames")?;
    let bare = ["--class", "PriceModel", "--methods", "predict", "--methods", "preprocess"];
    let traced = target(interpreter, "price").tracer_arguments(&bare).exact().context("a bare name")?;
    let row = traced.trace.spans.named("Cheap.predict").next().context("a span")?;
    ensure!(row.text("ml.library") == Some("application"), "{:?}", row.text("ml.library"));
    Ok(())
}

fn all(interpreter: Interpreter) -> Result<()> {
    target(interpreter, "all").tracer_arguments(&["--all-classes"]).exact().map(drop)
}

/// With the map that traces them.
fn listed(interpreter: Interpreter) -> Result<()> {
    let mut target = target(interpreter, "all").start()?;
    target.batch()?;
    let symbols = |more: &[&str]| -> Result<String> {
        let pid = target.pid().to_string();
        Ok(ml_tracer(["symbols", "--pid", &pid].iter().chain(more))?.output)
    };
    let text = symbols(&[])?;
    for line in [
        "  app.Cheap        predict  (1 object)",
        "  app.PriceModel   predict  (1 object)",
        "  app.Ranker       encode  (1 object)",
        "  __main__.Scorer  __call__  (1 object)",
        "    bases: [app.Cheap, app.PriceModel, app.Ranker, __main__.Scorer]",
        "    methods: [predict, encode, __call__]",
    ] {
        ensure!(text.lines().any(|found| found == line), "`{line}` is missing in\n{text}");
    }
    ensure!(!text.contains("Later"), "a coroutine is listed:\n{text}");
    let listing: Value = serde_json::from_str(&symbols(&["--json"])?)?;
    let classes = listing.pointer("/python/0/unnamed_classes").and_then(Value::as_array).context("a list")?;
    ensure!(classes.len() == 4, "{classes:?}");
    let map = listing.get("map_of_unnamed_classes").and_then(Value::as_str).context("a map")?;
    // The map is one, and says the same as the option.
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), map)?;
    let path = file.path().to_string_lossy().into_owned();
    for options in [&["--map", path.as_str()][..], &["--all-classes"]] {
        let text = symbols(options)?;
        ensure!(text.contains("Ranker.encode") && !text.contains("no map names"), "{options:?}:\n{text}");
    }
    target.finish().map(drop)
}

fn told(interpreter: Interpreter) -> Result<()> {
    let attached = |asked: &[&str]| -> Result<String> {
        let run = target(interpreter, "price").tracer_arguments(asked);
        let mut target = run.start()?;
        let attached = run.attach(&target)?;
        target.batch()?;
        let trace = attached.stop()?;
        target.finish()?;
        Ok(trace.finished.errors)
    };
    let errors = attached(&["--class", "app.PriceModl"])?;
    for part in [
        "did you mean `--class app.PriceModel`?",
        "no map names app.Cheap (predict), app.PriceModel (predict), app.Ranker (encode), and 1 more, which have live objects",
    ] {
        ensure!(errors.contains(part), "`{part}` is missing in\n{errors}");
    }
    let errors = attached(&["--all-classes"])?;
    ensure!(!errors.contains("no map names"), "{errors}");
    Ok(())
}
