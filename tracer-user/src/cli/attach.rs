//! `ml-tracer attach`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::arguments::{AttachArguments, ForkOptions, Requests, TraceOptions};
use super::class_options::ClassOptions;
use super::display_options::DisplayOptions;
use super::exit::{self, demand_privilege};
use super::list;
use super::print::{tell, tell_plain, width_of_errors};
use super::progress::Progress;
use super::selected::{Selected, with_descendants};
use super::signals;
use super::summary_file::SummaryFile;
use crate::attach::{LoadOptions, LoadRequests, sockets_tell};
use crate::model::{MethodRow, SymbolMap, Target, counted, process_numbers};
use crate::session::{
    self, Followed, Message, ProcessChanges, PythonSettings, Report, Session, SessionError, Settings, Stop, TotalsFeed,
    plan_only,
};
use crate::symbol_map::{self, MAP_DIRECTORY};
use crate::target::{Watcher, descendants, listens};
use crate::view::method_lines;

/// What stands between a session and a person.
pub trait Front {
    /// What the console shows.
    fn display(&self) -> DisplayOptions;

    /// The settings of the session, with what it needs of them.
    fn settings(&mut self, settings: Settings) -> Settings {
        settings
    }

    /// Runs the session until something stops it.
    ///
    /// # Errors
    /// See [`Session::run`].
    fn run(&mut self, session: &mut Session, inbox: &Receiver<Message>) -> Result<Stop, SessionError>;
}

/// Lines on stderr.
struct Lines<'arguments>(&'arguments DisplayOptions);

impl Front for Lines<'_> {
    fn display(&self) -> DisplayOptions {
        self.0.clone()
    }

    fn run(&mut self, session: &mut Session, inbox: &Receiver<Message>) -> Result<Stop, SessionError> {
        session.run(inbox, tell_changes)
    }
}

/// Traces running processes until told to stop or until they are gone.
pub fn attach(arguments: &AttachArguments, began: Instant) -> anyhow::Result<ExitCode> {
    trace_running(&arguments.selected, &arguments.trace, began, Lines(&arguments.display))
}

/// The same with anything in front of the session.
pub fn trace_running(
    selected: &Selected,
    trace: &TraceOptions,
    began: Instant,
    mut front: impl Front,
) -> anyhow::Result<ExitCode> {
    session::enough_descriptors()?;
    trace.check()?;
    let maps = load_maps(&trace.maps, &trace.classes)?;
    let targets = selected.look(trace.forks.are_followed())?;
    let requests = requests_to_load(trace.requests, || is_any_listening(&targets, trace.forks));
    if trace.dry_run {
        if requests != LoadRequests::No {
            tell("requests over HTTP/1.1 would be looked at");
        }
        let all = with_descendants(targets, trace.forks.are_followed());
        return list::print_plan(&plan_only(&all, maps, trace.python(), trace.probe_moving_code), false);
    }
    demand_privilege()?;
    let summary = SummaryFile::create(&trace.exports, trace.summary.as_deref())?;
    let (tell_session, inbox) = channel();
    let named: Vec<u32> = targets.iter().map(|target| target.process.pid).collect();
    let forked = descendants(&targets).len();
    let watcher = Watcher::new(targets, trace.forks.are_followed());
    let settings = settings((trace, requests), &front.display(), watcher, maps, began, tell_session.clone());
    let settings = front.settings(settings);
    signals::listen(tell_session, Arc::clone(&settings.stop))?;
    let mut has_unnamed = false;
    let also = if forked == 0 || !trace.forks.are_followed() { "" } else { " and what was forked there" };
    let progress = Progress::of(format!("looking into {}{also}", process_numbers(&named)));
    let started = session::start(settings);
    drop(progress);
    let ended = match started {
        Err(stopped @ SessionError::Stopped) => {
            tell(&stopped.to_string());
            Ended { report: Report::of_nothing(), failure: None }
        }
        started => {
            let mut session = started?;
            tell_attached(&session);
            if session.functions() == 0 {
                tell_nothing_yet(&named, forked, trace.forks);
            }
            let classes = session.classes_in_sight();
            trace.classes.tell_of(&classes);
            // They are told, with what traces them: that is not nothing.
            has_unnamed = classes.iter().any(|of_process| !of_process.unnamed.is_empty());
            let stopped = front.run(&mut session, &inbox);
            finish(session, stopped)?
        }
    };
    conclude(&ended.report, summary)?;
    if let Some(failure) = &ended.failure {
        // Everything is delivered, and yet the session has ended before its time.
        return Ok(exit::code_of_session(failure));
    }
    let is_nothing = ended.report.has_found_nothing() && !has_unnamed;
    Ok(ExitCode::from(if is_nothing { exit::NOTHING_TO_TRACE } else { exit::DONE }))
}

/// Built-in maps, those of this machine, and those of the command line; after them what the options ask for.
pub fn load_maps(files: &[PathBuf], classes: &ClassOptions) -> anyhow::Result<Vec<SymbolMap>> {
    let asked = classes.maps()?;
    Ok([symbol_map::load(files, Path::new(MAP_DIRECTORY))?.maps(), &asked].concat())
}

/// Whether requests are to be seen. `listens`: whether a process that is traced is a server.
pub fn requests_to_load(how: Requests, listens: impl FnOnce() -> bool) -> LoadRequests {
    match how {
        Requests::Off | Requests::Libc => LoadRequests::No,
        Requests::Sockets => LoadRequests::Yes,
        Requests::Auto if !listens() => LoadRequests::No,
        Requests::Auto if sockets_tell() => LoadRequests::IfPossible,
        Requests::Auto => {
            tell(
                "requests are not looked at: before Linux 6.5 that makes every system call of the machine slower; `--requests \
                 sockets` looks at them all the same",
            );
            LoadRequests::No
        }
    }
}

fn is_any_listening(targets: &[Target], forks: ForkOptions) -> bool {
    let forked = if forks.are_followed() { descendants(targets) } else { Vec::new() };
    targets.iter().chain(forked.iter().map(|(_, target)| target)).any(|target| listens(target.process))
}

/// What the options ask of a session, and whether it sees requests if they do not say.
pub fn settings(
    (trace, requests): (&TraceOptions, LoadRequests),
    display: &DisplayOptions,
    watcher: Watcher,
    maps: Vec<SymbolMap>,
    began: Instant,
    tell: Sender<Message>,
) -> Settings {
    let defaults = LoadOptions::default();
    Settings {
        source: Box::new(watcher),
        maps,
        python: PythonSettings { joins_requests: requests != LoadRequests::No, ..trace.python() },
        probe_moving_code: trace.probe_moving_code,
        max_overhead: trace.max_overhead,
        totals: display.interval.map(show_totals),
        exports: display.destinations(&trace.exports),
        sinks: Vec::new(),
        status: None,
        tape: trace.record_tape.clone(),
        load: LoadOptions {
            ring_bytes: trace.ring_bytes.unwrap_or(defaults.ring_bytes),
            debug_log: std::env::var_os("ML_TRACER_BPF_LOG").is_some_and(|value| value == "1"),
            single_probes: trace.single_probes,
            python_entries: trace.python_entries.unwrap_or(defaults.python_entries),
            requests,
            ..defaults
        },
        began,
        is_command: false,
        awaits_forks: trace.forks.are_awaited(),
        duration: trace.duration,
        tell,
        stop: Arc::default(),
    }
}

/// The line that scripts wait for.
pub fn tell_attached(session: &Session) {
    if let Some(cost) = session.python_cost() {
        tell(&cost);
    }
    tell(&format!("attached {} functions in {} ms", session.functions(), session.attach_ms()));
}

/// Nothing is traced so far: where was looked, and what to do.
fn tell_nothing_yet(named: &[u32], forked: usize, forks: ForkOptions) {
    let have_forked = counted(forked as u64, "process that was", "processes that were");
    let it = if named.len() == 1 { "it" } else { "them" };
    let workers = match (forked, forks.are_followed()) {
        (0, _) => String::new(),
        (_, true) => format!(" and {have_forked} forked by {it}"),
        (_, false) => format!("; {have_forked} forked by {it}: without --no-follow they are traced too"),
    };
    tell(&format!(
        "nothing is traced yet in {}{workers}; models that are loaded later are seen; `ml-tracer symbols --pid {}` \
         lists what there is and what keeps it from being traced, `--class` and `--map` ask for more",
        process_numbers(named),
        named.first().unwrap_or(&0)
    ));
}

/// What is new about the traced processes.
pub fn tell_changes(changes: ProcessChanges) {
    for Followed { process, forked_by, name, functions } in changes.followed {
        tell(&format!("following process {process} ({name}), forked by {forked_by}: {functions} functions"));
    }
    if changes.more_functions > 0 {
        tell(&format!("{} more functions, found since", changes.more_functions));
    }
    for process in changes.ended {
        tell(&format!("process {process} has ended; the others are traced on"));
    }
}

/// Prints the table of methods again and again, on a thread of its own: whoever makes it waits for no terminal.
fn show_totals(every: Duration) -> TotalsFeed {
    let (to, rows) = channel();
    std::thread::spawn(move || rows.iter().for_each(|rows: Vec<MethodRow>| tell_table(&rows)));
    TotalsFeed { every, to }
}

/// The table of methods, where one was called.
fn tell_table(rows: &[MethodRow]) {
    let lines = method_lines(rows, width_of_errors());
    if !lines.is_empty() {
        tell_plain(&lines);
    }
}

/// A session that has delivered everything.
pub struct Ended {
    /// Its counts.
    pub report: Report,
    /// What has ended it before its time. It is told already.
    pub failure: Option<SessionError>,
}

/// Ends the session in order whatever stopped it: spans already taken are delivered even after an error.
pub fn finish(session: Session, stopped: Result<Stop, SessionError>) -> Result<Ended, SessionError> {
    let failure = stopped.err();
    if let Some(failure) = &failure {
        tell(&failure.to_string());
    }
    let _progress = Progress::of("taking the probes away and delivering what is left".to_owned());
    Ok(Ended { report: session.finish()?, failure })
}

/// The last words: what the methods took and where every call has gone, on stderr and, if asked for, as JSON.
pub fn conclude(report: &Report, summary: Option<SummaryFile>) -> anyhow::Result<()> {
    tell_table(&report.methods);
    for remark in report.remarks() {
        tell(&remark);
    }
    tell(&report.line());
    summary.map_or(Ok(()), |summary| summary.write(report))
}
