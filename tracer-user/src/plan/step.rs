//! A step of the policy of one process: what is told to it, and what comes out.

use std::time::Instant;

use super::call_profile::CallProfile;
use crate::model::RemoteAddress;

/// What a step gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Code to see from now on, in place of what was seen until now; `None`: nothing changes.
    pub watch: Option<Vec<RemoteAddress>>,
    /// When the process is to be looked at again.
    pub next_look: Instant,
    /// When the calls of what is watched are to be counted again; `None`: not before the next look.
    pub next_count: Option<Instant>,
}

/// What the other processes of the session tell.
#[derive(Clone, Copy, Debug)]
pub struct Others<'session> {
    /// The calls in all of them.
    pub profile: &'session CallProfile,
    /// Processes that share the time for looks.
    pub sharers: u32,
}
