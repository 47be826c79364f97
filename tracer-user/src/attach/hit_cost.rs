//! Measures what a hit of a watchpoint costs on this machine, in a few milliseconds: before anything else is loaded.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::multi::load_nothing;
use super::own_function::{WATCHED, time, write_watched};
use super::watchpoints::watch_this_thread;

/// Hits in each round that is measured.
const HITS: u32 = 100;

/// Nanoseconds that a write takes which a watchpoint sees and a program that does nothing is told of. `None` where no
/// watchpoint can be set.
#[must_use]
pub fn measure_watchpoint_hit() -> Option<f64> {
    measured().inspect_err(|error| tracing::debug!(%error, "no hit of a watchpoint could be measured")).ok()
}

fn measured() -> io::Result<f64> {
    let program: OwnedFd = load_nothing()?;
    // Some virtual machines lose the cause of a hit, and the kernel then sends this signal, which would end us. It is not of the
    // kind that can be ignored.
    let survive = SigAction::new(SigHandler::Handler(do_nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing, which it may at any time.
    let before = unsafe { sigaction(Signal::SIGTRAP, &survive) }?;
    let hit = watch_this_thread(program.as_fd(), std::ptr::from_ref(&WATCHED[0]) as u64).map(|watchpoint| {
        let nanoseconds = time(write_watched, HITS);
        drop(watchpoint);
        nanoseconds
    });
    // SAFETY: what was in force before.
    unsafe { sigaction(Signal::SIGTRAP, &before) }?;
    hit
}

extern "C" fn do_nothing(_: libc::c_int) {}
