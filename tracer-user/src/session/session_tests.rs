//! Sessions on a kernel that is none, with processes that are: what happens to one of them stays with it.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracer_common::records::{ProcessChange as ChangeNumber, ProcessRecord, RecordHeader, RecordKind};
use zerocopy::IntoBytes as _;

use super::super::error::SessionError;
use super::super::fake_kernel::{FakeKernel, NoRecords};
use super::super::settings::{PythonSettings, Settings};
use super::super::start::start_on;
use super::*;
use crate::attach::{AttachError, LoadOptions};
use crate::model::{FileNumber, LossCounts, ProcessEvent, ProcessId, RawRecord, Target, TargetChange};
use crate::ring::RecordSource;
use crate::target::{TargetSource, Watcher, look_at};

/// Functions of the C library, which every process has mapped.
const MAP: &str = "schema: ml-tracer/v1\nlibrary: test\nlanguage: c\nmodule: libc.so*\n\
                   functions: [{symbol: qsort, span: C.qsort}, {symbol: getenv, span: C.getenv}]\n";

/// A process that does nothing; it ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        let child = Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
        let sleeper = Self(child);
        // Until it has mapped its libraries.
        while !sleeper.target().modules.iter().any(|module| module.file_name().starts_with("libc.so")) {
            std::thread::sleep(Duration::from_millis(1));
        }
        sleeper
    }

    fn target(&self) -> Target {
        look_at(self.0.id()).expect("it runs")
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn end(&mut self) {
        self.0.kill().expect("our own child");
        self.0.wait().expect("our own child");
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// What a source tells, as a test sees it.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<VecDeque<Vec<TargetChange>>>>);

impl Told {
    fn tell(&self, change: TargetChange) {
        self.0.lock().expect("nobody panics").push_back(vec![change]);
    }
}

/// A source that tells what the test wants, one change at a look; it is over when the first processes are gone.
struct Scripted {
    first: Vec<Target>,
    follows: bool,
    told: Told,
    left: usize,
}

impl TargetSource for Scripted {
    fn first(&mut self) -> Vec<(Option<ProcessId>, Target)> {
        self.left = self.first.len();
        self.first.drain(..).map(|target| (None, target)).collect()
    }

    fn follows(&self) -> bool {
        self.follows
    }

    fn forks_are_told(&mut self) {}

    fn take_note_of(&mut self, _: &ProcessEvent) {}

    fn next_look(&self) -> Instant {
        Instant::now() + Duration::from_millis(10)
    }

    fn changes(&mut self) -> Vec<TargetChange> {
        let changes = self.told.0.lock().expect("nobody panics").pop_front().unwrap_or_default();
        for change in &changes {
            match change {
                TargetChange::Gone(_) => self.left -= 1,
                TargetChange::Forked { .. } => self.left += 1,
                _ => {}
            }
        }
        changes
    }

    fn forget(&mut self, _: ProcessId, _: FileNumber) {}

    fn is_expecting(&self) -> bool {
        false
    }

    fn is_over(&self) -> bool {
        self.left == 0
    }

    fn left_out(&self) -> u64 {
        0
    }
}

/// Records that a test submits.
#[derive(Clone, Default)]
struct Submitted(Arc<Mutex<VecDeque<ProcessRecord>>>);

impl Submitted {
    fn submit(&self, process: u32, change: ChangeNumber, parent: u32) {
        let header = RecordHeader::new(RecordKind::Process, size_of::<ProcessRecord>());
        let record = ProcessRecord { header, process, change: change as u32, parent, ..ProcessRecord::default() };
        self.0.lock().expect("nobody panics").push_back(record);
    }
}

impl RecordSource for Submitted {
    fn drain(&mut self, _: usize, receive: &mut dyn FnMut(RawRecord<'_>)) -> usize {
        let records = std::mem::take(&mut *self.0.lock().expect("nobody panics"));
        records.iter().for_each(|record| receive(RawRecord(record.as_bytes())));
        records.len()
    }
}

fn settings(sleepers: &[&Sleeper], told: &Told, follows: bool) -> Settings {
    let first = sleepers.iter().map(|sleeper| sleeper.target()).collect();
    Settings {
        source: Box::new(Scripted { first, follows, told: told.clone(), left: 0 }),
        maps: crate::symbol_map::parse(MAP, Path::new("own.yaml"), false).expect("a valid map"),
        python: PythonSettings::default(),
        probe_moving_code: false,
        max_overhead: None,
        sinks: Vec::new(),
        status: None,
        totals: None,
        exports: Vec::new(),
        tape: None,
        load: LoadOptions::default(),
        began: Instant::now(),
        is_command: false,
        awaits_forks: follows,
        duration: None,
        tell: channel().0,
        stop: Arc::default(),
    }
}

fn begin(kernel: &FakeKernel, settings: Settings) -> Result<Session, SessionError> {
    let kernel = kernel.clone();
    start_on(move |_| Ok((Box::new(kernel), Box::new(NoRecords))), settings)
}

/// Fails in one process, as if the kernel had no descriptor.
fn fail_in(kernel: &FakeKernel, pid: u32) {
    kernel.state().before_placing = Some(Box::new(move |process| {
        let what = "a probe".to_owned();
        if process.pid == pid { Err(AttachError::NoDescriptor { what }) } else { Ok(()) }
    }));
}

/// Runs until it is over.
fn run(session: &mut Session) -> Result<(Stop, Vec<ProcessChanges>), SessionError> {
    let (_tell, inbox) = channel();
    let mut changes = Vec::new();
    let stop = session.run(&inbox, |new| changes.push(new))?;
    Ok((stop, changes))
}

#[test]
fn all_that_belongs_to_a_process_goes_with_it() {
    let (kernel, told) = (FakeKernel::default(), Told::default());
    let [mut first, second] = [Sleeper::start(), Sleeper::start()];
    let targets = [first.target().process, second.target().process];
    let mut session = begin(&kernel, settings(&[&first, &second], &told, false)).expect("a session");
    assert_eq!(session.functions(), 4);
    assert_eq!(kernel.state().accepted.len(), 2, "all calls are recorded");
    first.end();
    told.tell(TargetChange::Gone(targets[0]));
    let (tell, inbox) = channel();
    let mut changes = Vec::new();
    let stop = session.run(&inbox, |new| {
        if !new.ended.is_empty() {
            let state = kernel.state();
            assert_eq!((state.owners, state.probed.contains_key(&second.pid())), (1, true));
            drop(state);
            tell.send(Message::Signal(2)).expect("the session runs");
        }
        changes.extend(new.ended);
    });
    assert_eq!((stop.ok(), changes), (Some(Stop::Signal(2)), vec![targets[0]]));
    let report = session.finish().expect("books");
    assert_eq!(report.processes.iter().map(|process| process.has_ended).collect::<Vec<_>>(), [false, true]);
    assert_eq!(kernel.state().owners, 0);
}

#[test]
fn a_process_that_ends_while_it_is_attached_to_leaves_the_other() {
    let (kernel, told) = (FakeKernel::default(), Told::default());
    let [first, second] = [Sleeper::start(), Sleeper::start()];
    let (pid, gone) = (first.pid(), first.target().process);
    let settings = settings(&[&first, &second], &told, false);
    let mut first = Some(first);
    kernel.state().before_placing = Some(Box::new(move |process| {
        if process.pid != pid {
            return Ok(());
        }
        drop(first.take());
        Err(AttachError::Place { path: "libc.so".into(), source: std::io::Error::from_raw_os_error(libc::ESRCH) })
    }));
    let mut session = begin(&kernel, settings).expect("the other one goes on");
    assert_eq!(kernel.state().probed.keys().copied().collect::<Vec<_>>(), [second.pid()]);
    told.tell(TargetChange::Gone(gone));
    told.tell(TargetChange::Gone(second.target().process));
    let (stop, _) = run(&mut session).expect("it goes on to the end");
    assert_eq!(stop, Stop::TargetsGone);
    assert_eq!(kernel.state().owners, 0);
    let report = session.finish().expect("books");
    assert!(report.processes.iter().all(|process| process.problem.is_none()), "its end is no failure");
}

#[test]
fn what_goes_wrong_with_one_process_leaves_the_others_until_it_is_the_last() {
    let (kernel, told) = (FakeKernel::default(), Told::default());
    let [first, mut second] = [Sleeper::start(), Sleeper::start()];
    fail_in(&kernel, first.pid());
    let mut session = begin(&kernel, settings(&[&first, &second], &told, false)).expect("the other one goes on");
    assert_eq!(kernel.state().owners, 1);
    let target = second.target();
    second.end();
    told.tell(TargetChange::Gone(target.process));
    let ended = run(&mut session);
    assert!(matches!(ended, Err(SessionError::Attach(AttachError::NoDescriptor { .. }))), "{ended:?}");
    let report = session.finish().expect("books");
    let problems: Vec<_> = report.processes.iter().map(|process| (process.pid, process.problem.is_some())).collect();
    assert_eq!(problems, [(first.pid(), true), (target.process.pid, false)]);
    // A session with nothing else does not begin.
    let alone = begin(&kernel, settings(&[&first], &told, false));
    assert!(matches!(alone, Err(SessionError::Attach(AttachError::NoDescriptor { .. }))));
}

#[test]
fn a_process_that_cannot_be_followed_is_counted() {
    let (kernel, told) = (FakeKernel::default(), Told::default());
    let sleepers = [Sleeper::start(), Sleeper::start(), Sleeper::start()];
    let [parent, child, other] = sleepers.each_ref().map(Sleeper::target);
    fail_in(&kernel, child.process.pid);
    let mut session = begin(&kernel, settings(&[&sleepers[0]], &told, true)).expect("a session");
    for target in [&child, &other] {
        told.tell(TargetChange::Forked { parent: parent.process, target: target.clone() });
    }
    let (tell, inbox) = channel();
    let mut followed = Vec::new();
    let stop = session.run(&inbox, |new| {
        followed.extend(new.followed.into_iter().map(|followed| followed.process));
        if !followed.is_empty() {
            tell.send(Message::Signal(15)).expect("the session runs");
        }
    });
    assert_eq!((stop.ok(), followed), (Some(Stop::Signal(15)), vec![other.process]));
    let told_of: Vec<u32> = kernel.state().told_of.iter().copied().collect();
    let mut all = [parent, child, other].map(|target| target.process.pid);
    all.sort_unstable();
    assert_eq!(told_of, all);
    let report = session.finish().expect("books");
    assert_eq!(report.not_followed, 1);
    assert_eq!(report.processes.iter().map(|process| process.functions).collect::<Vec<_>>(), [2, 2]);
}

/// Nothing in /proc says that one has forked the other, which would be found in no other way.
#[test]
fn what_records_tell_of_processes_is_acted_upon() {
    let (kernel, told, records) = (FakeKernel::default(), Told::default(), Submitted::default());
    let mut sleepers = [Sleeper::start(), Sleeper::start()];
    let [parent, child] = sleepers.each_ref().map(Sleeper::target);
    let (tell, inbox) = channel();
    let watcher = Watcher::new(vec![parent.clone()], true);
    let settings = Settings { source: Box::new(watcher), tell: tell.clone(), ..settings(&[], &told, true) };
    let loaded = (kernel.clone(), records.clone());
    let session = start_on(move |_| Ok((Box::new(loaded.0), Box::new(loaded.1))), settings);
    let mut session = session.expect("a session");
    assert!(kernel.state().told_of.contains(&parent.process.pid));
    records.submit(child.process.pid, ChangeNumber::Forked, parent.process.pid);
    let mut followed = Vec::new();
    let stop = session.run(&inbox, |new| {
        followed.extend(new.followed.into_iter().map(|followed| (followed.forked_by, followed.process)));
        if !followed.is_empty() {
            tell.send(Message::Signal(2)).expect("the session runs");
        }
    });
    assert_eq!((stop.ok(), followed), (Some(Stop::Signal(2)), vec![(parent.process, child.process)]));
    assert_eq!(kernel.state().owners, 2);
    for (sleeper, target) in sleepers.iter_mut().zip([&parent, &child]) {
        sleeper.end();
        records.submit(target.process.pid, ChangeNumber::Ended, 0);
    }
    assert_eq!(session.run(&inbox, drop).ok(), Some(Stop::TargetsGone));
    let state = kernel.state();
    assert_eq!((state.owners, state.told_of.len()), (0, 0));
}

#[test]
fn a_session_that_is_stopped_while_it_starts_leaves_nothing() {
    let (kernel, told) = (FakeKernel::default(), Told::default());
    let sleeper = Sleeper::start();
    let settings = settings(&[&sleeper], &told, false);
    let stop = Arc::clone(&settings.stop);
    let started = start_on(
        move |_| {
            stop.store(true, Ordering::Relaxed);
            std::thread::sleep(Duration::from_secs(5));
            Err(SessionError::DrainEnded)
        },
        settings,
    );
    assert!(matches!(started, Err(SessionError::Stopped)));
    assert_eq!(kernel.state().owners, 0);
}

#[test]
fn the_time_of_a_session_is_kept() {
    let (kernel, told) = (FakeKernel::default(), Told::default());
    let sleeper = Sleeper::start();
    let duration = Some(Duration::from_millis(120));
    let mut session = begin(&kernel, Settings { duration, ..settings(&[&sleeper], &told, false) }).expect("a session");
    let (tell, inbox) = channel();
    tell.send(Message::Signal(1)).expect("the session listens");
    assert_eq!(session.run(&inbox, drop).ok(), Some(Stop::Signal(1)), "what was said before it ran is heard");
    let began = Instant::now();
    assert_eq!(session.run(&inbox, drop).ok(), Some(Stop::Duration));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_books_are_read_when_the_probes_are_gone() {
    let (kernel, told) = (FakeKernel::default(), Told::default());
    let sleeper = Sleeper::start();
    let session = begin(&kernel, settings(&[&sleeper], &told, false)).expect("a session");
    kernel.state().totals = LossCounts { entries: 7, folded: 5, open: 2, ..LossCounts::default() };
    let report = session.finish().expect("books");
    assert_eq!((report.entries, report.folded, report.open, report.functions), (7, 5, 2, 2));
    assert!(report.identity_holds);
    assert_eq!(kernel.state().end, ["entries", "python", "exits"]);
}
