//! `ml-tracer top`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::arguments::TopArguments;
use super::attach::{Front, tell_changes, trace_running};
use super::display_options::DisplayOptions;
use super::exit::UsageError;
use super::print::{HeldErrors, tell};
use crate::export::Destination;
use crate::session::{Message, Session, SessionError, Settings, StatusFeed, Stop};
use crate::view::{Live, Top, TopError, run_top};

/// How often what is not seen is asked for.
const STATUS_EVERY: Duration = Duration::from_secs(2);

/// Lines of what was said that the view shows.
const NOTES: usize = 12;

/// Shows a live table of the methods of running processes until told to stop or until they are gone.
pub fn top(arguments: &TopArguments, began: Instant) -> anyhow::Result<ExitCode> {
    Top::check()?;
    if arguments.trace.exports.iter().any(|export| matches!(export, Destination::Console(_))) {
        return Err(UsageError("top has the terminal for itself: `--export console` is for attach".to_owned()).into());
    }
    let live = Live::default();
    let front = LiveFront { live, told: None };
    trace_running(&arguments.selected, &arguments.trace, began, front)
}

/// The live view in front of a session.
struct LiveFront {
    live: Live,
    told: Option<Sender<Message>>,
}

impl Front for LiveFront {
    fn display(&self) -> DisplayOptions {
        DisplayOptions::default()
    }

    fn settings(&mut self, settings: Settings) -> Settings {
        self.told = Some(settings.tell.clone());
        let (to, sentences) = channel();
        let live = self.live.clone();
        // Whoever makes them waits for no picture.
        std::thread::spawn(move || sentences.iter().for_each(|sentences| live.tell_not_seen(sentences)));
        Settings {
            // The view is where spans go, unless others are named as well.
            exports: settings.exports.into_iter().filter(|export| !matches!(export, Destination::Console(_))).collect(),
            sinks: vec![Box::new(self.live.sink())],
            status: Some(StatusFeed { every: STATUS_EVERY, to }),
            ..settings
        }
    }

    fn run(&mut self, session: &mut Session, inbox: &Receiver<Message>) -> Result<Stop, SessionError> {
        let held = Arc::new(HeldErrors::begin());
        let is_over = Arc::new(AtomicBool::new(false));
        let view = {
            let (live, tell_session, held, is_over) =
                (self.live.clone(), self.told.clone(), Arc::clone(&held), Arc::clone(&is_over));
            std::thread::Builder::new().name("top".into()).spawn(move || {
                let shown = show(&live, &held, &is_over);
                // However it has ended, so does the session; when that was first, nobody listens.
                if let Some(tell_session) = tell_session {
                    let _ = tell_session.send(Message::Signal(Signal::INT.as_raw()));
                }
                shown
            })
        };
        let stopped = match &view {
            Ok(_) => session.run(inbox, tell_changes),
            Err(_) => Ok(Stop::Signal(Signal::INT.as_raw())),
        };
        is_over.store(true, Ordering::Release);
        let shown = view.map_err(TopError::from).and_then(|view| view.join().unwrap_or(Ok(())));
        drop(held);
        if let Err(error) = shown {
            tell(&error.to_string());
        }
        stopped
    }
}

fn show(live: &Live, held: &HeldErrors, is_over: &AtomicBool) -> Result<(), TopError> {
    let mut top = Top::begin()?;
    run_top(&mut top, live, || held.last(NOTES), || is_over.load(Ordering::Acquire))
}
