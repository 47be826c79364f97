//! `cargo xtask tape`: records the raw records of a running process, and replays them without root and without a kernel.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

use crate::{provision, workspace};

/// What to do with a tape.
#[derive(Subcommand)]
pub enum Action {
    /// Trace a process until Ctrl-C, or until it ends, and keep every record as the kernel gave it.
    Record {
        /// Process to trace.
        #[arg(long)]
        pid: u32,
        /// The tape to write.
        tape: PathBuf,
    },
    /// Turn a tape into spans again.
    Replay {
        /// The tape.
        tape: PathBuf,
        /// Where the spans go, as for `ml-tracer attach`; the terminal unless told otherwise.
        #[arg(long = "export", value_name = "DEST")]
        exports: Vec<String>,
    },
}

/// Builds ml-tracer and has it record or replay.
///
/// # Errors
/// When the build fails, or ml-tracer says that it could not.
pub fn run(action: Action) -> Result<()> {
    let root = workspace::root();
    let mut build = provision::cargo();
    build.current_dir(&root).args(["build", "--release", "--locked", "--package", "tracer-user"]);
    provision::run("cargo build --release", &mut build)?;
    let program = root.join("target/release/ml-tracer");
    let mut command = match &action {
        Action::Record { .. } => provision::as_root(&program),
        Action::Replay { .. } => Command::new(&program),
    };
    match action {
        Action::Record { pid, tape } => {
            command.arg("attach").arg(format!("--pid={pid}")).arg("--record-tape").arg(tape);
        }
        Action::Replay { tape, exports } => {
            command.arg("replay").arg(tape).args(exports.iter().map(|export| format!("--export={export}")));
        }
    }
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(status.success(), "ml-tracer ended with {status}");
    Ok(())
}
