//! The programs to trace: a table of how each is built, and how to drive one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::fork_server;
use crate::process::{Finished, Running, run};
use crate::python::Interpreter;
use crate::workspace;

/// How a target is built.
#[derive(Clone, Copy)]
enum Recipe {
    /// All C++ and assembler files of the folder, with these further flags.
    Cpp { folder: &'static str, flags: &'static [&'static str] },
    /// Some files of a folder with this compiler; `link` names targets that must be there first.
    Files { compiler: &'static str, files: &'static [&'static str], flags: &'static [&'static str] },
    /// One Rust file that needs no crate.
    Rust { file: &'static str, flags: &'static [&'static str] },
    /// A program in Go.
    Go { file: &'static str },
    /// A Cargo project of its own.
    Cargo { folder: &'static str, flags: &'static str },
}

use Recipe::{Cargo, Cpp, Files, Go, Rust};

const COMMON_FLAGS: &[&str] = &["-O2", "-Wall", "-Wextra", "-Werror", "-pthread"];

const DISPATCH: &[&str] = &["cpp_dispatch/main.cpp", "cpp_dispatch/dispatch.cpp"];

/// Every target by the name of its file in `target/targets`.
const TARGETS: &[(&str, Recipe)] = &[
    ("cpp_pipeline", Cpp { folder: "cpp_pipeline", flags: &[] }),
    ("cpp_pipeline_debug", Cpp { folder: "cpp_pipeline", flags: &["-g"] }),
    ("cpp_pipeline_non_pie", Cpp { folder: "cpp_pipeline", flags: &["-no-pie"] }),
    ("cpp_pipeline_static", Cpp { folder: "cpp_pipeline", flags: &["-static"] }),
    ("cpp_pipeline_marked", Cpp { folder: "cpp_pipeline", flags: &["-fcf-protection=full"] }),
    ("cpp_pipeline_frames", Cpp { folder: "cpp_pipeline", flags: &["-fno-omit-frame-pointer", "-O1"] }),
    ("cpp_exceptions", Cpp { folder: "cpp_exceptions", flags: &[] }),
    ("cpp_exceptions_marked", Cpp { folder: "cpp_exceptions", flags: &["-fcf-protection=full"] }),
    ("cpp_recursion", Cpp { folder: "cpp_recursion", flags: &[] }),
    ("cpp_threads", Cpp { folder: "cpp_threads", flags: &[] }),
    ("cpp_signals", Cpp { folder: "cpp_signals", flags: &[] }),
    ("cpp_fibers", Cpp { folder: "cpp_fibers", flags: &[] }),
    ("cpp_fork", Cpp { folder: "cpp_fork", flags: &[] }),
    ("cpp_server", Cpp { folder: "cpp_server", flags: &[] }),
    ("cpp_workers", Cpp { folder: "cpp_workers", flags: &[] }),
    ("cpp_tail_calls", Cpp { folder: "cpp_tail_calls", flags: &["-fcf-protection=none"] }),
    ("cpp_tail_calls_marked", Cpp { folder: "cpp_tail_calls", flags: &["-fcf-protection=full"] }),
    ("cpp_seccomp", Cpp { folder: "cpp_seccomp", flags: &[] }),
    ("cpp_dispatch", Cpp { folder: "cpp_dispatch", flags: &[] }),
    ("cpp_dispatch_plain", Cpp { folder: "cpp_dispatch", flags: &["-O3", "-fcf-protection=none"] }),
    ("cpp_dispatch_marked", Cpp { folder: "cpp_dispatch", flags: &["-fcf-protection=full"] }),
    ("cpp_dispatch_small", Cpp { folder: "cpp_dispatch", flags: &["-Os"] }),
    ("cpp_dispatch_fixed", Cpp { folder: "cpp_dispatch", flags: &["-fno-pie", "-no-pie", "-static"] }),
    ("cpp_dispatch_stripped", Cpp { folder: "cpp_dispatch", flags: &["-rdynamic", "-s"] }),
    ("cpp_dispatch_clang", Files { compiler: "clang++", files: DISPATCH, flags: &["-std=c++17"] }),
    (
        "cpp_dispatch_clang_fixed",
        Files { compiler: "clang++", files: DISPATCH, flags: &["-std=c++17", "-fno-pie", "-no-pie"] },
    ),
    (
        "cpp_dispatch_movable",
        Files {
            compiler: "c++",
            files: DISPATCH,
            flags: &["-std=c++17", "-fno-reorder-blocks-and-partition", "-Wl,-q"],
        },
    ),
    ("go_model", Go { file: "go_model/main.go" }),
    ("cpp_deep_stack", Cpp { folder: "cpp_deep_stack", flags: &[] }),
    ("cpp_open_call", Cpp { folder: "cpp_open_call", flags: &[] }),
    ("cpp_by_value", Cpp { folder: "cpp_by_value", flags: &[] }),
    ("steady", Files { compiler: "c++", files: &["steady/main.cpp"], flags: &[] }),
    ("cpp_odd_names", Cpp { folder: "cpp_odd_names", flags: &["-std=c++20"] }),
    ("cpp_odd_names_plain", Cpp { folder: "cpp_odd_names", flags: &["-std=c++20", "-O0"] }),
    ("cpp_many", Cpp { folder: "cpp_many", flags: &[] }),
    ("cpp_by_value_packed", Cpp { folder: "cpp_by_value", flags: &["-O1", "-g", "-gz=zlib"] }),
    ("cpp_by_value_split", Cpp { folder: "cpp_by_value", flags: &["-O1", "-g", "-gsplit-dwarf"] }),
    ("rust_async", Rust { file: "rust_async/main.rs", flags: &["-O"] }),
    ("rust_async_debug", Rust { file: "rust_async/main.rs", flags: &["-g", "-Csymbol-mangling-version=v0"] }),
    ("cpp_dlopen", Files { compiler: "c++", files: &["cpp_dlopen/main.cpp"], flags: &["-ldl"] }),
    (
        "libplugin.so",
        Files {
            compiler: "c++",
            files: &["cpp_dlopen/plugin.cpp", "cpp_dlopen/plugin_model.cpp"],
            flags: &["-fPIC", "-shared"],
        },
    ),
    ("cpp_reload", Files { compiler: "c++", files: &["cpp_reload/main.cpp"], flags: &["-ldl"] }),
    ("libgeneration1.so", Files { compiler: "c++", files: GENERATION, flags: &["-fPIC", "-shared", "-DGENERATION=1"] }),
    ("libgeneration2.so", Files { compiler: "c++", files: GENERATION, flags: &["-fPIC", "-shared", "-DGENERATION=2"] }),
    ("cpp_moving_code", Cpp { folder: "cpp_moving_code", flags: &["-DMOVER=move_code"] }),
    ("cpp_moving_code_named", Cpp { folder: "cpp_moving_code", flags: &["-DMOVER=hugify_code"] }),
    ("cpp_first_thread_ends", Cpp { folder: "cpp_first_thread_ends", flags: &[] }),
    ("cpp_short_children", Cpp { folder: "cpp_short_children", flags: &[] }),
    ("c_library_beside", Files { compiler: "cc", files: &["c_library/main.c"], flags: &["./libmodel.so"] }),
    ("libmodel.so", Files { compiler: "cc", files: &["c_library/model.c"], flags: &["-fPIC", "-shared"] }),
    (
        "c_library",
        Files { compiler: "cc", files: &["c_library/main.c"], flags: &["-L.", "-lmodel", "-Wl,-rpath,$ORIGIN"] },
    ),
    ("c_functions", Files { compiler: "cc", files: &["c_functions/main.c"], flags: &[] }),
    ("rust_smartcore", Cargo { folder: "rust_smartcore", flags: "" }),
    ("rust_smartcore_v0", Cargo { folder: "rust_smartcore", flags: "-Csymbol-mangling-version=v0" }),
];

const GENERATION: &[&str] = &["cpp_reload/generation.cpp", "cpp_reload/generation_model.cpp"];

/// One build at a time in this process; Cargo runs one suite after the other.
static BUILDING: Mutex<()> = Mutex::new(());

/// The program of a target, built if its sources are newer.
///
/// # Errors
/// When there is no such target or it does not compile.
pub fn build(name: &str) -> Result<PathBuf> {
    let _building = BUILDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if name.starts_with("c_library") {
        build_one("libmodel.so")?;
    }
    build_one(name)
}

fn build_one(name: &str) -> Result<PathBuf> {
    let Some((_, recipe)) = TARGETS.iter().find(|(target, _)| *target == name) else {
        bail!("no target is called {name}: see TARGETS in tests/support/targets.rs");
    };
    let output = workspace::built_targets().join(name);
    let sources = recipe.sources()?;
    if is_current(&output, &sources)? {
        return Ok(output);
    }
    fs::create_dir_all(workspace::built_targets())?;
    match recipe {
        Cpp { folder, flags } => {
            let compiled: Vec<_> = sources.iter().filter(|file| is_compiled(file)).collect();
            if compiled.len() < 2 {
                bail!("the target {folder} needs two files or more, so that its calls are real");
            }
            let mut command = Command::new("c++");
            command.arg("-std=c++17").args(COMMON_FLAGS).args(compiled).args(*flags);
            compile(command, &output)?;
        }
        Files { compiler, files, flags } => {
            let mut command = Command::new(compiler);
            command.args(COMMON_FLAGS);
            command.args(files.iter().map(|file| workspace::tests("targets").join(file))).args(*flags);
            compile(command, &output)?;
        }
        Rust { file, flags } => {
            let mut command = Command::new("rustc");
            command.args(["--edition", "2024", "--crate-name", "ml"]).args(*flags);
            command.arg(workspace::tests("targets").join(file));
            compile(command, &output)?;
        }
        Go { file } => {
            let mut command = Command::new("go");
            command.arg("build").env("GO111MODULE", "off").env("GOFLAGS", "").env("CGO_ENABLED", "0");
            command.env("GOCACHE", workspace::built_targets().join("go-cache"));
            let fresh = output.with_extension("fresh");
            checked({
                command.arg("-o").arg(&fresh).arg(workspace::tests("targets").join(file));
                command
            })?;
            fs::rename(&fresh, &output).context("cannot put the built target in place")?;
        }
        Cargo { folder, flags } => {
            let built = workspace::built_targets().join(format!("{name}.cargo"));
            let mut command = Command::new("cargo");
            command.args(["build", "--release", "--locked", "--quiet", "--manifest-path"]);
            command.arg(workspace::tests("targets").join(folder).join("Cargo.toml"));
            command.env("CARGO_TARGET_DIR", &built).env("RUSTFLAGS", flags);
            checked(command)?;
            fs::copy(built.join("release/rust-smartcore"), &output)
                .context("the built program is not where expected")?;
        }
    }
    Ok(output)
}

impl Recipe {
    /// The files that the target depends on.
    fn sources(self) -> Result<Vec<PathBuf>> {
        let targets = workspace::tests("targets");
        let folder = match self {
            Cpp { folder, .. } => targets.join(folder),
            Rust { file, .. } => targets.join(file).parent().context("files lie in a folder")?.to_owned(),
            Files { files, .. } => {
                let first = files.first().context("a target has at least one file")?;
                targets.join(first).parent().context("files lie in a folder")?.to_owned()
            }
            Go { file } => targets.join(file).parent().context("files lie in a folder")?.to_owned(),
            Cargo { folder, .. } => targets.join(folder).join("src"),
        };
        let mut sources = Vec::new();
        for folder in [folder, targets.join("shared")] {
            for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
                sources.push(entry?.path());
            }
        }
        // How it is built is written in this file.
        sources.push(workspace::tests("support/targets.rs"));
        sources.sort();
        Ok(sources)
    }
}

fn is_compiled(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "cpp" || extension == "S")
}

fn is_current(output: &Path, sources: &[PathBuf]) -> Result<bool> {
    let Ok(built) = modified(output) else { return Ok(false) };
    for source in sources {
        if modified(source)? > built {
            return Ok(false);
        }
    }
    Ok(true)
}

fn modified(file: &Path) -> Result<SystemTime> {
    Ok(fs::metadata(file)?.modified()?)
}

/// Compiles into a new file and then takes the place of the old one, which may be running.
fn compile(mut command: Command, output: &Path) -> Result<()> {
    let fresh = output.with_extension("fresh");
    command.arg("-o").arg(&fresh).current_dir(workspace::built_targets());
    checked(command)?;
    fs::rename(&fresh, output).context("cannot put the built target in place")
}

fn checked(command: Command) -> Result<()> {
    let line = format!("{command:?}");
    let Finished { code, errors, .. } = run(command)?;
    if code != Some(0) {
        bail!("{line} failed: {errors}");
    }
    Ok(())
}

/// A target that works in batches.
pub struct Target {
    /// The process.
    pub running: Running,
}

impl Target {
    /// Builds and starts a target, and waits until it is ready for its first batch.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn start(name: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(build(name)?);
        command.args(arguments);
        if !name.starts_with("rust_") {
            command.arg("--gate");
        }
        Self::start_command(command)
    }

    /// Starts a command that speaks like a target: `ready`, then a batch for each line.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_command(command: Command) -> Result<Self> {
        Self::of(Running::start(command)?)
    }

    /// Starts a Python script of the folder `tests` that needs scikit-learn, in a process that is forked from an interpreter
    /// which has imported it already.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_forked(interpreter: Interpreter, script: &str, arguments: &[impl AsRef<str>]) -> Result<Self> {
        Self::of(fork_server::start(interpreter, script, arguments)?)
    }

    fn of(mut running: Running) -> Result<Self> {
        running.wait_output("ready")?;
        Ok(Self { running })
    }

    /// Starts a Python target in the environment of the models.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_python(name: &str, requests: u32) -> Result<Self> {
        let mut command = Command::new(workspace::python_environment("models", "bin/python"));
        command.arg(workspace::tests("targets").join(name).join("predict.py")).arg(requests.to_string());
        Self::start_command(command)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Has it do a batch, and waits until that is over.
    ///
    /// # Errors
    /// When it ends or takes too long.
    pub fn batch(&mut self) -> Result<()> {
        self.begin_batch()?;
        self.running.wait_output("ready").map(drop)
    }

    /// Has it begin a batch.
    ///
    /// # Errors
    /// When it has ended.
    pub fn begin_batch(&mut self) -> Result<()> {
        self.running.send_line("go")
    }

    /// Ends its input and waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn finish(self) -> Result<Finished> {
        self.running.finish()
    }
}
