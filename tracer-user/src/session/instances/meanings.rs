//! Names of classes that no look at a process has told: exceptions above all. They are read by a thread that does nothing else,
//! so that a process that lets its reader wait never keeps records from being taken out of the ring.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::super::recording::LearnedClass;
use super::super::wiring::PythonClassNames;
use crate::engine::{RuntimeInstance, Runtimes};
use crate::memory::ReadLimit;
use crate::model::{ProcessId, ProgramImage, RemoteAddress};
use crate::target::{identify, look_at};

/// A name is waited for so long: the ring has room for several times as much.
const WAIT: Duration = Duration::from_millis(50);

/// Waiting may take this share of the time.
const PART_OF_TIME: u32 = 10;

/// So long it may take at once, after a time without questions: the ring has room for more.
const MOST_PATIENCE: Duration = Duration::from_millis(100);

/// Answers that are remembered: that nobody knows a class, or that came too late for the record that asked.
const MOST_ANSWERS: usize = 1_024;

/// After so long a class that nobody knew is asked for again: another one may be at its address.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A class of a process, by the process's number.
type Class = (u32, RemoteAddress);

type Answer = (Class, Option<Arc<str>>);

/// The instances that were asked, by the number of their process, and whose they were then.
type Asked = HashMap<u32, ((ProcessId, ProgramImage), Box<dyn RuntimeInstance>)>;

/// The instances that the session knows, for the thread that reads names: finding one again takes long.
#[derive(Clone, Default)]
pub struct KnownInstances(Arc<Mutex<Asked>>);

impl KnownInstances {
    /// The instance of a process has become known. `number` is the process's in the initial pid namespace.
    pub fn add(&self, number: u32, identity: (ProcessId, ProgramImage), instance: &dyn RuntimeInstance) {
        let instance = instance.to_look_at(&ReadLimit::default());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, (identity, instance));
    }

    /// A process has ended, or runs another program.
    pub fn remove(&self, number: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// One to read from: nobody waits for it meanwhile.
    fn get(&self, number: u32, identity: (ProcessId, ProgramImage)) -> Option<Box<dyn RuntimeInstance>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, instance) = known.get(&number).filter(|(known, _)| *known == identity)?;
        Some(instance.to_look_at(&ReadLimit::default()))
    }
}

/// Gives the names of classes of running processes; the tape is told as well. A name that is not there in a moment is given
/// to whoever asks next. Only processes of the initial pid namespace are traced, so that the numbers in records are those of
/// /proc.
pub fn class_names(tell: Sender<LearnedClass>, known: KnownInstances) -> PythonClassNames {
    let (mut asked, runtimes) = (Asked::new(), Runtimes::new(&[]));
    let look_up = move |(process, class): Class| instance_of(&mut asked, &known, &runtimes, process)?.meaning(class);
    let mut desk = Desk::open(look_up);
    Box::new(move |process, class| {
        let (name, is_new) = desk.ask((process, class), Instant::now());
        if is_new {
            let _ = tell.send(LearnedClass { process, class, name: name.clone() });
        }
        name
    })
}

/// Where names are asked for, and the thread behind it.
struct Desk {
    requests: Sender<Class>,
    answers: Receiver<Answer>,
    /// Classes that the thread is at, or will be.
    waiting: HashSet<Class>,
    /// What it has said, and when.
    said: HashMap<Class, (Option<Arc<str>>, Instant)>,
    /// So long may be waited.
    patience: Duration,
    /// When it was asked last.
    asked: Instant,
}

impl Desk {
    fn open(mut look_up: impl FnMut(Class) -> Option<Arc<str>> + Send + 'static) -> Self {
        let (requests, inbox) = channel();
        let (answer, answers) = channel();
        let work = move || {
            for class in inbox {
                if answer.send((class, look_up(class))).is_err() {
                    return;
                }
            }
        };
        // Without a thread there are no answers, and no names.
        if let Err(error) = std::thread::Builder::new().name("names".into()).spawn(work) {
            tracing::warn!(%error, "there is no thread that reads the names of exceptions");
        }
        Self {
            requests,
            answers,
            waiting: HashSet::new(),
            said: HashMap::new(),
            patience: MOST_PATIENCE,
            asked: Instant::now(),
        }
    }

    /// The name of a class, as far as it is known by now, and whether this is told for the first time.
    fn ask(&mut self, class: Class, now: Instant) -> (Option<Arc<str>>, bool) {
        while let Ok(answer) = self.answers.try_recv() {
            self.take(answer);
        }
        match self.said.get(&class) {
            // The caller remembers names, and forgets them when they may be others.
            Some((Some(_), _)) => return (self.said.remove(&class).and_then(|(name, _)| name), true),
            Some((None, since)) if now.saturating_duration_since(*since) < ASK_AGAIN => return (None, false),
            _ => {}
        }
        if self.waiting.len() < MOST_ANSWERS && self.waiting.insert(class) && self.requests.send(class).is_err() {
            self.waiting.remove(&class);
        }
        let answer = self.wait_for(class, now);
        match &answer {
            Some(name) => {
                if name.is_none() {
                    self.take((class, None));
                }
                (name.clone(), true)
            }
            None => (None, false),
        }
    }

    /// Waits for an answer, if there is patience left.
    fn wait_for(&mut self, class: Class, now: Instant) -> Option<Option<Arc<str>>> {
        let since = now.saturating_duration_since(std::mem::replace(&mut self.asked, now));
        self.patience = (self.patience + since / PART_OF_TIME).min(MOST_PATIENCE);
        let began = Instant::now();
        let limit = WAIT.min(self.patience);
        let mut found = None;
        while found.is_none() {
            match self.answers.recv_timeout(limit.saturating_sub(began.elapsed())) {
                Ok((answered, name)) if answered == class => found = Some(name),
                Ok(answer) => self.take(answer),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        self.patience = self.patience.saturating_sub(began.elapsed());
        if found.is_some() {
            self.waiting.remove(&class);
        }
        found
    }

    fn take(&mut self, (class, name): Answer) {
        self.waiting.remove(&class);
        if self.said.len() >= MOST_ANSWERS {
            self.said.clear();
        }
        self.said.insert(class, (name, Instant::now()));
    }
}

fn instance_of<'asked>(
    asked: &'asked mut Asked,
    known: &KnownInstances,
    runtimes: &Runtimes,
    process: u32,
) -> Option<&'asked dyn RuntimeInstance> {
    let identity = identify(process)?;
    if asked.get(&process).is_none_or(|(known, _)| *known != identity) {
        // Processes end without a word.
        asked.retain(|process, (known, _)| identify(*process) == Some(*known));
        let find = || runtimes.find(&look_at(process).ok()?, &ReadLimit::default()).ok()?;
        let instance = known.get(process, identity).or_else(find)?;
        asked.insert(process, (identity, instance));
    }
    asked.get(&process).map(|(_, instance)| &**instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(number: u64) -> Class {
        (7, RemoteAddress(number))
    }

    #[test]
    fn a_name_that_is_there_in_a_moment_is_given_at_once() {
        let mut desk = Desk::open(|(_, class)| (class.0 == 1).then(|| "ValueError".into()));
        assert_eq!(desk.ask(class(1), Instant::now()), (Some("ValueError".into()), true));
        let later = Instant::now() + ASK_AGAIN;
        assert_eq!(desk.ask(class(2), later), (None, true), "nobody knows it");
        assert_eq!(desk.ask(class(2), later), (None, false), "that was told before");
    }

    #[test]
    fn a_process_that_does_not_answer_keeps_nobody_waiting() {
        let (go, may_go) = channel::<()>();
        let mut desk = Desk::open(move |(_, class)| {
            may_go.recv().ok()?;
            Some(format!("Class{}", class.0).into())
        });
        let now = Instant::now();
        for number in 0..200 {
            assert_eq!(desk.ask(class(number % 20), now), (None, false));
        }
        assert!(desk.patience.is_zero(), "the first of them have waited, and then nobody");
        drop((0..20).map(|_| go.send(())).collect::<Vec<_>>());
        let end = Instant::now() + Duration::from_secs(20);
        while desk.ask(class(19), Instant::now()).0.as_deref() != Some("Class19") {
            assert!(Instant::now() < end, "the answer never came");
        }
        assert_eq!(desk.ask(class(3), Instant::now()), (Some("Class3".into()), true));
    }
}
