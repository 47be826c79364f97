//! What is live in one process to see its Python calls: watchpoints with their guard, and probes in its interpreter.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::guard::Guard;
use super::placement::{Link, remove};
use super::python_watch::WatchOutcome;
use super::watchpoints::{Obstacle, Watchpoint};
use crate::model::{ProcessId, RemoteAddress};

/// All of it. Dropping it takes it away, which takes the kernel a tenth of a second or more.
pub struct PythonProbes {
    process: ProcessId,
    /// Those that no guard holds.
    watchpoints: Vec<Watchpoint>,
    guard: Option<Guard>,
    frame_entries: Vec<Link>,
    frame_returns: Vec<Link>,
    exceptions: Vec<Link>,
    /// Signals that guards have kept from their processes, of all processes.
    kept_signals: Arc<AtomicU64>,
}

impl PythonProbes {
    /// Nothing so far.
    pub fn new(process: ProcessId, kept_signals: Arc<AtomicU64>) -> Self {
        Self {
            process,
            watchpoints: Vec::new(),
            guard: None,
            frame_entries: Vec::new(),
            frame_returns: Vec::new(),
            exceptions: Vec::new(),
            kept_signals,
        }
    }

    /// Whether there is nothing to be taken away.
    pub fn is_empty(&self) -> bool {
        let links = [&self.frame_entries, &self.frame_returns, &self.exceptions];
        self.watchpoints.is_empty() && self.guard.is_none() && links.iter().all(|links| links.is_empty())
    }

    /// Gives all of it away, to be dropped on another thread; nothing is left.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let nothing = Self::new(self.process, Arc::clone(&self.kept_signals));
        std::mem::replace(self, nothing)
    }

    /// Starts a guard, unless there is one.
    ///
    /// # Errors
    /// What comes of a watchpoint without one.
    pub fn start_guard(&mut self, program: BorrowedFd<'_>) -> Result<(), WatchOutcome> {
        if self.guard.is_some() {
            return Ok(());
        }
        let process = self.process;
        match Guard::start(process.pid, program) {
            Ok(guard) => {
                if guard.is_confined() {
                    tracing::warn!(
                        "the guard process that keeps stray SIGTRAPs of watchpoints from process {process} may not leave the \
                         control group of ml-tracer; if that group is paused, process {process} may stand still meanwhile"
                    );
                }
                self.guard = Some(guard);
                Ok(())
            }
            Err(_) if !Path::new(&format!("/proc/{}", process.pid)).exists() => Err(WatchOutcome::Gone),
            Err(error) => Err(WatchOutcome::Unguarded(error.to_string())),
        }
    }

    /// Sets a watchpoint: the guard does if there is one, and holds it.
    ///
    /// # Errors
    /// It cannot be set.
    pub fn watch(&mut self, program: BorrowedFd<'_>, code: RemoteAddress) -> Result<(), Obstacle> {
        if let Some(guard) = &mut self.guard {
            return guard.watch(code.0);
        }
        let others = self.watchpoints.len();
        self.watchpoints.push(Watchpoint::set(program, self.process.pid, code.0, others, || {})?);
        Ok(())
    }

    /// Takes a watchpoint away.
    pub fn unwatch(&mut self, code: RemoteAddress) {
        self.watchpoints.retain(|watchpoint| !watchpoint.is_on(self.process.pid, code.0));
        if let Some(guard) = &mut self.guard {
            guard.unwatch(code.0);
        }
    }

    /// Takes all watchpoints away that no guard holds.
    pub fn unwatch_all(&mut self) {
        self.watchpoints.clear();
    }

    /// The guard, by the number of its own process.
    pub fn guard(&self) -> Option<u32> {
        self.guard.as_ref().map(Guard::number)
    }

    /// Whether the guard has ended since the last time that this was asked, and the watchpoints with it: its process has
    /// ended, too, or somebody has killed it.
    pub fn has_lost_guard(&mut self) -> bool {
        let Some(guard) = &mut self.guard else { return false };
        if guard.is_running() {
            return false;
        }
        self.kept_signals.fetch_add(guard.stop(), Relaxed);
        self.guard = None;
        true
    }

    /// Probes that every Python call passes on its way in.
    pub fn add_frame_entries(&mut self, links: Vec<Link>) {
        self.frame_entries.extend(links);
    }

    /// Others take the place of those.
    pub fn replace_frame_entries(&mut self, links: Vec<Link>) {
        remove(std::mem::replace(&mut self.frame_entries, links));
    }

    /// Those that it passes on its way out.
    pub fn add_frame_returns(&mut self, links: Vec<Link>) {
        self.frame_returns.extend(links);
    }

    /// The probe that exceptions pass.
    pub fn add_exception(&mut self, link: Link) {
        self.exceptions.push(link);
    }

    /// Takes the probes away that every Python call passes: a call whose beginning was seen has an end to be seen.
    pub fn remove_frames(&mut self) {
        remove(self.frame_entries.drain(..).collect());
        remove(self.frame_returns.drain(..).collect());
    }
}

impl Drop for PythonProbes {
    fn drop(&mut self) {
        self.watchpoints.clear();
        let links = self.frame_entries.drain(..).chain(self.frame_returns.drain(..)).chain(self.exceptions.drain(..));
        remove(links.collect());
        // Its watchpoints are gone by the time that it answers.
        if let Some(mut guard) = self.guard.take() {
            self.kept_signals.fetch_add(guard.stop(), Relaxed);
        }
    }
}
