//! A Python target under the tracer: the spans that it made beside the truth that it told, and the same run without.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::process::Finished;
use crate::python::{Interpreter, Truth};
use crate::targets::Target;
use crate::tracer::{Attached, Trace, Tracer};
use crate::workspace;

/// How to run it.
#[derive(Clone, Debug)]
pub struct PythonRun {
    interpreter: Interpreter,
    script: String,
    arguments: Vec<String>,
    map: Option<PathBuf>,
    tracer_arguments: Vec<String>,
    batches: u32,
    contained: bool,
    forked: bool,
}

/// How targets end without a tracer, by what they do: found out once for all tests that compare themselves with it.
static ENDS_ALONE: LazyLock<Mutex<HashMap<String, Arc<Finished>>>> = LazyLock::new(Mutex::default);

/// The run without a tracer.
enum Alone {
    Known(Arc<Finished>),
    /// Ready for its first batch.
    Waits(Target),
}

/// What came of it.
pub struct PythonTrace {
    /// What the tracer left.
    pub trace: Trace,
    /// What the target told.
    pub truth: Truth,
    /// How the target ended.
    pub finished: Finished,
}

impl PythonRun {
    /// `tests/targets/NAME/target.py` with these arguments; two batches.
    #[must_use]
    pub fn of(interpreter: Interpreter, name: &str, arguments: &[&str]) -> Self {
        Self {
            interpreter,
            script: format!("targets/{name}/target.py"),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            map: None,
            tracer_arguments: Vec::new(),
            batches: 2,
            contained: false,
            forked: false,
        }
    }

    /// With a symbol map of the folder `tests`.
    #[must_use]
    pub fn map(mut self, file: &str) -> Self {
        self.map = Some(workspace::tests(file));
        self
    }

    /// With further arguments of the tracer.
    #[must_use]
    pub fn tracer_arguments(mut self, arguments: &[&str]) -> Self {
        self.tracer_arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// With so many batches.
    #[must_use]
    pub fn batches(mut self, batches: u32) -> Self {
        self.batches = batches;
        self
    }

    /// In a mount and a pid namespace of its own, as in a container: there it is process 1.
    #[must_use]
    pub fn contained(mut self) -> Self {
        self.contained = true;
        self
    }

    /// Forked from an interpreter that has imported scikit-learn already: for what is not about how a process starts.
    #[must_use]
    pub fn forked(mut self) -> Self {
        self.forked = true;
        self
    }

    /// Starts the target, which waits for its first batch.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> Result<Target> {
        if self.forked {
            return Target::start_forked(self.interpreter, &self.script, &self.arguments);
        }
        let mut command = self.interpreter.command(&self.script)?;
        command.args(&self.arguments);
        Target::start_command(if self.contained { container(&command) } else { command })
    }

    /// The target's number outside all containers.
    fn pid_of(&self, target: &Target) -> Result<u32> {
        let pid = target.pid();
        if !self.contained {
            return Ok(pid);
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        children.trim().parse().with_context(|| format!("`unshare` has not one child but `{children}`"))
    }

    /// Starts the tracer on it.
    ///
    /// # Errors
    /// When it does not attach.
    pub fn attach(&self, target: &Target) -> Result<Attached> {
        let mut tracer = Tracer::attach(self.pid_of(target)?)?.arguments(&self.tracer_arguments);
        if let Some(map) = &self.map {
            tracer = tracer.map_file(map)?;
        }
        tracer.start()
    }

    /// Runs it without a tracer.
    ///
    /// # Errors
    /// When it does not run to its end.
    pub fn alone(&self) -> Result<Finished> {
        self.work(self.start()?)
    }

    fn work(&self, mut target: Target) -> Result<Finished> {
        for _ in 0..self.batches {
            target.batch()?;
        }
        target.finish()
    }

    /// Starts it twice, side by side, because importing takes longest: one to be traced, and one to compare it with, unless
    /// it is known how that ends.
    fn start_both(&self) -> Result<(Target, Alone)> {
        let known = ENDS_ALONE.lock().unwrap_or_else(PoisonError::into_inner).get(&self.key()).cloned();
        if let Some(finished) = known {
            return Ok((self.start()?, Alone::Known(finished)));
        }
        let (target, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| self.start());
            (self.start(), other.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        Ok((target?, Alone::Waits(other?)))
    }

    /// How the other one ends, which must not run while this is traced.
    fn end_alone(&self, alone: Alone) -> Result<Arc<Finished>> {
        let target = match alone {
            Alone::Known(finished) => return Ok(finished),
            Alone::Waits(target) => target,
        };
        let finished = Arc::new(self.work(target)?);
        ENDS_ALONE.lock().unwrap_or_else(PoisonError::into_inner).insert(self.key(), Arc::clone(&finished));
        Ok(finished)
    }

    /// What it does, whatever the tracer is told.
    fn key(&self) -> String {
        let Self { interpreter, script, arguments, batches, contained, .. } = self;
        format!("{interpreter:?} {script} {arguments:?} {batches} {contained}")
    }

    /// Runs it under the tracer. It must say the same as without one and end in the same way.
    ///
    /// # Errors
    /// What differs, or what kept one of the two from running to its end.
    pub fn traced(&self) -> Result<PythonTrace> {
        self.run().with_context(|| format!("{:?} {} {}", self.interpreter, self.script, self.arguments.join(" ")))
    }

    fn run(&self) -> Result<PythonTrace> {
        let (mut target, alone) = self.start_both()?;
        let attached = self.attach(&target)?;
        for _ in 0..self.batches {
            target.batch()?;
        }
        let trace = attached.stop()?;
        let finished = target.finish()?;
        let alone = self.end_alone(alone)?;
        ensure!(
            (finished.code, finished.signal, &finished.output) == (alone.code, alone.signal, &alone.output),
            "traced: {finished:?}\nalone: {alone:?}"
        );
        let truth = Truth::of(&finished)?;
        Ok(PythonTrace { trace, truth, finished })
    }

    /// Runs it under the tracer, and holds its spans against the truth: nothing lost, everything adds up, and every call
    /// that the truth tells has its span.
    ///
    /// # Errors
    /// What does not hold.
    pub fn exact(&self) -> Result<PythonTrace> {
        let traced = self.traced()?;
        traced
            .check(&traced.truth)
            .with_context(|| format!("{:?} {} {}", self.interpreter, self.script, self.arguments.join(" ")))?;
        Ok(traced)
    }

    /// The same where calls may be missing: what there is was made.
    ///
    /// # Errors
    /// What does not hold.
    pub fn with_nothing_made_up(&self) -> Result<PythonTrace> {
        let traced = self.traced()?;
        traced.trace.check_whole()?;
        traced.truth.check_at_most(&traced.trace.spans)?;
        Ok(traced)
    }

    /// The same for the methods that were watched, where there is more than can be watched.
    ///
    /// # Errors
    /// What does not hold.
    pub fn exact_where_watched(&self) -> Result<PythonTrace> {
        let traced = self.traced()?;
        let watched = traced.trace.summary.watched();
        traced
            .check(&traced.truth.only(&watched))
            .with_context(|| format!("{:?} {} {}", self.interpreter, self.script, self.arguments.join(" ")))?;
        Ok(traced)
    }
}

/// The same command as the first process of new namespaces.
fn container(command: &Command) -> Command {
    let mut outer = Command::new("unshare");
    outer.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    outer.arg(command.get_program()).args(command.get_args());
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer
}

impl PythonTrace {
    fn check(&self, truth: &Truth) -> Result<()> {
        self.trace.check_whole()?;
        truth.check(&self.trace.spans).with_context(|| format!("{}", self.trace.summary.0))
    }

    /// The methods that the truth tells of, `Class.method`.
    #[must_use]
    pub fn methods(&self) -> BTreeSet<String> {
        self.truth.spans.keys().filter_map(|kind| kind.path.last().cloned()).collect()
    }
}
