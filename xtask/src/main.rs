//! Developer commands of ml-tracer: `cargo xtask <command>`.
//!
//! This crate never depends on `tracer-user`: that crate refuses to compile with a stale BPF object, and
//! `cargo xtask build-ebpf` is what mends it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "developer commands talk to a terminal")]

mod bench;
mod bpf_toolchain;
mod build_ebpf;
mod check;
mod chroot;
mod demo;
mod dist;
mod fuzz;
mod kernels;
mod process;
mod provision;
mod python;
mod soak;
mod source_hash;
mod tape;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of ml-tracer.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure what tracing costs beside the floor and beside bpftrace; writes `docs/benchmarks.md`.
    Bench {
        /// Fewer rounds, and nothing is written.
        #[arg(long)]
        quick: bool,
    },
    /// Build the BPF object `tracer-user/ebpf/tracer.o`; installs the toolchain that this needs.
    BuildEbpf {
        /// Rebuild and prove that the committed object belongs to the sources, without changing it.
        #[arg(long)]
        check: bool,
    },
    /// Hold the workspace against the house rules, `cargo fmt`, `cargo clippy`, cargo-deny and cargo-shear.
    Check,
    /// Trace a real model server while it answers requests; sets up what that needs.
    Demo,
    /// Build what a release consists of, in `target/dist`: a static program, a Debian package, checksums.
    Dist,
    /// Give the parsers what a stranger may have written: coverage-guided, each target for some seconds.
    Fuzz {
        /// Targets; all of them unless some are named.
        #[arg(value_enum)]
        targets: Vec<fuzz::Target>,
        /// Seconds for each.
        #[arg(long, default_value_t = 600)]
        seconds: u32,
    },
    /// Boot Debian's kernels in QEMU and try there what the README says; writes `docs/kernels.md`.
    Kernels {
        /// Debian suites; all of them, and only then something is written, unless some are named.
        suites: Vec<String>,
    },
    /// Set up what the tests need: compilers, Python environments, a Debian sid. `cargo xtask test` does it by itself.
    Prepare {
        /// With what only the long run needs: Debian's PyTorch, a Debian 11.
        #[arg(long)]
        full: bool,
    },
    /// Attach to a busy Python process and let go of it, thousands of times
    Soak {
        /// Times within one tracer.
        #[arg(long, default_value_t = 10_000)]
        cycles: u32,
        /// Times with a tracer of its own.
        #[arg(long, default_value_t = 300)]
        starts: u32,
    },
    /// Record the raw records of a running process, or replay them.
    Tape {
        #[command(subcommand)]
        action: tape::Action,
    },
    /// Run every check and test; prepares the machine first.
    Test {
        /// With the long repetitions: a hundred runs of whatever could harm a traced program, and all cases on all versions of
        /// Python in both modes.
        #[arg(long)]
        full: bool,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Bench { quick } => bench::run(quick),
        Command::BuildEbpf { check: false } => build_ebpf::write(),
        Command::BuildEbpf { check: true } => build_ebpf::check(),
        Command::Check => check::run(),
        Command::Demo => demo::run(),
        Command::Dist => dist::run(),
        Command::Fuzz { targets, seconds } => fuzz::run(&targets, seconds, fuzz::Profile::Fuzz),
        Command::Kernels { suites } => kernels::run(&suites),
        Command::Prepare { full } => test::prepare(full),
        Command::Soak { cycles, starts } => soak::run(cycles, starts),
        Command::Tape { action } => tape::run(action),
        Command::Test { full } => test::run(full),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
