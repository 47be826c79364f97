//! A guard as the tracer sees it: started before the first watchpoint of a process, stopped after the last one.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

use super::super::watchpoints::Obstacle;
use super::protocol::{Answer, Order};

/// Its name in the list of processes.
const NAME: &str = "ml-tracer-guard";

/// A guard answers in far less, or its own timers have killed it; one that does neither is frozen, and would keep the
/// tracer from ending.
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE_AT_END: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A guard of one process. Dropping it stops it, as [`Guard::stop`] does.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    line: Option<OwnedFd>,
    is_confined: bool,
}

impl Guard {
    /// Starts a guard: this very program, as a process of its own. It must not stop or end with the tracer, because the
    /// signals of the guarded process go through its hands. The watchpoints are its own, so that the kernel takes them
    /// away before it lets the process go, however the guard ends; `program` is run at their hits.
    ///
    /// # Errors
    /// Why the process cannot be guarded: somebody else traces it, or it has ended.
    pub fn start(process: u32, program: BorrowedFd<'_>) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(NAME).args(["guard", "--pid", &process.to_string()]).env_clear().current_dir("/");
        // It has two descriptors and nothing else of ours. It says nothing on a terminal.
        command.stdin(theirs).stdout(program.try_clone_to_owned()?).stderr(Stdio::null());
        let child = command.spawn()?;
        // Its end of the line must be its alone: that it is closed tells that the guard has gone.
        drop(command);
        let mut guard = Self { child, line: Some(ours), is_confined: false };
        match guard.answer(PATIENCE) {
            Some(Answer::Ready { is_confined }) => {
                guard.is_confined = is_confined;
                Ok(guard)
            }
            Some(Answer::Refused(reason)) => Err(io::Error::other(reason)),
            _ => Err(io::Error::other("its guard has ended before it began")),
        }
    }

    /// Number of the guard's own process.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is paused with the tracer's control group, which it could not leave.
    #[must_use]
    pub fn is_confined(&self) -> bool {
        self.is_confined
    }

    /// Has it set a watchpoint.
    ///
    /// # Errors
    /// As [`super::super::watchpoints::Watchpoint::set`]; a guard that has gone is another error.
    pub fn watch(&mut self, address: u64) -> Result<(), Obstacle> {
        match self.ask(Order::Watch(address), PATIENCE) {
            Some(Answer::Done) => Ok(()),
            Some(Answer::NoSlot) => Err(Obstacle::NoSlot),
            Some(Answer::NoDescriptors { needed, limit }) => Err(Obstacle::NoDescriptors { needed, limit }),
            Some(Answer::Failed(errno)) => Err(Obstacle::Other(io::Error::from_raw_os_error(errno))),
            // Its process has ended, or it has been killed: that is seen at the next look.
            _ => Err(Obstacle::Gone),
        }
    }

    /// Has it take a watchpoint away. One that has gone has none.
    pub fn unwatch(&mut self, address: u64) {
        let _ = self.ask(Order::Unwatch(address), PATIENCE);
    }

    /// Whether it is still there. It ends with the process, or somebody has killed it.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Has it take all watchpoints away and end; gives the number of signals that it has kept from the process.
    pub fn stop(&mut self) -> u64 {
        if self.line.is_none() {
            return 0;
        }
        // It may have ended already, with its process.
        let answer = self.ask(Order::Release, PATIENCE);
        self.line = None;
        if !self.ends_within(PATIENCE_AT_END) {
            let _ = self.child.kill();
            // A frozen one ends when it is thawed; nobody waits for that.
            self.ends_within(PATIENCE_AT_END);
        }
        match answer {
            Some(Answer::Kept(kept)) => kept,
            _ => 0,
        }
    }

    fn ends_within(&mut self, time: Duration) -> bool {
        let began = Instant::now();
        while self.is_running() {
            if began.elapsed() > time {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }

    fn ask(&mut self, order: Order, patience: Duration) -> Option<Answer> {
        send(self.line.as_ref()?, order.to_string().as_bytes(), SendFlags::NOSIGNAL).ok()?;
        self.answer(patience)
    }

    /// `None` once it has gone, or if it says nothing that is understood.
    fn answer(&mut self, patience: Duration) -> Option<Answer> {
        let line = self.line.as_ref()?;
        let end = Instant::now() + patience;
        loop {
            let left = end.checked_duration_since(Instant::now())?;
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(line, PollFlags::IN)], Some(&left)) {
                Ok(1..) => break,
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        let mut buffer = [0; 512];
        let length = rustix::io::read(line, &mut buffer).ok()?;
        std::str::from_utf8(buffer.get(..length)?).ok()?.parse().ok()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop();
    }
}
