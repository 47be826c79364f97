//! What every sink does.

use std::sync::Arc;

use super::resource::Resource;
use crate::model::{Loss, LossCounts, Span, StreamTotals};

/// A place where spans go. No method but `finish` keeps the caller waiting for longer than a tenth of a second, however
/// slow the place is: what it cannot take is counted instead. Errors are kept and told once, by `finish`.
pub trait Sink: Send {
    /// Kind of the sink, as destinations name it.
    fn name(&self) -> &'static str;

    /// Describes a process, before its first span. A process that was not described is shown by its number alone.
    fn process(&mut self, resource: &Arc<Resource>);

    /// Whether it takes spans of traces that whoever began them does not record: it is read by people, here.
    fn is_for_people(&self) -> bool {
        false
    }

    /// Takes a span. Of one thread, children come before their parents.
    fn span(&mut self, span: &Span);

    /// Takes note of records that never arrived.
    fn loss(&mut self, loss: &Loss);

    /// Passes on what has waited for company; called every 100 ms or so.
    fn flush(&mut self);

    /// Whether nothing can reach the place any more, because its reader has gone.
    fn is_gone(&self) -> bool {
        false
    }

    /// Delivers what is left, waiting a bounded time, and tells how it all went.
    fn finish(self: Box<Self>, summary: &Summary) -> Delivery;
}

/// What a sink made of the spans it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Kind of the sink.
    pub sink: &'static str,
    /// Spans that reached their place.
    pub delivered: u64,
    /// Spans that did not.
    pub lost: u64,
    /// One sentence: what went wrong, and what to do.
    pub problem: Option<String>,
}

/// The whole run, for the last words of a sink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// What the assembler has seen.
    pub totals: StreamTotals,
    /// What the kernel side has counted; `None` for a tape.
    pub counts: Option<LossCounts>,
}
