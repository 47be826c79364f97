//! Trees of calls that all return.

use anyhow::{Result, ensure};
use tracer_tests::spans::{Tree, read_truth, same_trees};
use tracer_tests::suite::{Case, Need, case};
use tracer_tests::targets::Target;
use tracer_tests::tracer::{NEST_ALL, Trace, Tracer};

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel];
    vec![
        case("thousand_requests_equal_truth", NEEDS, thousand_requests),
        case("requests_on_threads_equal_truth", NEEDS, requests_on_threads),
        case("every_kind_of_build_equals_truth", NEEDS, every_kind_of_build),
        case("probes_placed_one_by_one", NEEDS, single_probes),
        case("run_traces_from_the_first_instruction", NEEDS, run_from_the_start),
        case("folded_forest_is_one_span", NEEDS, folded_forest),
        case("listed_forest_has_a_span_a_tree", NEEDS, listed_forest),
        case("leaf_class_is_folded", NEEDS, leaf_class),
        case("excluded_class_is_invisible", NEEDS, excluded_class),
        case("recursion_is_a_level_a_span", NEEDS, recursion),
        case("recursion_too_deep_is_counted_lost", NEEDS, recursion_too_deep),
        case("eight_threads_and_short_lived_ones", NEEDS, many_threads),
        case("results_by_value", NEEDS, results_by_value),
        case("same_object_nests_without_a_list", NEEDS, same_object),
    ]
}

const LOOK_INTO_PIPELINE: &str = "schema: ml-tracer/v1\nlibrary: test\nlanguage: cpp\n\
    methods: [fit, transform, predict, predict_proba]\nrecurse:\n  Pipeline: {named: [steps]}\n";

/// Traces one batch of `cpp_pipeline` in some build and gives the trace and the truth.
fn trace_pipeline(build: &str, map: &str, arguments: &[&str]) -> Result<(Trace, Truth)> {
    let folder = tempfile::tempdir()?;
    let truth = folder.path().join("truth");
    let mut all = vec!["--truth", truth.to_str().unwrap_or_default()];
    all.extend(arguments);
    let mut target = Target::start(build, &all)?;
    let attached = Tracer::attach(target.pid())?.map(map)?.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    Ok((trace, read_truth(&truth)?))
}

type Truth = std::collections::BTreeMap<i64, Vec<Tree>>;

fn folded(truth: &Truth, class: &str) -> Truth {
    truth.iter().map(|(thread, trees)| (*thread, trees.iter().map(|tree| tree.folded_in(class)).collect())).collect()
}

fn calls(truth: &Truth) -> u64 {
    truth.values().flatten().map(|tree| tree.size() as u64).sum()
}

fn thousand_requests() -> Result<()> {
    let (trace, truth) = trace_pipeline("cpp_pipeline", NEST_ALL, &["--requests", "1000"])?;
    same_trees(&trace.spans.trees(), &truth)?;
    ensure!(trace.summary.entries() == calls(&truth), "{} entries, {} calls", trace.summary.entries(), calls(&truth));
    ensure!(trace.summary.open() == 0 && trace.spans.ended("returned") == trace.spans.0.len(), "not all returned");
    Ok(())
}

fn requests_on_threads() -> Result<()> {
    let (trace, truth) = trace_pipeline("cpp_pipeline", NEST_ALL, &["--requests", "400", "--threads", "4"])?;
    same_trees(&trace.spans.trees(), &truth)
}

fn every_kind_of_build() -> Result<()> {
    for build in ["debug", "non_pie", "static", "marked", "frames"] {
        let build = format!("cpp_pipeline_{build}");
        let (trace, truth) = trace_pipeline(&build, NEST_ALL, &["--requests", "50"])?;
        same_trees(&trace.spans.trees(), &truth).map_err(|error| error.context(build))?;
    }
    Ok(())
}

/// As on kernels before 6.6.
fn single_probes() -> Result<()> {
    let mut target = Target::start("cpp_exceptions", &["--requests", "21"])?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.arguments(["--single-probes"]).start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    let lines = trace.spans.tree_lines();
    let expected = "Outer.predict(Middle.predict(Inner.predict))";
    ensure!(lines.len() == 21 && lines.iter().all(|line| line == expected), "{lines:?}");
    ensure!(trace.spans.ended("unwound") == 30, "{:?}", trace.summary);
    Ok(())
}

fn run_from_the_start() -> Result<()> {
    let program = tracer_tests::targets::build("cpp_pipeline")?;
    let words = [program.as_os_str(), "--requests".as_ref(), "10".as_ref()];
    let trace = Tracer::run()?.map(NEST_ALL)?.finish_with(&words)?;
    ensure!(trace.finished.code == Some(0), "{:?}", trace.finished);
    trace.check_whole()?;
    // Two of ten requests fit a pipeline; three more are fitted before the first request.
    ensure!(trace.spans.count("Pipeline.fit") == 2 + 4, "{} fits", trace.spans.count("Pipeline.fit"));
    Ok(())
}

fn folded_forest() -> Result<()> {
    for build in ["cpp_pipeline", "cpp_pipeline_debug"] {
        let arguments = ["--requests", "100", "--trees", "17"];
        let (trace, truth) = trace_pipeline(build, LOOK_INTO_PIPELINE, &arguments)?;
        same_trees(&trace.spans.trees(), &folded(&truth, "RandomForest"))?;
        ensure!(trace.spans.count("RandomForest.predict") == 20, "twenty requests use the forest");
        ensure!(trace.spans.count("DecisionTree.predict") == 0, "trees have spans");
        for forest in trace.spans.named("RandomForest.predict") {
            let folded = forest.integer("ml.folded_calls");
            ensure!(folded == Some(17), "ml.folded_calls is {folded:?}");
        }
        let calls = calls(&truth);
        ensure!(trace.summary.entries() == calls, "{} entries, {calls} calls", trace.summary.entries());
    }
    Ok(())
}

fn listed_forest() -> Result<()> {
    let map = format!("{LOOK_INTO_PIPELINE}  RandomForest: {{children: [estimators]}}\n");
    for build in ["cpp_pipeline", "cpp_pipeline_debug"] {
        let (trace, truth) = trace_pipeline(build, &map, &["--requests", "100", "--trees", "17"])?;
        same_trees(&trace.spans.trees(), &truth)?;
        ensure!(trace.spans.count("DecisionTree.predict") == 20 * 17, "not a span a tree");
    }
    Ok(())
}

fn leaf_class() -> Result<()> {
    let map = format!("{NEST_ALL}leaf: [RandomForest]\n");
    let (trace, truth) = trace_pipeline("cpp_pipeline", &map, &["--requests", "50"])?;
    same_trees(&trace.spans.trees(), &folded(&truth, "RandomForest"))
}

fn excluded_class() -> Result<()> {
    let map = format!("{NEST_ALL}exclude: [\"*DecisionTree*\"]\n");
    let (trace, truth) = trace_pipeline("cpp_pipeline", &map, &["--requests", "50"])?;
    same_trees(&trace.spans.trees(), &folded(&truth, "RandomForest"))?;
    ensure!(trace.summary.folded() == 0, "excluded calls were folded");
    Ok(())
}

fn chain(levels: usize) -> Tree {
    let children = if levels > 1 { vec![chain(levels - 1)] } else { Vec::new() };
    Tree { name: "Recursor.predict".to_owned(), children }
}

fn trace_recursion(deepest: usize) -> Result<Trace> {
    let mut target = Target::start("cpp_recursion", &["--deepest", &deepest.to_string()])?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    Ok(trace)
}

/// Open calls that the tracer keeps for a thread.
const DEEPEST_KEPT: usize = 64;

fn recursion() -> Result<()> {
    let trace = trace_recursion(DEEPEST_KEPT)?;
    trace.check_whole()?;
    let expected: Vec<String> = (1..=DEEPEST_KEPT).map(|levels| chain(levels).to_string()).collect();
    ensure!(trace.spans.tree_lines() == expected, "{:?}", trace.spans.tree_lines());
    Ok(())
}

fn recursion_too_deep() -> Result<()> {
    let trace = trace_recursion(200)?;
    trace.check_books()?;
    trace.spans.check()?;
    let lost: usize = (1..=200usize).map(|levels| levels.saturating_sub(DEEPEST_KEPT)).sum();
    ensure!(trace.summary.lost() == lost as u64, "{} lost, {lost} too deep", trace.summary.lost());
    ensure!(trace.summary.entries() == (1..=200u64).sum::<u64>(), "{} entries", trace.summary.entries());
    let expected: Vec<String> = (1..=200usize).map(|levels| chain(levels.min(DEEPEST_KEPT)).to_string()).collect();
    ensure!(trace.spans.tree_lines() == expected, "{:?}", trace.spans.tree_lines());
    Ok(())
}

fn many_threads() -> Result<()> {
    let mut target = Target::start("cpp_threads", &["--requests", "100", "--short-lived", "50"])?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.batch()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    let requests = 2 * (8 * 100 + 50);
    let lines = trace.spans.tree_lines();
    let expected = "Worker.predict(Leaf.predict_proba,Leaf.predict_proba)";
    ensure!(lines.len() == requests, "{} requests seen of {requests}", lines.len());
    ensure!(lines.iter().all(|line| line == expected), "{lines:?}");
    Ok(())
}

const CHAIN_BY_VALUE: &str =
    "Chain.predict(Classifier.predict(Classifier.predict_proba),Classifier.predict(Classifier.predict_proba))";

fn trace_by_value(map: &str) -> Result<Trace> {
    let mut target = Target::start("cpp_by_value", &["--requests", "50"])?;
    let attached = Tracer::attach(target.pid())?.map(map)?.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_whole()?;
    Ok(trace)
}

fn results_by_value() -> Result<()> {
    let lines = trace_by_value(NEST_ALL)?.spans.tree_lines();
    ensure!(lines.len() == 50 && lines.iter().all(|line| line == CHAIN_BY_VALUE), "{lines:?}");
    Ok(())
}

/// `predict_proba` on the object of an open `predict` is a child although its class is not looked into; where the
/// object cannot be told, the call is folded. `cpp_by_value` hides its objects behind the address of the result.
fn same_object() -> Result<()> {
    let map = "schema: ml-tracer/v1\nlibrary: test\nlanguage: cpp\nmethods: [predict, predict_proba]\n\
        recurse:\n  Chain: {children: [first, second]}\n";
    let trace = trace_by_value(map)?;
    let folded = CHAIN_BY_VALUE.replace("(Classifier.predict_proba)", "");
    let lines = trace.spans.tree_lines();
    let uniform = lines.iter().all(|line| line == CHAIN_BY_VALUE) || lines.iter().all(|line| *line == folded);
    ensure!(lines.len() == 50 && uniform, "{lines:?}");
    ensure!(trace.summary.spans() + trace.summary.folded() == 250, "{:?}", trace.summary);
    let arguments = ["--requests", "20", "--kind", "0"];
    let (trace, _) = trace_pipeline("cpp_pipeline_debug", LOOK_INTO_PIPELINE, &arguments)?;
    ensure!(trace.spans.count("LogisticRegression.predict_proba") == 20, "{:?}", trace.spans.tree_lines());
    Ok(())
}
