//! The thread that empties the ring buffer.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::SessionError;
use super::recording::RecordedPipeline;
use crate::export::Delivery;
use crate::model::{Call, FunctionDescription, LossCounts, PythonNames, StreamTotals, Target};
use crate::ring::KernelRing;

/// Records handed on before orders are looked at again.
const BATCH: usize = 4096;

/// Pause when the ring is empty: at 200,000 records a second the ring of 4 MiB has room for 130 ms.
const PAUSE: Duration = Duration::from_millis(4);

/// How often sinks are told to pass on what has waited for company.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

enum Order {
    /// The sender is dropped once they are known.
    Functions(Vec<FunctionDescription>, Sender<()>),
    Process(Box<Target>),
    /// Likewise.
    PythonNames(Box<PythonNames>, Sender<()>),
    Finish(Box<(LossCounts, Vec<Call>)>),
}

/// The running thread.
pub struct Drain {
    orders: Sender<Order>,
    thread: JoinHandle<(StreamTotals, Vec<Delivery>)>,
}

impl Drain {
    /// Starts to empty the ring.
    pub fn start(ring: KernelRing, pipeline: RecordedPipeline) -> std::io::Result<Self> {
        let (orders, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("drain".into())
            .spawn(move || DrainThread { ring, pipeline }.run(&inbox))?;
        Ok(Self { orders, thread })
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

    fn order(&self, order: impl FnOnce(Sender<()>) -> Order) -> Result<(), SessionError> {
        let (known, wait) = channel();
        self.orders.send(order(known)).map_err(|_| SessionError::DrainEnded)?;
        // Nothing is ever sent: the other end is dropped when it is done.
        let _ = wait.recv();
        Ok(())
    }

    /// Empties the ring for the last time and waits for the sinks. All probes must be gone.
    pub fn finish(self, counts: LossCounts, open: Vec<Call>) -> Result<(StreamTotals, Vec<Delivery>), SessionError> {
        self.orders.send(Order::Finish(Box::new((counts, open)))).map_err(|_| SessionError::DrainEnded)?;
        self.thread.join().map_err(|_| SessionError::DrainEnded)
    }
}

struct DrainThread {
    ring: KernelRing,
    pipeline: RecordedPipeline,
}

impl DrainThread {
    fn run(mut self, inbox: &Receiver<Order>) -> (StreamTotals, Vec<Delivery>) {
        let mut flushed = Instant::now();
        loop {
            let drained = self.drain();
            // A full batch: there is more. Otherwise the next order is waited for as long as the ring can be left alone.
            let order = match drained {
                BATCH.. => inbox.try_recv().map_err(|error| error == TryRecvError::Disconnected),
                _ => inbox.recv_timeout(PAUSE).map_err(|error| error == RecvTimeoutError::Disconnected),
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
                Ok(Order::Finish(end)) => {
                    let (counts, open_calls) = *end;
                    while self.drain() > 0 {}
                    return self.pipeline.finish(counts, open_calls);
                }
                // The session was dropped on an error: what was taken is still delivered.
                Err(true) => return self.pipeline.finish(LossCounts::default(), Vec::new()),
                Err(false) => {}
            }
            if flushed.elapsed() >= FLUSH_EVERY {
                self.pipeline.flush();
                flushed = Instant::now();
            }
        }
    }

    fn drain(&mut self) -> usize {
        let Self { ring, pipeline } = self;
        ring.drain(BATCH, |record| pipeline.record(&record))
    }
}
