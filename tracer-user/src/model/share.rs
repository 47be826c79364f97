//! How much probes that many calls pay for may take.

/// How much of the time probes may be live.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Share {
    /// All of it.
    Always,
    /// This share, above 0 and at most 1.
    OfTime(f64),
    /// As much as takes no more than this share of one processor, above 0.
    OfProcessor(f64),
}
