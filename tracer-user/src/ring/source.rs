//! Where records come from.

use crate::model::RawRecord;

/// A stream of records that goes on.
pub trait RecordSource: Send {
    /// Hands on every record that is there now, at most `most`. Gives back how many there were.
    fn drain(&mut self, most: usize, receive: &mut dyn FnMut(RawRecord<'_>)) -> usize;
}
