//! Files that change under probes, and programs that move their own code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tracer_tests::process::{Finished, run};
use tracer_tests::suite::{Case, Need, case, is_full, report};
use tracer_tests::targets::{Target, build};
use tracer_tests::tracer::{NEST_ALL, Tracer, ml_tracer};

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel];
    vec![
        case("library_overwritten_in_place_while_unmapped", NEEDS, overwritten),
        case("library_unlinked_and_written_anew", NEEDS, written_anew),
        case("library_replaced_by_rename", NEEDS, renamed),
        case("writer_does_not_wait_for_a_stopped_tracer", NEEDS, stopped_tracer),
        case("program_that_names_what_moves_its_code_is_left_alone", NEEDS, moving_code),
        case("program_that_moves_its_code_unannounced_is_told_of", NEEDS, moving_unannounced),
        case("first_thread_ends_before_the_others", NEEDS, first_thread_ends),
    ]
}

fn runs() -> usize {
    if is_full() { 100 } else { 2 }
}

/// The program with its library in a folder of its own.
struct Reload {
    folder: TempDir,
    words: Vec<String>,
}

impl Reload {
    fn new(way: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = |path: PathBuf| path.to_string_lossy().into_owned();
        let words = [
            ("--first", file(build("libgeneration1.so")?)),
            ("--second", file(build("libgeneration2.so")?)),
            ("--library", file(folder.path().join("libmodel.so"))),
            ("--way", way.to_owned()),
        ];
        let words = words.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        Ok(Self { folder, words })
    }

    fn start(&self, more: &[&str]) -> Result<Target> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Target::start("cpp_reload", &words)
    }
}

/// Something that a program has from the start, so that there is something to attach to.
const MAIN: &str = "---\nschema: ml-tracer/v1\nlibrary: test-c\nlanguage: c\nfunctions:\n  - symbol: main\n";

const GENERATIONS: usize = 5;
const REQUESTS: usize = 20;

/// Every generation is called while probes of the last one may still be there, and every call of every generation is seen.
fn reload(way: &str) -> Result<()> {
    let alone = Reload::new(way)?;
    let mut target = alone.start(&[])?;
    (0..GENERATIONS).try_for_each(|_| target.batch())?;
    let alone = target.finish()?;
    let mut longest: f64 = 0.0;
    for round in 0..runs() {
        let reload = Reload::new(way)?;
        let mut target = reload.start(&["--step"])?;
        let mut attached = Tracer::attach(target.pid())?.map(&format!("{NEST_ALL}{MAIN}"))?.start()?;
        for generation in 0..GENERATIONS {
            target.running.send_line("go")?;
            target.running.wait_output("loaded")?;
            attached.running.wait_errors("1 more functions").with_context(|| format!("generation {generation}"))?;
            target.running.send_line("go")?;
            target.running.wait_output("ready")?;
        }
        let finished = target.finish()?;
        longest = longest.max(longest_writing(&finished)?);
        let trace = attached.finish()?;
        ensure!(finished.code == Some(0), "round {round}: {finished:?}");
        let sums = |finished: &Finished| finished.output.lines().filter(|line| line.starts_with("sum")).count();
        ensure!(
            sums(&finished) == GENERATIONS && last_sum(&finished) == last_sum(&alone),
            "round {round}: {finished:?}"
        );
        trace.check_whole()?;
        let seen = trace.spans.count("Model.predict");
        ensure!(seen == GENERATIONS * REQUESTS, "round {round}: {seen} calls seen: {}", trace.finished.errors);
    }
    report(&format!("{way}: the longest writing took {:.0} ms", longest * 1e3));
    ensure!(longest < 2.0, "writing took {longest} s");
    Ok(())
}

fn last_sum(finished: &Finished) -> Option<&str> {
    finished.output.lines().rfind(|line| line.starts_with("sum"))
}

fn longest_writing(finished: &Finished) -> Result<f64> {
    let line = finished.errors.lines().find_map(|line| line.strip_prefix("longest writing "));
    Ok(line.context("it tells how long writing took")?.trim_end_matches(" s").parse()?)
}

fn overwritten() -> Result<()> {
    reload("in-place")
}

fn written_anew() -> Result<()> {
    reload("anew")
}

fn renamed() -> Result<()> {
    reload("renamed")
}

/// A tracer that stands still cannot take its probes away. It is ended then, which does.
fn stopped_tracer() -> Result<()> {
    let reload = Reload::new("in-place")?;
    let mut target = reload.start(&["--step"])?;
    let mut attached = Tracer::attach(target.pid())?.map(&format!("{NEST_ALL}{MAIN}"))?.start()?;
    let load = |target: &mut Target| -> Result<()> {
        target.running.send_line("go")?;
        target.running.wait_output("loaded").map(drop)
    };
    let call = |target: &mut Target| -> Result<()> {
        target.running.send_line("go")?;
        target.running.wait_output("ready").map(drop)
    };
    load(&mut target)?;
    attached.running.wait_errors("1 more functions")?;
    call(&mut target)?;
    attached.running.signal(Signal::STOP)?;
    for _ in 1..GENERATIONS {
        load(&mut target)?;
        call(&mut target)?;
    }
    let finished = target.finish()?;
    ensure!(finished.code == Some(0), "{finished:?}");
    let longest = longest_writing(&finished)?;
    report(&format!("beside a stopped tracer the longest writing took {:.0} ms", longest * 1e3));
    ensure!(longest < 4.0, "writing took {longest} s");
    let tracer = attached.running.finish()?;
    ensure!(tracer.signal == Some(9), "{tracer:?}");
    drop(reload.folder);
    Ok(())
}

fn moving_code() -> Result<()> {
    let program = build("cpp_moving_code_named")?;
    let mut command = Command::new(&program);
    command.arg("--move-at-once");
    let alone = run(command)?;
    let words = [program.as_os_str(), "--move-at-once".as_ref()];
    for _ in 0..runs() {
        let trace = Tracer::run()?.map(NEST_ALL)?.finish_with(&words)?;
        ensure!((trace.finished.code, &trace.finished.output) == (Some(0), &alone.output), "{:?}", trace.finished);
        ensure!(trace.summary.functions() == 0, "{:?}", trace.summary);
    }
    let listed = ml_tracer(["symbols".as_ref(), program.as_os_str()])?;
    ensure!(listed.code == Some(5) && listed.output.contains("hugify_code"), "{listed:?}");
    ensure!(listed.output.contains("--probe-moving-code"), "{listed:?}");
    // Who knows that it will not be moved may probe it.
    let mut target = Target::start("cpp_moving_code_named", &[])?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.arguments(["--probe-moving-code"]).start()?;
    target.batch()?;
    let trace = attached.stop()?;
    target.batch()?;
    let finished = target.finish()?;
    ensure!(finished.code == Some(0) && trace.spans.count("Model.predict") == 20, "{finished:?}");
    Ok(())
}

/// Nothing in the file says that it will move its code: that cannot be prevented, and is said.
fn moving_unannounced() -> Result<()> {
    let program = build("cpp_moving_code")?;
    let words = [program.as_os_str(), "--move-at-once".as_ref()];
    let trace = Tracer::run()?.map(NEST_ALL)?.finish_with(&words)?;
    ensure!(trace.finished.code == Some(128 + 5), "{:?}", trace.finished);
    ensure!(trace.finished.errors.contains("ended by SIGTRAP"), "{:?}", trace.finished);

    // Once it has moved, there is no file behind its code, and nothing to be harmed.
    let mut target = Target::start("cpp_moving_code", &["--move-at-once"])?;
    let refused = ml_tracer(["attach", "--pid", &target.pid().to_string(), "--duration", "1s"])?;
    ensure!(refused.code == Some(5), "{refused:?}");
    target.batch()?;
    ensure!(target.finish()?.code == Some(0), "it goes on");
    Ok(())
}

fn first_thread_ends() -> Result<()> {
    let program = build("cpp_first_thread_ends")?;
    // A file of its own for each run: the kernel takes the probes of a tracer that has gone away in its own time, and then looks
    // for who else wants them in the memory of a first thread that is no more.
    let folder = tempfile::tempdir()?;
    for run in 0..runs() {
        let copy = folder.path().join(format!("program-{run}"));
        fs::copy(&program, &copy)?;
        let words = [copy.as_os_str(), "--requests".as_ref(), "200".as_ref()];
        let trace = Tracer::run()?.map(NEST_ALL)?.finish_with(&words)?;
        trace.check_whole()?;
        ensure!(trace.finished.code == Some(0), "{:?}", trace.finished);
        let seen = trace.spans.count("Model.predict");
        ensure!(seen == 200, "run: {seen} calls seen: {}", trace.finished.errors);
    }
    let mut target = Target::start("cpp_first_thread_ends", &["--requests", "100"])?;
    wait_for_zombie(Path::new(&format!("/proc/{}/stat", target.pid())))?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    (0..2).try_for_each(|_| target.batch())?;
    let finished = target.finish()?;
    let trace = attached.finish()?;
    ensure!(finished.code == Some(0), "{finished:?}");
    trace.check_whole()?;
    let seen = trace.spans.count("Model.predict");
    ensure!(seen == 200, "attach: {seen} calls seen: {}", trace.finished.errors);
    Ok(())
}

fn wait_for_zombie(stat: &Path) -> Result<()> {
    for _ in 0..1000 {
        if fs::read_to_string(stat)?.contains(") Z ") {
            return Ok(());
        }
        sleep(Duration::from_millis(2));
    }
    bail!("the first thread has not ended")
}
