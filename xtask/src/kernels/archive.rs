//! Kernels from Debian's archive: fetched by `apt-get` with a configuration, lists and a cache of their own, so that nothing
//! of the machine's is changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::provision::{output_of, run};
use crate::workspace;

/// The kernel of a release of Debian.
#[derive(Clone, Copy, Debug)]
pub struct DebianKernel {
    /// The release.
    pub suite: &'static str,
    /// Whether ml-tracer is to say that it does not run there.
    pub is_refused: bool,
}

/// Names the newest kernel of a release for virtual machines.
const NEWEST: &str = "linux-image-cloud-amd64";

impl DebianKernel {
    /// The kernel's image, fetched once: remove its folder below `target/kernels` to have a newer one.
    ///
    /// # Errors
    /// When the archive cannot be reached, or has no such package.
    pub fn fetch(self) -> Result<PathBuf> {
        let folder = workspace::root().join("target/kernels").join(self.suite);
        let image = folder.join("vmlinuz");
        if image.is_file() {
            return Ok(image);
        }
        let configuration = configure(&folder, self.suite)?;
        let apt = |program: &str| {
            let mut command = Command::new(program);
            command.env("APT_CONFIG", &configuration).current_dir(&folder);
            command
        };
        run(&format!("the package lists of Debian {}", self.suite), apt("apt-get").args(["update", "-qq"]))?;
        let needed = output_of(apt("apt-cache").args(["depends", "--recurse", "--important", NEWEST]))?;
        let package = package_of(&needed).with_context(|| format!("{NEWEST} of {} names no kernel", self.suite))?;
        run(&format!("download {package}"), apt("apt-get").args(["download", "-qq", package]))?;
        let archives = fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
        let archive = archives.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        let archive = archive.with_context(|| format!("no package in {}", folder.display()))?;
        let unpacked = folder.join("unpacked");
        run(&format!("unpack {package}"), Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&unpacked))?;
        fs::rename(find_image(&unpacked)?, &image).context("cannot put the kernel in place")?;
        fs::remove_dir_all(&unpacked)?;
        fs::remove_file(&archive)?;
        Ok(image)
    }
}

/// Makes the folders that apt wants and its configuration.
fn configure(folder: &Path, suite: &str) -> Result<PathBuf> {
    for part in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(part)).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let sources = format!("deb [signed-by={keys}] http://deb.debian.org/debian {suite} main\n");
    fs::write(folder.join("sources.list"), sources)?;
    fs::write(folder.join("status"), "")?;
    let place = folder.display();
    let text = format!(
        "Dir::Etc::sourcelist \"{place}/sources.list\";\nDir::Etc::sourceparts \"-\";\nDir::Etc::preferences \"-\";\n\
         Dir::Etc::preferencesparts \"-\";\nDir::State \"{place}/state\";\nDir::State::status \"{place}/status\";\n\
         Dir::Cache \"{place}/cache\";\nAPT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\n\
         Acquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n"
    );
    let configuration = folder.join("apt.conf");
    fs::write(&configuration, text)?;
    Ok(configuration)
}

/// The package that holds the kernel itself, among those that another one needs: newer releases keep it in one of its own.
fn package_of(needed: &str) -> Option<&str> {
    let names = || needed.lines().map(str::trim).filter(|line| line.ends_with("-cloud-amd64"));
    let is_versioned = |name: &&str, kind: &str| {
        name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    names()
        .find(|name| is_versioned(name, "linux-binary-"))
        .or_else(|| names().find(|name| is_versioned(name, "linux-image-")))
}

/// The kernel in an unpacked package.
fn find_image(unpacked: &Path) -> Result<PathBuf> {
    let places = [unpacked.join("boot"), unpacked.join("usr/lib/modules"), unpacked.join("lib/modules")];
    for place in places {
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            let inner = entry.path().join("vmlinuz");
            if entry.file_name().to_string_lossy().starts_with("vmlinuz") {
                return Ok(entry.path());
            }
            if inner.is_file() {
                return Ok(inner);
            }
        }
    }
    bail!("no kernel in {}", unpacked.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_of_the_kernel_is_found() {
        let older =
            "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-50-cloud-amd64\nlinux-image-6.1.0-50-cloud-amd64\n";
        assert_eq!(package_of(older), Some("linux-image-6.1.0-50-cloud-amd64"));
        let newer = "linux-image-cloud-amd64\nlinux-image-7.2+deb14-cloud-amd64\nlinux-binary-7.2+deb14-cloud-amd64\n";
        assert_eq!(package_of(newer), Some("linux-binary-7.2+deb14-cloud-amd64"));
        assert_eq!(package_of("linux-image-cloud-amd64\n"), None);
    }
}
