//! Signals of the processes that the tracer starts for itself: none ends or stops them before their time.

use std::io;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Those of a terminal, and those that are sent to everything that a service has started.
const IGNORED: [Signal; 8] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGPIPE,
];

/// A descriptor that is readable when this signal has come. Signals that would end or stop this process are ignored.
pub fn only(told: Signal) -> io::Result<SignalFd> {
    for ignored in IGNORED {
        // SAFETY: no handler is installed.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    let told = SigSet::from(told);
    told.thread_block()?;
    Ok(SignalFd::with_flags(&told, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Forgets the signals that have come.
pub fn drain(signals: &SignalFd) {
    while signals.read_signal().is_ok_and(|signal| signal.is_some()) {}
}
