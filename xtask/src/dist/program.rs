//! The program of a release: one file that needs nothing but a kernel.
//!
//! It is linked with musl. A static glibc would do for everything but names of hosts: to look one up, glibc loads what the machine's
//! nsswitch.conf names, and that has to be of the very same glibc. musl reads /etc/hosts and asks the servers of
//! /etc/resolv.conf by itself, on every machine alike.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};

use crate::provision::{self, output_of};
use crate::workspace;

/// The target of rustc.
pub const TARGET: &str = "x86_64-unknown-linux-musl";

/// Builds it, and makes sure that it is what it is to be. Gives the file.
///
/// # Errors
/// When rustc has no standard library for the target and rustup cannot get it, when it does not compile, or when it needs
/// something of the machine after all.
pub fn build() -> Result<PathBuf> {
    standard_library()?;
    // One crate has C in it: ring.
    provision::programs("compiling C with musl", &[("musl-gcc", "musl-tools")])?;
    let root = workspace::root();
    let mut command = provision::cargo();
    command.args(["build", "--release", "--locked", "--package", "tracer-user", "--target", TARGET]);
    command.env("CARGO_ENCODED_RUSTFLAGS", without_places(&root)?);
    provision::run(&format!("cargo build --release --target {TARGET} (some minutes)"), &mut command)?;
    let file = root.join("target").join(TARGET).join("release/ml-tracer");
    let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let needs = needs(&bytes).with_context(|| format!("cannot parse {}", file.display()))?;
    ensure!(needs.is_empty(), "{} is not static: it needs {}", file.display(), needs.join(", "));
    let version = output_of(Command::new(&file).arg("--version"))?;
    ensure!(version == format!("ml-tracer {}", super::VERSION), "{} says that it is {version}", file.display());
    Ok(file)
}

/// Has rustup get the standard library of the target, if rustc has none.
fn standard_library() -> Result<()> {
    let sysroot = output_of(Command::new("rustc").arg("--print=sysroot").current_dir(workspace::root()))?;
    if Path::new(&sysroot).join("lib/rustlib").join(TARGET).join("lib").is_dir() {
        return Ok(());
    }
    if !provision::is_on_path("rustup") {
        bail!("rustc in {sysroot} has no standard library for {TARGET}, and there is no rustup to get it");
    }
    let mut command = Command::new("rustup");
    command.args(["target", "add", TARGET]).current_dir(workspace::root());
    provision::run(&format!("rustup target add {TARGET}"), &mut command)
}

/// Compiler flags that keep folders of this machine out of the program: it is the same wherever it is built.
fn without_places(root: &Path) -> Result<String> {
    let home = std::env::home_dir().context("there is no home directory")?;
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let flags = [(cargo.as_path(), "cargo"), (root, "ml-tracer")];
    let flags = flags.map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display()));
    // The separator that cargo wants.
    Ok(flags.join("\u{1f}"))
}

/// What the loader would have to find for a program: itself, and libraries.
fn needs(program: &[u8]) -> Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(program)?;
    let endian = header.endian()?;
    let headers = header.program_headers(endian, program)?;
    let loader = headers.iter().filter(|header| header.p_type(endian) == PT_INTERP).map(|_| "a loader".to_owned());
    let mut needs: Vec<String> = loader.collect();
    for header in headers {
        let entries = header.dynamic(endian, program)?.unwrap_or_default();
        let libraries = entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED);
        needs.extend(libraries.map(|_| "a library".to_owned()));
    }
    Ok(needs)
}
