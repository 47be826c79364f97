//! Installation suite: what `cargo xtask dist` makes, on systems that have nothing of what it was built with. `cargo xtask test
//! --full` makes both; the rest of the time there is nothing to try.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tracer_tests::process::{Finished, run};
use tracer_tests::python::{CHAIN, Interpreter, MODES, Truth, debian_11};
use tracer_tests::receiver::Receiver;
use tracer_tests::root::{FOLDER, PLACES, inside};
use tracer_tests::suite::{self, Need, case, is_full};
use tracer_tests::targets::{Target, build};
use tracer_tests::tracer::{NEST_ALL, Trace, Tracer};
use tracer_tests::workspace;

fn main() -> ExitCode {
    const KERNEL: &[Need] = &[Need::Kernel, Need::Command("unshare")];
    const DEBIAN: &[Need] = &[Need::Kernel, Need::Command("unshare"), Need::Python(Interpreter::Debian11)];
    let cases = vec![
        case("checksums_are_those_of_the_files", &[], checksums),
        case("empty_root_is_enough", KERNEL, empty_root),
        case("native_program_from_an_empty_root", KERNEL, native_from_empty_root),
        case("collectors_are_found_by_name_from_an_empty_root", KERNEL, names_of_hosts),
        // Debian 11 has one package at a time, so what is installed there is tried in one go.
        case("package_on_debian_11", DEBIAN, package_on_debian_11),
    ];
    suite::main(if is_full() { cases } else { Vec::new() })
}

/// A file of the release by how its name ends.
fn released(ending: &str) -> Result<PathBuf> {
    let folder = workspace::root().join("target/dist");
    let files = fs::read_dir(&folder).with_context(|| format!("no {}: run `cargo xtask dist`", folder.display()))?;
    let mut files = files.flatten().map(|entry| entry.path());
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ending));
    files.find(is_it).with_context(|| format!("no file that ends with {ending} in {}", folder.display()))
}

fn program() -> Result<PathBuf> {
    released("-x86_64-linux")
}

fn good(finished: Finished) -> Result<Finished> {
    ensure!(finished.code == Some(0), "{finished:?}");
    Ok(finished)
}

fn checksums() -> Result<()> {
    let sums = released("SHA256SUMS")?;
    let mut command = Command::new("sha256sum");
    command.args(["--check", "--strict"]).arg(&sums).current_dir(sums.parent().unwrap_or(Path::new("/")));
    let checked = good(run(command)?)?;
    for ending in ["-x86_64-linux", ".deb", "-licences.txt"] {
        let name = released(ending)?.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ensure!(checked.output.contains(&format!("{name}: OK")), "{name} is not there: {checked:?}");
    }
    Ok(())
}

/// A root directory with the program in it, and nothing else.
fn empty() -> Result<TempDir> {
    let root = tempfile::tempdir()?;
    for place in PLACES {
        fs::create_dir(root.path().join(place))?;
    }
    fs::copy(program()?, root.path().join("ml-tracer"))?;
    Ok(root)
}

/// Runs the program of a root directory.
fn ml_tracer(root: &Path, program: &str, arguments: &[&str]) -> Result<Finished> {
    let folder = tempfile::tempdir()?;
    let mut command = inside(root, folder.path());
    command.arg(program).args(arguments);
    run(command)
}

/// It starts, finds the kernel good, and places its probes.
fn works(root: &Path, program: &str) -> Result<()> {
    let version = good(ml_tracer(root, program, &["--version"])?)?;
    ensure!(version.output == format!("ml-tracer {}\n", env!("CARGO_PKG_VERSION")), "{version:?}");
    let report = good(ml_tracer(root, program, &["doctor"])?)?;
    let is_measured = |line: &str| line.contains("emulated instruction") && line.ends_with(" ns");
    ensure!(report.output.lines().any(is_measured), "no cost of a probe: {report:?}");
    // What it is told by its own file: the symbol maps, and the BPF programs that `doctor` has loaded.
    let map = format!("{FOLDER}/map.yaml");
    let missing = ml_tracer(root, program, &["check-map", &map])?;
    ensure!(missing.code == Some(2) && missing.errors.contains(&map), "{missing:?}");
    Ok(())
}

fn empty_root() -> Result<()> {
    let root = empty()?;
    works(root.path(), "/ml-tracer")?;
    for shell in ["bash", "zsh", "fish"] {
        let script = good(ml_tracer(root.path(), "/ml-tracer", &["completions", shell])?)?;
        ensure!(script.output.contains("check-map") && script.errors.is_empty(), "{shell}: {script:?}");
    }
    Ok(())
}

/// Traces two batches of a target of sixty requests from inside a root directory, with further arguments.
fn trace_in(
    root: &Path,
    program: &str,
    mut target: Target,
    more: &[&str],
    variables: &[(&str, &str)],
) -> Result<Trace> {
    let tracer = Tracer::attach(target.pid())?.map(NEST_ALL)?.arguments(more).in_root(root, program);
    let tracer = variables.iter().fold(tracer, |tracer, (name, value)| tracer.variable(name, value)).start()?;
    target.batch()?;
    target.batch()?;
    let trace = tracer.stop()?;
    target.finish()?;
    trace.check_whole()?;
    ensure!(trace.spans.0.len() >= 120, "{} spans of 120 requests", trace.spans.0.len());
    Ok(trace)
}

/// A pipeline on the system around.
fn pipeline() -> Result<Target> {
    Target::start("cpp_pipeline", &["--requests", "60"])
}

fn native_from_empty_root() -> Result<()> {
    trace_in(empty()?.path(), "/ml-tracer", pipeline()?, &[], &[]).map(drop)
}

/// A collector is found by its name without a library of the system's that looks names up.
fn names_of_hosts() -> Result<()> {
    let root = empty()?;
    fs::create_dir(root.path().join("etc"))?;
    fs::write(root.path().join("etc/hosts"), "127.0.0.1 collector.test\n")?;
    for (receiver, protocol) in [(Receiver::http()?, "http/protobuf"), (Receiver::grpc()?, "grpc")] {
        let export = format!("otlp={}", receiver.address.replace("127.0.0.1", "collector.test"));
        let protocol = [("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)];
        let trace = trace_in(root.path(), "/ml-tracer", pipeline()?, &["--export", &export], &protocol)?;
        let arrived = receiver.wait_spans(trace.spans.0.len())?;
        ensure!(arrived.0.len() == trace.spans.0.len(), "{} of {}", arrived.0.len(), trace.spans.0.len());
        // One that is not there is told, and costs nobody anything but its own spans.
        let unknown = ["--export", "otlp=http://collector.invalid:4318"];
        let trace = trace_in(root.path(), "/ml-tracer", pipeline()?, &unknown, &protocol)?;
        let errors = &trace.finished.errors;
        ensure!(errors.contains("collector.invalid") && !errors.contains("panicked"), "{errors}");
    }
    Ok(())
}

/// Files and folders of a root directory, below those that packages use.
fn files_of(root: &Path) -> Result<BTreeSet<String>> {
    let mut command = Command::new("find");
    command.arg(root.join("usr")).arg(root.join("etc")).args(["-path", "*/__pycache__*", "-prune", "-o", "-print"]);
    Ok(good(run(command)?)?.output.lines().map(str::to_owned).collect())
}

fn dpkg(arguments: &[&str]) -> Result<Finished> {
    let package = released(".deb")?;
    let folder = package.parent().context("the package is in a folder")?;
    let mut command = inside(&debian_11(), folder);
    command.arg("/usr/bin/dpkg").args(arguments).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    good(run(command)?)
}

/// Takes the package away whatever happens in between.
struct Installed;

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = dpkg(&["--purge", "ml-tracer"]);
    }
}

fn package_on_debian_11() -> Result<()> {
    let root = debian_11();
    let before = files_of(&root)?;
    let package = released(".deb")?;
    let name = package.file_name().context("a package has a name")?.to_string_lossy();
    dpkg(&["--install", &format!("{FOLDER}/{name}")])?;
    let installed = Installed;
    let listed = dpkg(&["--listfiles", "ml-tracer"])?.output;
    for file in [
        "/usr/bin/ml-tracer",
        "/usr/share/bash-completion/completions/ml-tracer",
        "/usr/share/zsh/vendor-completions/_ml-tracer",
        "/usr/share/fish/vendor_completions.d/ml-tracer.fish",
        "/usr/share/man/man1/ml-tracer.1.gz",
        "/usr/share/man/man1/ml-tracer-attach.1.gz",
        "/usr/share/doc/ml-tracer/copyright",
        "/usr/share/doc/ml-tracer/licences.txt.gz",
        "/usr/share/ml-tracer/symbols/optional/openblas.yaml",
    ] {
        ensure!(listed.lines().any(|line| line == file), "{file} is not in the package: {listed}");
    }
    dpkg(&["--verify", "ml-tracer"])?;
    // Bash of that system reads the completions.
    let mut command = Command::new("chroot");
    command.arg(&root).args(["/bin/bash", "-n", "/usr/share/bash-completion/completions/ml-tracer"]);
    good(run(command)?)?;

    works(&root, "ml-tracer")?;
    let map = "/usr/share/ml-tracer/symbols/optional/openblas.yaml";
    good(ml_tracer(&root, "ml-tracer", &["check-map", map])?)?;
    native_on_debian_11(&root)?;
    for mode in MODES.into_iter().chain([CHAIN]) {
        python_on_debian_11(&root, mode).with_context(|| format!("--python {mode}"))?;
    }

    drop(installed);
    let after = files_of(&root)?;
    let left: Vec<&String> = after.difference(&before).filter(|file| file.contains("ml-tracer")).collect();
    ensure!(left.is_empty(), "the package has left {left:?}");
    Ok(())
}

/// A program without libraries of its own, which runs there whatever it was compiled on.
fn native_on_debian_11(root: &Path) -> Result<()> {
    fs::copy(build("cpp_pipeline_static")?, root.join("opt/pipeline"))?;
    let mut command = Command::new("chroot");
    command.arg(root).args(["/opt/pipeline", "--requests", "60", "--gate"]);
    trace_in(root, "ml-tracer", Target::start_command(command)?, &[], &[]).map(drop)
}

/// The system's own Python 3.9, with a tracer that shares nothing with the machine that it was built on.
fn python_on_debian_11(root: &Path, mode: &str) -> Result<()> {
    let mut command = Interpreter::Debian11.command("targets/python_plain/target.py")?;
    command.args(["chain", "200"]);
    if mode == CHAIN {
        // In this mode a call is seen only if C code calls Python code inside it.
        command.arg("through-c");
    }
    let mut target = Target::start_command(command)?;
    let map = fs::read_to_string(workspace::tests("targets/python_plain/map.yaml"))?;
    let tracer =
        Tracer::attach(target.pid())?.map(&map)?.arguments(["--python", mode]).in_root(root, "ml-tracer").start()?;
    target.batch()?;
    target.batch()?;
    let trace = tracer.stop()?;
    let truth = Truth::of(&target.finish()?)?;
    trace.check_whole()?;
    truth.check(&trace.spans).with_context(|| trace.finished.errors.clone())
}
