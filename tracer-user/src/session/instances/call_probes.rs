//! Probes in the file of a runtime that every call passes, all the time or in windows.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::drain::OpenGap;
use super::super::error::SessionError;
use super::super::settings::PythonSettings;
use super::context::Context;
use crate::attach::CodeWatch;
use crate::engine::{EngineError, RuntimeInstance};
use crate::model::{InterpreterSites, ProcessId, PythonMode, Target, Witness, WitnessSite};
use crate::plan::DutyCycle;

/// How long calls are counted before the probes stay, to tell what they cost.
const COUNTING: Duration = Duration::from_millis(200);

/// Where a runtime is probed, and when.
pub struct CallProbes {
    file: PathBuf,
    sites: Sites,
    duty: DutyCycle,
    /// The time since they were live last.
    gap: Option<OpenGap>,
}

/// What is probed.
#[derive(Clone)]
enum Sites {
    /// What every call passes.
    Frames(InterpreterSites),
    /// What a part of the calls passes.
    Chain(Vec<WitnessSite>),
}

impl CallProbes {
    /// Finds the sites in the file of a runtime. `None` where watchpoints are used instead, or the file is gone.
    pub fn find(
        instance: &dyn RuntimeInstance,
        target: &Target,
        settings: PythonSettings,
    ) -> Result<Option<Self>, EngineError> {
        let sites = match settings.mode {
            PythonMode::Watch => return Ok(None),
            PythonMode::Frames => Sites::Frames(instance.call_sites(target)?),
            PythonMode::Chain => Sites::Chain(instance.witness_sites(target)?),
        };
        let duty = DutyCycle::new(Instant::now(), settings.duty);
        Ok(instance.file(target).map(|file| Self { file, sites, duty, gap: None }))
    }

    /// The same in a process that was forked: its file is opened through it, because the other one may end.
    pub fn in_fork(&self, instance: &dyn RuntimeInstance, target: &Target) -> Option<Self> {
        let file = instance.file(target)?;
        Some(Self { file, sites: self.sites.clone(), duty: self.duty.anew(Instant::now()), gap: None })
    }

    /// Whether one of the probes is passed where an exception ends a call, so that exceptions need not be seen elsewhere.
    pub fn tell_exceptions(&self) -> bool {
        match &self.sites {
            Sites::Frames(_) => false,
            Sites::Chain(sites) => sites.iter().any(|site| site.witness == Witness::Unwinds),
        }
    }

    /// When the probes are to be turned on or off; `None`: they stay.
    pub fn due(&self) -> Option<Instant> {
        self.duty.due()
    }

    /// Turns the probes on or off when it is time.
    pub fn keep_time(&mut self, context: &mut Context<'_>, code: &CodeWatch) -> Result<(), SessionError> {
        match self.duty.step(Instant::now()) {
            Some(on) => self.turn(context, code, on),
            None => Ok(()),
        }
    }

    /// Probes come and go one after the other: what is open meanwhile may lack children.
    pub fn turn(&mut self, context: &mut Context<'_>, code: &CodeWatch, on: bool) -> Result<(), SessionError> {
        let gap = match self.gap.take() {
            Some(gap) => gap,
            None => context.drain.begin_gap(Some(code.process().pid))?,
        };
        if on {
            let kernel = context.in_kernel(code.process())?;
            match &self.sites {
                Sites::Frames(sites) => kernel.place_frames(&self.file, sites)?,
                Sites::Chain(sites) => kernel.place_witnesses(&self.file, sites)?,
            }
            context.drain.end_gap(gap)?;
        } else {
            context.in_kernel(code.process())?.remove_frames()?;
            self.gap = Some(gap);
        }
        self.duty.turned(Instant::now(), on);
        Ok(())
    }

    /// Counts calls for a moment: gives how many there are in a second.
    pub fn count_for_a_moment(&mut self, context: &mut Context<'_>, code: &CodeWatch) -> Result<f64, SessionError> {
        code.tell(context.in_kernel(code.process())?, &Default::default())?;
        let before = context.in_kernel(code.process())?.python_calls_passed()?;
        self.turn(context, code, true)?;
        let began = Instant::now();
        std::thread::sleep(COUNTING);
        let calls = context.in_kernel(code.process())?.python_calls_passed()?.saturating_sub(before) as f64
            / began.elapsed().as_secs_f64();
        self.turn(context, code, false)?;
        Ok(calls)
    }

    /// What to say of the cost of probes that every call passes: so many calls a second, and one probe takes so many nanoseconds.
    pub fn cost(&self, process: ProcessId, calls: f64, probe_ns: Option<f64>) -> String {
        self.duty.cost(process, calls, probe_ns)
    }

    /// Whether every call of the process passes them. They are counted before they stay: a process may be too busy for them.
    pub fn are_on_every_call(&self) -> bool {
        matches!(self.sites, Sites::Frames(_))
    }
}
