//! The start of a session: the targets are looked at while the programs are loaded, then all probes are made live.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;

use super::background::{Background, Bell};
use super::control_loop::{Pace, Session};
use super::descriptors::raise_descriptor_limit;
use super::drain::Drain;
use super::error::SessionError;
use super::findings::{Findings, nothing_found};
use super::instances::{Instances, class_names};
use super::native_probes::NativeProbes;
use super::process_news::ProcessNews;
use super::python_mode::{Chosen, PythonModeReport};
use super::recording::RecordedPipeline;
use super::settings::Settings;
use super::tape_header::{begin_tape, tape_header};
use super::tracer::{NewProcess, Tracer};
use super::wiring::Pipeline;
use crate::attach::{
    AttachError, Kernel, LoadOptions, LoadRequests, Programs, Refusal, Refused, give_memory_back, share_heaps,
};
use crate::engine::{NativeEngine, Runtimes};
use crate::memory::ReadLimit;
use crate::model::{ProcessId, PythonMode, Target, process_numbers};
use crate::ring::{KernelRing, RecordSource};
use crate::target::{children_are_told, has_ended};

/// What a kernel without lists of children (`CONFIG_PROC_CHILDREN`) keeps from being traced.
const CHILDREN_ARE_NOT_TOLD: &str = "this kernel does not tell the children of a process (CONFIG_PROC_CHILDREN, \
                                     /proc/PID/task/TID/children): what the named processes have forked before is not traced; name \
                                     each with --pid";

/// The loaded programs, and the records that they submit.
pub type LoadedKernel = (Box<dyn Kernel>, Box<dyn RecordSource>);

/// Surveys the targets, loads the programs, opens the destinations, and makes all probes live.
///
/// # Errors
/// Nothing to trace, all targets ended meanwhile, not permitted, or a destination that cannot be opened. No probe is left behind then.
pub fn start(settings: Settings) -> Result<Session, SessionError> {
    start_on(load_programs, settings)
}

/// Loads the programs into the kernel.
///
/// # Errors
/// Not permitted, or the kernel cannot run them.
pub fn load_programs(options: LoadOptions) -> Result<LoadedKernel, SessionError> {
    let mut programs = Programs::load(options)?;
    let ring = programs.take_ring()?.ok_or(SessionError::DrainEnded)?;
    Ok((Box::new(programs), Box::new(KernelRing::new(ring))))
}

/// The same on any kernel.
pub fn start_on(
    load_kernel: impl FnOnce(LoadOptions) -> Result<LoadedKernel, SessionError> + Send + 'static,
    settings: Settings,
) -> Result<Session, SessionError> {
    let Settings {
        mut source,
        maps,
        python,
        probe_moving_code,
        max_overhead,
        exports,
        sinks,
        status,
        totals,
        tape,
        load,
        began,
        is_command,
        awaits_forks,
        duration,
        tell,
        stop,
    } = settings;
    share_heaps();
    raise_descriptor_limit()?;
    let follows = source.follows();
    if follows && !children_are_told() {
        tracing::warn!("{CHILDREN_ARE_NOT_TOLD}");
    }
    let arriving = source.first();
    let targets: Vec<Target> = arriving.iter().map(|(_, target)| target.clone()).collect();
    let mut engine = NativeEngine::new(maps.clone()).probing_moving_code(probe_moving_code);
    let has_python = targets.iter().any(Runtimes::may_be_in);
    // What is forked later may come to run Python all the same: then it is watched.
    let may_have_python = is_command || has_python;
    let chosen = if may_have_python { Chosen::by_measuring(python) } else { Chosen::as_asked(python) };
    let python = chosen.settings;
    let load = LoadOptions {
        // What has begun empty may come to run Python, and then every moment counts.
        python_watch: python.mode == PythonMode::Watch && (is_command || has_python),
        python_frames: python.mode == PythonMode::Frames,
        python_chain: python.mode == PythonMode::Chain || python.may_go_over,
        first_objects: is_command,
        forks: follows,
        ..load
    };
    // Loading takes the kernel about as long as the survey takes us: do both at once. Whoever tells us to stop waits for
    // neither.
    let looks = arriving.clone();
    let look = move |limit: &ReadLimit| Instances::find_all(&looks, &maps, python, limit);
    let look = Background::begin("look", look).ok_or(SessionError::NoThread)?;
    let loading = Background::begin("load", move |_| load_kernel(load)).ok_or(SessionError::NoThread)?;
    let survey = |target| Findings::of(&mut engine, target, &target.modules);
    let found: Vec<Findings> = targets.iter().map(survey).collect();
    let is_stopped = || stop.load(Ordering::Relaxed);
    let ended = || if is_stopped() { SessionError::Stopped } else { SessionError::DrainEnded };
    let (instances, found_instances, problems) = look.wait(is_stopped).ok_or_else(ended)?;
    let instances = instances.ringing(Bell::new(tell.clone()));
    let loaded = loading.wait(is_stopped).ok_or_else(ended)?;
    all_ended(&targets)?;
    // What a server has started besides may have ended in this very moment.
    let is_told = |(forked_by, target): &(Option<ProcessId>, Target)| forked_by.is_none() || !has_ended(target.process);
    let told = arriving.iter().zip(&found).filter(|(arriving, _)| is_told(arriving));
    for sentence in told.flat_map(|(_, found)| &found.unreadable).chain(&problems) {
        tracing::warn!("{sentence}");
    }
    let is_empty = found.iter().all(|found| found.requests.is_empty()) && found_instances.iter().all(Option::is_none);
    // The command has not begun, and a worker may be in the middle of its beginning.
    let is_starting =
        |(forked_by, target): &(Option<ProcessId>, Target)| forked_by.is_some() && Runtimes::may_be_in(target);
    // Requests are told of whatever answers them.
    let sees_requests = load.requests != LoadRequests::No;
    let awaits_forks = awaits_forks || sees_requests;
    let may_have_more = is_command || awaits_forks || arriving.iter().any(is_starting);
    if is_empty && !may_have_more {
        let forbidden = found.iter().map(|found| found.forbidden).sum();
        if forbidden > 0 {
            return Err(SessionError::FilesForbidden { forbidden, processes: names_of(&targets) });
        }
        return Err(SessionError::NothingToTrace { detail: nothing_found(&targets, &found) });
    }
    let (kernel, records) = loaded?;

    let header = tape_header(&targets);
    // The tape wants to know each name too; nobody listens when none is recorded.
    let (learns, learned) = channel();
    let pipeline =
        Pipeline::open(&header, class_names(learns, instances.known()), &exports)?.with(sinks, &header).feeding(totals);
    let recording = tape.map(|path| begin_tape(path, &header, learned)).transpose()?;
    let pipeline = RecordedPipeline::new(pipeline, recording);
    let drain = Drain::start(records, pipeline, ProcessNews::new(tell)).map_err(|_| SessionError::DrainEnded)?;

    let native = NativeProbes::new(engine, max_overhead);
    let tracer = Tracer::new(kernel, drain, native, instances, source).awaiting_forks(awaits_forks);
    let command = targets.first().filter(|_| is_command).map(|target| target.process);
    let mut tracer = tracer.seeing_requests(sees_requests).seeing_first_calls(command);
    let found = arriving.into_iter().zip(found).zip(found_instances);
    let arrivals =
        found.map(|(((forked_by, target), found), instance)| NewProcess { target, forked_by, found, instance });
    let first_refused = tracer.begin(arrivals.collect())?;
    all_ended(&targets)?;
    tracer.go_on()?;
    if let (0, Some(refused)) = (tracer.native_functions(), first_refused) {
        end_if_refused(refused, may_have_more || tracer.seen_in_runtimes() > 0, &targets)?;
    }
    let costs = tracer.costs(chosen.hit_ns);
    tracer.accept_entries()?;
    tracer.go_on()?;
    let python = PythonModeReport::new(&chosen, &costs);
    let pace = Pace { duration, is_command, status };
    give_memory_back();
    Ok(Session::new(tracer, pace, python, began))
}

/// No native function at all could be probed, this one first: an error if that leaves nothing to trace.
fn end_if_refused(
    (path, refusal): (PathBuf, Refused),
    may_have_more: bool,
    targets: &[Target],
) -> Result<(), SessionError> {
    match refusal.why {
        // It goes on as soon as the writer has ended.
        Refusal::BeingWritten => Ok(()),
        // What of a process is still there says otherwise.
        Refusal::ProcessIsEnding => Err(SessionError::TargetsEnded { processes: names_of(targets) }),
        Refusal::NotItsCode if may_have_more => Ok(()),
        Refusal::NotItsCode => {
            let detail = format!("{}: {}", path.display(), refusal.problem);
            Err(SessionError::NothingToTrace { detail })
        }
        Refusal::Kernel => {
            let source = std::io::Error::other(refusal.problem);
            Err(AttachError::Place { path, source }.into())
        }
    }
}

/// An error if no target is left.
fn all_ended(targets: &[Target]) -> Result<(), SessionError> {
    if targets.iter().any(|target| !has_ended(target.process)) {
        return Ok(());
    }
    Err(SessionError::TargetsEnded { processes: names_of(targets) })
}

fn names_of(targets: &[Target]) -> String {
    process_numbers(&targets.iter().map(|target| target.process.pid).collect::<Vec<_>>())
}
