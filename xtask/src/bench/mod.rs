//! `cargo xtask bench`: what tracing costs on this machine goes in, `docs/benchmarks.md` comes out.

mod attach_cost;
mod call_cost;
mod chain_cost;
mod configuration;
mod machine;
mod python_cost;
mod python_target;
mod receiver;
mod report;
mod request_cost;
mod statistics;
mod sustained;
mod target;
mod throughput;
mod tracer;

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::{chroot, provision, python, workspace};
use report::Figures;
use target::Place;

/// How often things are measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Interleaved rounds of the cost of a call.
    call_rounds: usize,
    /// Replays of the tape for each destination.
    replays: usize,
    /// Seconds of steady load.
    load_seconds: u32,
    /// Attachments to the large process.
    attachments: usize,
    /// Interleaved rounds of chain mode.
    chain_rounds: usize,
    /// Interleaved rounds of a server that is asked.
    request_rounds: usize,
    /// Python.
    python: python_cost::Effort,
}

const FULL: Effort = Effort {
    call_rounds: 80,
    replays: 15,
    load_seconds: 15,
    attachments: 9,
    chain_rounds: 40,
    request_rounds: 20,
    python: python_cost::Effort { rounds: 60, sides: 4, attachments: 9, seconds: 10 },
};
const QUICK: Effort = Effort {
    call_rounds: 12,
    replays: 5,
    load_seconds: 3,
    attachments: 3,
    chain_rounds: 12,
    request_rounds: 4,
    python: python_cost::Effort { rounds: 12, sides: 1, attachments: 3, seconds: 3 },
};

/// Measures everything, prints the figures and, unless `quick`, writes them into `docs/benchmarks.md`.
///
/// # Errors
/// When something cannot be set up or measured.
pub fn run(quick: bool) -> Result<()> {
    let started = Instant::now();
    let effort = if quick { QUICK } else { FULL };
    let root = workspace::root();
    provision::programs("measuring", &[("c++", "g++"), ("taskset", "util-linux"), ("bpftrace", "bpftrace")])?;
    let environment = python::models()?;
    let scikit_learn = python::scikit_learn()?;
    let mut all_scikit_learn = python::all_scikit_learn()?;
    match chroot::debian_sid(&python::requirements("sklearn"), &environment.join("bin/python")) {
        Ok(sid) => all_scikit_learn.push(chroot::python_of_sid(&sid)?),
        Err(error) => eprintln!("==> no Debian sid: {error:#}; nothing is measured on its CPython"),
    }
    let mut build = provision::cargo();
    build.args(["build", "--release", "--locked", "--package", "tracer-user"]);
    provision::run("cargo build --release", &mut build)?;
    let folder = root.join("target/bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let place = Place::prepare(folder)?;

    let figures = Figures {
        calls: call_cost::measure(&place, effort.call_rounds)?,
        throughput: throughput::measure(&place, effort.replays)?,
        sustained: sustained::measure(&place, sustained::RATE, effort.load_seconds)?,
        tried: sustained::measure(&place, sustained::TRIED_RATE, effort.load_seconds)?,
        attach: attach_cost::measure(&place, &environment, effort.attachments)?,
        python: python_cost::measure(&place, &scikit_learn, effort.python)?,
        chain: chain_cost::measure(&place, &all_scikit_learn, effort.chain_rounds)?,
        requests: request_cost::measure(&place, &environment, effort.request_rounds)?,
    };
    let text = report::write(&machine::describe(), &figures);
    println!("{text}");
    if !quick {
        report::put_into_document(&root.join("docs/benchmarks.md"), &text)?;
    }
    eprintln!("{:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}
