//! Frames mode: probes that every Python call passes, all the time or in windows.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use object::ReadCache;

use super::super::drain::OpenGap;
use super::super::error::SessionError;
use super::interpreter::{Calls, Interpreter};
use super::targets::Means;
use crate::attach::measure_emulated_probe;
use crate::memory::MappedFile;
use crate::model::{FileNumber, InterpreterSite, InterpreterSites, ProcessId, PythonRuntime, Target};
use crate::symbol::{ElfFile, Functions};

/// How long calls are counted before the mode starts, to tell its cost.
const COUNTING: Duration = Duration::from_millis(200);

/// Shortest window in which probes are live: the tracer looks at the clock that often.
const WINDOW: Duration = Duration::from_millis(100);

/// Where an interpreter is probed, and when.
pub struct Frames {
    path: PathBuf,
    sites: InterpreterSites,
    /// Share of the time in which probes are live, above 0 and at most 1.
    duty: f64,
    is_live: bool,
    turned: Instant,
    /// The time since they were live last.
    gap: Option<OpenGap>,
}

impl Frames {
    /// Finds the sites in the file of an interpreter.
    pub fn find(target: &Target, runtime: &PythonRuntime, duty: Option<f64>) -> Result<Self, String> {
        let (major, minor, _) = runtime.version;
        let of = format!("frames mode, {} of process {}", runtime.module, target.process);
        let path = interpreter_file(target, runtime).ok_or_else(|| format!("{of}: its file is not mapped"))?;
        let cache = ReadCache::new(open(&path).map_err(|error| format!("{of}: {error}"))?);
        let functions =
            ElfFile::parse(&cache, &path).and_then(Functions::read).map_err(|error| format!("{of}: {error}"))?;
        let sites = functions.interpreter_sites((major, minor));
        let sites = sites.map_err(|error| format!("{of}: {error}; `--python watch` does without"))?;
        Ok(Self { path, sites, duty: duty.unwrap_or(1.0), is_live: false, turned: Instant::now(), gap: None })
    }

    /// The same in a process that was forked: its file is opened through it, because the other one may end.
    pub fn in_fork(&self, target: &Target, runtime: &PythonRuntime) -> Option<Self> {
        let path = interpreter_file(target, runtime)?;
        let (sites, duty) = (self.sites.clone(), self.duty);
        Some(Self { path, sites, duty, is_live: false, turned: Instant::now(), gap: None })
    }

    /// Turns the probes on or off when it is time.
    pub fn keep_time(&mut self, means: &mut Means<'_>, process: (ProcessId, u32)) -> Result<(), SessionError> {
        if self.duty >= 1.0 && self.is_live {
            return Ok(());
        }
        let on = WINDOW.max(WINDOW.mul_f64(self.duty));
        let off = on.mul_f64((1.0 - self.duty) / self.duty);
        // The clock is looked at every window or so: half of it early is as near as it gets.
        let due = if self.is_live { on } else { off }.saturating_sub(WINDOW / 10);
        if self.turned.elapsed() >= due {
            self.turn(means, process, !self.is_live)?;
        }
        Ok(())
    }

    /// Probes come and go one after the other: what is open meanwhile may lack children.
    fn turn(&mut self, means: &mut Means<'_>, process: (ProcessId, u32), on: bool) -> Result<(), SessionError> {
        let gap = match self.gap.take() {
            Some(gap) => gap,
            None => means.drain.begin_gap(Some(process.1))?,
        };
        if on {
            means.in_kernel(process.0)?.place_frames(&self.path, &self.sites)?;
            means.drain.end_gap(gap)?;
        } else {
            means.in_kernel(process.0)?.remove_frames()?;
            self.gap = Some(gap);
        }
        self.is_live = on;
        self.turned = Instant::now();
        Ok(())
    }
}

/// The file that holds an interpreter, as the tracer opens it.
pub fn interpreter_file(target: &Target, runtime: &PythonRuntime) -> Option<PathBuf> {
    let module = target.modules.iter().find(|module| module.path.to_string_lossy() == runtime.module);
    module.map(|module| module.access_path.clone())
}

/// Opens the file of an interpreter: whatever a process may have put under its name is not waited for.
fn open(path: &Path) -> std::io::Result<File> {
    MappedFile::open(path, FileNumber::default()).map(MappedFile::into_file)
}

/// Where exceptions pass in the file of an interpreter. Without it they are seen, but not what they are.
pub fn exception_site(path: &Path) -> Option<InterpreterSite> {
    let cache = ReadCache::new(open(path).ok()?);
    let functions = ElfFile::parse(&cache, path).and_then(Functions::read).ok()?;
    functions.exception_site().inspect_err(|error| tracing::debug!(%error, "exceptions have no type")).ok()
}

impl Interpreter {
    /// Counts calls for a moment and tells what the mode costs, then begins. Of a process that was forked it costs what it
    /// costs of the one that forked it.
    pub(super) fn begin_frames(&mut self, means: &mut Means<'_>, may_wait: bool) -> Result<(), SessionError> {
        let Some(mut frames) = self.frames.take() else { return Ok(()) };
        if may_wait {
            self.count_for_a_moment(means, &mut frames)?;
        }
        self.choose(means.planner, &Calls::default());
        self.tell(means)?;
        frames.turn(means, self.process, true)?;
        self.frames = Some(frames);
        Ok(())
    }

    fn count_for_a_moment(&self, means: &mut Means<'_>, frames: &mut Frames) -> Result<(), SessionError> {
        means.in_kernel(self.process.0)?.set_python(&self.layout, &crate::model::PythonTables::default())?;
        let before = means.in_kernel(self.process.0)?.python_calls_passed()?;
        frames.turn(means, self.process, true)?;
        let began = Instant::now();
        std::thread::sleep(COUNTING);
        let calls = means.in_kernel(self.process.0)?.python_calls_passed()?.saturating_sub(before) as f64
            / began.elapsed().as_secs_f64();
        frames.turn(means, self.process, false)?;
        self.tell_cost(frames, calls);
        Ok(())
    }

    fn tell_cost(&self, frames: &Frames, calls: f64) {
        let process = self.process.0;
        let windows =
            if frames.duty < 1.0 { format!(", in {:.0} % of the time", frames.duty * 100.0) } else { String::new() };
        match measure_emulated_probe() {
            Some(ns) => {
                let share = calls * 2.0 * ns / 1e9 * 100.0 * frames.duty;
                tracing::warn!(
                    "frames mode costs process {process} about {share:.1} % of one processor: {calls:.0} Python calls a \
                     second, two probes each, {ns:.0} ns a probe{windows}"
                );
            }
            None => tracing::warn!("frames mode: process {process} makes {calls:.0} Python calls a second{windows}"),
        }
    }
}
