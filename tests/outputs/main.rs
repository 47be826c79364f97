//! Suite of outputs that go wrong and of names that mean harm, and of the live view: what nobody can read or write costs no span that can be
//! delivered, no exit code, and no traced process; what a target calls itself reaches no terminal as it is.

mod live_view;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tracer_tests::process::{Running, run};
use tracer_tests::suite::{self, Need, case};
use tracer_tests::targets::{Target, build};
use tracer_tests::tracer::{NEST_ALL, Tracer, ml_tracer};
use tracer_tests::workspace;

fn main() -> ExitCode {
    const KERNEL: &[Need] = &[Need::Program, Need::Kernel];
    let mut cases = vec![
        case("errors_that_cannot_be_written_cost_nothing", KERNEL, unwritable_errors),
        case("errors_that_cannot_be_written_do_not_end_the_command", KERNEL, unwritable_errors_of_run),
        case("errors_that_nobody_takes_do_not_keep_the_tracer_waiting", KERNEL, sleeping_reader_of_errors),
        case("nobody_reads_so_the_trace_ends", KERNEL, nobody_reads),
        case("nobody_reads_and_nothing_is_called", KERNEL, nobody_reads_and_nothing_is_called),
        case("run_outlives_its_readers", KERNEL, run_outlives_its_readers),
        case("run_leaves_stdout_to_its_command", KERNEL, run_leaves_stdout_to_its_command),
        case("one_destination_of_two_is_gone", KERNEL, one_of_two_is_gone),
        case("names_forge_no_lines", KERNEL, names_forge_no_lines),
        case("a_long_command_line_is_cut", KERNEL, long_command_line),
    ];
    cases.extend(live_view::cases());
    suite::main(cases)
}

/// `attach` of the sample program in a shell, with `redirection` behind it.
fn attach_in_shell(target: &Target, arguments: &str, redirection: &str) -> Command {
    let program = workspace::ml_tracer();
    let mut command = Command::new("sh");
    let line = format!("{} attach --pid {} {arguments} {redirection}", program.display(), target.pid());
    command.arg("-c").arg(line);
    command
}

fn unwritable_errors() -> Result<()> {
    let mut target = Target::start("cpp_pipeline", &["--requests", "20"])?;
    let folder = tempfile::tempdir()?;
    let map = folder.path().join("map.yaml");
    fs::write(&map, NEST_ALL)?;
    for (index, place) in ["2>/dev/full", "2>&1 | true"].into_iter().enumerate() {
        let (file, code) = (folder.path().join(format!("spans{index}")), folder.path().join(format!("code{index}")));
        let arguments = format!("--map {} --duration 2s --export jsonl={}", map.display(), file.display());
        let redirection = format!("{{ RUST_LOG=info {}; echo $? >{}; }} {place}", "\"$@\"", code.display());
        let mut command = Command::new("sh");
        let words = format!("attach --pid {} {arguments}", target.pid());
        command.args(["-c", &redirection, "sh"]).arg(workspace::ml_tracer()).args(words.split(' '));
        let running = Running::start(command)?;
        std::thread::sleep(Duration::from_millis(800));
        target.batch()?;
        running.finish()?;
        ensure!(fs::read_to_string(&code)?.trim() == "0", "{place}: exit code {}", fs::read_to_string(&code)?);
        let predictions = fs::read_to_string(&file)?.matches("\"name\":\"Pipeline.predict\"").count();
        ensure!(predictions == 12, "{place}: {predictions} predictions");
    }
    Ok(())
}

fn unwritable_errors_of_run() -> Result<()> {
    let mut command = Command::new(workspace::ml_tracer());
    command.args(["run", "--", "sh", "-c", "echo alive; exit 7"]).env("RUST_LOG", "info");
    let output = command.stderr(File::options().write(true).open("/dev/full")?).output()?;
    ensure!(output.status.code() == Some(7) && output.stdout == b"alive\n", "{output:?}");
    Ok(())
}

/// The pipe of stderr is full when the tracer begins.
fn sleeping_reader_of_errors() -> Result<()> {
    let mut target = Target::start("cpp_pipeline", &["--requests", "20"])?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("spans.jsonl");
    let (reader, mut pipe) = std::io::pipe()?;
    let flags = fcntl_getfl(&pipe)?;
    fcntl_setfl(&pipe, flags | OFlags::NONBLOCK)?;
    while pipe.write(&[b'x'; 4096]).is_ok() {}
    fcntl_setfl(&pipe, flags)?;
    let mut command = Command::new(workspace::ml_tracer());
    let words = format!("attach --pid {} --duration 2s --export jsonl={}", target.pid(), file.display());
    command.args(words.split(' ')).env("RUST_LOG", "info").stderr(pipe);
    let begin = Instant::now();
    let mut tracer = command.spawn()?;
    std::thread::sleep(Duration::from_millis(1000));
    target.batch()?;
    let status = tracer.wait()?;
    ensure!(status.success() && begin.elapsed() < Duration::from_secs(10), "{status} after {:?}", begin.elapsed());
    let predictions = fs::read_to_string(&file)?.matches("\"name\":\"Pipeline.predict\"").count();
    ensure!(predictions == 12, "{predictions} predictions");
    drop(reader);
    Ok(())
}

fn nobody_reads() -> Result<()> {
    let mut target = Target::start("cpp_pipeline", &["--requests", "20"])?;
    let tracer = Running::start(attach_in_shell(&target, "", "| head -3"))?;
    std::thread::sleep(Duration::from_millis(800));
    target.batch()?;
    let begin = Instant::now();
    let finished = tracer.finish()?;
    ensure!(begin.elapsed() < Duration::from_secs(10), "it went on for {:?}", begin.elapsed());
    ensure!(finished.output.lines().count() == 3 && finished.errors.contains("spans="), "{finished:?}");
    ensure!(target.finish()?.code == Some(0), "the target ended badly");
    Ok(())
}

fn nobody_reads_and_nothing_is_called() -> Result<()> {
    let target = Target::start("cpp_pipeline", &[])?;
    let begin = Instant::now();
    let finished = run(attach_in_shell(&target, "", "| true"))?;
    ensure!(begin.elapsed() < Duration::from_secs(10), "it went on for {:?}", begin.elapsed());
    ensure!(finished.errors.contains("spans=0"), "{finished:?}");
    Ok(())
}

fn run_outlives_its_readers() -> Result<()> {
    let program = build("cpp_pipeline")?;
    let mut command = Command::new("sh");
    let line = format!(
        "{{ {} run -- sh -c '{} >/dev/null; sleep 1; echo done >&2; exit 9'; echo code $? >&2; }} | true",
        workspace::ml_tracer().display(),
        program.display()
    );
    command.arg("-c").arg(line);
    let finished = run(command)?;
    ensure!(finished.errors.contains("done") && finished.errors.contains("code 9"), "{finished:?}");
    Ok(())
}

fn run_leaves_stdout_to_its_command() -> Result<()> {
    let program = build("cpp_pipeline")?;
    let alone = run(Command::new(&program))?;
    let traced = ml_tracer(["run".as_ref(), "--".as_ref(), program.as_os_str()])?;
    ensure!((traced.code, &traced.output) == (alone.code, &alone.output), "{traced:?}, alone {alone:?}");
    ensure!(!alone.output.is_empty() && traced.errors.contains("Pipeline.predict"), "{traced:?}");
    Ok(())
}

fn one_of_two_is_gone() -> Result<()> {
    let mut target = Target::start("cpp_pipeline", &["--requests", "20"])?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("spans.jsonl");
    let arguments = format!("--duration 3s --export console --export jsonl={}", file.display());
    let tracer = Running::start(attach_in_shell(&target, &arguments, "| true"))?;
    std::thread::sleep(Duration::from_millis(1500));
    target.batch()?;
    let finished = tracer.finish()?;
    let predictions = fs::read_to_string(&file)?.matches("\"name\":\"Pipeline.predict\"").count();
    ensure!(predictions == 12 && finished.errors.contains("closed by its reader"), "{predictions}: {finished:?}");
    Ok(())
}

fn names_forge_no_lines() -> Result<()> {
    let hostile = "e\u{1b}[2J\nml-tracer: attached 99 functions\u{202e}\u{9b}";
    let folder = tempfile::tempdir()?;
    let program = folder.path().join(hostile);
    fs::copy(build("cpp_pipeline")?, &program)?;
    let mut command = Command::new(&program);
    command.arg("--gate").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut target = command.spawn()?;
    let pid = target.id().to_string();
    let shown = [
        ml_tracer(["symbols", "--pid", &pid])?,
        ml_tracer(["symbols", "--pid", &pid, "--json"])?,
        ml_tracer(["attach", "--pid", &pid, "--dry-run"])?,
        ml_tracer(["attach", "--pid", &pid, "--duration", "200ms"])?,
        ml_tracer(["symbols".as_ref(), program.as_os_str()])?,
        ml_tracer(["check-map".as_ref(), program.as_os_str()])?,
        ml_tracer(["symbols", hostile])?,
    ];
    target.kill()?;
    target.wait()?;
    for finished in shown {
        let text = format!("{}{}", finished.output, finished.errors);
        let forged = text.lines().any(|line| line.starts_with("ml-tracer: attached 99"));
        let raw = text.chars().find(|it| *it != '\n' && (it.is_control() || *it == '\u{202e}'));
        ensure!(!forged && raw.is_none() && !text.is_empty(), "{raw:?} in {text}");
    }
    Ok(())
}

fn long_command_line() -> Result<()> {
    let mut command = Command::new(build("cpp_pipeline")?);
    command.arg0("x".repeat(120 << 10)).args(["--requests", "20", "--gate"]);
    let mut target = Target::start_command(command)?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    let bytes = fs::metadata(trace.folder.path().join("spans.jsonl"))?.len();
    ensure!(trace.spans.count("Pipeline.predict") == 12, "{:?}", trace.summary);
    ensure!(bytes < trace.summary.spans() * 1_000 + (32 << 10), "{bytes} bytes for {} spans", trace.summary.spans());
    Ok(())
}
