//! Waits for whatever ends a session, and looks at the targets in between.

use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::attach::runtime;
use super::exit::tell;
use crate::session::{Followed, SessionError, Tracer};

/// Signals that end a session in order.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

/// What ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A signal with this number.
    Signal(i32),
    /// The time is over.
    Duration,
    /// Every target is gone.
    TargetsGone,
    /// The command that was started has ended.
    ChildEnded(ExitStatus),
}

impl Signals {
    /// Begins to listen; from now on these signals do not end the process by themselves. A hang-up that was ignored at
    /// the start (`nohup`) stays so, for the command of `run` as well.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if is_ignored(SignalKind::hangup()) { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// The number of the next signal.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = next_of(self.hang_up.as_mut()) => SignalKind::hangup().as_raw_value(),
        }
    }
}

/// Does something that takes long, on this thread, and raises `stop` when a signal comes meanwhile. Who listened before hears
/// of the signal afterwards.
pub fn heeding_signals<T>(stop: &AtomicBool, work: impl FnOnce() -> T) -> anyhow::Result<T> {
    let (done, is_done) = oneshot::channel::<()>();
    let listen = || -> anyhow::Result<()> {
        runtime()?.block_on(async {
            let mut signals = Signals::listen()?;
            tokio::select! {
                _ = signals.next() => stop.store(true, Ordering::Relaxed),
                _ = is_done => {}
            }
            Ok(())
        })
    };
    std::thread::scope(|scope| {
        let listening = scope.spawn(listen);
        let result = work();
        drop(done);
        listening
            .join()
            .map_err(|_| anyhow::anyhow!("the thread that listens for signals has ended before its time"))??;
        Ok(result)
    })
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

/// Waits; `began` is when the session began, and `duration` how long it may last. `pause` tells from the age of the
/// session how long to wait before the targets are looked at again.
pub async fn supervise(
    tracer: &mut Tracer,
    signals: &mut Signals,
    began: Instant,
    duration: Option<Duration>,
    pause: impl Fn(Duration) -> Duration,
    mut child: Option<&mut oneshot::Receiver<ExitStatus>>,
) -> Result<Stop, SessionError> {
    let mut over = std::pin::pin!(async move {
        match duration {
            Some(duration) => tokio::time::sleep(duration.saturating_sub(began.elapsed())).await,
            None => std::future::pending().await,
        }
    });
    loop {
        let child_ended = async {
            match &mut child {
                Some(child) => match child.await {
                    Ok(status) => status,
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            number = signals.next() => return Ok(Stop::Signal(number)),
            () = &mut over => return Ok(Stop::Duration),
            status = child_ended => return Ok(Stop::ChildEnded(status)),
            () = tokio::time::sleep(pause(began.elapsed())) => {}
        }
        let alive = tracer.look_again()?;
        let news = tracer.news();
        for Followed { process, forked_by, name, functions } in news.followed {
            tell(&format!("following process {process} ({name}), forked by {forked_by}: {functions} functions"));
        }
        if news.more_functions > 0 {
            tell(&format!("{} more functions, in newly mapped files", news.more_functions));
        }
        if !alive && child.is_none() {
            return Ok(Stop::TargetsGone);
        }
    }
}
