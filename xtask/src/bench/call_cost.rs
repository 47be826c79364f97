//! What one call costs, traced in each way, round by round in turn.

use anyhow::Result;

use super::configuration::{Configuration, Tracing};
use super::statistics::Spread;
use super::target::Place;

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// As the target calls it.
    pub name: &'static str,
    /// What it is.
    pub sentence: &'static str,
    /// Calls in a round. Few enough for the ring buffer, whatever the tracer is doing just now.
    calls: u32,
    /// Whether bpftrace traces it.
    bpftrace: bool,
}

/// Those that are measured.
pub const KINDS: [Kind; 4] = [
    Kind { name: "push", sentence: "C function that begins with `push`", calls: 8_000, bpftrace: true },
    Kind {
        name: "marked",
        sentence: "C function that begins with `endbr64`, then `push`",
        calls: 3_000,
        bpftrace: true,
    },
    Kind { name: "model", sentence: "C++ method with a probe at its `ret`", calls: 1_500, bpftrace: false },
    Kind { name: "folded", sentence: "folded call: a leaf in its container", calls: 8_000, bpftrace: false },
];

/// Untraced calls are too short to time a few of them.
const UNTRACED_CALLS: u32 = 200_000;
/// Rounds before those that count.
const WARM_UP: usize = 2;

/// What was measured.
pub struct CallCosts {
    /// Rounds that count.
    pub rounds: usize,
    /// Calls that ml-tracer lost.
    pub lost: u64,
    samples: Vec<Samples>,
}

struct Samples {
    kind: &'static str,
    tracing: Tracing,
    nanoseconds: Vec<f64>,
}

impl CallCosts {
    /// Nanoseconds of a call.
    pub fn nanoseconds(&self, kind: &Kind, tracing: Tracing) -> Option<Spread> {
        Spread::of(self.of(kind, tracing)?.iter().copied())
    }

    /// How many times as much as another way, within each round.
    pub fn ratio(&self, kind: &Kind, above: Tracing, below: Tracing) -> Option<Spread> {
        Spread::of_ratios(self.of(kind, above)?, self.of(kind, below)?)
    }

    fn of(&self, kind: &Kind, tracing: Tracing) -> Option<&[f64]> {
        let samples = self.samples.iter().find(|samples| samples.kind == kind.name && samples.tracing == tracing)?;
        Some(&samples.nanoseconds)
    }
}

/// Measures. Each round begins with another configuration.
///
/// # Errors
/// When a configuration does not start, or ends.
pub fn measure(place: &Place, rounds: usize) -> Result<CallCosts> {
    eprintln!("==> cost of a call: {rounds} rounds of {} configurations", Tracing::ALL.len());
    let mut configurations = Vec::new();
    for tracing in Tracing::ALL {
        configurations.push(Configuration::start(place, tracing)?);
    }
    let mut costs = CallCosts { rounds, lost: 0, samples: Vec::new() };
    for round in 0..rounds + WARM_UP {
        configurations.rotate_left(1);
        for kind in &KINDS {
            for configuration in &mut configurations {
                let tracing = configuration.tracing;
                if tracing == Tracing::Bpftrace && !kind.bpftrace {
                    continue;
                }
                let calls = if tracing == Tracing::Untraced { UNTRACED_CALLS } else { kind.calls };
                let nanoseconds = configuration.target.calls(kind.name, calls)?;
                if round >= WARM_UP {
                    costs.add(kind.name, tracing, nanoseconds);
                }
            }
        }
    }
    for configuration in configurations {
        costs.lost += configuration.finish()?;
    }
    Ok(costs)
}

impl CallCosts {
    fn add(&mut self, kind: &'static str, tracing: Tracing, nanoseconds: f64) {
        match self.samples.iter_mut().find(|samples| samples.kind == kind && samples.tracing == tracing) {
            Some(samples) => samples.nanoseconds.push(nanoseconds),
            None => self.samples.push(Samples { kind, tracing, nanoseconds: vec![nanoseconds] }),
        }
    }
}
