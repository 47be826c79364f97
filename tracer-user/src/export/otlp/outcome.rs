//! What becomes of the spans: told by those that send them, asked for by the sink.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What became of the spans so far.
#[derive(Debug, Default)]
pub struct Outcome {
    delivered: AtomicU64,
    problem: Mutex<Option<String>>,
    answer: Mutex<Answer>,
}

/// What the collector has said to the newest request, as far as the library keeps it to itself.
#[derive(Debug, Default)]
pub struct Answer {
    /// Spans that it has not taken.
    pub refused: u64,
    /// Why not.
    pub problem: Option<String>,
}

impl Answer {
    /// It has taken nothing.
    pub fn nothing(problem: String) -> Self {
        Self { refused: u64::MAX, problem: Some(problem) }
    }

    /// It has not taken so many of the spans; 0 is what it says of a request that it has taken whole.
    pub fn partial(refused: i64, reason: &str) -> Self {
        match refused {
            1.. => {
                let reason = if reason.is_empty() { "no reason given" } else { reason };
                Self { refused: refused.unsigned_abs(), problem: Some(format!("it refused spans: {reason}")) }
            }
            _ => Self::default(),
        }
    }
}

impl Outcome {
    /// Spans that the collector has taken.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Acquire)
    }

    /// It has taken this many more.
    pub fn add_delivered(&self, spans: u64) {
        self.delivered.fetch_add(spans, Ordering::Release);
    }

    /// Why it has not taken some.
    pub fn note_problem(&self, problem: String) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
    }

    /// It has answered a request.
    pub fn note_answer(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// What it has said since the last time.
    pub fn take_answer(&self) -> Answer {
        std::mem::take(&mut self.answer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest reason why it has not taken some. A batch that is still being retried has not failed yet, but may have told
    /// why it will.
    pub fn take_problem(&self) -> Option<String> {
        let noted = self.problem.lock().unwrap_or_else(PoisonError::into_inner).take();
        noted.or_else(|| self.take_answer().problem)
    }
}
