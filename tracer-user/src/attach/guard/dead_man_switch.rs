//! A guard that stands still holds up the process that it guards, so the kernel sees to it that it does not: timers of its
//! own go off unless the guard, by living on, puts them off.

use std::io;
use std::time::{Duration, Instant};

/// A guard that SIGSTOP has stopped is continued after this time.
const CONTINUED_AFTER: Duration = Duration::from_millis(100);

/// A guard that is still not alive (its control group is frozen, a debugger holds it) is killed after this time: the
/// kernel then takes its watchpoints away and lets the process go.
const KILLED_AFTER: Duration = Duration::from_millis(200);

/// How often the timers are put off.
pub const BEAT: Duration = Duration::from_millis(40);

/// The timers cost two system calls, so they are not put off more often than this.
const SHORTEST_BEAT: Duration = Duration::from_millis(10);

/// Two timers of this process.
pub struct DeadManSwitch {
    continues: libc::timer_t,
    kills: libc::timer_t,
    beat: Instant,
}

impl DeadManSwitch {
    /// Winds it up.
    ///
    /// # Errors
    /// No timer can be made.
    pub fn wind() -> io::Result<Self> {
        let switch = Self { continues: timer(libc::SIGCONT)?, kills: timer(libc::SIGKILL)?, beat: Instant::now() };
        switch.put_off()?;
        Ok(switch)
    }

    /// To be called at least once in [`BEAT`].
    pub fn beat(&mut self) {
        if self.beat.elapsed() >= SHORTEST_BEAT {
            self.beat = Instant::now();
            // Timers that exist can be set.
            let _ = self.put_off();
        }
    }

    fn put_off(&self) -> io::Result<()> {
        set(self.continues, CONTINUED_AFTER)?;
        set(self.kills, KILLED_AFTER)
    }
}

/// A timer that sends this signal to this process. The kernel sends it whatever state the process is in.
fn timer(signal: i32) -> io::Result<libc::timer_t> {
    // SAFETY: an all-zero `sigevent` is a value: integers and a pointer.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = signal;
    let mut timer: libc::timer_t = std::ptr::null_mut();
    // SAFETY: both structures outlive the call.
    match unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) } {
        0 => Ok(timer),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set(timer: libc::timer_t, after: Duration) -> io::Result<()> {
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let once = libc::timespec { tv_sec: after.as_secs() as i64, tv_nsec: i64::from(after.subsec_nanos()) };
    let times = libc::itimerspec { it_interval: never, it_value: once };
    // SAFETY: the timer is this process's own, and the structure outlives the call.
    match unsafe { libc::timer_settime(timer, 0, &raw const times, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
