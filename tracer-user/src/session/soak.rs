//! One process that runs Python, attached to and let go of many times: everything that a session does to a target, and
//! nothing else. The process is looked at once.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::drain::Drain;
use super::end::take_away;
use super::error::SessionError;
use super::findings::nothing_found;
use super::instances::{Context, Instances};
use super::process_news::ProcessNews;
use super::processes::Processes;
use super::recording::RecordedPipeline;
use super::settings::PythonSettings;
use super::start::load_programs;
use super::tape_header::tape_header;
use super::wiring::Pipeline;
use crate::attach::LoadOptions;
use crate::memory::ReadLimit;
use crate::model::{SymbolMap, Target};
use crate::plan::Planner;

/// The process and how it went so far.
pub struct Soak {
    targets: [Target; 1],
    python: Instances,
    figures: SoakFigures,
}

/// How it went so far, all cycles together.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct SoakFigures {
    /// Milliseconds that the look at the process took.
    pub look_ms: f64,
    /// Times that it was attached to.
    pub cycles: u32,
    /// Fewest code objects that were watched.
    pub fewest_watched: usize,
    /// Spans.
    pub spans: u64,
    /// Calls lost.
    pub lost: u64,
    /// Cycles whose counts did not add up.
    pub unbalanced: u32,
    /// Milliseconds to load the programs and make all watchpoints live, on average.
    pub attach_ms: f64,
    /// Milliseconds to take everything away and read the counts, on average.
    pub detach_ms: f64,
}

impl Soak {
    /// Looks at the process.
    ///
    /// # Errors
    /// It runs no Python that can be read.
    pub fn find(target: Target, maps: &[SymbolMap]) -> Result<Self, SessionError> {
        let began = Instant::now();
        let targets = [target];
        let mut python = Instances::new(maps, PythonSettings::default());
        let [target] = &targets;
        let found = python
            .find(target, &ReadLimit::default())
            .and_then(|found| found.ok_or_else(|| nothing_found(&targets, &[])));
        python.take(found.map_err(|detail| SessionError::NothingToTrace { detail })?);
        let figures = SoakFigures { look_ms: milliseconds(began), fewest_watched: usize::MAX, ..Default::default() };
        Ok(Self { targets, python, figures })
    }

    /// Attaches, stays for a moment, and lets go.
    ///
    /// # Errors
    /// As for a session.
    pub fn cycle(&mut self, hold: Duration) -> Result<(), SessionError> {
        let began = Instant::now();
        let (mut kernel, records) = load_programs(LoadOptions::default())?;
        let mut planner = Planner::new(kernel.features());
        let pipeline = Pipeline::open(&tape_header(&self.targets), Box::new(|_, _| None), &[])?;
        // Nobody listens: the process is the same one all the time.
        let (tell, _) = channel();
        let drain = Drain::start(records, RecordedPipeline::new(pipeline, None), ProcessNews::new(tell))
            .map_err(|_| SessionError::DrainEnded)?;
        let [target] = &self.targets;
        let mut processes = Processes::default();
        processes.add(target, None, kernel.process(target.process));
        let mut context = Context { processes: &mut processes, planner: &mut planner, drain: &drain };
        self.python.attach(target.process, &mut context)?;
        context.in_kernel(target.process)?.accept_entries(true)?;
        self.python.entries_are_accepted(&drain)?;
        let attach_ms = milliseconds(began);
        std::thread::sleep(hold);
        let began = Instant::now();
        let report = take_away(&mut *kernel, &mut processes, drain)?;
        drop((processes, kernel));
        let figures = &mut self.figures;
        figures.fewest_watched = figures.fewest_watched.min(self.python.seen());
        self.python.restart();
        figures.cycles += 1;
        figures.spans += report.spans;
        figures.lost += report.lost;
        figures.unbalanced += u32::from(!report.identity_holds);
        let count = f64::from(figures.cycles);
        figures.attach_ms += (attach_ms - figures.attach_ms) / count;
        figures.detach_ms += (milliseconds(began) - figures.detach_ms) / count;
        Ok(())
    }

    /// How it went so far.
    #[must_use]
    pub fn figures(&self) -> SoakFigures {
        self.figures
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
