//! The ways to trace that are compared, each live on a target of its own.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::target::{Place, Target, pinned};
use super::tracer::{Tracer, start, wait_for_line};
use crate::process::{Process, poll};
use crate::provision;

/// A way to trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracing {
    /// None.
    Untraced,
    /// Empty programs at the sites that ml-tracer chooses, placed as it places its own (uprobe_multi).
    Floor,
    /// Empty programs at the same sites, each a perf event of its own.
    SingleFloor,
    /// ml-tracer, to a file of spans.
    MlTracer,
    /// bpftrace with a map of start times and a count, at the symbols.
    Bpftrace,
}

impl Tracing {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Untraced, Self::Floor, Self::SingleFloor, Self::MlTracer, Self::Bpftrace];

    /// Name of its files.
    fn name(self) -> &'static str {
        match self {
            Self::Untraced => "untraced",
            Self::Floor => "floor",
            Self::SingleFloor => "single_floor",
            Self::MlTracer => "traced",
            Self::Bpftrace => "bpftrace",
        }
    }
}

/// Functions that bpftrace traces. A return probe on the C++ method would end the process with the first exception, and
/// folding is not comparable.
const BPFTRACE_SYMBOLS: [&str; 2] = ["bench_push", "bench_marked"];

/// A target and what traces it.
pub struct Configuration {
    /// How it is traced.
    pub tracing: Tracing,
    /// The target.
    pub target: Target,
    tracer: Option<Tracer>,
    /// Ends when it is dropped.
    _other: Option<Process>,
}

impl Configuration {
    /// Starts both, and waits until all probes are live.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start(place: &Place, tracing: Tracing) -> Result<Self> {
        let program = place.copy_of_target(tracing.name())?;
        let mut target = Target::start(place, &program)?;
        let pid = target.pid();
        let processors = [place.tracer_processor];
        let (mut tracer, mut other) = (None, None);
        match tracing {
            Tracing::Untraced => {}
            Tracing::MlTracer => {
                let map = format!("--map={}", place.map.display());
                tracer = Some(Tracer::attach(place, &processors, pid, tracing.name(), &[map])?);
            }
            Tracing::Floor | Tracing::SingleFloor => {
                let mut command = pinned(&processors, &place.tracer);
                command.args(["place-empty-probes", &format!("--pid={pid}")]).arg("--file").arg(&program);
                command.args(floor_sites(place, &program)?).stdin(Stdio::piped());
                if tracing == Tracing::SingleFloor {
                    command.arg("--single-probes");
                }
                let (process, mut errors) = start(&mut command)?;
                wait_for_line(&mut errors, "ml-tracer: placed")?;
                other = Some(process);
            }
            Tracing::Bpftrace => {
                let mut command = pinned(&processors, "bpftrace".as_ref());
                command.args(["-p", &pid.to_string(), "-e", &bpftrace_program(&program.display().to_string())]);
                other = Some(Process(command.stdout(Stdio::null()).spawn().context("cannot start bpftrace")?));
                // It does not say when its probes are live; their cost does.
                for symbol in BPFTRACE_SYMBOLS {
                    let kind = symbol.trim_start_matches("bench_");
                    poll("the probes of bpftrace", || Ok((target.calls(kind, 200)? > 200.0).then_some(())))?;
                }
            }
        }
        Ok(Self { tracing, target, tracer, _other: other })
    }

    /// Ends both and gives the calls that ml-tracer lost.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn finish(self) -> Result<u64> {
        let Some(tracer) = self.tracer else { return Ok(0) };
        tracer.finish()?.get("lost").and_then(Value::as_u64).context("no `lost` in the summary")
    }
}

fn bpftrace_program(file: &str) -> String {
    BPFTRACE_SYMBOLS
        .iter()
        .map(|symbol| {
            format!(
                "uprobe:{file}:{symbol} {{ @start[tid] = nsecs; }} \
                 uretprobe:{file}:{symbol} /@start[tid]/ {{ @calls = count(); delete(@start[tid]); }} "
            )
        })
        .collect()
}

/// The sites that ml-tracer itself would choose.
fn floor_sites(place: &Place, program: &std::path::Path) -> Result<Vec<String>> {
    let mut command = Command::new(&place.tracer);
    command.args(["symbols", "--json"]).arg(program).arg("--map").arg(&place.map);
    let listed: Value = serde_json::from_str(&provision::output_of(&mut command)?)?;
    let mut arguments = Vec::new();
    let offset = |site: &Value| site.get("offset").and_then(Value::as_u64).context("a site without an offset");
    for function in listed.get("functions").and_then(Value::as_array).context("no functions are listed")? {
        let entry = offset(function.get("entry").context("a function without an entry")?)?;
        arguments.push(format!("--entry={entry}"));
        let returns = function.get("returns").context("a function without returns")?;
        if returns.get("kind").and_then(Value::as_str) == Some("uretprobe") {
            arguments.push(format!("--return={entry}"));
            continue;
        }
        for site in returns.get("sites").and_then(Value::as_array).context("a function without return sites")? {
            arguments.push(format!("--entry={}", offset(site)?));
        }
    }
    ensure!(!arguments.is_empty(), "ml-tracer finds nothing to trace in {}", program.display());
    Ok(arguments)
}
