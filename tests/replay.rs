//! Replay suite: recorded tapes through decode, assemble and the sinks, without root and without a kernel, to the spans
//! they gave before.
//!
//! `ML_TRACER_GOLDEN=write` writes the golden files anew; `ML_TRACER_TAPES=record` records the tapes anew (as root).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tracer_tests::golden::render;
use tracer_tests::process::Finished;
use tracer_tests::spans::Spans;
use tracer_tests::suite::{self, Need, case};
use tracer_tests::targets::Target;
use tracer_tests::tracer::{NEST_ALL, Summary, Trace, Tracer, ml_tracer};
use tracer_tests::workspace;

fn main() -> ExitCode {
    const PROGRAM: &[Need] = &[Need::Program];
    const KERNEL: &[Need] = &[Need::Program, Need::Kernel];
    if is_set("ML_TRACER_TAPES", "record")
        && let Err(error) = record_tapes()
    {
        suite::report(&format!("the tapes could not be recorded: {error:#}"));
        return ExitCode::FAILURE;
    }
    let cases = vec![
        case("tapes_give_the_golden_spans", PROGRAM, golden_spans),
        case("replay_needs_no_privilege_and_no_time", PROGRAM, every_sink),
        case("the_console_shows_what_is_asked_for", PROGRAM, console_options),
        case("damaged_tapes_end_in_a_sentence", PROGRAM, damaged_tapes),
        case("a_recorded_run_replays_to_the_same_spans", KERNEL, recorded_run),
    ];
    suite::main(cases)
}

fn is_set(variable: &str, value: &str) -> bool {
    std::env::var(variable).is_ok_and(|found| found == value)
}

/// Recorded with a ring so small that records are lost.
const FULL_RING: &str = "full_ring";

/// Name of the tape, target, its arguments, and map; `None` for the map of the C library.
type Recipe = (&'static str, &'static str, &'static [&'static str], Option<&'static str>);

const PIPELINE_MAP: &str = "schema: ml-tracer/v1\nlibrary: test\nlanguage: cpp\n\
    methods: [fit, transform, predict, predict_proba]\nrecurse:\n  Pipeline: {named: [steps]}\n";

const TAPES: &[Recipe] = &[
    ("pipeline", "cpp_pipeline", &["--requests", "10"], Some(NEST_ALL)),
    ("folded_forest", "cpp_pipeline", &["--requests", "5", "--kind", "1"], Some(PIPELINE_MAP)),
    ("threads", "cpp_threads", &["--threads", "3", "--requests", "5", "--short-lived", "2"], Some(NEST_ALL)),
    ("exceptions", "cpp_exceptions", &["--requests", "8"], Some(NEST_ALL)),
    ("ended_threads", "cpp_exceptions", &["--requests", "8", "--mode", "exit-thread"], Some(NEST_ALL)),
    ("recursion", "cpp_recursion", &["--deepest", "12"], Some(NEST_ALL)),
    ("c_library", "c_library", &["--requests", "10"], None),
    (FULL_RING, "cpp_pipeline", &["--requests", "40", "--kind", "1", "--pause-us", "700"], Some(NEST_ALL)),
];

fn tapes() -> Result<Vec<PathBuf>> {
    let folder = workspace::tests("tapes");
    let mut tapes: Vec<PathBuf> = fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "tape"))
        .collect();
    tapes.sort();
    ensure!(tapes.len() >= TAPES.len(), "{} tapes in {}", tapes.len(), folder.display());
    Ok(tapes)
}

fn record(recipe: &Recipe, tape: &Path) -> Result<Trace> {
    let (name, target, arguments, map) = recipe;
    let map = match map {
        Some(map) => (*map).to_owned(),
        None => fs::read_to_string(workspace::tests("targets/c_library/map.yaml"))?,
    };
    let mut target = Target::start(target, arguments)?;
    let mut tracer = Tracer::attach(target.pid())?.map(&map)?.arguments(["--record-tape".as_ref(), tape.as_os_str()]);
    if *name == FULL_RING {
        tracer = tracer.arguments(["--ring-bytes", "4096"]);
    }
    let attached = tracer.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.finish()?;
    trace.check_books()?;
    trace.spans.check()?;
    let is_lossy = trace.summary.lost() > 0;
    ensure!(is_lossy == (*name == FULL_RING), "{:?}", trace.summary);
    Ok(trace)
}

fn record_tapes() -> Result<()> {
    let folder = workspace::tests("tapes");
    fs::create_dir_all(&folder)?;
    for recipe in TAPES {
        let tape = folder.join(recipe.0).with_extension("tape");
        record(recipe, &tape).context(recipe.0)?;
        fs::write(&tape, without_workspace(fs::read(&tape)?)?)?;
    }
    Ok(())
}

/// Puts another path of the same length where a tape names this checkout: the items of a tape state their length.
fn without_workspace(mut tape: Vec<u8>) -> Result<Vec<u8>> {
    let root = workspace::root().to_str().context("the path of this checkout is no text")?.as_bytes();
    let neutral: Vec<u8> = b"/srv/models".iter().copied().chain(std::iter::repeat(b'_')).take(root.len()).collect();
    let mut from = 0;
    while let Some(at) = tape[from..].windows(root.len()).position(|bytes| bytes == root) {
        tape[from + at..][..root.len()].copy_from_slice(&neutral);
        from += at + root.len();
    }
    Ok(tape)
}

/// Replays a tape; gives what the program did, and spans and summary if it ended well.
fn replay(tape: &Path) -> Result<(Finished, Option<(Spans, Summary)>)> {
    let folder = tempfile::tempdir()?;
    let (spans, summary) = (folder.path().join("spans.jsonl"), folder.path().join("summary.json"));
    let export = format!("jsonl={}", spans.display());
    let finished = ml_tracer([
        "replay".as_ref(),
        tape.as_os_str(),
        "--export".as_ref(),
        export.as_ref(),
        "--summary".as_ref(),
        summary.as_os_str(),
    ])?;
    if finished.code != Some(0) {
        return Ok((finished, None));
    }
    Ok((finished, Some((Spans::read(&spans)?, Summary::read(&summary)?))))
}

fn replay_well(tape: &Path) -> Result<(Spans, Summary)> {
    let (finished, result) = replay(tape)?;
    result.with_context(|| format!("{}: {finished:?}", tape.display()))
}

fn golden_spans() -> Result<()> {
    for tape in tapes()? {
        let (spans, summary) = replay_well(&tape)?;
        spans.check().with_context(|| tape.display().to_string())?;
        let text = format!(
            "spans {} folded {} lost {} open {}\n{}",
            summary.spans(),
            summary.folded(),
            summary.lost(),
            summary.open(),
            render(&spans)
        );
        let name = tape.file_stem().context("a tape has a name")?;
        let golden = workspace::tests("golden").join(name).with_extension("txt");
        if is_set("ML_TRACER_GOLDEN", "write") {
            fs::create_dir_all(workspace::tests("golden"))?;
            fs::write(&golden, text)?;
            continue;
        }
        let expected = fs::read_to_string(&golden).with_context(|| format!("no {}", golden.display()))?;
        let difference = expected.lines().zip(text.lines()).find(|(one, other)| one != other);
        ensure!(expected == text, "{}: the first difference: {difference:?}", golden.display());
    }
    Ok(())
}

fn every_sink() -> Result<()> {
    for tape in tapes()? {
        let (spans, _) = replay_well(&tape)?;
        let console = ml_tracer(["replay".as_ref(), tape.as_os_str()])?;
        ensure!(console.code == Some(0), "{console:?}");
        for row in &spans.0 {
            ensure!(console.output.contains(&row.span.name), "{} is not shown: {}", row.span.name, console.output);
        }
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("trace.json");
        let export = format!("perfetto={}", file.display());
        let finished = ml_tracer(["replay".as_ref(), tape.as_os_str(), "--export".as_ref(), export.as_ref()])?;
        ensure!(finished.code == Some(0), "{finished:?}");
        let parsed: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
        aggregates(&tape, folder.path())?;
        ensure!(parsed.to_string().matches("\"ph\":\"X\"").count() == spans.0.len(), "not an event a span");
    }
    Ok(())
}

/// The files that add calls up say the same as each other, and no more than the table of methods.
fn aggregates(tape: &Path, folder: &Path) -> Result<()> {
    let (stacks, profile, summary) =
        (folder.join("stacks.folded"), folder.join("profile.json"), folder.join("summary.json"));
    let exports = [format!("folded={}", stacks.display()), format!("speedscope={}", profile.display())];
    let finished = ml_tracer([
        "replay".as_ref(),
        tape.as_os_str(),
        "--export".as_ref(),
        exports[0].as_ref(),
        "--export".as_ref(),
        exports[1].as_ref(),
        "--summary".as_ref(),
        summary.as_os_str(),
    ])?;
    ensure!(finished.code == Some(0), "{finished:?}");
    let mut folded = BTreeMap::new();
    for line in fs::read_to_string(&stacks)?.lines() {
        let (stack, time) = line.rsplit_once(' ').context("a stack without a time")?;
        ensure!(folded.insert(stack.to_owned(), time.parse::<u64>()?).is_none(), "{stack} is there twice");
    }
    let profile: Value = serde_json::from_str(&fs::read_to_string(&profile)?)?;
    let name = |frame: &Value| profile["shared"]["frames"][frame.as_u64()? as usize]["name"].as_str();
    let of_profile = &profile["profiles"][0];
    let (samples, weights) = (of_profile["samples"].as_array(), of_profile["weights"].as_array());
    let mut sampled = BTreeMap::new();
    for (stack, weight) in samples.context("no samples")?.iter().zip(weights.context("no weights")?) {
        let names: Option<Vec<&str>> = stack.as_array().and_then(|stack| stack.iter().map(name).collect());
        sampled.insert(names.context("a frame without a name")?.join(";"), weight.as_u64().context("no time")?);
    }
    ensure!(folded == sampled, "{folded:?} {sampled:?}");
    for row in Summary::read(&summary)?.0["methods"].as_array().context("no methods")? {
        let (method, own) = (row["method"].as_str().context("a name")?, row["self_ns"].as_u64().context("a time")?);
        let is_of = |stack: &&String| stack.rsplit(';').next() == Some(method);
        let time: u64 = folded.iter().filter(|(stack, _)| is_of(stack)).map(|(_, time)| time).sum();
        // What had not ended has stacks and no row.
        ensure!(time >= own, "{method}: {time} of {own} in {}", tape.display());
    }
    Ok(())
}

/// Which traces the console shows, of ten with and without errors, is chosen; the totals are those of all.
fn console_options() -> Result<()> {
    let tape = workspace::tests("tapes/exceptions.tape");
    let shown = |options: &[&str]| {
        let words = ["replay".as_ref(), tape.as_os_str()].into_iter();
        ml_tracer(words.chain(options.iter().map(OsStr::new)))
    };
    let roots = |output: &str| output.lines().filter(|line| line.starts_with("  Outer.predict")).count();
    let all = shown(&[])?;
    ensure!(roots(&all.output) == 8, "{all:?}");
    let wanted: [(&[&str], usize, &str); 8] = [
        (&["--errors"], 4, "--errors)"),
        (&["--filter", "Inner"], 8, ""),
        (&["--filter", "Inner.predict", "--filter", "x"], 8, ""),
        (&["--filter", "nothing*"], 0, "(8 of 8 traces are not shown: --filter)"),
        (&["--min-duration", "30ms"], 1, "(7 of 8 traces are not shown: --min-duration)"),
        (&["--depth", "1"], 8, "+2 below"),
        (&["--sample", "100%"], 8, ""),
        (&["--quiet"], 0, ""),
    ];
    for (options, traces, remark) in wanted {
        let some = shown(options)?;
        ensure!(some.code == Some(0) && roots(&some.output) == traces, "{options:?}: {some:?}");
        ensure!(some.output.contains(remark), "{options:?}: {some:?}");
        ensure!(some.errors == all.errors, "{options:?} changed the totals: {} {}", some.errors, all.errors);
    }
    ensure!(shown(&["--quiet"])?.output.is_empty(), "quiet says something");
    ensure!(shown(&["--filter", "a["])?.code == Some(2), "no glob");
    Ok(())
}

/// Cut short and with bytes changed: a sentence or fewer spans, never a panic and never a hang.
fn damaged_tapes() -> Result<()> {
    let tapes = tapes()?;
    let tape = tapes.iter().find(|tape| tape.ends_with("pipeline.tape")).context("no tape of a pipeline")?;
    let whole = fs::read(tape)?;
    let folder = tempfile::tempdir()?;
    let damaged = folder.path().join("damaged.tape");
    let mut attempts: Vec<Vec<u8>> = vec![Vec::new(), b"no tape at all".to_vec(), vec![0xff; 1000]];
    attempts.extend((1..20).map(|part| whole[..whole.len() * part / 20].to_vec()));
    let mut state: usize = 12345;
    for _ in 0..100 {
        let mut changed = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let index = (state >> 16) % changed.len();
            changed[index] ^= 1 << (state >> 60 & 7);
        }
        attempts.push(changed);
    }
    for (number, bytes) in attempts.iter().enumerate() {
        fs::write(&damaged, bytes)?;
        let (finished, _) = replay(&damaged).with_context(|| format!("attempt {number}"))?;
        ensure!(finished.signal.is_none(), "attempt {number}: {finished:?}");
        ensure!(!finished.errors.contains("panicked"), "attempt {number}: {finished:?}");
        ensure!(finished.code == Some(0) || finished.errors.contains("ml-tracer: "), "attempt {number}: {finished:?}");
    }
    let missing = ml_tracer(["replay", "/no/such.tape"])?;
    ensure!(missing.code.is_some_and(|code| code > 0) && missing.errors.contains("/no/such.tape"), "{missing:?}");
    Ok(())
}

fn recorded_run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for recipe in TAPES {
        let tape = folder.path().join(recipe.0).with_extension("tape");
        let live = record(recipe, &tape).context(recipe.0)?;
        let (spans, summary) = replay_well(&tape)?;
        ensure!(render(&live.spans) == render(&spans), "{}: live and replayed spans differ", recipe.0);
        ensure!(summary.spans() == live.summary.spans(), "{}: {summary:?} {:?}", recipe.0, live.summary);
    }
    Ok(())
}
