//! What somebody at a terminal is told while a step takes long.

use std::io::IsTerminal as _;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::print::tell;

/// A step that takes no longer needs no words.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often it is said that it goes on.
const EVERY: Duration = Duration::from_secs(3);

/// A step that may take long, until this is dropped.
pub struct Progress {
    /// Its end is what ends the thread that speaks.
    _step: Option<Sender<()>>,
}

impl Progress {
    /// A step begins. Whoever reads a file or a pipe is not told: scripts wait for other lines.
    pub fn of(step: String) -> Self {
        match std::io::stderr().is_terminal() {
            true => Self::telling(step, tell),
            false => Self { _step: None },
        }
    }

    fn telling(step: String, tell: impl Fn(&str) + Send + 'static) -> Self {
        let (sender, end) = channel::<()>();
        std::thread::spawn(move || {
            let began = Instant::now();
            if end.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            tell(&format!("{step} ..."));
            while end.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                tell(&format!("{step}, for {} s so far ...", began.elapsed().as_secs()));
            }
        });
        Self { _step: Some(sender) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_takes_long_is_told_until_it_ends() {
        let (told, sentences) = channel();
        let tell = move |sentence: &str| told.send(sentence.to_owned()).expect("the test listens");
        let progress = Progress::telling("looking".to_owned(), tell);
        let next = || sentences.recv_timeout(Duration::from_secs(60)).ok();
        assert_eq!(next().as_deref(), Some("looking ..."));
        assert!(next().is_some_and(|sentence| sentence.starts_with("looking, for ")));
        drop(progress);
        // The thread has ended, and with it whoever tells.
        while next().is_some() {}
        assert_eq!(sentences.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Disconnected));
    }
}
