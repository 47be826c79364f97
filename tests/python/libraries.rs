//! The maps of further libraries, and of an older scikit-learn, on the real packages.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tracer_tests::process::poll;
use tracer_tests::python::{CHAIN, Interpreter, LIBRARIES, LLAMA, SCIKIT_LEARN_1_2, TORCH};
use tracer_tests::python_run::PythonRun;
use tracer_tests::spans::Spans;
use tracer_tests::suite::{Case, Need, case_of, is_full};

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

/// The one whose environment takes long to make.
const ON_LLAMA: (&str, Interpreter, Test) = ("llama_cpp_python", LLAMA, llama);

/// Libraries of `python_frameworks`: calls of their models are whole trees in the default mode.
const FRAMEWORKS: [&str; 7] =
    ["onnxruntime", "statsmodels", "statsmodels_fits", "prophet", "spacy", "skops", "tokenizers"];

/// Likewise in frames mode alone. Keras wraps each method in a function of `*args`: where nothing else is called inside, watch mode
/// finds the arguments gone at the end, and does not know whose call it was.
const IN_FRAMES_MODE: [&str; 1] = ["keras"];

/// Libraries of `python_torch`, whose environment is large.
const ON_TORCH: [&str; 3] = ["torch", "transformers", "sentence_transformers"];

/// The tests.
pub fn cases() -> Vec<Case> {
    let needs = |interpreter| vec![Need::Program, Need::Kernel, Need::Python(interpreter)];
    let case = |(name, interpreter, test): &(&str, Interpreter, Test)| {
        let (interpreter, test) = (*interpreter, *test);
        case_of((*name).to_owned(), needs(interpreter), move || test(interpreter))
    };
    let framework = |name: &'static str, mode: Option<&'static str>| {
        let suffix = mode.map(|mode| format!("_{mode}")).unwrap_or_default();
        case_of(format!("calls_of_{name}{suffix}"), needs(LIBRARIES), move || framework(LIBRARIES, name, mode))
    };
    let in_frames_mode: &[&str] = if is_full() { &FRAMEWORKS } else { &[] };
    let in_frames_mode = in_frames_mode.iter().chain(&IN_FRAMES_MODE).map(|name| framework(name, Some("frames")));
    let frameworks = FRAMEWORKS.iter().map(|name| framework(name, None)).chain(in_frames_mode);
    let on_torch = |name: &'static str| {
        let test = move || PythonRun::of(TORCH, "python_torch", &[name, "10"]).exact().map(drop);
        case_of(format!("calls_of_{name}"), needs(TORCH), test)
    };
    let on_torch = ON_TORCH.iter().filter(|_| is_full()).map(|name| on_torch(name));
    let on_llama = is_full().then_some(&ON_LLAMA);
    TESTS.iter().chain(on_llama).map(case).chain(frameworks).chain(on_torch).collect()
}

/// The calls of a library's model, the methods below them, and the names of its parts.
fn framework(interpreter: Interpreter, library: &str, mode: Option<&str>) -> Result<()> {
    let run = PythonRun::of(interpreter, "python_frameworks", &[library, "10"]);
    let mode = mode.map_or_else(Vec::new, |mode| vec!["--python", mode]);
    run.tracer_arguments(&mode).exact().map(drop)
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
    found_under_traffic(&run("0")).context("watching")?;
    run("2").tracer_arguments(&["--python", "frames"]).exact().context("frames").map(drop)
}

/// imbalanced-learn 0.14 brings models of scikit-learn's own tests into the process, and `Pipeline` is the name of two
/// classes. Which of the many methods are called shows once the model predicts.
fn found_under_traffic(run: &PythonRun) -> Result<()> {
    let whole = "Pipeline.predict(StandardScaler.transform,LogisticRegression.predict)";
    let mut target = run.start()?;
    let attached = run.attach(&target)?;
    let file = attached.file("spans.jsonl");
    poll("a whole tree", || {
        target.batch()?;
        sleep(Duration::from_millis(100));
        // The last line may be half written.
        let seen = Spans::read(&file).map(|spans| spans.tree_lines()).unwrap_or_default();
        Ok(seen.iter().any(|tree| tree == whole).then_some(()))
    })?;
    // From then on nothing is missing.
    let trace = attached.stop()?;
    trace.check_whole()?;
    ensure!(target.finish()?.code == Some(0), "the target ended badly");
    let trees = trace.spans.tree_lines();
    let first = trees.iter().position(|tree| tree == whole).context("no whole tree at the end")?;
    ensure!(trees.iter().skip(first).all(|tree| tree == whole), "{:?}", trees.get(first..));
    Ok(())
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

/// The model's methods, and the library in C and C++ below them with the number of tokens in each batch: the first text that is embedded
/// has ten letters, behind what begins every text and a space. There are more methods than registers.
fn llama(interpreter: Interpreter) -> Result<()> {
    let run = PythonRun::of(interpreter, "python_llama", &["10"]);
    for mode in ["frames", CHAIN] {
        let traced = run.clone().tracer_arguments(&["--python", mode]).exact().context(mode)?;
        let batches: Vec<_> =
            traced.trace.spans.named("Context.decode").map(|batch| batch.integer("ml.tokens")).collect();
        ensure!(batches.contains(&Some(12)), "{mode}: {batches:?}");
        ensure!(batches.iter().all(|tokens| tokens.is_some_and(|tokens| tokens > 0)), "{mode}: {batches:?}");
    }
    run.with_nothing_made_up().context("watching").map(drop)
}
