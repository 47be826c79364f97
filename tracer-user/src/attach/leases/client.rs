//! The leases as the tracer sees them.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Orders of the tracer, most with the number of a lease: to hold one on the file behind a descriptor of the tracer, to give it
/// back; that it takes probes away for a writer, said again and again, and that they are gone.
pub(super) const HOLD: &str = "hold";
pub(super) const GIVE_BACK: &str = "give-back";
pub(super) const HEARD: &str = "heard";
pub(super) const DONE: &str = "done";
/// The last order: no probe is left.
pub(super) const END: &str = "end";

/// What the keeper says: a lease is held, is not to be had, or not while somebody writes; somebody wants to write.
pub(super) const HELD: &str = "held";
pub(super) const REFUSED: &str = "refused";
pub(super) const WRITING: &str = "writing";
pub(super) const BROKEN: &str = "broken";

/// How often the tracer says that it takes probes away: some times within what the keeper waits for.
const SAY_EVERY: Duration = Duration::from_millis(200);

/// What became of the wish for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// It is held, under this number.
    Held(u64),
    /// This file system or this user has none.
    NotToBeHad,
    /// The file is open for writing.
    BeingWritten,
}

/// What the thread that listens to the keeper is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// Somebody waits to write to the file of this lease: its probes must go now.
    Broken(u64),
    /// No lease is held any more.
    AllLost,
}

/// Who has the leases held.
pub struct LeaseClient {
    orders: Arc<Mutex<ChildStdin>>,
    answers: Receiver<Lease>,
    child: Child,
    listener: Option<JoinHandle<()>>,
    next: u64,
}

impl LeaseClient {
    /// Starts the keeper: this very program, as a process of its own, which neither stops nor ends with the tracer. `told` is
    /// called on a thread of its own, and a writer waits until it has done what it is told.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn new(told: impl Fn(LeaseEvent) + Send + 'static) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("keep-leases").current_dir("/").process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let no_pipe = || io::Error::other("it has no pipe");
        let orders = Arc::new(Mutex::new(child.stdin.take().ok_or_else(no_pipe)?));
        let output = child.stdout.take().ok_or_else(no_pipe)?;
        let (sender, answers) = channel();
        let say = Arc::clone(&orders);
        let listener = std::thread::Builder::new().name("leases".into()).spawn(move || {
            listen(output, &say, &sender, &told);
            told(LeaseEvent::AllLost);
        })?;
        Ok(Self { orders, answers, child, listener: Some(listener), next: 0 })
    }

    /// Has a lease held on an open file.
    pub fn hold(&mut self, file: &File) -> Lease {
        self.next += 1;
        let order = format!("{HOLD} {} {}", self.next, file.as_raw_fd());
        if say(&self.orders, &order).is_err() {
            return Lease::NotToBeHad;
        }
        // The answers come in the order of the wishes. None comes from a keeper that was killed.
        self.answers.recv().unwrap_or(Lease::NotToBeHad)
    }

    /// Gives a lease back.
    pub fn give_back(&self, lease: u64) {
        // A keeper that has gone holds none.
        let _ = say(&self.orders, &format!("{GIVE_BACK} {lease}"));
    }
}

impl Drop for LeaseClient {
    fn drop(&mut self) {
        // Whoever drops this has no probe left.
        let _ = say(&self.orders, END);
        let _ = self.child.wait();
        if let Some(listener) = self.listener.take() {
            // A panic there has been reported.
            let _ = listener.join();
        }
    }
}

fn say(orders: &Mutex<ChildStdin>, line: &str) -> io::Result<()> {
    let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(orders, "{line}")
}

fn listen(output: ChildStdout, orders: &Mutex<ChildStdin>, answers: &Sender<Lease>, told: &impl Fn(LeaseEvent)) {
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { return };
        let Some((word, number)) = line.split_once(' ') else { continue };
        let Ok(number) = number.parse() else { continue };
        let answer = match word {
            HELD => Lease::Held(number),
            WRITING => Lease::BeingWritten,
            BROKEN => {
                saying_so(orders, || told(LeaseEvent::Broken(number)));
                let _ = say(orders, &format!("{DONE} {number}"));
                continue;
            }
            _ => Lease::NotToBeHad,
        };
        // The client waits for it, or has gone.
        let _ = answers.send(answer);
    }
}

/// Takes probes away, and meanwhile says so, as long as nothing stops this process: the kernel may take its time, a tracer that
/// stands still may not.
fn saying_so(orders: &Mutex<ChildStdin>, take_away: impl FnOnce()) {
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        let tell = move || {
            while say(orders, HEARD).is_ok() && is_done.recv_timeout(SAY_EVERY) == Err(RecvTimeoutError::Timeout) {}
        };
        if std::thread::Builder::new().name("leases-heard".into()).spawn_scoped(scope, tell).is_err() {
            // Said once: what goes quickly goes in time.
            let _ = say(orders, HEARD);
        }
        take_away();
        drop(done);
    });
}
