//! A running tracer: placed, kept up to date with its targets, and ended in order.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::background::Background;
use super::clock::clock_anchor;
use super::descriptors::raise_descriptor_limit;
use super::drain::Drain;
use super::error::SessionError;
use super::findings::Findings;
use super::follow::{Failure, prepare_to_follow};
use super::instances::{Context, Instances, TracedInstance, class_names};
use super::left_calls::LeftCalls;
use super::probe_load::ProbeLoad;
use super::recording::{LearnedClass, RecordedPipeline, Recording};
use super::report::Report;
use super::roster::{News, Roster};
use super::settings::Settings;
use super::wiring::Pipeline;
use crate::attach::{AttachError, LoadOptions, Programs, Refusal, Refused};
use crate::engine::{NativeEngine, Runtimes};
use crate::memory::ReadLimit;
use crate::model::{PlanChange, PlannedFunction, ProcessId, PythonMode, Target};
use crate::plan::Planner;
use crate::ring::{KernelRing, TapeHeader, TapeWriter};
use crate::target::{Watcher, descendants, has_ended, identify, stack_pointer};

/// Calls that are under way when the entry probes go get this long to end before the exit probes go too.
const SETTLE: Duration = Duration::from_millis(2);

/// A running tracer. Dropping it takes all probes away; [`Tracer::finish`] also delivers everything.
pub struct Tracer {
    pub(super) programs: Programs,
    pub(super) drain: Drain,
    pub(super) planner: Planner,
    pub(super) engine: NativeEngine,
    pub(super) python: Instances,
    pub(super) watcher: Watcher,
    pub(super) roster: Roster,
    pub(super) load: ProbeLoad,
    functions: usize,
    /// Candidates that are not probed.
    skipped: usize,
    attach_ms: u64,
    /// What was new at the start.
    first_news: News,
    /// What has gone wrong with processes that go on and are left alone.
    pub(super) failures: Vec<Failure>,
}

/// A process that begins to be traced, and what was found in it.
pub(super) struct Arrival {
    pub target: Target,
    /// The process that has forked it, if it was not named.
    pub forked_by: Option<ProcessId>,
    pub native: Findings,
    pub interpreter: Option<TracedInstance>,
}

impl Tracer {
    /// Surveys the targets, loads the programs, opens the destinations, and makes all probes live.
    ///
    /// # Errors
    /// Nothing to trace, all targets ended meanwhile, not permitted, or a destination that cannot be opened. No probe is left behind then.
    pub fn start(settings: Settings) -> Result<Self, SessionError> {
        let Settings {
            targets,
            follow,
            maps,
            python,
            probe_moving_code,
            exports,
            tape,
            load,
            began,
            may_begin_empty,
            stop,
        } = settings;
        raise_descriptor_limit()?;
        let mut arriving: Vec<(Option<ProcessId>, Target)> =
            targets.iter().map(|target| (None, target.clone())).collect();
        if follow {
            prepare_to_follow()?;
            arriving.extend(descendants(&targets).into_iter().map(|(parent, target)| (Some(parent), target)));
        }
        let targets: Vec<Target> = arriving.iter().map(|(_, target)| target.clone()).collect();
        let mut engine = NativeEngine::new(maps.clone()).probing_moving_code(probe_moving_code);
        // What has begun empty may come to run Python, and then every moment counts.
        let watches_python =
            python.mode == PythonMode::Watch && (may_begin_empty || targets.iter().any(Runtimes::may_be_in));
        let load = LoadOptions { python_watch: watches_python, count_forks: follow, ..load };
        // Loading takes the kernel about as long as the survey takes us: do both at once. Whoever tells us to stop waits for
        // neither.
        let looks = arriving.clone();
        let look = move |limit: &ReadLimit| Instances::find_all(&looks, &maps, python, limit);
        let look = Background::begin("look", look).ok_or(SessionError::NoThread)?;
        let loading = Background::begin("load", move |_| Programs::load(load)).ok_or(SessionError::NoThread)?;
        let survey = |target| Findings::of(&mut engine, target, &target.modules);
        let found: Vec<Findings> = targets.iter().map(survey).collect();
        let is_stopped = || stop.load(Ordering::Relaxed);
        let ended = || if is_stopped() { SessionError::Stopped } else { SessionError::DrainEnded };
        let (python, interpreters, problems) = look.wait(is_stopped).ok_or_else(ended)?;
        let programs = loading.wait(is_stopped).ok_or_else(ended)?;
        all_ended(&targets)?;
        for sentence in found.iter().flat_map(|found| &found.unreadable).chain(&problems) {
            tracing::warn!("{sentence}");
        }
        let is_empty = found.iter().all(|found| found.requests.is_empty()) && interpreters.iter().all(Option::is_none);
        // What is followed may have more.
        if is_empty && !may_begin_empty && !follow {
            let forbidden = found.iter().map(|found| found.forbidden).sum();
            if forbidden > 0 {
                return Err(SessionError::FilesForbidden { forbidden, processes: names_of(&targets) });
            }
            return Err(SessionError::NothingToTrace { detail: nothing_found(&targets, &found) });
        }
        let mut programs = programs?;

        let header = tape_header(&targets);
        // The tape wants to know each name too; nobody listens when none is recorded.
        let (tell, learned) = channel();
        let pipeline = Pipeline::open(&header, class_names(tell, python.known()), &exports)?;
        let recording = tape.map(|path| begin_tape(path, &header, learned)).transpose()?;
        let ring = programs.take_ring()?.ok_or(SessionError::DrainEnded)?;
        let drain = Drain::start(KernelRing::new(ring), RecordedPipeline::new(pipeline, recording))
            .map_err(|_| SessionError::DrainEnded)?;

        let mut tracer = Self {
            planner: Planner::new(programs.features()),
            programs,
            drain,
            engine,
            python,
            watcher: Watcher::new(&targets, follow),
            roster: Roster::default(),
            load: ProbeLoad::new(),
            functions: 0,
            skipped: 0,
            attach_ms: 0,
            first_news: News::default(),
            failures: Vec::new(),
        };
        if follow {
            for target in &targets {
                tracer.programs.count_forks_of(target.kernel_pid)?;
            }
        }
        let mut first_refused = None;
        for (((forked_by, target), native), interpreter) in arriving.into_iter().zip(found).zip(interpreters) {
            for file in &native.being_written {
                tracer.watcher.forget(target.process, *file);
            }
            let module = native.requests.first().map(|request| request.module.path.clone());
            let arrival = Arrival { target, forked_by, native, interpreter };
            let process = arrival.target.process;
            match tracer.add(arrival) {
                Ok(refused) if forked_by.is_none() => {
                    first_refused = first_refused.or(module.zip(refused.into_iter().next()));
                }
                Ok(_) => {}
                Err(error) => tracer.leave(process, error)?,
            }
        }
        all_ended(&targets)?;
        tracer.go_on()?;
        if let (0, Some((path, refusal))) = (tracer.functions, first_refused) {
            match refusal.why {
                // It goes on as soon as the writer has ended.
                Refusal::BeingWritten => {}
                // What of a process is still there says otherwise.
                Refusal::ProcessIsEnding => return Err(SessionError::TargetsEnded { processes: names_of(&targets) }),
                Refusal::NotItsCode if tracer.python.seen_in_all() == 0 && !follow => {
                    let detail = format!("{}: {}", path.display(), refusal.problem);
                    return Err(SessionError::NothingToTrace { detail });
                }
                Refusal::NotItsCode => {}
                Refusal::Kernel => {
                    let source = std::io::Error::other(refusal.problem);
                    return Err(AttachError::Place { path, source }.into());
                }
            }
        }
        // Everything at once, so that the first traces are as whole as the later ones.
        tracer.programs.accept_entries(true)?;
        tracer.python.entries_are_accepted(&tracer.drain)?;
        let news = tracer.news();
        tracer.first_news = News { more_functions: 0, ..news };
        tracer.attach_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(tracer)
    }

    /// Functions probed so far.
    #[must_use]
    pub fn functions(&self) -> usize {
        self.functions + self.python.seen_in_all()
    }

    /// Milliseconds from the start of the tracer until all probes were live.
    #[must_use]
    pub fn attach_ms(&self) -> u64 {
        self.attach_ms
    }

    /// What is new since this was asked last: followed processes, and functions of others.
    pub fn news(&mut self) -> News {
        let Self { roster, python, first_news, .. } = self;
        let mut news = std::mem::take(first_news);
        let later = roster.news(Instant::now(), |process| python.settled_of(process));
        news.followed.extend(later.followed);
        news.more_functions += later.more_functions;
        news.ended.extend(later.ended);
        news
    }

    /// Looks at the targets again and traces what they have mapped, executed or forked since. `false` once every target is
    /// gone.
    ///
    /// # Errors
    /// The session cannot go on, or there is nothing left that it could trace because of what went wrong.
    pub fn look_again(&mut self) -> Result<bool, SessionError> {
        self.programs.forward_log();
        if let Some(sentence) = self.load.look(&self.programs)? {
            tracing::warn!("{sentence}");
        }
        self.follow_writers();
        for change in self.watcher.poll() {
            self.take_note_of(change)?;
        }
        let Self { programs, drain, planner, python, .. } = self;
        let failed = python.look_again(&mut Context { programs, planner, drain });
        for (process, error) in failed {
            self.leave(process, error)?;
        }
        self.go_on()?;
        Ok(!self.watcher.is_empty())
    }

    /// Whether no span can reach any destination any more, because the readers of all have gone.
    #[must_use]
    pub fn nobody_reads(&self) -> bool {
        self.drain.nobody_reads()
    }

    /// Takes all probes away, reads the books, and delivers everything.
    ///
    /// # Errors
    /// The books cannot be read; spans are delivered all the same.
    pub fn finish(self) -> Result<Report, SessionError> {
        let functions = self.functions();
        let Self { mut programs, drain, mut python, skipped, attach_ms, roster, watcher, .. } = self;
        let unseen = programs.unseen_forks();
        let report = take_away(&mut programs, drain)?;
        let processes = roster.report(|process| python.seen_of(process));
        let not_followed = roster.not_followed() + unseen.unwrap_or_else(|| watcher.left_out());
        let python = python.coverage(&mut programs);
        Ok(Report { attach_ms, functions, python, processes, not_followed, skipped, ..report })
    }

    /// Takes a process in, at the start or later: the one way in. Its calls are recorded once entries are accepted.
    pub(super) fn add(&mut self, arrival: Arrival) -> Result<Vec<Refused>, SessionError> {
        let Arrival { target, forked_by, native, interpreter } = arrival;
        self.roster.add(&target, forked_by);
        let refused = self.place_more(&target, native)?;
        let Self { programs, drain, planner, python, .. } = self;
        match interpreter {
            Some(interpreter) => python.take(interpreter),
            None if forked_by.is_some() => python.mapped(&target, true),
            None => {}
        }
        python.attach(target.process, &mut Context { programs, planner, drain })?;
        Ok(refused)
    }

    /// Places probes on what was found in a process.
    pub(super) fn place_more(&mut self, target: &Target, found: Findings) -> Result<Vec<Refused>, SessionError> {
        let Some(member) = self.roster.traced(target.process) else { return Ok(Vec::new()) };
        if found.requests.is_empty() {
            self.skipped += found.skipped.len();
            return Ok(Vec::new());
        }
        if member.is_to_be_described() {
            self.drain.add_process(target.clone())?;
        }
        let added = self.planner.plan(found.requests, found.skipped);
        self.apply(target, PlanChange { added })
    }

    fn apply(&mut self, target: &Target, change: PlanChange) -> Result<Vec<Refused>, SessionError> {
        let PlanChange { mut added } = change;
        // A process that has executed something since maps its files elsewhere. Its probes are placed all the same: they belong
        // to the process and the files.
        if identify(target.process.pid).is_none_or(|(_, image)| image != target.image) {
            added.functions.iter_mut().for_each(|function| function.request.module.mappings.clear());
        }
        self.drain.add_functions(added.functions.iter().map(PlannedFunction::description).collect())?;
        let refused = self.programs.place(&added, &[(target.process, target.kernel_pid)])?;
        tell_refused(&added.functions, &refused);
        let is_being_written = |function: &&PlannedFunction| {
            refused.iter().any(|refusal| refusal.function == function.id && refusal.why == Refusal::BeingWritten)
        };
        for function in added.functions.iter().filter(is_being_written) {
            self.watcher.forget(target.process, function.request.module.number);
        }
        let is_placed = |function: &&PlannedFunction| !refused.iter().any(|refusal| refusal.function == function.id);
        self.load.add(added.functions.iter().filter(is_placed));
        let placed = added.functions.len() - refused.len();
        self.functions += placed;
        if let Some(member) = self.roster.traced(target.process) {
            member.native += placed;
        }
        self.skipped += added.skipped.len();
        Ok(refused)
    }
}

/// Takes all probes away, reads the books, and delivers everything.
pub fn take_away(programs: &mut Programs, drain: Drain) -> Result<Report, SessionError> {
    // What is open now and returns while the probes go lacks the calls that begin meanwhile.
    drain.begin_gap(None)?;
    programs.accept_entries(false)?;
    std::thread::sleep(SETTLE);
    let (_, open_calls) = programs.totals()?;
    let left = LeftCalls::look(&open_calls, |process, thread| stack_pointer(process, thread.0));
    programs.remove_probes();
    programs.forward_log();
    let (mut counts, mut open_calls) = programs.totals()?;
    left.settle(&mut open_calls, &mut counts);
    let (seen, deliveries) = drain.finish(counts.clone(), open_calls)?;
    Ok(Report { kept_signals: programs.kept_signals(), ..Report::new(&counts, seen, deliveries) })
}

/// An error if no target is left.
fn all_ended(targets: &[Target]) -> Result<(), SessionError> {
    if targets.iter().any(|target| !has_ended(target.process)) {
        return Ok(());
    }
    Err(SessionError::TargetsEnded { processes: names_of(targets) })
}

fn names_of(targets: &[Target]) -> String {
    targets.iter().map(|target| target.process.to_string()).collect::<Vec<_>>().join(", ")
}

/// Says which functions of a file are not probed and why, once for each reason.
fn tell_refused(functions: &[PlannedFunction], refused: &[Refused]) {
    let mut reasons: Vec<(&Path, &str, &str, usize)> = Vec::new();
    let function_of = |refusal: &Refused| functions.iter().find(|function| function.id == refusal.function);
    for (function, refusal) in refused.iter().filter_map(|refusal| Some((function_of(refusal)?, refusal))) {
        let request = &function.request;
        // Of a process that has ended in the middle nothing needs to be said.
        if refusal.why == Refusal::ProcessIsEnding || has_ended(request.module.process) {
            continue;
        }
        let path = request.module.path.as_path();
        let is_it = |(known, _, problem, _): &&mut (&Path, &str, &str, usize)| {
            (*known, *problem) == (path, refusal.problem.as_str())
        };
        match reasons.iter_mut().find(is_it) {
            Some((.., count)) => *count += 1,
            None => reasons.push((path, &request.span_name, &refusal.problem, 1)),
        }
    }
    for (path, first, problem, count) in reasons {
        let others = if count > 1 { format!(" and {} others", count - 1) } else { String::new() };
        tracing::warn!("not probed: {first}{others} in {}: {problem}", path.display());
    }
}

pub fn nothing_found(targets: &[Target], found: &[Findings]) -> String {
    let modules: usize = targets.iter().map(|target| target.modules.len()).sum();
    let pids: Vec<String> = targets.iter().map(|target| target.process.to_string()).collect();
    if let Some(obstacle) = found.iter().find_map(|found| found.obstacle) {
        return format!("no native function of process {} is probed: {obstacle}", pids.join(", "));
    }
    let skipped = match found.iter().map(|found| found.skipped.len()).sum() {
        0_usize => String::new(),
        count => format!(" ({count} candidates cannot be probed)"),
    };
    format!(
        "no function in the {modules} files that process {} has mapped matches a symbol map{skipped}; `ml-tracer symbols \
         --pid {}` lists every candidate, `--map FILE` adds rules of your own{}",
        pids.join(", "),
        pids.first().map_or("PID", String::as_str),
        // The program's own comes first, and says enough.
        found.iter().flat_map(|found| &found.hints).take(1).map(|hint| format!("; {hint}")).collect::<String>()
    )
}

pub fn tape_header(targets: &[Target]) -> TapeHeader {
    TapeHeader {
        // The standard library seeds its hash maps from the operating system's random numbers.
        seed: RandomState::new().hash_one(std::process::id()),
        anchor: clock_anchor(),
        targets: targets.iter().map(|target| Target { modules: Vec::new(), ..target.clone() }).collect(),
    }
}

fn begin_tape(path: PathBuf, header: &TapeHeader, learned: Receiver<LearnedClass>) -> Result<Recording, SessionError> {
    let begin = || -> Result<_, crate::ring::TapeError> {
        TapeWriter::new(BufWriter::with_capacity(1 << 18, File::create(&path)?), header)
    };
    match begin() {
        Ok(writer) => Ok(Recording { path, writer, learned }),
        Err(source) => Err(SessionError::Tape { path, source }),
    }
}
