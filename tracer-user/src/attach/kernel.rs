//! What a session asks of the kernel: two traits, so that a session can be run without one.

use std::path::Path;

use super::error::AttachError;
use super::placement::Refused;
use super::python_watch::WatchOutcome;
use crate::model::{
    CodeCalls, ContextSites, DEEP_FRAMES, FileNumber, FunctionId, InterpreterSite, InterpreterSites, KernelFeatures,
    LossCounts, OpenCall, ProbePlan, ProbesPassed, ProcessId, PythonLayout, PythonLeftOut, PythonTables, RemoteAddress,
    ServerSockets, WitnessDensity, WitnessSite, WitnessWindow, WitnessedCalls,
};

/// The loaded programs.
pub trait Kernel: Send {
    /// What this kernel can do.
    #[must_use]
    fn features(&self) -> KernelFeatures;

    /// The owner of all that the kernel will hold for a process; there is one for each process.
    #[must_use]
    fn process(&self, process: ProcessId) -> Box<dyn KernelProcess>;

    /// Files that lost their probes because somebody writes to them, since this was asked last.
    fn written(&mut self) -> Vec<(ProcessId, FileNumber)>;

    /// Takes away the probes at entries of native functions of all processes: the first step of the end.
    fn remove_entries(&mut self);

    /// Takes the other probes away, after those that see Python calls ([`KernelProcess::remove_python`]). A thread that ends
    /// while the counts are read would move from one page to another, so ends of threads are not seen any more either; the
    /// exit probes go after them, and by then the kernel has waited for every program that was still running.
    fn remove_exits(&mut self);

    /// Reads the totals and the calls that are still open. Exact once the probes are gone.
    ///
    /// # Errors
    /// A map cannot be read.
    fn totals(&self) -> Result<(LossCounts, Vec<OpenCall>), AttachError>;

    /// Calls of these functions so far, folded ones included.
    ///
    /// # Errors
    /// The map cannot be read.
    fn calls_of(&self, functions: &[FunctionId]) -> Result<Vec<u64>, AttachError>;

    /// Nanoseconds that an empty program takes at a probe here, if that was measured.
    #[must_use]
    fn empty_probe_ns(&self) -> Option<f64>;

    /// Signals that were kept from processes because they came from hits of watchpoints whose cause was lost. Complete
    /// once the probes are gone.
    #[must_use]
    fn kept_signals(&self) -> u64;

    /// From now on records tell when this process executes another program or ends, and where forks are told also which
    /// processes it forks: they are told of likewise, and counted until this is said of them too.
    ///
    /// # Errors
    /// The map cannot be written.
    fn tell_of(&mut self, process: ProcessId) -> Result<(), AttachError>;

    /// Notice is taken of a process that was forked, where forks are told. `false`: the kernel has counted it as one that was not seen.
    ///
    /// # Errors
    /// The map cannot be written.
    fn take_notice_of(&mut self, process: ProcessId) -> Result<bool, AttachError>;

    /// Nothing is told of a process any more. One that ends is forgotten by itself.
    fn tell_no_more_of(&mut self, process: ProcessId);

    /// Whether records tell of forks.
    #[must_use]
    fn forks_are_told(&self) -> bool;

    /// Forked processes of which [`Self::tell_of`] was not said; `None` where that cannot be known.
    #[must_use]
    fn unseen_forks(&self) -> Option<u64>;

    /// Hands on what the programs logged, if they were loaded to log.
    fn forward_log(&mut self);

    /// Where something is asked over unix sockets, has it seen that they are closed: it costs every system call of the machine something,
    /// and is done when the first one is used.
    fn follow_unix_sockets(&mut self);
}

/// Everything that the kernel holds for one process. Dropping it takes all of it away, and makes room for another process; what
/// of that takes the kernel long goes on aside, until the end.
pub trait KernelProcess {
    /// Whether the programs know it: probes have been placed in it, or code of it has been told.
    #[must_use]
    fn is_known(&self) -> bool;

    /// From now on calls are recorded, or (`false`) only calls already open are seen to end.
    ///
    /// # Errors
    /// The process map cannot be written.
    fn accept_entries(&mut self, accept: bool) -> Result<(), AttachError>;

    /// Places the probes of a plan. They do nothing until [`Self::accept_entries`].
    ///
    /// # Errors
    /// Not permitted, or too many processes. Functions that the kernel does not take are given back instead: one, or
    /// all of a file that is gone, is another one by now, or is not what the process runs.
    fn place(&mut self, plan: &ProbePlan) -> Result<Vec<Refused>, AttachError>;

    /// Whether its probes are live in a file, which it has mapped (again).
    #[must_use]
    fn is_placed(&self, file: FileNumber) -> bool;

    /// It has mapped a file no more.
    fn unmapped(&mut self, file: FileNumber);

    /// The file under a number is another one now, or has other content: its probes go.
    fn replaced(&mut self, file: FileNumber);

    /// Makes its interpreter known, and the code, functions, classes and containers in it; what was known of it before is
    /// replaced. What the tables have no room for is left out and counted ([`Self::python_left_out`]).
    ///
    /// # Errors
    /// Not permitted, the kernel cannot run the programs, or too many processes.
    fn set_python(&mut self, layout: &PythonLayout, tables: &PythonTables) -> Result<(), AttachError>;

    /// What has found no room in the tables, at most.
    #[must_use]
    fn python_left_out(&self) -> PythonLeftOut;

    /// Watches calls of a code object on every thread of the process, in a virtual machine with a guard. `count` reads its
    /// reference count once the watchpoint is live, so that the first call is told from a return.
    ///
    /// # Errors
    /// Not permitted, or the kernel takes no watchpoints.
    fn watch(
        &mut self,
        code: RemoteAddress,
        count: &mut dyn FnMut() -> Option<u32>,
    ) -> Result<WatchOutcome, AttachError>;

    /// Takes the watchpoint of a code object away.
    ///
    /// # Errors
    /// A map cannot be written.
    fn unwatch(&mut self, code: RemoteAddress) -> Result<(), AttachError>;

    /// Forgets all watchpoints.
    ///
    /// # Errors
    /// A map cannot be written.
    fn unwatch_all(&mut self) -> Result<(), AttachError>;

    /// Calls of a code object since it was last watched.
    ///
    /// # Errors
    /// The map cannot be read.
    fn python_calls(&self, code: RemoteAddress) -> Result<CodeCalls, AttachError>;

    /// The guard, by the number of its own process.
    #[must_use]
    fn guard(&self) -> Option<u32>;

    /// Whether its guard has ended since the last time that this was asked, and the watchpoints with it: the process has
    /// ended, too, or somebody has killed the guard ([`Self::unwatch_all`]).
    fn has_lost_guard(&mut self) -> bool;

    /// Places probes at these sites of its interpreter's file: returns before entries.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take a probe.
    fn place_frames(&mut self, path: &Path, sites: &InterpreterSites) -> Result<(), AttachError>;

    /// Places probes at these sites of its interpreter's file, which a part of all Python calls passes. Those that were there before
    /// are taken away once they are live.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take a probe.
    fn place_witnesses(
        &mut self,
        path: &Path,
        sites: &[WitnessSite],
        density: WitnessDensity,
    ) -> Result<(), AttachError>;

    /// From now on it is counted by which witnesses the calls of this code are seen, if that is to be counted.
    ///
    /// # Errors
    /// There is no room for it, or the map cannot be written.
    fn count_witnessed(&mut self, codes: &[RemoteAddress]) -> Result<(), AttachError>;

    /// What was counted of each, which is not counted any more.
    ///
    /// # Errors
    /// There is no such map.
    fn take_witnessed(&mut self) -> Result<Vec<WitnessedCalls>, AttachError>;

    /// Which calls are seen at the second kind of probes: none until this is told.
    ///
    /// # Errors
    /// The process map cannot be written.
    fn see_witnesses(&mut self, window: WitnessWindow) -> Result<(), AttachError>;

    /// Takes the probes of either kind away. Calls that are open then are let go.
    ///
    /// # Errors
    /// A map cannot be written.
    fn remove_frames(&mut self) -> Result<(), AttachError>;

    /// Probes of either kind that were passed so far; those that some process before it has passed may be among them.
    ///
    /// # Errors
    /// The map cannot be read.
    fn python_calls_passed(&self) -> Result<u64, AttachError> {
        let passed = self.python_probes_passed()?;
        Ok(passed.by_place.iter().take(DEEP_FRAMES).sum())
    }

    /// The same by their places.
    ///
    /// # Errors
    /// The map cannot be read.
    fn python_probes_passed(&self) -> Result<ProbesPassed, AttachError>;

    /// Whether a call is open on any of its threads.
    ///
    /// # Errors
    /// The map cannot be read.
    fn has_open_calls(&self) -> Result<bool, AttachError>;

    /// Places the probe that exceptions pass on their way through Python frames.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take it.
    fn place_exceptions(&mut self, path: &Path, site: &InterpreterSite) -> Result<(), AttachError>;

    /// Has it stop itself (`SIGSTOP`) at the first object of each of these classes, which are told by their bare names, or of one that
    /// is derived from them, as soon as it runs the interpreter in this file; a record tells of it then. Whoever asks for this lets it
    /// go on. The programs for it must be loaded.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take the probe.
    fn stop_at_first_objects(
        &mut self,
        path: &Path,
        site: &InterpreterSite,
        classes: &[String],
    ) -> Result<(), AttachError>;

    /// It does not stop for these classes any more.
    ///
    /// # Errors
    /// The map cannot be written.
    fn knows_classes(&mut self, classes: &[RemoteAddress]) -> Result<(), AttachError>;

    /// It stops for nothing any more.
    fn stop_no_more(&mut self);

    /// From now on records tell of the connections that it accepts, and of those that it is asked over already, which are asked for before and
    /// once the others are seen.
    ///
    /// # Errors
    /// The programs are not loaded, or a map cannot be written.
    fn look_at_requests(&mut self, open: &mut dyn FnMut() -> ServerSockets) -> Result<(), AttachError>;

    /// From now on records tell which contexts its interpreter makes and frees, and in which one an answer is begun. Probes that are there
    /// stay.
    ///
    /// # Errors
    /// The programs are not loaded, not permitted, or the kernel does not take a probe.
    fn place_contexts(&mut self, path: &Path, sites: &ContextSites) -> Result<(), AttachError>;

    /// It has no interpreter any more whose contexts are seen.
    ///
    /// # Errors
    /// A map cannot be written.
    fn forget_contexts(&mut self) -> Result<(), AttachError>;

    /// It runs another program now, which wants the debug registers: takes everything away that sees Python calls, and
    /// forgets what the programs were told of them.
    ///
    /// # Errors
    /// A map cannot be written.
    fn forget_python(&mut self) -> Result<(), AttachError>;

    /// Takes away what sees Python calls, aside: the kernel takes a tenth of a second or more, and others are forking
    /// meanwhile.
    fn remove_python(&mut self);
}
