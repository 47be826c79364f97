//! The witnesses of one process: all of them, or where that is left to us those that suffice for the calls that it makes.

use std::path::Path;
use std::time::Instant;

use super::super::settings::PythonSettings;
use crate::attach::{AttachError, KernelProcess, measure_emulated_probe};
use crate::model::{
    ProbesPassed, PythonMode, RemoteAddress, Share, SparseKinds, Witness, WitnessDensity, WitnessSite, WitnessedCalls,
};
use crate::plan::{WitnessChoice, WitnessCount, WitnessStep};

/// Where the witnesses may be, and which are placed.
pub struct Witnesses {
    sites: Vec<WitnessSite>,
    /// Not all stay where that is left to us, and once they are placed.
    may_choose: bool,
    choice: Option<WitnessChoice>,
    /// What was passed when this was asked last.
    passed: (Option<Instant>, ProbesPassed),
    /// What an empty program takes at a probe, once that was measured.
    empty_ns: Option<Option<f64>>,
}

impl Witnesses {
    /// Nothing is placed yet.
    pub fn new(sites: Vec<WitnessSite>, settings: PythonSettings) -> Self {
        let is_ours = settings.is_chosen || settings.may_go_over;
        let may_choose = is_ours && settings.mode == PythonMode::Chain && settings.share == Share::Always;
        Self { sites, may_choose, choice: None, passed: (None, ProbesPassed::default()), empty_ns: None }
    }

    /// The same where nothing is placed yet.
    pub fn anew(&self) -> Self {
        let (sites, passed) = (self.sites.clone(), (None, ProbesPassed::default()));
        Self { sites, choice: None, passed, ..*self }
    }

    /// Whether one of them is passed where an exception ends a call.
    pub fn tell_exceptions(&self) -> bool {
        self.sites.iter().any(|site| site.witness == Witness::Unwinds)
    }

    /// Places them. `codes`: those whose calls are seen.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take a probe.
    pub fn begin(
        &mut self,
        now: Instant,
        kernel: &mut dyn KernelProcess,
        file: &Path,
        codes: &[RemoteAddress],
    ) -> Result<(), AttachError> {
        if !self.may_choose {
            return self.keep(kernel, file, None);
        }
        self.choice = Some(WitnessChoice::new(now));
        self.count(now, kernel, file, codes)
    }

    /// Other code is seen from now on.
    pub fn hurry(&mut self) {
        if let Some(choice) = &mut self.choice {
            choice.hurry(Instant::now());
        }
    }

    /// When others may be placed.
    pub fn due(&self) -> Option<Instant> {
        self.choice.as_ref().map(WitnessChoice::due)
    }

    /// Probes that are passed a second, and would be if all were placed, where not all are.
    pub fn passed_of_all(&self) -> Option<(f64, f64)> {
        let choice = self.choice.as_ref()?;
        choice.kinds().and(choice.passed())
    }

    /// The functions in which they are, where not all are placed.
    pub fn few_functions(&self) -> Vec<String> {
        let Some(kinds) = self.choice.as_ref().and_then(WitnessChoice::kinds) else { return Vec::new() };
        let stays = |site: &&WitnessSite| site.witness.sparse_kind().is_some() && kinds.place(site.witness);
        self.sites.iter().filter(stays).map(|site| site.function.clone()).collect()
    }

    /// Places others, when it is time.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take a probe.
    pub fn keep_time(
        &mut self,
        now: Instant,
        kernel: &mut dyn KernelProcess,
        file: &Path,
        codes: impl FnOnce() -> Vec<RemoteAddress>,
    ) -> Result<(), AttachError> {
        let Self { choice, passed, empty_ns, .. } = self;
        let Some(choice) = choice else { return Ok(()) };
        if now < choice.due() {
            return Ok(());
        }
        let empty_ns = *empty_ns.get_or_insert_with(measure_emulated_probe);
        let step = choice.step(now, empty_ns, || counted(kernel, passed, now));
        match step {
            None => Ok(()),
            Some(WitnessStep::Count) => self.count(now, kernel, file, &codes()),
            Some(WitnessStep::Keep(kinds)) => self.keep(kernel, file, kinds),
        }
    }

    /// Places all of them, and has it counted by which each call would be seen. Where that cannot be counted, all stay.
    fn count(
        &mut self,
        now: Instant,
        kernel: &mut dyn KernelProcess,
        file: &Path,
        codes: &[RemoteAddress],
    ) -> Result<(), AttachError> {
        kernel.place_witnesses(file, &self.sites, WitnessDensity::Counted)?;
        if let Err(problem) = kernel.count_witnessed(codes) {
            tracing::debug!(%problem, "all witnesses stay");
            self.choice = None;
            return self.keep(kernel, file, None);
        }
        self.passed = (Some(now), kernel.python_probes_passed()?);
        Ok(())
    }

    fn keep(&self, kernel: &mut dyn KernelProcess, file: &Path, kinds: Option<SparseKinds>) -> Result<(), AttachError> {
        let density = if kinds.is_some() { WitnessDensity::Sparse } else { WitnessDensity::Dense };
        let stays = |witness: Witness| match kinds {
            Some(kinds) => kinds.place(witness),
            // The others are passed by what these have seen already.
            None => witness.sparse_kind().is_none_or(|kind| kind == 0),
        };
        let sites: Vec<WitnessSite> = self.sites.iter().filter(|site| stays(site.witness)).cloned().collect();
        kernel.place_witnesses(file, &sites, density)
    }
}

/// What was counted since this was asked last. Where it cannot be had, nothing was.
fn counted(
    kernel: &mut dyn KernelProcess,
    last: &mut (Option<Instant>, ProbesPassed),
    now: Instant,
) -> Option<WitnessCount> {
    let passed = kernel.python_probes_passed().ok()?;
    let calls: Vec<WitnessedCalls> = kernel.take_witnessed().ok()?;
    let (since, before) = std::mem::replace(last, (Some(now), passed));
    let mut by_place = passed.by_place;
    for (count, before) in by_place.iter_mut().zip(before.by_place) {
        *count = count.saturating_sub(before);
    }
    Some(WitnessCount { time: now.saturating_duration_since(since?), passed: ProbesPassed { by_place }, calls })
}
