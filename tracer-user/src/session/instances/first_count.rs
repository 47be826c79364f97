//! What may be found out of the calls in a process before any of them is seen.

/// How an instance begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstCount {
    /// Calls are counted for a moment first.
    Now,
    /// They are not: enough others are, of a server that has many workers. This one was there before the tracer, like those.
    InOthers,
    /// They are not: its program may be importing its libraries, or the calls of others go on meanwhile.
    Never,
}
