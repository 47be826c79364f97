//! `cargo xtask dist`: what a release consists of, in `target/dist`: a program that needs no library of the machine, a Debian
//! package of it, the licences of all that is in it, and the checksums of these files.

mod debian;
mod licences;
mod program;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::provision::output_of;
use crate::{source_hash, workspace};

/// The crates of the workspace have one version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What says when the release was made, in seconds since 1970 (<https://reproducible-builds.org/specs/source-date-epoch>). Without
/// it the time of the last commit counts.
const TIME: &str = "SOURCE_DATE_EPOCH";

/// Builds all of it.
///
/// # Errors
/// When something cannot be built; what was there before is then left as it was, or is gone.
pub fn run() -> Result<()> {
    let built = program::build()?;
    let time = time_of_release()?;
    let folder = workspace::root().join("target/dist");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove the old {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;

    let program = folder.join(format!("ml-tracer-{VERSION}-x86_64-linux"));
    copy(&built, &program, PROGRAM)?;
    let licences = folder.join(format!("ml-tracer-{VERSION}-licences.txt"));
    write(&licences, licences::text()?.as_bytes())?;
    let package = debian::package(&program, &licences, &folder, &time)?;

    let sums = [program, licences, package].iter().map(|file| checksum(file)).collect::<Result<String>>()?;
    write(&folder.join("SHA256SUMS"), sums.as_bytes())?;
    print!("{sums}");
    eprintln!("==> in {}", folder.display());
    Ok(())
}

/// Seconds since 1970, as a number in text.
fn time_of_release() -> Result<String> {
    if let Ok(time) = std::env::var(TIME) {
        return Ok(time);
    }
    output_of(Command::new("git").current_dir(workspace::root()).args(["log", "-1", "--format=%ct"]))
        .with_context(|| format!("without a git repository {TIME} has to say when this release was made"))
}

/// A line as `sha256sum --check` reads it.
fn checksum(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let name = file.file_name().context("the files of a release have names")?;
    Ok(format!("{}  {}\n", source_hash::hash(&bytes), name.display()))
}

/// Permissions of programs and folders.
const PROGRAM: u32 = 0o755;
/// Permissions of all other files.
const FILE: u32 = 0o644;

/// Whatever the umask says.
fn allow(place: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(place, Permissions::from_mode(mode))
        .with_context(|| format!("cannot change {}", place.display()))
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    allow(to, mode)
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    allow(file, FILE)
}

/// The entries of a folder in the order of their names.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
