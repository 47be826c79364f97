//! Files that are not where their path says, and paths that lead elsewhere.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tracer_tests::process::{Running, run};
use tracer_tests::suite::{Case, Need, case};
use tracer_tests::targets::{Target, build};
use tracer_tests::tracer::{NEST_ALL, Tracer, ml_tracer};
use tracer_tests::workspace;

/// The tests.
pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Program, Need::Kernel];
    vec![
        case("library_beside_the_program_is_seen_from_its_first_call", NEEDS, beside),
        case("program_in_an_overlay", NEEDS, overlay),
        case("program_copied_up_while_it_runs_is_refused", NEEDS, copied_up),
        case("deleted_program_with_a_pipe_under_its_name", NEEDS, pipe),
        case("deleted_program_with_a_link_under_its_name", NEEDS, link),
        case("target_that_ends_while_it_is_attached_to", NEEDS, ends_meanwhile),
        case("program_that_executes_itself_again_and_again", NEEDS, executes_itself),
    ]
}

/// The loader finds it by a path that is relative to the folder in which the program is started.
fn beside() -> Result<()> {
    let program = build("c_library_beside")?;
    let map = workspace::tests("targets/c_library/map.yaml");
    let words = [program.as_os_str(), "--requests".as_ref(), "100".as_ref()];
    let trace = Tracer::run()?.map_file(&map)?.in_folder(&workspace::built_targets()).finish_with(&words)?;
    trace.check_whole()?;
    let seen = trace.spans.count("Model.predict");
    ensure!(seen == 100, "{seen} of 100 calls seen: {}", trace.finished.errors);
    Ok(())
}

/// A target in an overlay, in a mount namespace of its own: nothing of it is left when it ends.
fn start_in_overlay(folder: &Path) -> Result<Target> {
    const SCRIPT: &str = "set -e; mount -t tmpfs none \"$1\"; cd \"$1\"; mkdir lower upper work merged; cp \"$2\" lower/program; \
                          mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged; \
                          exec merged/program --requests 20 --gate";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]);
    command.arg(folder).arg(build("cpp_moving_code")?);
    Target::start_command(command)
}

fn overlay() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut target = start_in_overlay(folder.path())?;
    let attached = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.batch()?;
    let trace = attached.stop()?;
    trace.check_whole()?;
    ensure!(trace.spans.count("Model.predict") == 20, "{:?}", trace.summary);
    Ok(())
}

fn copied_up() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let target = start_in_overlay(folder.path())?;
    let mut command = Command::new("nsenter");
    command.args(["--target", &target.pid().to_string(), "--mount", "touch", "-m"]);
    command.arg(folder.path().join("merged/program"));
    let touched = run(command)?;
    ensure!(touched.code == Some(0), "{touched:?}");
    let refused = ml_tracer(["attach", "--pid", &target.pid().to_string(), "--duration", "1s"])?;
    // Newer kernels number both files alike, and then a probe is read back; older ones tell them apart.
    ensure!(refused.code == Some(5) || refused.code == Some(0), "{refused:?}");
    if refused.code == Some(5) {
        ensure!(
            refused.errors.contains("another copy of the file") || refused.errors.contains("not the one"),
            "{refused:?}"
        );
    }
    Ok(())
}

/// Starts a copy of a program, deletes it, and has something else take its name.
fn start_deleted(folder: &Path, replace: impl Fn(&Path) -> Result<()>) -> Result<Target> {
    let copy = folder.join("program");
    fs::copy(build("cpp_moving_code")?, &copy)?;
    let mut command = Command::new(&copy);
    command.args(["--requests", "20", "--gate"]);
    let target = Target::start_command(command)?;
    fs::remove_file(&copy)?;
    replace(&copy)?;
    Ok(target)
}

/// The capabilities that the documentation names, without the one that leads to mapped files: their names must do.
const CAPABILITIES: &str = "+bpf,+perfmon,+sys_ptrace,+dac_read_search";

fn attach_with_few_capabilities(pid: u32) -> Result<Running> {
    let bounds = format!("-all,{CAPABILITIES}");
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set={bounds}")).arg(format!("--inh-caps={bounds}")).arg("--");
    command.arg(workspace::ml_tracer()).args(["attach", "--pid", &pid.to_string(), "--duration", "500ms"]);
    Running::start(command)
}

/// Of a program that is deleted there is no name to open it by: what has its name now is not taken for it.
fn check_replaced(replace: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut target = start_deleted(folder.path(), replace)?;
    // As root the very file is opened.
    let trace = Tracer::attach(target.pid())?.map(NEST_ALL)?.start()?;
    target.batch()?;
    let trace = trace.stop()?;
    ensure!(trace.spans.count("Model.predict") == 20, "{:?}", trace.summary);
    let few = attach_with_few_capabilities(target.pid())?.finish()?;
    ensure!(few.code == Some(5) || few.code == Some(3), "{few:?}");
    ensure!(!few.errors.contains("attached 1"), "{few:?}");
    target.batch()?;
    ensure!(target.finish()?.code == Some(0), "it goes on");
    Ok(())
}

fn pipe() -> Result<()> {
    check_replaced(|path| {
        let mut command = Command::new("mkfifo");
        command.arg(path);
        ensure!(run(command)?.code == Some(0), "no pipe can be made");
        Ok(())
    })
}

fn link() -> Result<()> {
    let other = build("cpp_pipeline")?;
    check_replaced(move |path| symlink(&other, path).context("no link can be made"))
}

/// However far the tracer has come when the target ends: it says so, with exit code 4.
fn ends_meanwhile() -> Result<()> {
    let program = build("cpp_moving_code")?;
    let mut codes = Vec::new();
    for round in 0..12_u64 {
        let mut command = Command::new(&program);
        command.args(["--gate"]);
        let target = Target::start_command(command)?;
        let mut tracer = Command::new(workspace::ml_tracer());
        tracer.args(["attach", "--pid", &target.pid().to_string(), "--duration", "5s", "--export", "jsonl=/dev/null"]);
        let tracer = Running::start(tracer)?;
        std::thread::sleep(std::time::Duration::from_millis(round * 30));
        target.finish()?;
        let finished = tracer.finish()?;
        let is_told = finished.code == Some(4) && finished.errors.contains("has ended");
        ensure!(is_told || finished.code == Some(0), "round {round}: {finished:?}");
        ensure!(!finished.errors.contains("doctor"), "round {round}: {finished:?}");
        codes.push(finished.code);
    }
    ensure!(codes.contains(&Some(4)), "none ended early enough: {codes:?}");
    Ok(())
}

/// A look may find a program that is just being replaced: that is no failure of its own.
fn executes_itself() -> Result<()> {
    const SCRIPT: &str = "n=$1; [ $n = 0 ] && exit 3; sleep 0.02; exec sh \"$0\" $((n-1))";
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("again.sh");
    fs::write(&script, SCRIPT)?;
    let map =
        "schema: ml-tracer/v1\nlibrary: test-c\nlanguage: c\nfunctions:\n  - symbol: getenv\n  - symbol: malloc\n";
    let words = ["sh".as_ref(), script.as_os_str(), "60".as_ref()];
    let trace = Tracer::run()?.map(map)?.finish_with(&words)?;
    ensure!(trace.finished.code == Some(3), "{:?}", trace.finished);
    ensure!(!trace.finished.errors.contains("os error"), "{:?}", trace.finished);
    trace.check_books()
}
