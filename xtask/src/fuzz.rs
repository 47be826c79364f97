//! `cargo xtask fuzz`: the programs of `fuzz/` with coverage of the workspace's own code, each for some time.
//!
//! `cargo fuzz` finds the same programs; this needs nothing but the stable compiler and a C++ compiler. Inputs that found
//! something new stay in `target/fuzz/corpus`, and what fails lies in `target/fuzz/failures`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{provision, workspace};

/// One program of `fuzz/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Target {
    /// ELF files.
    Elf,
    /// Debugging information and unwind tables in a sound file.
    Dwarf,
    /// Records of the ring buffer.
    Record,
    /// Tapes.
    Tape,
    /// The memory of a CPython process.
    Snapshot,
    /// Symbol maps.
    SymbolMap,
    /// What goes over the connections of a server.
    Requests,
}

/// What the compiler does to the workspace's own crates and not to build scripts, which have nobody to report to. The arguments are
/// those of cargo-fuzz 0.13 without a sanitizer: the code under test has no `unsafe`.
const INSTRUMENT: &str = "#!/bin/sh\n\
    case \" $* \" in *\" build_script_build \"*|*\" proc-macro \"*) exec \"$@\";; esac\n\
    exec \"$@\" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares\n";

/// Longest time for one input, seconds: what takes longer is a hang.
const LONGEST: u32 = 20;

/// Most memory, MiB.
const MEMORY: u32 = 1_024;

/// How the programs are built.
#[derive(Clone, Copy, Debug)]
pub enum Profile {
    /// Quick to build where the tests are built already, slow to run.
    Dev,
    /// The other way round.
    Fuzz,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Fuzz => "fuzz",
        }
    }

    /// Cargo's folder for it.
    fn folder(self) -> PathBuf {
        workspace::root().join("target").join(match self {
            Self::Dev => "debug",
            Self::Fuzz => "fuzz",
        })
    }
}

/// Builds the programs and runs each for so many seconds.
///
/// # Errors
/// When one cannot be built, or an input makes one panic, hang or take too much memory: that input is kept and named.
pub fn run(targets: &[Target], seconds: u32, profile: Profile) -> Result<()> {
    let folder = workspace::root().join("target/fuzz");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    build(&folder, profile)?;
    let targets = if targets.is_empty() { Target::value_variants() } else { targets };
    let sound = sound_files(&folder)?;
    let mut failed = Vec::new();
    for target in targets {
        if let Err(error) = target.run(&folder, &sound, seconds, profile) {
            eprintln!("{error:#}");
            failed.push(target.name());
        }
    }
    ensure!(failed.is_empty(), "fuzzing failed: {}; the inputs are in {}", failed.join(", "), folder.display());
    Ok(())
}

fn build(folder: &Path, profile: Profile) -> Result<()> {
    let wrapper = folder.join("instrument");
    fs::write(&wrapper, INSTRUMENT).with_context(|| format!("cannot write {}", wrapper.display()))?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).context("the wrapper can be made executable")?;
    let mut command = provision::cargo();
    command.env("RUSTC_WORKSPACE_WRAPPER", &wrapper);
    command.args(["build", "--quiet", "--locked", "--profile", profile.name()]);
    command.args(["--package", "tracer-fuzz", "--features", "libfuzzer"]);
    provision::run("build the fuzz targets", &mut command)
}

/// Small libraries to begin with, with debugging information and without; the first is the one whose debugging information is changed.
fn sound_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let source = workspace::root().join("fuzz/sound.cpp");
    let folder = folder.join("sound");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let compile = |(name, options): (&str, &[&str])| {
        let path = folder.join(name);
        let mut compiler = Command::new("c++");
        compiler.args(["-std=c++17", "-shared", "-fPIC"]).args(options).arg("-o").arg(&path).arg(&source);
        provision::output_of(&mut compiler)?;
        Ok(path)
    };
    [("debugging.so", ["-g", "-O1"].as_slice()), ("stripped.so", &["-O2", "-s"])].into_iter().map(compile).collect()
}

impl Target {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn run(self, folder: &Path, sound: &[PathBuf], seconds: u32, profile: Profile) -> Result<()> {
        let name = self.name();
        let corpus = folder.join("corpus").join(&name);
        let failures = folder.join("failures").join(&name);
        for needed in [&corpus, &failures] {
            fs::create_dir_all(needed).with_context(|| format!("cannot create {}", needed.display()))?;
        }
        let mut command = Command::new(profile.folder().join(format!("fuzz_{name}")));
        command.envs(sound.first().map(|file| ("ML_TRACER_FUZZ_ELF", file)));
        command.args(["-verbosity=0", "-print_funcs=0", "-print_final_stats=1", "-reload=0"]);
        command.arg(format!("-max_total_time={seconds}"));
        command.arg(format!("-timeout={LONGEST}"));
        command.arg(format!("-rss_limit_mb={MEMORY}"));
        command.arg(format!("-artifact_prefix={}/", failures.display()));
        command.arg(&corpus).args(self.seeds(folder));
        eprintln!("==> fuzz {name} for {seconds} s");
        // It prints a dictionary of what it has learned, which hides all else.
        let Output { status, stderr, .. } = command.output().with_context(|| format!("cannot start fuzz_{name}"))?;
        let said = String::from_utf8_lossy(&stderr);
        ensure!(status.success(), "fuzz {name} ended with {status}:\n{said}");
        for line in said.lines().filter(|line| line.starts_with("stat::")) {
            eprintln!("{line}");
        }
        Ok(())
    }

    /// Folders with sound inputs to begin with.
    fn seeds(self, folder: &Path) -> Option<PathBuf> {
        let root = workspace::root();
        match self {
            Self::Elf => Some(folder.join("sound")),
            Self::Tape => Some(root.join("tests/tapes")),
            Self::SymbolMap => Some(root.join("symbols")),
            Self::Requests => Some(root.join("fuzz/conversations")),
            Self::Dwarf | Self::Record | Self::Snapshot => None,
        }
    }
}
