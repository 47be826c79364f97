//! The end of a session: all probes go, in order, and the books are read.

use std::time::Duration;

use super::drain::Drain;
use super::error::SessionError;
use super::left_calls::LeftCalls;
use super::processes::Processes;
use super::report::Report;
use crate::attach::Kernel;
use crate::target::stack_pointer;

/// Calls that are under way when the entry probes go get this long to end before the exit probes go too.
const SETTLE: Duration = Duration::from_millis(2);

/// Takes all probes away, reads the books, and delivers everything.
///
/// # Errors
/// The books cannot be read.
pub fn take_away(kernel: &mut dyn Kernel, processes: &mut Processes, drain: Drain) -> Result<Report, SessionError> {
    // What is open now and returns while the probes go lacks the calls that begin meanwhile.
    drain.begin_gap(None)?;
    for (process, error) in processes.accept_entries(false) {
        tracing::debug!(%process, %error, "its calls are recorded until its probes are gone");
    }
    std::thread::sleep(SETTLE);
    let (_, open_calls) = kernel.totals()?;
    let left = LeftCalls::look(&open_calls, |process, thread| stack_pointer(process, thread.0));
    kernel.remove_entries();
    processes.remove_from_runtimes();
    kernel.remove_exits();
    kernel.forward_log();
    let (mut counts, mut open_calls) = kernel.totals()?;
    left.settle(&mut open_calls, &mut counts);
    let (seen, deliveries) = drain.finish(counts.clone(), open_calls)?;
    Ok(Report { kept_signals: kernel.kept_signals(), ..Report::new(&counts, seen, deliveries) })
}
