//! The Python code of one process, as the programs see it: tables, watchpoints that move, candidates that are tried out, probes
//! in the interpreter.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::error::AttachError;
use super::programs::Programs;
use super::python::WatchOutcome;
use crate::memory::{LiveProcess, Memory as _};
use crate::model::{
    InterpreterSite, InterpreterSites, ProcessId, PythonLayout, PythonLeftOut, PythonTables, RemoteAddress,
};

/// While candidates are tried out, their calls are counted so often.
const COUNT_EVERY: Duration = Duration::from_millis(3);

/// Calls of code objects since they were watched.
type Counts = HashMap<RemoteAddress, u64>;

/// The code of one process.
#[derive(Clone, Debug)]
pub struct CodeWatch {
    /// The process, and its number in the initial pid namespace.
    process: (ProcessId, u32),
    layout: PythonLayout,
}

/// What has become of an order to watch other code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The code that is watched now.
    pub watched: Vec<RemoteAddress>,
    /// Why it is not all that was asked for.
    pub obstacle: Option<WatchOutcome>,
}

impl CodeWatch {
    /// The code of a process whose runtime keeps its frames like this.
    #[must_use]
    pub fn new(process: (ProcessId, u32), layout: PythonLayout) -> Self {
        Self { process, layout: PythonLayout { exceptions_are_seen: 0, ..layout } }
    }

    /// The code of a process that was forked from this one.
    #[must_use]
    pub fn in_fork(&self, process: (ProcessId, u32)) -> Self {
        Self::new(process, self.layout)
    }

    /// How the runtime keeps its frames.
    #[must_use]
    pub fn layout(&self) -> &PythonLayout {
        &self.layout
    }

    /// The process's number in the initial pid namespace.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.process.1
    }

    /// Whether a watchpoint sees the end of a call at once, and so its exception.
    #[must_use]
    pub fn tells_exceptions(&self) -> bool {
        self.layout.exits_are_prompt != 0
    }

    /// Tells the programs what is to be seen; what they were told before is replaced.
    ///
    /// # Errors
    /// As for [`Programs::set_python`].
    pub fn tell(&self, programs: &mut Programs, tables: &PythonTables) -> Result<(), AttachError> {
        programs.set_python(self.process, &self.layout, tables)
    }

    /// Places the probe that exceptions pass.
    ///
    /// # Errors
    /// As for [`Programs::place_exceptions`].
    pub fn see_exceptions(
        &mut self,
        programs: &mut Programs,
        file: &Path,
        site: &InterpreterSite,
    ) -> Result<(), AttachError> {
        programs.place_exceptions(self.process, file, site)?;
        self.layout.exceptions_are_seen = 1;
        Ok(())
    }

    /// Places probes that every call passes.
    ///
    /// # Errors
    /// As for [`Programs::place_frames`].
    pub fn probe_calls(
        &self,
        programs: &mut Programs,
        file: &Path,
        sites: &InterpreterSites,
    ) -> Result<(), AttachError> {
        programs.place_frames(self.process, file, sites)
    }

    /// Takes the probes that every call passes away.
    ///
    /// # Errors
    /// As for [`Programs::remove_frames`].
    pub fn unprobe_calls(&self, programs: &mut Programs) -> Result<(), AttachError> {
        programs.remove_frames(self.process.0)
    }

    /// Calls of code objects since they were watched.
    ///
    /// # Errors
    /// The counts cannot be read.
    pub fn calls(&self, programs: &mut Programs, codes: &[RemoteAddress]) -> Result<Counts, AttachError> {
        codes.iter().map(|code| Ok((*code, programs.python_calls(self.process.1, *code)?))).collect()
    }

    /// The calls of those code objects whose count can be read.
    pub fn calls_as_far_as_known(&self, programs: &mut Programs, codes: &[RemoteAddress]) -> Counts {
        let calls = |code: &RemoteAddress| Some((*code, programs.python_calls(self.process.1, *code).ok()?));
        codes.iter().filter_map(calls).collect()
    }

    /// Calls that have passed the probes so far, traced or not, in all processes.
    ///
    /// # Errors
    /// The count cannot be read.
    pub fn calls_passed(&self, programs: &Programs) -> Result<u64, AttachError> {
        programs.python_calls_passed()
    }

    /// What the programs were not told, for want of room, at most at one time.
    #[must_use]
    pub fn left_out(&self, programs: &Programs) -> PythonLeftOut {
        programs.python_left_out(self.process.1)
    }

    /// Watches this code in place of what is watched, until it is found that not all of it can be. The most wanted comes
    /// first.
    ///
    /// # Errors
    /// As for [`Programs::watch`].
    pub fn move_watchpoints(
        &self,
        programs: &mut Programs,
        watched: &[RemoteAddress],
        wanted: &[RemoteAddress],
    ) -> Result<Moved, AttachError> {
        let (kept, dropped): (Vec<_>, Vec<_>) = watched.iter().copied().partition(|code| wanted.contains(code));
        for code in dropped {
            programs.unwatch(self.process, code)?;
        }
        let mut moved = Moved { watched: kept, obstacle: None };
        for code in wanted {
            if moved.watched.contains(code) {
                continue;
            }
            match self.watch(programs, *code)? {
                WatchOutcome::Live => moved.watched.push(*code),
                obstacle => {
                    moved.obstacle = Some(obstacle);
                    break;
                }
            }
        }
        Ok(moved)
    }

    /// Watches one group of code after the other, each for `step` or until `enough` calls of it were seen. The answer is the
    /// calls of what was called. Nothing is watched afterwards.
    ///
    /// # Errors
    /// As for [`Programs::watch`].
    pub fn try_out(
        &self,
        programs: &mut Programs,
        groups: &[Vec<RemoteAddress>],
        (step, enough): (Duration, u64),
    ) -> Result<Counts, AttachError> {
        let mut calls = Counts::new();
        for group in groups {
            for code in group {
                if self.watch(programs, *code)? != WatchOutcome::Live {
                    break;
                }
            }
            let began = Instant::now();
            let mut total = 0;
            while began.elapsed() < step && total < enough {
                std::thread::sleep(COUNT_EVERY);
                total = self.calls(programs, group)?.values().sum();
            }
            for code in group {
                let counted = programs.python_calls(self.process.1, *code)?;
                programs.unwatch(self.process, *code)?;
                if counted > 0 {
                    calls.insert(*code, counted);
                }
            }
        }
        Ok(calls)
    }

    /// Forgets all watchpoints, because their guard has gone.
    ///
    /// # Errors
    /// As for [`Programs::unwatch_all`].
    pub fn unwatch_all(&self, programs: &mut Programs) -> Result<(), AttachError> {
        programs.unwatch_all(self.process)
    }

    fn watch(&self, programs: &mut Programs, code: RemoteAddress) -> Result<WatchOutcome, AttachError> {
        let memory = LiveProcess::new(self.process.0.pid);
        let references = || {
            let mut bytes = [0; 4];
            memory.read(code, &mut bytes).ok().map(|()| u32::from_ne_bytes(bytes))
        };
        programs.watch(self.process, code, references)
    }
}
