//! Return probes where something unwinds through a function after all, or walks its stack.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tracer_tests::process::{Finished, run};
use tracer_tests::spans::SpanRow;
use tracer_tests::suite::{Case, Need, case, is_full, report};
use tracer_tests::targets::build;
use tracer_tests::tracer::{NEST_ALL, Trace, Tracer};
use tracer_tests::workspace;

/// The tests.
pub fn cases() -> Vec<Case> {
    vec![
        case("throws_that_only_a_jump_table_leads_to", &[Need::Program, Need::Kernel], dispatch),
        case(
            "throws_that_only_a_jump_table_leads_to_by_clang",
            &[Need::Program, Need::Kernel, Need::Command("clang++")],
            dispatch_by_clang,
        ),
        case("functions_in_pieces", &[Need::Program, Need::Kernel], functions_in_pieces),
        case("go_walks_its_stacks", &[Need::Program, Need::Kernel, Need::Command("go")], go),
    ]
}

/// How often each program runs.
fn runs() -> u32 {
    if is_full() { 100 } else { 3 }
}

fn dispatch() -> Result<()> {
    for name in ["", "_plain", "_marked", "_small", "_fixed", "_stripped"] {
        check_dispatch(&build(&format!("cpp_dispatch{name}"))?)?;
    }
    Ok(())
}

fn dispatch_by_clang() -> Result<()> {
    for name in ["_clang", "_clang_fixed"] {
        check_dispatch(&build(&format!("cpp_dispatch{name}"))?)?;
    }
    Ok(())
}

/// As a linker's optimiser cuts them up; the oldest one that is here.
fn functions_in_pieces() -> Result<()> {
    let tools = ["llvm-bolt-16", "llvm-bolt-19", "llvm-bolt-22", "llvm-bolt"];
    let Some(tool) = tools.into_iter().find(|tool| Need::Command(tool).missing().is_none()) else {
        report("functions_in_pieces tested nothing: there is no llvm-bolt here (Debian: bolt-16)");
        return Ok(());
    };
    let whole = build("cpp_dispatch_movable")?;
    let cut = whole.with_extension("cut");
    let mut command = Command::new(tool);
    command.arg(&whole).arg("-o").arg(&cut);
    command.args(["-split-functions", "-split-all-cold", "-split-strategy=all", "-reorder-blocks=ext-tsp"]);
    let finished = run(command)?;
    ensure!(finished.code == Some(0), "{tool}: {}", finished.errors);
    check_dispatch(&cut)
}

/// Runs the program alone and traced; nothing may differ, and each call ends as it did.
fn check_dispatch(program: &Path) -> Result<()> {
    let words = [program.as_os_str(), "--rounds".as_ref(), "5".as_ref()];
    let mut command = Command::new(program);
    command.args(["--rounds", "5"]);
    let alone = run(command)?;
    ensure!(alone.code == Some(9), "{alone:?}");
    for round in 0..runs() {
        let trace = Tracer::run()?.map(NEST_ALL)?.finish_with(&words)?;
        let about = || format!("{}, run {round}", program.display());
        check_end(&trace, &alone).with_context(about)?;
        trace.check_whole().with_context(about)?;
        // Each round has four threads; the two that end early do so in the sixth of nine kinds. Two kinds throw.
        for (name, calls, returned) in
            [("Model.predict", 150, 105), ("Kernel.transform", 150, 120), ("Kernel.predict", 120, 120)]
        {
            let ends: Vec<&str> = trace.spans.named(name).map(SpanRow::ending).collect();
            let count = ends.iter().filter(|end| **end == "returned").count();
            ensure!((ends.len(), count) == (calls, returned), "{}: {name}: {count} of {}", about(), ends.len());
        }
    }
    Ok(())
}

fn go() -> Result<()> {
    let program: PathBuf = build("go_model")?;
    let map = "schema: ml-tracer/v1\nlibrary: go\nlanguage: c\nfunctions:\n  - symbol: main.score\n";
    let alone = run(Command::new(&program))?;
    ensure!(alone.code == Some(0), "{alone:?}");
    for round in 0..runs() {
        let trace = Tracer::run()?.map(map)?.finish_with(&[program.as_os_str()])?;
        check_end(&trace, &alone).with_context(|| format!("run {round}"))?;
        ensure!(trace.summary.entries() == 0, "run {round}: calls of goroutines cannot be told apart");
    }
    let listing = tracer_tests::tracer::ml_tracer([
        "symbols".as_ref(),
        program.as_os_str(),
        "--map".as_ref(),
        workspace::tests("targets/go_model/map.yaml").as_os_str(),
    ])?;
    let text = format!("{}{}", listing.output, listing.errors);
    ensure!(text.contains("Go moves its calls between threads"), "{text}");
    Ok(())
}

fn check_end(trace: &Trace, alone: &Finished) -> Result<()> {
    let traced = &trace.finished;
    ensure!(
        (traced.code, traced.signal, &traced.output) == (alone.code, alone.signal, &alone.output),
        "traced: {traced:?}\nalone: {alone:?}"
    );
    Ok(())
}
