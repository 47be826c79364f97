//! `ml-tracer attach`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::arguments::{AttachArguments, TraceOptions};
use super::exit::{self, MissingPrivilege, UsageError, tell};
use super::list;
use super::summary_file::SummaryFile;
use super::supervise::{Signals, Stop, heeding_signals, supervise};
use crate::model::{PythonMode, SymbolMap, Target};
use crate::session::{
    self, Capability, Destination, LoadOptions, MAP_DIRECTORY, Report, SessionError, Settings, TargetError, Tracer,
    missing_capabilities, plan_only,
};

/// Looking at a running process again costs a look into /proc/PID/maps.
const LOOK_AGAIN_EVERY: Duration = Duration::from_millis(100);

/// Where forked processes are followed: until one is seen, its calls are not.
pub const LOOK_FOR_FORKS_EVERY: Duration = Duration::from_millis(10);

/// Traces running processes until told to stop or until they are gone.
pub fn attach(arguments: &AttachArguments, began: Instant) -> anyhow::Result<ExitCode> {
    let trace = &arguments.trace;
    trace.check()?;
    let maps = load_maps(&trace.maps)?;
    let mut targets: Vec<Target> = Vec::new();
    let mut unreachable: Vec<TargetError> = Vec::new();
    for pid in &arguments.pids {
        if *pid == std::process::id() {
            return Err(UsageError(format!("{pid} is ml-tracer itself; it cannot trace itself")).into());
        }
        if targets.iter().any(|target| target.process.pid == *pid) {
            continue;
        }
        match session::look_at(*pid) {
            Ok(target) => targets.push(target),
            Err(error) => unreachable.push(error),
        }
    }
    if targets.is_empty() && !unreachable.is_empty() {
        return Err(unreachable.remove(0).into());
    }
    // Those that are there are traced.
    unreachable.iter().for_each(|error| tell(&error.to_string()));
    if trace.dry_run {
        if trace.follow {
            targets.extend(session::descendants(&targets).into_iter().map(|(_, target)| target));
        }
        return list::print_plan(&plan_only(&targets, maps, trace.python()), false);
    }
    demand_privilege()?;
    let summary = SummaryFile::create(&trace.exports, trace.summary.as_deref())?;
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let settings = settings(trace, targets, maps, began, false);
        let stop = Arc::clone(&settings.stop);
        let mut tracer = match heeding_signals(&stop, || Tracer::start(settings))? {
            Err(stopped @ SessionError::Stopped) => {
                tell(&stopped.to_string());
                return Ok(Ended { report: Report::of_nothing(), failure: None });
            }
            started => started?,
        };
        tell_attached(&tracer);
        let live = Instant::now();
        let pause = if trace.follow { LOOK_FOR_FORKS_EVERY } else { LOOK_AGAIN_EVERY };
        let stopped = supervise(&mut tracer, &mut signals, live, trace.duration, |_| pause, None).await;
        anyhow::Ok(finish(tracer, stopped)?)
    })?;
    conclude(&ended.report, summary)?;
    // Everything is delivered, and yet the session has ended before its time.
    Ok(ended.failure.as_ref().map_or(ExitCode::SUCCESS, exit::code_of_session))
}

/// One thread is enough: signals, timers and a look at the targets now and then.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Built-in maps, those of this machine, and those of the command line.
pub fn load_maps(files: &[PathBuf]) -> anyhow::Result<Vec<SymbolMap>> {
    Ok(session::load_maps(files, Path::new(MAP_DIRECTORY))?.maps().to_vec())
}

/// Fails before anything is tried if a capability is missing.
pub fn demand_privilege() -> anyhow::Result<()> {
    let missing: Vec<_> = missing_capabilities().into_iter().map(Capability::name).collect();
    if missing.is_empty() { Ok(()) } else { Err(MissingPrivilege { missing }.into()) }
}

/// What the options ask of a session.
pub fn settings(
    trace: &TraceOptions,
    targets: Vec<Target>,
    maps: Vec<SymbolMap>,
    began: Instant,
    may_begin_empty: bool,
) -> Settings {
    let defaults = LoadOptions::default();
    Settings {
        targets,
        follow: trace.follow,
        maps,
        python: trace.python(),
        exports: if trace.exports.is_empty() { vec![Destination::Console] } else { trace.exports.clone() },
        tape: trace.record_tape.clone(),
        load: LoadOptions {
            ring_bytes: trace.ring_bytes.unwrap_or(defaults.ring_bytes),
            debug_log: std::env::var_os("ML_TRACER_BPF_LOG").is_some_and(|value| value == "1"),
            single_probes: trace.single_probes,
            python_frames: trace.python().mode == PythonMode::Frames,
            python_entries: trace.python_entries.unwrap_or(defaults.python_entries),
            ..defaults
        },
        began,
        may_begin_empty,
        stop: Arc::default(),
    }
}

/// The line that scripts wait for.
pub fn tell_attached(tracer: &Tracer) {
    tell(&format!("attached {} functions in {} ms", tracer.functions(), tracer.attach_ms()));
}

/// A session that has delivered everything.
pub struct Ended {
    /// Its books.
    pub report: Report,
    /// What has ended it before its time. It is told already.
    pub failure: Option<SessionError>,
}

/// Ends the session in order whatever stopped it: spans already taken are delivered even after an error.
pub fn finish(tracer: Tracer, stopped: Result<Stop, SessionError>) -> Result<Ended, SessionError> {
    let failure = stopped.err();
    if let Some(failure) = &failure {
        tell(&failure.to_string());
    }
    Ok(Ended { report: tracer.finish()?, failure })
}

/// The last words: the totals on stderr and, if asked for, as JSON.
pub fn conclude(report: &Report, summary: Option<SummaryFile>) -> anyhow::Result<()> {
    for remark in report.remarks() {
        tell(&remark);
    }
    tell(&report.identity());
    tell(&report.line());
    summary.map_or(Ok(()), |summary| summary.write(report))
}
