//! A kernel for tests: it takes whatever it is given, remembers what it holds, and fails where it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::attach::{AttachError, Kernel, KernelProcess, Refused, WatchOutcome};
use crate::model::{
    CodeCalls, ContextSites, FileNumber, FunctionId, InterpreterSite, InterpreterSites, KernelFeatures, LossCounts,
    OpenCall, ProbePlan, ProbesPassed, ProcessId, PythonLayout, PythonLeftOut, PythonTables, RawRecord, RemoteAddress,
    ServerSockets, WitnessDensity, WitnessSite, WitnessWindow, WitnessedCalls,
};
use crate::ring::RecordSource;

/// What it holds and has been asked, as a test sees it.
#[derive(Clone, Default)]
pub struct FakeKernel(Arc<Mutex<State>>);

/// What is done before probes are placed in a process; an error is what comes of it.
type BeforePlacing = Box<dyn FnMut(ProcessId) -> Result<(), AttachError> + Send>;

/// What it holds.
#[derive(Default)]
pub struct State {
    /// Functions that are probed, by process.
    pub probed: BTreeMap<u32, usize>,
    /// Processes whose calls are recorded.
    pub accepted: BTreeSet<u32>,
    /// Owners that have not been dropped.
    pub owners: usize,
    /// Processes of which records tell.
    pub told_of: BTreeSet<u32>,
    /// The steps of the end, in their order.
    pub end: Vec<&'static str>,
    /// What the books say.
    pub totals: LossCounts,
    /// Done before probes are placed.
    pub before_placing: Option<BeforePlacing>,
}

impl FakeKernel {
    /// What it holds now.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kernel for FakeKernel {
    fn features(&self) -> KernelFeatures {
        KernelFeatures { uprobe_multi: true, uretprobe_is_seccomp_safe: true, ..KernelFeatures::default() }
    }

    fn process(&self, process: ProcessId) -> Box<dyn KernelProcess> {
        self.state().owners += 1;
        Box::new(FakeProcess { process, kernel: self.clone() })
    }

    fn written(&mut self) -> Vec<(ProcessId, FileNumber)> {
        Vec::new()
    }

    fn remove_entries(&mut self) {
        self.state().end.push("entries");
    }

    fn remove_exits(&mut self) {
        self.state().end.push("exits");
    }

    fn totals(&self) -> Result<(LossCounts, Vec<OpenCall>), AttachError> {
        Ok((self.state().totals.clone(), Vec::new()))
    }

    fn calls_of(&self, functions: &[FunctionId]) -> Result<Vec<u64>, AttachError> {
        Ok(vec![0; functions.len()])
    }

    fn empty_probe_ns(&self) -> Option<f64> {
        None
    }

    fn kept_signals(&self) -> u64 {
        0
    }

    fn take_notice_of(&mut self, process: ProcessId) -> Result<bool, AttachError> {
        self.tell_of(process).map(|()| true)
    }

    fn tell_of(&mut self, process: ProcessId) -> Result<(), AttachError> {
        self.state().told_of.insert(process.pid);
        Ok(())
    }

    fn tell_no_more_of(&mut self, process: ProcessId) {
        self.state().told_of.remove(&process.pid);
    }

    fn forks_are_told(&self) -> bool {
        true
    }

    fn unseen_forks(&self) -> Option<u64> {
        Some(0)
    }

    fn forward_log(&mut self) {}

    fn follow_unix_sockets(&mut self) {}
}

/// One process in it.
struct FakeProcess {
    process: ProcessId,
    kernel: FakeKernel,
}

impl KernelProcess for FakeProcess {
    fn is_known(&self) -> bool {
        self.kernel.state().probed.contains_key(&self.process.pid)
    }

    fn accept_entries(&mut self, accept: bool) -> Result<(), AttachError> {
        let mut state = self.kernel.state();
        if accept {
            state.accepted.insert(self.process.pid)
        } else {
            state.accepted.remove(&self.process.pid)
        };
        Ok(())
    }

    fn place(&mut self, plan: &ProbePlan) -> Result<Vec<Refused>, AttachError> {
        let mut state = self.kernel.state();
        if let Some(before) = &mut state.before_placing {
            before(self.process)?;
        }
        *state.probed.entry(self.process.pid).or_default() += plan.functions.len();
        Ok(Vec::new())
    }

    fn is_placed(&self, _: FileNumber) -> bool {
        false
    }

    fn unmapped(&mut self, _: FileNumber) {}

    fn replaced(&mut self, _: FileNumber) {}

    fn set_python(&mut self, _: &PythonLayout, _: &PythonTables) -> Result<(), AttachError> {
        Ok(())
    }

    fn python_left_out(&self) -> PythonLeftOut {
        PythonLeftOut::default()
    }

    fn watch(&mut self, _: RemoteAddress, _: &mut dyn FnMut() -> Option<u32>) -> Result<WatchOutcome, AttachError> {
        Ok(WatchOutcome::Live)
    }

    fn unwatch(&mut self, _: RemoteAddress) -> Result<(), AttachError> {
        Ok(())
    }

    fn unwatch_all(&mut self) -> Result<(), AttachError> {
        Ok(())
    }

    fn python_calls(&self, _: RemoteAddress) -> Result<CodeCalls, AttachError> {
        Ok(CodeCalls::default())
    }

    fn guard(&self) -> Option<u32> {
        None
    }

    fn has_lost_guard(&mut self) -> bool {
        false
    }

    fn place_frames(&mut self, _: &Path, _: &InterpreterSites) -> Result<(), AttachError> {
        Ok(())
    }

    fn place_witnesses(&mut self, _: &Path, _: &[WitnessSite], _: WitnessDensity) -> Result<(), AttachError> {
        Ok(())
    }

    fn count_witnessed(&mut self, _: &[RemoteAddress]) -> Result<(), AttachError> {
        Ok(())
    }

    fn take_witnessed(&mut self) -> Result<Vec<WitnessedCalls>, AttachError> {
        Ok(Vec::new())
    }

    fn see_witnesses(&mut self, _: WitnessWindow) -> Result<(), AttachError> {
        Ok(())
    }

    fn remove_frames(&mut self) -> Result<(), AttachError> {
        Ok(())
    }

    fn has_open_calls(&self) -> Result<bool, AttachError> {
        Ok(false)
    }

    fn python_probes_passed(&self) -> Result<ProbesPassed, AttachError> {
        Ok(ProbesPassed::default())
    }

    fn place_exceptions(&mut self, _: &Path, _: &InterpreterSite) -> Result<(), AttachError> {
        Ok(())
    }

    fn stop_at_first_objects(&mut self, _: &Path, _: &InterpreterSite, _: &[String]) -> Result<(), AttachError> {
        Ok(())
    }

    fn knows_classes(&mut self, _: &[RemoteAddress]) -> Result<(), AttachError> {
        Ok(())
    }

    fn stop_no_more(&mut self) {}

    fn look_at_requests(&mut self, _: &mut dyn FnMut() -> ServerSockets) -> Result<(), AttachError> {
        Ok(())
    }

    fn place_contexts(&mut self, _: &Path, _: &ContextSites) -> Result<(), AttachError> {
        Ok(())
    }

    fn forget_contexts(&mut self) -> Result<(), AttachError> {
        Ok(())
    }

    fn forget_python(&mut self) -> Result<(), AttachError> {
        Ok(())
    }

    fn remove_python(&mut self) {
        self.kernel.state().end.push("python");
    }
}

impl Drop for FakeProcess {
    fn drop(&mut self) {
        let mut state = self.kernel.state();
        state.probed.remove(&self.process.pid);
        state.accepted.remove(&self.process.pid);
        state.owners -= 1;
    }
}

/// Records of programs that submit none.
pub struct NoRecords;

impl RecordSource for NoRecords {
    fn drain(&mut self, _: usize, _: &mut dyn FnMut(RawRecord<'_>)) -> usize {
        0
    }
}
