//! The programs and records that the Python suites rest on: every target tells a truth that is right, and the original
//! still makes the spans that were recorded.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use tracer_tests::process::{Finished, poll, run};
use tracer_tests::python::{Interpreter, LIBRARIES, LLAMA, ORACLE, SCIKIT_LEARN, SCIKIT_LEARN_1_2, Truth};
use tracer_tests::suite::{Need, case, is_full, main as run_suite};
use tracer_tests::targets::Target;
use tracer_tests::workspace;

fn main() -> ExitCode {
    // The suites that trace run the others.
    const OLDEST: Interpreter = SCIKIT_LEARN[0];
    let mut cases = vec![
        case("targets_tell_the_truth", &[Need::Python(OLDEST)], || targets_tell_the_truth(OLDEST, TARGETS, executed)),
        case("targets_tell_the_truth_in_debian_sid", &[Need::Python(Interpreter::Sid)], || {
            targets_tell_the_truth(Interpreter::Sid, TARGETS, forked)
        }),
        case("targets_tell_the_truth_with_scikit_learn_1_2", &[Need::Python(SCIKIT_LEARN_1_2)], || {
            targets_tell_the_truth(SCIKIT_LEARN_1_2, &[IMBALANCED], executed)
        }),
        case("targets_of_libraries_tell_the_truth", &[Need::Python(LIBRARIES)], || {
            targets_tell_the_truth(LIBRARIES, LIBRARY_TARGETS, executed)
        }),
        case("a_forked_target_is_like_an_executed_one", &[Need::Python(OLDEST)], || {
            forked_is_like_executed(OLDEST, "targets/python_sklearn_pipeline/target.py", &["12", "4"])
        }),
        case("a_forked_target_is_like_an_executed_one_in_debian_sid", &[Need::Python(Interpreter::Sid)], || {
            forked_is_like_executed(Interpreter::Sid, "targets/python_n_jobs/target.py", &["2"])
        }),
        case("a_forked_target_is_like_an_executed_one_with_the_original", &[Need::Python(ORACLE)], || {
            forked_is_like_executed(ORACLE, "python_oracle/oracle.py", &["random_forest", "predict"])
        }),
        case("the_recorded_trees_are_those_of_the_original", &[Need::Python(ORACLE)], recorded_trees),
    ];
    if is_full() {
        cases.push(case("a_target_of_llama_tells_the_truth", &[Need::Python(LLAMA)], || {
            targets_tell_the_truth(LLAMA, LLAMA_TARGETS, executed)
        }));
    }
    run_suite(cases)
}

/// Target, arguments, calls that two batches make, names of spans in it.
type TargetTruth = (&'static str, &'static [&'static str], u64, &'static [&'static str]);

const IMBALANCED: TargetTruth =
    ("python_imbalanced", &["1", "2"], 24, &["Pipeline.fit", "RandomOverSampler.fit_resample"]);

const LIBRARY_TARGETS: &[TargetTruth] = &[
    IMBALANCED,
    ("python_boosting", &["xgboost", "2"], 48, &["XGBClassifier.predict_proba", "Booster.predict"]),
    ("python_boosting", &["lightgbm", "2"], 28, &["LGBMClassifier.predict", "Booster.predict"]),
    ("python_boosting", &["lightgbm", "2", "--overriding"], 20, &["LGBMClassifier.predict_proba"]),
    ("python_boosting", &["catboost", "2"], 8, &["CatBoostClassifier.predict"]),
    ("python_frameworks", &["onnxruntime", "2"], 4, &["InferenceSession.run"]),
    ("python_frameworks", &["statsmodels", "2"], 8, &["LogitResults.predict", "Logit.predict"]),
    ("python_frameworks", &["statsmodels_fits", "2"], 4, &["OLS.fit"]),
    ("python_frameworks", &["prophet", "2"], 4, &["Prophet.predict"]),
    ("python_frameworks", &["keras", "2"], 16, &["Sequential.predict", "Dense.__call__"]),
    (
        "python_frameworks",
        &["spacy", "2"],
        20,
        &["English.__call__", "TextCategorizer.predict", "EntityRuler.__call__"],
    ),
    ("python_frameworks", &["skops", "2"], 12, &["Pipeline.predict", "LogisticRegression.predict"]),
    ("python_frameworks", &["tokenizers", "2"], 8, &["ByteLevelBPETokenizer.encode"]),
];

const LLAMA_TARGETS: &[TargetTruth] =
    &[("python_llama", &["2"], 156, &["Llama.create_chat_completion", "Llama.eval", "Llama.embed", "Context.decode"])];

const TARGETS: &[TargetTruth] = &[
    ("python_sklearn_pipeline", &["12", "4"], 96, &["Pipeline.predict", "PolynomialFeatures.transform"]),
    ("python_sklearn_pipeline", &["12", "4", "--late", "--probabilities"], 96, &["LogisticRegression.predict_proba"]),
    ("python_exceptions", &["6", "--keep"], 112, &["Fallback.predict", "Guard.transform"]),
    ("python_n_jobs", &["2"], 28, &["FeatureUnion.transform", "ColumnTransformer.transform", "MinMaxScaler.transform"]),
    (
        "python_user_estimator",
        &["3", "--super"],
        72,
        &["Audited.predict", "Louder.transform", "Local.transform", "Threshold.predict_proba"],
    ),
    ("python_asyncio", &["4"], 96, &["Pipeline.predict"]),
    ("python_recursion", &["2", "3"], 100, &["Halving.predict", "Doubling.transform"]),
    ("python_blas", &["3"], 12, &["LogisticRegression.predict", "BLAS.dgemm"]),
    ("python_forest", &["3", "2", "trees"], 48, &["DecisionTreeClassifier.predict_proba", "Tree.predict"]),
    ("torch_shape", &["3"], 36, &["Net.__call__", "Sequential.__call__", "Linear.__call__", "ReLU.__call__"]),
];

/// How to start a script with these arguments.
type Start = fn(Interpreter, &str, &[&str]) -> Result<Target>;

fn executed(interpreter: Interpreter, script: &str, arguments: &[&str]) -> Result<Target> {
    let mut command = interpreter.command(script)?;
    command.args(arguments);
    Target::start_command(command)
}

fn forked(interpreter: Interpreter, script: &str, arguments: &[&str]) -> Result<Target> {
    Target::start_forked(interpreter, script, arguments)
}

fn targets_tell_the_truth(interpreter: Interpreter, targets: &[TargetTruth], start: Start) -> Result<()> {
    for (name, arguments, calls, names) in targets {
        let mut target = start(interpreter, &format!("targets/{name}/target.py"), arguments)?;
        target.batch()?;
        target.batch()?;
        let finished = target.finish()?;
        let truth = Truth::of(&finished).context(*name)?;
        ensure!(finished.errors.is_empty(), "{name} has complained: {}", finished.errors);
        let told: u64 = truth.spans.values().sum();
        ensure!(told == *calls, "{name} tells of {told} calls instead of {calls}");
        let paths: BTreeSet<&str> = truth.spans.keys().flat_map(|kind| &kind.path).map(String::as_str).collect();
        for expected in *names {
            ensure!(paths.contains(expected), "{name} tells nothing of {expected}");
        }
    }
    Ok(())
}

/// What the kernel knows of a process and a tracer may look at.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    program: PathBuf,
    root: PathBuf,
    threads: usize,
    descriptors: BTreeSet<String>,
    state: Vec<String>,
    leads_its_group: bool,
}

impl Process {
    fn of(pid: u32) -> Result<Self> {
        let place = PathBuf::from(format!("/proc/{pid}"));
        let link = |name: &str| fs::read_link(place.join(name));
        let mut descriptors = BTreeSet::new();
        for entry in fs::read_dir(place.join("fd"))? {
            let entry = entry?;
            let points_to = fs::read_link(entry.path())?.to_string_lossy().into_owned();
            // Of `pipe:[4711]` the kind.
            let kind = points_to.split(':').next().unwrap_or_default();
            descriptors.insert(format!("{} {kind}", entry.file_name().to_string_lossy()));
        }
        let kept = ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "Uid", "CapEff", "Seccomp:", "TracerPid", "Umask", "State"];
        let status = fs::read_to_string(place.join("status"))?;
        let state = status.lines().filter(|line| kept.iter().any(|name| line.starts_with(name))).map(str::to_owned);
        let group = rustix::process::getpgid(Some(identity(pid)?))?;
        Ok(Self {
            program: link("exe")?,
            root: link("root")?,
            threads: fs::read_dir(place.join("task"))?.count(),
            descriptors,
            state: state.collect(),
            leads_its_group: group == identity(pid)?,
        })
    }

    /// Whether it waits for its next line.
    fn sleeps(&self) -> bool {
        self.state.iter().any(|line| line.starts_with("State:\tS"))
    }
}

fn identity(pid: u32) -> Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id is a positive number")
}

/// What is forked from an interpreter that has imported much is, once it is ready, what is executed: it has the same threads,
/// no descriptor and no signal of the server's, and says and does the same; twice in a row, while another one is there.
fn forked_is_like_executed(interpreter: Interpreter, script: &str, arguments: &[&str]) -> Result<()> {
    let mut executed = executed(interpreter, script, arguments)?;
    let mut first = forked(interpreter, script, arguments)?;
    let mut second = forked(interpreter, script, arguments)?;
    for forked in [&first, &second] {
        // Threads that the imports have begun may be about to end in either of them.
        let mut last = String::new();
        poll("the forked process to be as the executed one", || {
            let (expected, found) = (Process::of(executed.pid())?, Process::of(forked.pid())?);
            let is_alike = found == expected && found.sleeps();
            last = format!("executed: {expected:?}\nforked: {found:?}");
            Ok(is_alike.then_some(()))
        })
        .context(last)?;
    }
    for target in [&mut executed, &mut first, &mut second] {
        target.batch()?;
    }
    let killed = forked(interpreter, script, arguments)?;
    killed.running.signal(Signal::KILL)?;
    ensure!(killed.finish()?.signal == Some(9), "the end of a forked target is not told");
    let executed = executed.finish()?;
    for forked in [first, second] {
        let forked = forked.finish()?;
        ensure!(forked == executed, "executed: {executed:?}\nforked: {forked:?}");
    }
    Ok(())
}

/// One tree of the file for each shape that a record can have.
const RECORDED: &[[&str; 3]] = &[
    ["pipeline", "predict", "public"],
    ["nested_pipeline", "fit", "private"],
    ["column_transformer", "fit", "public"],
    ["random_forest_children", "predict", "public"],
    ["user_defined", "predict", "public"],
];

fn recorded_trees() -> Result<()> {
    let recorded = fs::read_to_string(workspace::tests("python_oracle/trees.txt"))?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("spans.json");
    for [model, action, methods] in RECORDED {
        let mut command = ORACLE.command("python_oracle/oracle.py")?;
        command.args([model, action]).arg("--instrument").arg(&file);
        if *methods == "private" {
            command.arg("--private-methods");
        }
        let Finished { code, errors, .. } = run(command)?;
        ensure!(code == Some(0), "{model} {action}: {errors}");
        let heading = format!("# {model} {action} {methods}\n");
        let Some((_, rest)) = recorded.split_once(&heading) else { bail!("trees.txt has no `{heading}`") };
        let expected = rest.split("\n\n").next().unwrap_or_default();
        let found = rendered(&fs::read_to_string(&file)?)?;
        ensure!(found == expected.trim_end(), "{heading}recorded:\n{expected}\nnow:\n{found}");
    }
    Ok(())
}

/// The spans that the original wrote, as the record has them: two spaces deeper for each parent.
fn rendered(text: &str) -> Result<String> {
    let spans: Vec<serde_json::Value> = serde_json::from_str(text)?;
    let mut depths: Vec<usize> = Vec::new();
    let mut lines = Vec::new();
    for span in &spans {
        let parent = span["parent"].as_u64().and_then(|parent| depths.get(usize::try_from(parent).ok()?));
        let depth = parent.map_or(0, |depth| depth + 1);
        depths.push(depth);
        lines.push(format!("{}{}", "  ".repeat(depth), span["name"].as_str().context("a span has a name")?));
    }
    Ok(lines.join("\n"))
}
