//! What becomes of the spans: told by those that send them, asked for by the sink.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What became of the spans so far.
#[derive(Debug, Default)]
pub struct Outcome {
    delivered: AtomicU64,
    problem: Mutex<Option<String>>,
    /// Whether it has taken everything lately, and what is to be told if not.
    outage: Mutex<Outage>,
    answer: Mutex<Answer>,
}

/// Whether the collector takes spans.
#[derive(Debug, Default)]
enum Outage {
    /// It does, as far as is known.
    #[default]
    None,
    /// It has stopped to, and nobody has been told.
    New(String),
    /// Likewise, and that was told.
    Told,
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
        if spans > 0 {
            *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = Outage::None;
        }
    }

    /// Why it has not taken some.
    pub fn note_problem(&self, problem: String) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*outage, Outage::None) {
            *outage = Outage::New(problem.clone());
        }
        drop(outage);
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
    }

    /// Why it has stopped to take spans, once.
    pub fn take_outage(&self) -> Option<String> {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *outage, Outage::Told) {
            Outage::New(problem) => Some(problem),
            Outage::None => {
                *outage = Outage::None;
                None
            }
            Outage::Told => None,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_and_again_after_spans_were_taken() {
        let outcome = Outcome::default();
        assert_eq!(outcome.take_outage(), None);
        for _ in 0..2 {
            outcome.note_problem("refused".to_owned());
            outcome.note_problem("still refused".to_owned());
            assert_eq!(outcome.take_outage().as_deref(), Some("refused"));
            outcome.note_problem("refused".to_owned());
            assert_eq!(outcome.take_outage(), None);
            outcome.add_delivered(3);
        }
    }
}
