//! What a session is asked to do.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::message::Message;
use crate::attach::LoadOptions;
use crate::export::{Destination, Sink};
use crate::model::{MethodRow, PythonLayout, PythonMode, Share, SymbolMap};
use crate::target::TargetSource;

/// What a session is asked to do.
pub struct Settings {
    /// Which processes.
    pub source: Box<dyn TargetSource>,
    /// The symbol maps, in the order of precedence.
    pub maps: Vec<SymbolMap>,
    /// How Python calls are seen.
    pub python: PythonSettings,
    /// Probe native functions also in files that move their own code.
    pub probe_moving_code: bool,
    /// Share of one processor that the native probes of a process may take, above 0; `None`: any.
    pub max_overhead: Option<f64>,
    /// Where spans go.
    pub exports: Vec<Destination>,
    /// Where spans go besides.
    pub sinks: Vec<Box<dyn Sink>>,
    /// Tell what is seen and what not, again and again.
    pub status: Option<StatusFeed>,
    /// Tell what the methods have come to, again and again.
    pub totals: Option<TotalsFeed>,
    /// Record a tape here.
    pub tape: Option<PathBuf>,
    /// How the BPF programs are loaded.
    pub load: LoadOptions,
    /// When the tracer itself began: attach time counts from here.
    pub began: Instant,
    /// The process is a command that has not begun: what is to be traced is still to come, and its end is told.
    pub is_command: bool,
    /// Go on where nothing at all can be traced yet: what is forked later may have something.
    pub awaits_forks: bool,
    /// The longest that it may take, from when all probes are live.
    pub duration: Option<Duration>,
    /// Where the session is told things, by its own threads too: the other end is given to [`super::Session::run`].
    pub tell: Sender<Message>,
    /// Raised when the session is not wanted any more before it has begun.
    pub stop: Arc<AtomicBool>,
}

/// Where the table of methods goes while the session lasts.
#[derive(Clone, Debug)]
pub struct TotalsFeed {
    /// How often.
    pub every: Duration,
    /// All finished calls so far.
    pub to: Sender<Vec<MethodRow>>,
}

/// Where it goes what is seen and what not.
#[derive(Clone, Debug)]
pub struct StatusFeed {
    /// How often.
    pub every: Duration,
    /// A sentence each.
    pub to: Sender<Vec<String>>,
}

/// How Python calls are seen.
#[derive(Clone, Copy, Debug)]
pub struct PythonSettings {
    /// By watchpoints, or by probes that every call passes.
    pub mode: PythonMode,
    /// The mode is chosen at the start by what is possible on this machine, and again for each process by what is possible in it; `mode` is
    /// what is taken where nothing can be measured.
    pub is_chosen: bool,
    /// A process that calls more than can be watched goes over from watch mode to chain mode.
    pub may_go_over: bool,
    /// How much of the time probes in the interpreter may be live.
    pub share: Share,
    /// Calls are joined to the requests that they were made for.
    pub joins_requests: bool,
}

impl PythonSettings {
    /// What the programs are told of an interpreter.
    pub fn told_of(&self, layout: PythonLayout, mode: PythonMode) -> PythonLayout {
        let thread_context = if self.joins_requests { layout.thread_context } else { 0 };
        PythonLayout { witnesses: u32::from(mode == PythonMode::Chain), thread_context, ..layout }
    }
}

impl Default for PythonSettings {
    fn default() -> Self {
        Self {
            mode: PythonMode::Watch,
            is_chosen: false,
            may_go_over: false,
            share: Share::Always,
            joins_requests: false,
        }
    }
}
