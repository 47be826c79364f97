//! Signals that end a session in order, as messages to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::session::Message;

/// The signals.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

/// Begins to listen: from now on these signals do not end the process by themselves. Each is told, and raises `stop`. A hang-up
/// that was ignored at the start (`nohup`) stays so, for the command of `run` as well.
pub fn listen(tell: Sender<Message>, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    let work = move || {
        runtime.block_on(async {
            loop {
                let number = signals.next().await;
                stop.store(true, Ordering::Relaxed);
                if tell.send(Message::Signal(number)).is_err() {
                    // The session is over, and so is the program in a moment.
                    return;
                }
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(work)?;
    Ok(())
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if is_ignored(SignalKind::hangup()) { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// The number of the next signal.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = next_of(self.hang_up.as_mut()) => SignalKind::hangup().as_raw_value(),
        }
    }
}

async fn next_of(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

fn is_ignored(kind: SignalKind) -> bool {
    let status = procfs::process::Process::myself().and_then(|process| process.status());
    status.is_ok_and(|status| status.sigign >> (kind.as_raw_value() - 1) & 1 == 1)
}
