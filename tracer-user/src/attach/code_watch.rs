//! The Python code of one process, as the programs see it: tables, watchpoints that move, candidates that are tried out, probes
//! in the interpreter.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::error::AttachError;
use super::kernel::KernelProcess;
use super::python_watch::WatchOutcome;
use crate::memory::{LiveProcess, Memory as _};
use crate::model::{CodeCalls, InterpreterSite, ProcessId, PythonLayout, PythonLeftOut, PythonTables, RemoteAddress};

/// While candidates are tried out, their calls are counted so often.
const COUNT_EVERY: Duration = Duration::from_millis(3);

/// Calls of code objects since they were watched.
type Counts = HashMap<RemoteAddress, CodeCalls>;

/// The code of one process.
#[derive(Clone, Debug)]
pub struct CodeWatch {
    process: ProcessId,
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
    pub fn new(process: ProcessId, layout: PythonLayout) -> Self {
        Self { process, layout: PythonLayout { exceptions_are_seen: 0, ..layout } }
    }

    /// The code of a process that was forked from this one.
    #[must_use]
    pub fn in_fork(&self, process: ProcessId) -> Self {
        Self::new(process, self.layout)
    }

    /// How the runtime keeps its frames.
    #[must_use]
    pub fn layout(&self) -> &PythonLayout {
        &self.layout
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// Whether a watchpoint sees the end of a call at once, and so its exception.
    #[must_use]
    pub fn tells_exceptions(&self) -> bool {
        self.layout.exits_are_prompt != 0
    }

    /// Tells the programs what is to be seen; what they were told before is replaced.
    ///
    /// # Errors
    /// As for [`KernelProcess::set_python`].
    pub fn tell(&self, kernel: &mut dyn KernelProcess, tables: &PythonTables) -> Result<(), AttachError> {
        kernel.set_python(&self.layout, tables)
    }

    /// Places the probe that exceptions pass.
    ///
    /// # Errors
    /// As for [`KernelProcess::place_exceptions`].
    pub fn see_exceptions(
        &mut self,
        kernel: &mut dyn KernelProcess,
        file: &Path,
        site: &InterpreterSite,
    ) -> Result<(), AttachError> {
        kernel.place_exceptions(file, site)?;
        self.layout.exceptions_are_seen = 1;
        Ok(())
    }

    /// Calls of code objects since they were watched.
    ///
    /// # Errors
    /// The counts cannot be read.
    pub fn calls(&self, kernel: &dyn KernelProcess, codes: &[RemoteAddress]) -> Result<Counts, AttachError> {
        codes.iter().map(|code| Ok((*code, kernel.python_calls(*code)?))).collect()
    }

    /// The calls of those code objects whose count can be read.
    pub fn calls_as_far_as_known(&self, kernel: Option<&dyn KernelProcess>, codes: &[RemoteAddress]) -> Counts {
        let calls = |code: &RemoteAddress| Some((*code, kernel?.python_calls(*code).ok()?));
        codes.iter().filter_map(calls).collect()
    }

    /// What the programs were not told, for want of room, at most at one time.
    #[must_use]
    pub fn left_out(&self, kernel: Option<&dyn KernelProcess>) -> PythonLeftOut {
        kernel.map_or_else(PythonLeftOut::default, KernelProcess::python_left_out)
    }

    /// Watches this code in place of what is watched, until it is found that not all of it can be. The most wanted comes
    /// first.
    ///
    /// # Errors
    /// As for [`KernelProcess::watch`].
    pub fn move_watchpoints(
        &self,
        kernel: &mut dyn KernelProcess,
        watched: &[RemoteAddress],
        wanted: &[RemoteAddress],
    ) -> Result<Moved, AttachError> {
        let (kept, dropped): (Vec<_>, Vec<_>) = watched.iter().copied().partition(|code| wanted.contains(code));
        for code in dropped {
            kernel.unwatch(code)?;
        }
        let mut moved = Moved { watched: kept, obstacle: None };
        for code in wanted {
            if moved.watched.contains(code) {
                continue;
            }
            match self.watch(kernel, *code)? {
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
    /// As for [`KernelProcess::watch`].
    pub fn try_out(
        &self,
        kernel: &mut dyn KernelProcess,
        groups: &[Vec<RemoteAddress>],
        (step, enough): (Duration, u64),
    ) -> Result<Counts, AttachError> {
        let mut calls = Counts::new();
        for group in groups {
            for code in group {
                if self.watch(kernel, *code)? != WatchOutcome::Live {
                    break;
                }
            }
            let began = Instant::now();
            let mut total = 0;
            while began.elapsed() < step && total < enough {
                std::thread::sleep(COUNT_EVERY);
                total = self.calls(kernel, group)?.values().map(|calls| calls.seen).sum();
            }
            for code in group {
                let counted = kernel.python_calls(*code)?;
                kernel.unwatch(*code)?;
                if counted.seen > 0 {
                    calls.insert(*code, counted);
                }
            }
        }
        Ok(calls)
    }

    fn watch(&self, kernel: &mut dyn KernelProcess, code: RemoteAddress) -> Result<WatchOutcome, AttachError> {
        let memory = LiveProcess::new(self.process.pid);
        let mut references = || {
            let mut bytes = [0; 4];
            memory.read(code, &mut bytes).ok().map(|()| u32::from_ne_bytes(bytes))
        };
        kernel.watch(code, &mut references)
    }
}
