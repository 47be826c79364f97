//! `ml-tracer attach`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::arguments::{AttachArguments, TraceOptions};
use super::exit::{MissingPrivilege, UsageError, tell};
use super::list;
use super::summary_file::SummaryFile;
use super::supervise::{Signals, Stop, supervise};
use crate::model::{PythonMode, SymbolMap, Target};
use crate::session::{
    self, Capability, Destination, LoadOptions, MAP_DIRECTORY, Report, SessionError, Settings, Tracer,
    missing_capabilities, plan_only,
};

/// Looking at a running process again costs a look into /proc/PID/maps.
const LOOK_AGAIN_EVERY: Duration = Duration::from_millis(100);

/// Where forked processes are followed: until one is seen, its calls are not.
pub const LOOK_FOR_FORKS_EVERY: Duration = Duration::from_millis(10);

/// Traces running processes until told to stop or until they are gone.
pub fn attach(arguments: &AttachArguments, began: Instant) -> anyhow::Result<ExitCode> {
    session::enough_descriptors()?;
    let trace = &arguments.trace;
    trace.check()?;
    let maps = load_maps(&trace.maps)?;
    let mut targets: Vec<Target> = Vec::new();
    for pid in &arguments.pids {
        if *pid == std::process::id() {
            return Err(UsageError(format!("{pid} is ml-tracer itself; it cannot trace itself")).into());
        }
        if !targets.iter().any(|target| target.process.pid == *pid) {
            targets.push(session::look_at(*pid)?);
        }
    }
    if trace.dry_run {
        if trace.follow {
            targets.extend(session::descendants(&targets).into_iter().map(|(_, target)| target));
        }
        return list::print_plan(&plan_only(&targets, maps, trace.python()), false);
    }
    demand_privilege()?;
    let summary = SummaryFile::create(&trace.exports, trace.summary.as_deref())?;
    let runtime = runtime()?;
    let report = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let mut tracer = Tracer::start(settings(trace, targets, maps, began, false))?;
        tell_attached(&tracer);
        let live = Instant::now();
        let pause = if trace.follow { LOOK_FOR_FORKS_EVERY } else { LOOK_AGAIN_EVERY };
        let stopped = supervise(&mut tracer, &mut signals, live, trace.duration, |_| pause, None).await;
        finish(tracer, stopped)
    })?;
    conclude(&report, summary)?;
    Ok(ExitCode::SUCCESS)
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
            ..LoadOptions::default()
        },
        began,
        may_begin_empty,
    }
}

/// The line that scripts wait for.
pub fn tell_attached(tracer: &Tracer) {
    tell(&format!("attached {} functions in {} ms", tracer.functions(), tracer.attach_ms()));
}

/// Ends the session in order whatever stopped it: spans already taken are delivered even after an error.
pub fn finish(tracer: Tracer, stopped: Result<Stop, SessionError>) -> anyhow::Result<Report> {
    let report = tracer.finish()?;
    if let Err(error) = stopped {
        tell(&error.to_string());
    }
    Ok(report)
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
