//! A request whose head has been read: what calls are joined to.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::model::{MonotonicNs, RequestStart, ThreadId};

/// A request that has begun, in the hands of all who ask when it was over.
#[derive(Debug)]
pub struct BegunRequest {
    /// What it was known by when it began.
    pub start: RequestStart,
    /// The thread that waited for it and has read it, if one did.
    pub reader: Option<ThreadId>,
    end: AtomicU64,
}

impl BegunRequest {
    /// One that is not over.
    pub fn new(start: RequestStart, reader: Option<ThreadId>) -> Self {
        Self { start, reader, end: AtomicU64::new(u64::MAX) }
    }

    /// When it was over; the end of time as long as it is not.
    pub fn end(&self) -> MonotonicNs {
        MonotonicNs(self.end.load(Relaxed))
    }

    /// It is over.
    pub fn is_over(&self, end: MonotonicNs) {
        self.end.store(end.0, Relaxed);
    }
}
