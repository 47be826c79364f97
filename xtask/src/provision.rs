//! Gets what a command needs onto the machine: system packages, and programs run in sight.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Seconds that `apt-get install` waits for another one.
const WAIT_FOR_DPKG: &str = "DPkg::Lock::Timeout=600";

/// How often, and how long after another, the lists are asked for again.
const MOST_TRIES: usize = 4;
/// See [`MOST_TRIES`].
const BETWEEN_TRIES: Duration = Duration::from_secs(15);

/// Runs a command with its output in sight; a heading says `what` is done, and a last line the time it took.
///
/// # Errors
/// When the command cannot start or ends with a failure.
pub fn run(what: &str, command: &mut Command) -> Result<()> {
    eprintln!("==> {what}");
    let started = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {}", line_of(command)))?;
    if !status.success() {
        bail!("{what}: {} ended with {status}", line_of(command));
    }
    eprintln!("    {:.1} s: {what}", started.elapsed().as_secs_f64());
    Ok(())
}

/// `cargo` in the workspace, as if started from a shell: without the variables that describe this crate. Build scripts
/// that watch them (that of `ring` does) would otherwise run again whenever shell and xtask take turns.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(workspace::root());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a command quietly and gives its standard output without the last newline.
///
/// # Errors
/// When the command cannot start or ends with a failure; its error output is part of the message.
pub fn output_of(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", line_of(command)))?;
    if !status.success() {
        bail!("{} ended with {status}: {}", line_of(command), String::from_utf8_lossy(&stderr).trim());
    }
    Ok(String::from_utf8_lossy(&stdout).trim_end().to_owned())
}

/// Makes sure that Debian packages are there; installs the missing ones, saying which and `why` first.
///
/// # Errors
/// When packages are missing and cannot be installed here; the message is the command to run by hand.
pub fn system_packages(why: &str, packages: &[&str]) -> Result<()> {
    // What is set up side by side may want packages at the same time, and dpkg serves one.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let by_hand = format!("apt-get update && apt-get install --no-install-recommends {list}");
    if !is_on_path("apt-get") {
        bail!("{why} needs the Debian or Ubuntu packages {list}: install what your system calls them");
    }
    let Some(prefix) = privilege_prefix() else {
        bail!("{why} needs packages that are not installed; as root, run: {by_hand}");
    };
    eprintln!("==> {why} needs system packages: installing {list}");
    update_lists(prefix)?;
    run(
        &format!("apt-get install {list}"),
        apt(prefix)
            .args(["install", "-y", "-qq", "-o", "Dpkg::Use-Pty=0", "-o", WAIT_FOR_DPKG, "--no-install-recommends"])
            .args(missing),
    )
}

/// A new machine often installs updates by itself at first: the lists are locked meanwhile, and no option waits for that lock.
fn update_lists(prefix: &[&str]) -> Result<()> {
    for _ in 0..MOST_TRIES {
        if run("apt-get update", apt(prefix).args(["update", "-qq"])).is_ok() {
            return Ok(());
        }
        eprintln!("==> apt-get update failed: once more in {} s", BETWEEN_TRIES.as_secs());
        std::thread::sleep(BETWEEN_TRIES);
    }
    run("apt-get update", apt(prefix).args(["update", "-qq"]))
}

/// Makes sure that programs are on the path, whoever put them there; a missing one is installed from its Debian
/// package. Pairs of program and package.
///
/// # Errors
/// As [`system_packages`].
pub fn programs(why: &str, programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        programs.iter().filter(|(program, _)| !is_on_path(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() { Ok(()) } else { system_packages(why, &missing) }
}

/// A program to be run as root: as it is for root, through `sudo`, which may ask for a password, for others.
pub fn as_root(program: &Path) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// Whether this runs as root.
pub fn is_root() -> bool {
    output_of(Command::new("id").arg("-u")).is_ok_and(|id| id == "0")
}

/// Whether a program of this name is on the path.
pub fn is_on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn is_installed(package: &str) -> bool {
    output_of(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

/// What to put before a command that needs root: nothing for root, `sudo` where it asks no password.
fn privilege_prefix() -> Option<&'static [&'static str]> {
    if is_root() {
        Some(&[])
    } else if output_of(Command::new("sudo").args(["-n", "true"])).is_ok() {
        Some(&["sudo", "-n"])
    } else {
        None
    }
}

fn apt(prefix: &[&str]) -> Command {
    let mut words = prefix.iter().chain(&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    let mut command = Command::new(words.next().expect("the chain is never empty"));
    command.args(words);
    command
}

fn line_of(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
