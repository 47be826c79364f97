//! Probes in the file of a runtime that every call passes, all the time or in windows.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::drain::OpenGap;
use super::super::error::SessionError;
use super::super::settings::PythonSettings;
use super::context::Context;
use super::witnesses::Witnesses;
use crate::attach::{CodeWatch, measure_emulated_probe};
use crate::engine::{EngineError, RuntimeInstance};
use crate::model::{InterpreterSites, ProcessId, PythonMode, RemoteAddress, Share, Target, WitnessWindow};
use crate::plan::{DutyCycle, Turn, each_ns, suits_chain};

/// How long calls are counted before the probes stay, to tell what they cost.
const COUNTING: Duration = Duration::from_millis(200);

/// Where a runtime is probed, and when.
pub struct CallProbes {
    file: PathBuf,
    sites: Sites,
    duty: DutyCycle,
    /// Nanoseconds that it takes each time that they are counted ([`KernelProcess::python_calls_passed`]), once that was measured; 0 if it
    /// cannot be.
    ///
    /// [`KernelProcess::python_calls_passed`]: crate::attach::KernelProcess::python_calls_passed
    each_ns: Option<f64>,
    /// What was counted when they became live.
    counted: u64,
    /// The time since they were live last.
    gap: Option<OpenGap>,
}

/// What is probed.
enum Sites {
    /// What every call passes.
    Frames(InterpreterSites),
    /// What a part of the calls passes.
    Chain(Witnesses),
}

impl Sites {
    /// The same where nothing is placed yet.
    fn anew(&self) -> Self {
        match self {
            Self::Frames(sites) => Self::Frames(sites.clone()),
            Self::Chain(witnesses) => Self::Chain(witnesses.anew()),
        }
    }
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
            PythonMode::Chain => Sites::Chain(Witnesses::new(instance.witness_sites(target)?, settings)),
        };
        let duty = DutyCycle::new(Instant::now(), settings.share, settings.mode == PythonMode::Chain);
        Ok(instance.file(target).map(|file| Self { file, sites, duty, each_ns: None, counted: 0, gap: None }))
    }

    /// How the calls of a runtime are seen, and the probes that this takes. Where the session may choose, a process without places for probes
    /// is watched.
    pub fn choose(
        instance: &dyn RuntimeInstance,
        target: &Target,
        settings: PythonSettings,
    ) -> Result<(PythonMode, Option<Self>), EngineError> {
        let found = Self::find(instance, target, settings);
        if !settings.is_chosen {
            return Ok((settings.mode, found?));
        }
        let found = found.inspect_err(|problem| tracing::debug!(%problem, "watched instead")).ok().flatten();
        let found = found.filter(|_| suits_chain(instance.runtime().version));
        let mode = if found.is_some() { settings.mode } else { PythonMode::Watch };
        Ok((mode, found))
    }

    /// The same in a process that was forked: its file is opened through it, because the other one may end.
    pub fn in_fork(&self, instance: &dyn RuntimeInstance, target: &Target) -> Option<Self> {
        let file = instance.file(target)?;
        let (sites, duty) = (self.sites.anew(), self.duty.anew(Instant::now()));
        Some(Self { file, sites, duty, each_ns: self.each_ns, counted: 0, gap: None })
    }

    /// The same in the process that has had them, which has them no more.
    pub fn anew(self) -> Self {
        Self { sites: self.sites.anew(), duty: self.duty.anew(Instant::now()), counted: 0, gap: None, ..self }
    }

    /// Whether one of the probes is passed where an exception ends a call, so that exceptions need not be seen elsewhere.
    pub fn tell_exceptions(&self) -> bool {
        match &self.sites {
            Sites::Frames(_) => false,
            Sites::Chain(witnesses) => witnesses.tell_exceptions(),
        }
    }

    /// When the probes are to be turned on or off, or others are to be placed; `None`: they stay.
    pub fn due(&self) -> Option<Instant> {
        let choice = match &self.sites {
            Sites::Frames(_) => None,
            Sites::Chain(witnesses) => witnesses.due(),
        };
        self.duty.due().into_iter().chain(choice).min()
    }

    /// Other code is seen from now on.
    pub fn code_changed(&mut self) {
        if let Sites::Chain(witnesses) = &mut self.sites {
            witnesses.hurry();
        }
    }

    /// Probes that are passed a second, and would be if all were placed, where not all are.
    pub fn passed_of_all(&self) -> Option<(f64, f64)> {
        match &self.sites {
            Sites::Frames(_) => None,
            Sites::Chain(witnesses) => witnesses.passed_of_all(),
        }
    }

    /// The functions in which probes are placed, where not all are.
    pub fn few_functions(&self) -> Vec<String> {
        match &self.sites {
            Sites::Frames(_) => Vec::new(),
            Sites::Chain(witnesses) => witnesses.few_functions(),
        }
    }

    /// Turns the probes on or off when it is time, or places others. `codes`: those whose calls are seen.
    pub fn keep_time(
        &mut self,
        context: &mut Context<'_>,
        code: &CodeWatch,
        codes: impl FnOnce() -> Vec<RemoteAddress>,
    ) -> Result<(), SessionError> {
        let now = Instant::now();
        if let Sites::Chain(witnesses) = &mut self.sites
            && self.duty.is_live()
        {
            witnesses.keep_time(now, context.in_kernel(code.process())?, &self.file, codes)?;
        }
        if self.duty.due().is_none_or(|due| now < due) {
            return Ok(());
        }
        let spent = self.spent(context, code)?;
        let kernel = context.in_kernel(code.process())?;
        // What cannot be read is not waited for.
        let turn = self.duty.step(now, spent, || kernel.has_open_calls().unwrap_or(false));
        match turn {
            Some(turn) => self.turn(context, code, (turn, &[])),
            None => Ok(()),
        }
    }

    /// Processor time that the probes have taken since they became live.
    fn spent(&mut self, context: &mut Context<'_>, code: &CodeWatch) -> Result<Duration, SessionError> {
        if !self.duty.is_live() || !matches!(self.duty.share(), Share::OfProcessor(_)) {
            return Ok(Duration::ZERO);
        }
        let mode = self.mode();
        let each_ns = *self.each_ns.get_or_insert_with(|| match measure_emulated_probe() {
            Some(ns) => each_ns(mode, ns),
            None => {
                let process = code.process();
                tracing::warn!(
                    "what a probe takes cannot be measured here: --max-overhead does not bound the Python calls of process {process}"
                );
                0.0
            }
        });
        let counted = context.in_kernel(code.process())?.python_calls_passed()?;
        Ok(Duration::from_secs_f64(counted.saturating_sub(self.counted) as f64 * each_ns / 1e9))
    }

    fn mode(&self) -> PythonMode {
        match self.sites {
            Sites::Frames(_) => PythonMode::Frames,
            Sites::Chain(_) => PythonMode::Chain,
        }
    }

    /// Probes come and go one after the other: what is open meanwhile may lack children.
    pub fn turn(
        &mut self,
        context: &mut Context<'_>,
        code: &CodeWatch,
        (turn, codes): (Turn, &[RemoteAddress]),
    ) -> Result<(), SessionError> {
        let spent = self.spent(context, code)?;
        match turn {
            Turn::On => {
                let gap = self.begin_gap(context, code)?;
                let is_first = !self.duty.has_windows();
                let kernel = context.in_kernel(code.process())?;
                match &mut self.sites {
                    Sites::Frames(sites) => kernel.place_frames(&self.file, sites)?,
                    Sites::Chain(witnesses) => {
                        witnesses.begin(Instant::now(), kernel, &self.file, codes)?;
                        let all = if is_first { WitnessWindow::Open } else { WitnessWindow::OpenForWhole };
                        kernel.see_witnesses(all)?;
                    }
                }
                self.counted = kernel.python_calls_passed()?;
                context.drain.end_gap(gap)?;
            }
            Turn::Closing => context.in_kernel(code.process())?.see_witnesses(WitnessWindow::Closing)?,
            Turn::Off => {
                let gap = self.begin_gap(context, code)?;
                context.in_kernel(code.process())?.remove_frames()?;
                self.gap = Some(gap);
            }
        }
        let had_windows = self.duty.has_windows();
        self.duty.turned(Instant::now(), turn, spent);
        if !had_windows && let Some(sentence) = self.first_window(code.process(), spent) {
            tracing::warn!("{sentence}");
        }
        Ok(())
    }

    /// The gap that is open, or one that begins now.
    fn begin_gap(&mut self, context: &Context<'_>, code: &CodeWatch) -> Result<OpenGap, SessionError> {
        match self.gap.take() {
            Some(gap) => Ok(gap),
            None => context.drain.begin_gap(Some(code.process().pid)),
        }
    }

    /// What to say once the first window is over, because the probes took more than they may.
    fn first_window(&self, process: ProcessId, spent: Duration) -> Option<String> {
        let Share::OfProcessor(most) = self.duty.share() else { return None };
        let live = self.duty.live_share()?;
        let took = most / live;
        let whole = if self.mode() == PythonMode::Chain { ", whole trees only" } else { "" };
        (!spent.is_zero()).then(|| {
            format!(
                "seeing the Python calls of process {process} took about {:.0} % of one processor, --max-overhead allows {:.0} %: \
                 they are seen in windows from now on, in {:.0} % of the time{whole}",
                took * 100.0,
                most * 100.0,
                live * 100.0
            )
        })
    }

    /// The share of the time in which calls were seen, if not all of it.
    pub fn live_share(&self) -> Option<f64> {
        self.duty.live_share()
    }

    /// Counts calls for a moment: gives how many there are in a second.
    pub fn count_for_a_moment(&mut self, context: &mut Context<'_>, code: &CodeWatch) -> Result<f64, SessionError> {
        code.tell(context.in_kernel(code.process())?, &Default::default())?;
        let before = context.in_kernel(code.process())?.python_calls_passed()?;
        self.turn(context, code, (Turn::On, &[]))?;
        let began = Instant::now();
        std::thread::sleep(COUNTING);
        let calls = context.in_kernel(code.process())?.python_calls_passed()?.saturating_sub(before) as f64
            / began.elapsed().as_secs_f64();
        self.turn(context, code, (Turn::Off, &[]))?;
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
