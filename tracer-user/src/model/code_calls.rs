//! How often a code object was called, as the programs count it.

/// The calls of a code object since it was last watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeCalls {
    /// Calls that were seen to begin.
    pub seen: u64,
    /// Those of them that made no span of their own: folded into a call around them, or of an excluded class.
    pub folded: u64,
    /// Its reference count when it was last seen: a call that runs holds one. 0 where it is not looked at.
    pub references: u64,
}

impl CodeCalls {
    /// Calls that made a span, or may make one.
    #[must_use]
    pub fn spans(self) -> u64 {
        self.seen.saturating_sub(self.folded)
    }
}

/// So many calls, all of which have made a span.
impl From<u64> for CodeCalls {
    fn from(seen: u64) -> Self {
        Self { seen, ..Self::default() }
    }
}
