//! Root directories to run programs in: a Debian sid with the newest CPython as a distribution builds it, seen from outside as
//! in a container; and the oldest Debian on which what is released has to run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::provision::{is_root, output_of, run, system_packages};
use crate::{source_hash, workspace};

/// The newest interpreter in Debian sid, beside its own.
const NEWEST: &str = "python3.15";

/// Where the packages of the requirements file are inside.
const PACKAGES: &str = "opt/packages";

/// Sets up `target/chroot/sid` with `python3` and the packages of a requirements file in `/opt/packages`; made again only
/// when the file has changed. `pip` is the interpreter of an environment, which need not be of the same version.
///
/// # Errors
/// When this needs root, or when something cannot be fetched: Debian's archive changes every day.
pub fn debian_sid(requirements: &Path, pip: &Path) -> Result<PathBuf> {
    let wanted = fs::read(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let folder = workspace::root().join("target/chroot/sid");
    let mark = folder.join("opt/requirements.sha256");
    let fingerprint = source_hash::hash(&wanted);
    let is_whole = || folder.join("usr/bin").join(NEWEST).exists();
    if is_whole() && fs::read_to_string(&mark).is_ok_and(|found| found == fingerprint) {
        return Ok(folder);
    }
    bootstrap(&folder, "sid", &["python3", NEWEST])?;
    let version = "import sys; print('%d.%d' % sys.version_info[:2])";
    let version = output_of(Command::new("chroot").arg(&folder).args(["/usr/bin/python3", "-c", version]))?;
    let packages = folder.join(PACKAGES);
    remove(&packages)?;
    run(
        &format!("packages for CPython {version} of sid"),
        Command::new(pip)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"])
            .args(["--only-binary=:all:", "--implementation=cp", "--python-version", &version, "--target"])
            .arg(&packages)
            .arg("--requirement")
            .arg(requirements),
    )?;
    fs::write(&mark, fingerprint).with_context(|| format!("cannot write {}", mark.display()))?;
    Ok(folder)
}

/// A program that runs a script of this machine, its only argument, with the `python3` of Debian sid in this folder.
///
/// # Errors
/// When it cannot be written.
pub fn python_of_sid(sid: &Path) -> Result<PathBuf> {
    let program = sid.with_extension("python3");
    // What it runs is not in the folder, so it is given as a text.
    let text = format!(
        "#!/bin/sh\nexport PYTHONPATH=/{PACKAGES}\nexec chroot '{}' /usr/bin/python3 -c \"$(cat \"$1\")\"\n",
        sid.display()
    );
    fs::write(&program, text).with_context(|| format!("cannot write {}", program.display()))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

/// Sets up `target/chroot/bullseye`, a Debian 11 with its own `python3`.
///
/// # Errors
/// As [`debian_sid`].
pub fn debian_11() -> Result<PathBuf> {
    let folder = workspace::root().join("target/chroot/bullseye");
    bootstrap(&folder, "bullseye", &["python3"])?;
    Ok(folder)
}

/// Debian's own way to make a system in a folder, with these interpreters, unless they are there. Works beside the place that it
/// takes in the end, so that what is there is whole.
fn bootstrap(folder: &Path, suite: &str, interpreters: &[&str]) -> Result<()> {
    ensure!(is_root(), "debootstrap needs root");
    if interpreters.iter().all(|interpreter| folder.join("usr/bin").join(interpreter).exists()) {
        return Ok(());
    }
    system_packages(&format!("a Debian {suite} in a folder"), &["debootstrap", "ca-certificates"])?;
    let fresh = folder.with_extension("fresh");
    remove(&fresh)?;
    fs::create_dir_all(&fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
    let done = run(
        &format!("debootstrap {suite}"),
        Command::new("debootstrap")
            .args(["--variant=minbase", &format!("--include={}", interpreters.join(",")), suite])
            .arg(&fresh)
            .arg("http://deb.debian.org/debian")
            .stdout(std::process::Stdio::null()),
    );
    // It leaves the kernel's file systems mounted.
    unmount_below(&fresh)?;
    done?;
    remove(folder)?;
    fs::rename(&fresh, folder).with_context(|| format!("cannot put {} in place", folder.display()))
}

fn unmount_below(folder: &Path) -> Result<()> {
    // The last mounted first.
    for place in mounted_below(folder)?.iter().rev() {
        run(&format!("umount {}", place.display()), Command::new("umount").arg(place))?;
    }
    Ok(())
}

/// Removes a folder, if it is there, unless something is mounted in it.
fn remove(folder: &Path) -> Result<()> {
    if let Some(place) = mounted_below(folder)?.first() {
        bail!("{} is mounted: unmount it, and run this again", place.display());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove the old {}", folder.display()))?;
    }
    Ok(())
}

fn mounted_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read what is mounted")?;
    // The kernel names real paths, and a folder that is not there has nothing in it.
    let Ok(folder) = folder.canonicalize() else { return Ok(Vec::new()) };
    Ok(places(&mounts).filter(|place| place.starts_with(&folder)).collect())
}

/// The fifth field of each line (proc_pid_mountinfo(5)), where `\040` is a space.
fn places(mounts: &str) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(|line| Some(line.split(' ').nth(4)?.replace("\\040", " ").into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let mounts = "22 1 0:21 / / rw - ext4 /dev/a rw\n40 22 0:5 / /a\\040b/proc rw,nosuid shared:1 - proc proc rw\n";
        assert_eq!(places(mounts).collect::<Vec<_>>(), [Path::new("/"), Path::new("/a b/proc")]);
    }

    #[test]
    fn nothing_is_removed_under_a_mount() {
        assert!(!mounted_below(Path::new("/")).expect("mounts").is_empty());
        assert!(remove(Path::new("/proc")).is_err());
        assert!(remove(Path::new("/nonexistent/folder")).is_ok());
    }
}
