//! The ring buffer that the BPF programs fill.

use aya::maps::{MapData, RingBuf};

use super::source::RecordSource;
use crate::model::RawRecord;

/// The reading end of the ring buffer. The programs never wake the reader: it polls, because a wake-up would cost the
/// target more than the record itself.
pub struct KernelRing {
    buffer: RingBuf<MapData>,
}

impl KernelRing {
    /// Reads from this buffer.
    #[must_use]
    pub fn new(buffer: RingBuf<MapData>) -> Self {
        Self { buffer }
    }
}

impl RecordSource for KernelRing {
    fn drain(&mut self, most: usize, receive: &mut dyn FnMut(RawRecord<'_>)) -> usize {
        let mut count = 0;
        while count < most {
            let Some(item) = self.buffer.next() else { break };
            receive(RawRecord(&item));
            count += 1;
        }
        count
    }
}
