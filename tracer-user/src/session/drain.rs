//! The thread that empties the ring buffer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::clock::{ClockWatch, clock_anchor, monotonic_now};
use super::error::SessionError;
use super::process_news::ProcessNews;
use super::recording::RecordedPipeline;
use crate::export::Delivery;
use crate::model::{
    FunctionDescription, Gap, LossCounts, MonotonicNs, OpenCall, PythonNames, StreamTotals, Target, UnwatchedMethods,
};
use crate::ring::RecordSource;

/// Records handed on before orders are looked at again.
const BATCH: usize = 4096;

/// Pause when the ring is empty: at 200,000 records a second the ring of 4 MiB has room for 130 ms.
const PAUSE: Duration = Duration::from_millis(4);

/// How often sinks are told to pass on what has waited for company.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// How often the clocks are compared.
const COMPARE_CLOCKS_EVERY: Duration = Duration::from_secs(1);

enum Order {
    /// The sender is dropped once they are known.
    Functions(Vec<FunctionDescription>, Sender<()>),
    Process(Box<Target>),
    /// Likewise.
    PythonNames(Box<PythonNames>, Sender<()>),
    /// Likewise.
    Unwatched(Box<UnwatchedMethods>, Sender<()>),
    /// The edge of a gap: its process, and its beginning if this is its end. The sender is dropped when no record is taken
    /// any more, and none is until the time has come.
    Gap(Option<u32>, Option<MonotonicNs>, Sender<()>, Receiver<MonotonicNs>),
    Finish(Box<(LossCounts, Vec<OpenCall>)>),
}

/// A gap that has begun: see [`Gap`].
#[derive(Clone, Copy, Debug)]
pub struct OpenGap {
    process: Option<u32>,
    from: MonotonicNs,
}

impl OpenGap {
    /// When it began.
    pub fn from(&self) -> MonotonicNs {
        self.from
    }
}

/// The running thread.
pub struct Drain {
    orders: Sender<Order>,
    nobody_reads: Arc<AtomicBool>,
    thread: JoinHandle<(StreamTotals, Vec<Delivery>)>,
}

impl Drain {
    /// Starts to empty the ring. What has happened to processes is told as `news`.
    pub fn start(ring: Box<dyn RecordSource>, pipeline: RecordedPipeline, news: ProcessNews) -> std::io::Result<Self> {
        let (orders, inbox) = channel();
        let nobody_reads = Arc::new(AtomicBool::new(false));
        let tell_nobody_reads = Arc::clone(&nobody_reads);
        let clocks = ClockWatch::new(clock_anchor());
        let thread = std::thread::Builder::new()
            .name("drain".into())
            .spawn(move || DrainThread { ring, pipeline, news, tell_nobody_reads, clocks }.run(&inbox))?;
        Ok(Self { orders, nobody_reads, thread })
    }

    /// Whether no span can reach any destination any more.
    pub fn nobody_reads(&self) -> bool {
        self.nobody_reads.load(Ordering::Acquire)
    }

    /// Makes functions known. Waits until they are: their first record may be in the ring as soon as their probes are
    /// live, and the ring is emptied without a look at the orders.
    pub fn add_functions(&self, functions: Vec<FunctionDescription>) -> Result<(), SessionError> {
        self.order(|known| Order::Functions(functions, known))
    }

    /// Describes a process. Orders are kept in their order: functions or names must be made known after it, and whoever does
    /// that waits.
    pub fn add_process(&self, target: Target) -> Result<(), SessionError> {
        self.orders.send(Order::Process(Box::new(target))).map_err(|_| SessionError::DrainEnded)
    }

    /// Makes Python classes and steps known, and waits until they are, for the same reason.
    pub fn add_python_names(&self, names: PythonNames) -> Result<(), SessionError> {
        self.order(|known| Order::PythonNames(Box::new(names), known))
    }

    /// Tells which methods of steps are not watched, and waits until that is known.
    pub fn add_unwatched(&self, unwatched: UnwatchedMethods) -> Result<(), SessionError> {
        self.order(|known| Order::Unwatched(Box::new(unwatched), known))
    }

    /// From now on not every call of a process (`None`: of any) is seen to begin: probes are about to come, to go, or to
    /// change places. Calls that end from now on, and have not begun later than the gap ends, say so.
    pub fn begin_gap(&self, process: Option<u32>) -> Result<OpenGap, SessionError> {
        let from = self.edge(process, None)?;
        Ok(OpenGap { process, from })
    }

    /// Every call is seen to begin again.
    pub fn end_gap(&self, gap: OpenGap) -> Result<(), SessionError> {
        self.edge(gap.process, Some(gap.from)).map(drop)
    }

    /// The time is read while no record is taken from the ring: all that were taken before had ended by then.
    fn edge(&self, process: Option<u32>, from: Option<MonotonicNs>) -> Result<MonotonicNs, SessionError> {
        let (send_time, time) = channel();
        self.order(|ready| Order::Gap(process, from, ready, time))?;
        let now = monotonic_now();
        send_time.send(now).map_err(|_| SessionError::DrainEnded)?;
        Ok(now)
    }

    fn order(&self, order: impl FnOnce(Sender<()>) -> Order) -> Result<(), SessionError> {
        let (known, wait) = channel();
        self.orders.send(order(known)).map_err(|_| SessionError::DrainEnded)?;
        // Nothing is ever sent: the other end is dropped when it is done.
        let _ = wait.recv();
        Ok(())
    }

    /// Empties the ring for the last time and waits for the sinks. All probes must be gone.
    pub fn finish(
        self,
        counts: LossCounts,
        open: Vec<OpenCall>,
    ) -> Result<(StreamTotals, Vec<Delivery>), SessionError> {
        self.orders.send(Order::Finish(Box::new((counts, open)))).map_err(|_| SessionError::DrainEnded)?;
        self.thread.join().map_err(|_| SessionError::DrainEnded)
    }
}

struct DrainThread {
    ring: Box<dyn RecordSource>,
    pipeline: RecordedPipeline,
    news: ProcessNews,
    tell_nobody_reads: Arc<AtomicBool>,
    clocks: ClockWatch,
}

impl DrainThread {
    fn run(mut self, inbox: &Receiver<Order>) -> (StreamTotals, Vec<Delivery>) {
        let mut flushed = Instant::now();
        let mut compared = flushed;
        loop {
            let drained = self.drain();
            let order = if drained < BATCH {
                inbox.recv_timeout(PAUSE)
            } else {
                inbox.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            };
            match order {
                Ok(Order::Functions(functions, known)) => {
                    self.pipeline.add_functions(functions);
                    drop(known);
                }
                Ok(Order::Process(target)) => {
                    self.pipeline.add_process(&target);
                    // What is known of it comes right behind.
                    continue;
                }
                Ok(Order::PythonNames(names, known)) => {
                    self.pipeline.add_python_names(*names);
                    drop(known);
                }
                Ok(Order::Unwatched(unwatched, known)) => {
                    self.pipeline.add_unwatched(*unwatched);
                    drop(known);
                }
                Ok(Order::Gap(process, from, ready, time)) => {
                    drop(ready);
                    if let Ok(now) = time.recv() {
                        self.pipeline.add_gap(Gap { process, from: from.unwrap_or(now), to: from.map(|_| now) });
                    }
                }
                Ok(Order::Finish(end)) => {
                    let (counts, open_calls) = *end;
                    while self.drain() > 0 {}
                    return self.pipeline.finish(counts, open_calls);
                }
                // The session was dropped on an error: what was taken is still delivered.
                Err(RecvTimeoutError::Disconnected) => return self.pipeline.finish(LossCounts::default(), Vec::new()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if flushed.elapsed() >= FLUSH_EVERY {
                self.pipeline.flush();
                self.tell_nobody_reads.store(self.pipeline.nobody_reads(), Ordering::Release);
                flushed = Instant::now();
            }
            if compared.elapsed() >= COMPARE_CLOCKS_EVERY {
                if let Some(anchor) = self.clocks.look(clock_anchor()) {
                    self.pipeline.add_anchor(anchor);
                }
                compared = Instant::now();
            }
        }
    }

    fn drain(&mut self) -> usize {
        let Self { ring, pipeline, news, .. } = self;
        let mut events = Vec::new();
        let drained = ring.drain(BATCH, &mut |record| events.extend(pipeline.record(&record)));
        if !events.is_empty() {
            news.tell(events);
        }
        drained
    }
}
