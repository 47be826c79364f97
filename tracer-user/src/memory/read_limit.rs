//! How long remote memory may be read, and until when: whoever reads a process that is hostile, or just slow, comes to an end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::reader::{Memory, MemoryError};
use crate::model::RemoteAddress;

/// Readings of a few bytes, mostly from a cache, between two looks at the clock.
const READS_BETWEEN: u32 = 128;

/// A reading of so many bytes takes long enough to look at the clock each time.
const LONG_READ: usize = 4096;

/// Real time that may pass while the allowed processor time is used: a machine may be busy with other things, and a process
/// may let its reader wait.
const PATIENCE: u32 = 3;

/// A limit on the readings of one thread. Its copies are one limit: any of them ends all readings from any thread.
#[derive(Clone, Debug, Default)]
pub struct ReadLimit(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_cancelled: AtomicBool,
    /// Whether the allowed time is over.
    is_over: AtomicBool,
    reads: AtomicU32,
    /// The allowed time, as the processor time of the reading thread, nanoseconds; 0: no limit.
    until: AtomicU64,
    /// The same in real time.
    until_at_last: AtomicU64,
}

impl ReadLimit {
    /// Ends all readings for good.
    pub fn cancel(&self) {
        self.0.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether they were ended.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled.load(Ordering::Relaxed)
    }

    /// From now on, this thread may read for so long: processor time, or three times as much real time.
    pub fn allow(&self, time: Duration) {
        let after = |now: u64, time: Duration| now.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.0.until.store(after(now(ClockId::ThreadCPUTime), time), Ordering::Relaxed);
        self.0.until_at_last.store(after(now(ClockId::Monotonic), time * PATIENCE), Ordering::Relaxed);
        self.0.is_over.store(false, Ordering::Relaxed);
    }

    /// Whether the allowed time was not enough. What reads at length without reading anew asks this now and then.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Relaxed) || self.is_cancelled()
    }

    fn check(&self, bytes: usize) -> Result<(), MemoryError> {
        if self.is_over() {
            return Err(MemoryError::OutOfTime);
        }
        // One thread reads at a time: nothing is lost between the two.
        let reads = self.0.reads.load(Ordering::Relaxed).wrapping_add(1);
        self.0.reads.store(reads, Ordering::Relaxed);
        if bytes < LONG_READ && !reads.is_multiple_of(READS_BETWEEN) {
            return Ok(());
        }
        let until = self.0.until.load(Ordering::Relaxed);
        let is_over = until > 0
            && (now(ClockId::ThreadCPUTime) > until
                || now(ClockId::Monotonic) > self.0.until_at_last.load(Ordering::Relaxed));
        if is_over {
            self.0.is_over.store(true, Ordering::Relaxed);
            return Err(MemoryError::OutOfTime);
        }
        Ok(())
    }
}

fn now(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.unsigned_abs().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.unsigned_abs())
}

/// Memory that is read within a limit.
#[derive(Debug)]
pub struct LimitedMemory<M> {
    memory: M,
    limit: ReadLimit,
}

impl<M: Memory> LimitedMemory<M> {
    /// This memory within this limit.
    pub fn new(memory: M, limit: ReadLimit) -> Self {
        Self { memory, limit }
    }
}

impl<M: Memory> Memory for LimitedMemory<M> {
    fn read(&self, address: RemoteAddress, buffer: &mut [u8]) -> Result<(), MemoryError> {
        self.limit.check(buffer.len())?;
        self.memory.read(address, buffer)
    }

    fn refresh(&self) {
        self.memory.refresh();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    struct Zeros;

    impl Memory for Zeros {
        fn read(&self, _: RemoteAddress, buffer: &mut [u8]) -> Result<(), MemoryError> {
            buffer.fill(0);
            Ok(())
        }
    }

    #[test]
    fn reading_ends_when_its_time_is_over_and_goes_on_when_there_is_more() {
        let limit = ReadLimit::default();
        let memory = LimitedMemory::new(Zeros, limit.clone());
        let read = || memory.read(RemoteAddress(4096), &mut [0; 8]);
        (0..100_000).for_each(|_| read().expect("there is no limit yet"));
        limit.allow(Duration::from_millis(20));
        let began = Instant::now();
        while read().is_ok() {
            assert!(began.elapsed() < Duration::from_secs(20), "it reads for ever");
        }
        assert!(limit.is_over() && read() == Err(MemoryError::OutOfTime));
        limit.allow(Duration::from_secs(60));
        assert_eq!(read(), Ok(()));
    }

    #[test]
    fn reading_is_ended_from_elsewhere() {
        let limit = ReadLimit::default();
        let memory = LimitedMemory::new(Zeros, limit.clone());
        let reader = std::thread::spawn(move || while memory.read(RemoteAddress(4096), &mut [0; 8]).is_ok() {});
        limit.cancel();
        reader.join().expect("it has come to its end");
        limit.allow(Duration::from_secs(60));
        assert!(limit.is_over(), "no time is allowed to what was ended");
    }
}
