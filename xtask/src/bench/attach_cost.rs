//! How long it takes to attach to a process with a large library, and how much memory the tracer has then.

use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::statistics::Spread;
use super::sustained::memory;
use super::target::Place;
use super::tracer::{Tracer, wait_for_line};
use crate::process::Process;

/// A process that has XGBoost's library mapped (about 15,000 symbols) and then waits.
const PROGRAM: &str = "import sys, xgboost; print('ready', flush=True); sys.stdin.read()";
/// The tracer gives back what it needed for attaching only.
const SETTLE: Duration = Duration::from_millis(300);

/// What was measured.
pub struct AttachCosts {
    /// Functions probed.
    pub functions: u64,
    /// From the start of the tracer until all probes were live.
    pub milliseconds: Spread,
    /// Resident memory afterwards, MiB.
    pub memory: Spread,
    /// Largest resident memory while attaching, MiB.
    pub largest_memory: Spread,
}

/// Measures.
///
/// # Errors
/// When the process does not start, or the tracer cannot attach.
pub fn measure(place: &Place, environment: &Path, times: usize) -> Result<AttachCosts> {
    eprintln!("==> attaching {times} times to a process with XGBoost");
    let mut command = Command::new(environment.join("bin/python"));
    command.args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process(command.spawn().context("cannot start python")?);
    let output = process.0.stdout.take().context("the output is a pipe")?;
    wait_for_line(&mut BufReader::new(output), "ready")?;
    let processors = [place.tracer_processor, place.target_processor];
    let (mut milliseconds, mut now, mut largest) = (Vec::new(), Vec::new(), Vec::new());
    let mut functions = 0;
    for _ in 0..times {
        let tracer = Tracer::attach(place, &processors, process.0.id(), "attach", &[])?;
        std::thread::sleep(SETTLE);
        functions = tracer.functions;
        milliseconds.push(tracer.attach_ms);
        now.push(memory(tracer.process.0.id(), "VmRSS")?);
        largest.push(memory(tracer.process.0.id(), "VmHWM")?);
        tracer.finish()?;
    }
    let spread = |measurements: Vec<f64>| Spread::of(measurements).context("no measurements");
    Ok(AttachCosts {
        functions,
        milliseconds: spread(milliseconds)?,
        memory: spread(now)?,
        largest_memory: spread(largest)?,
    })
}
