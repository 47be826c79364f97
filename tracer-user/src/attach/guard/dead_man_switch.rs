//! A guard that stands still holds up the process that it guards, so the kernel sees to it that it does not: timers of its
//! own go off unless the guard, by living on, puts them off.

use std::io;
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

/// A guard that SIGSTOP has stopped is continued after this time.
const CONTINUED_AFTER: Duration = Duration::from_millis(100);

/// A guard that is still not alive (its control group is frozen, a debugger holds it) is killed after this time: the
/// kernel then takes its watchpoints away and lets the process go.
const KILLED_AFTER: Duration = Duration::from_millis(200);

/// How often the timers are put off.
pub const BEAT: Duration = Duration::from_millis(40);

/// The timers cost two system calls, so they are not put off more often than this.
const SHORTEST_BEAT: Duration = Duration::from_millis(10);

/// Two timers of this process, which go with it and not before: it may be stopped on its last steps too.
pub struct DeadManSwitch {
    continues: ManuallyDrop<Timer>,
    kills: ManuallyDrop<Timer>,
    beat: Instant,
}

impl DeadManSwitch {
    /// Winds it up.
    ///
    /// # Errors
    /// No timer can be made.
    pub fn wind() -> io::Result<Self> {
        let (continues, kills) = (timer(Signal::SIGCONT)?, timer(Signal::SIGKILL)?);
        let mut switch = Self { continues, kills, beat: Instant::now() };
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

    fn put_off(&mut self) -> io::Result<()> {
        set(&mut self.continues, CONTINUED_AFTER)?;
        set(&mut self.kills, KILLED_AFTER)
    }
}

/// A timer that sends this signal to this process. The kernel sends it whatever state the process is in.
fn timer(signal: Signal) -> io::Result<ManuallyDrop<Timer>> {
    let event = SigEvent::new(SigevNotify::SigevSignal { signal, si_value: 0 });
    Ok(ManuallyDrop::new(Timer::new(ClockId::CLOCK_MONOTONIC, event)?))
}

fn set(timer: &mut Timer, after: Duration) -> io::Result<()> {
    Ok(timer.set(Expiration::OneShot(after.into()), TimerSetTimeFlags::empty())?)
}
