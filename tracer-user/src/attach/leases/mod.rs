//! A probed file goes in; a writer of that file waits until its probes are gone.
//!
//! The kernel keeps a copy of the instruction under a probe and runs that copy, also in a file that was overwritten since and is
//! mapped again: the new code would be mixed with the old. So the tracer has a lease on each probed file (fcntl(2),
//! `F_SETLEASE`): who opens it for writing is made to wait, and the holder is told. The holder must answer quickly
//! whatever becomes of the tracer, so it is a process of its own.

mod client;
mod keeper;

pub use client::{Lease, LeaseClient, LeaseEvent};
pub use keeper::keep_leases;
