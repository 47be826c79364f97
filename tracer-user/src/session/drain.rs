//! The thread that empties the ring buffer.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::SessionError;
use super::wiring::Pipeline;
use crate::export::Delivery;
use crate::model::{Call, FunctionDescription, LossCounts, PythonNames, RawRecord, RemoteAddress, StreamTotals};
use crate::ring::{KernelRing, TapeEnd, TapeError, TapeWriter};

/// Records handed on before orders are looked at again.
const BATCH: usize = 4096;

/// Pause when the ring is empty: at 200,000 records a second the ring of 4 MiB has room for 130 ms.
const PAUSE: Duration = Duration::from_millis(4);

/// How often sinks are told to pass on what has waited for company.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// A tape being recorded, and where.
pub struct Recording {
    /// The file.
    pub path: PathBuf,
    /// Writes to it.
    pub writer: TapeWriter<BufWriter<File>>,
    /// Names as the assembler learns them; they go on the tape before the record that asked for them.
    pub learned: Receiver<Learned>,
}

/// What the assembler was told when it asked for a name.
pub enum Learned {
    /// The name of a thread.
    Thread(u32, Arc<str>),
    /// The name of a Python class of a process, or that nobody knows it.
    PythonClass(u32, RemoteAddress, Option<Arc<str>>),
}

impl Recording {
    fn record(&mut self, record: &RawRecord<'_>) -> Result<(), TapeError> {
        self.names()?;
        self.writer.record(record)
    }

    fn names(&mut self) -> Result<(), TapeError> {
        for learned in self.learned.try_iter() {
            match learned {
                Learned::Thread(thread, name) => self.writer.thread(thread, &name)?,
                Learned::PythonClass(process, class, name) => {
                    self.writer.python_class(process, class, name.as_deref())?;
                }
            }
        }
        Ok(())
    }

    fn finish(mut self, end: &TapeEnd) -> Result<(), TapeError> {
        self.names()?;
        self.writer.finish(end)
    }
}

enum Order {
    /// The sender is dropped once they are known.
    Functions(Vec<FunctionDescription>, Sender<()>),
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
    pub fn start(ring: KernelRing, pipeline: Pipeline, recording: Option<Recording>) -> std::io::Result<Self> {
        let (orders, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("drain".into())
            .spawn(move || DrainThread { ring, pipeline, recording }.run(&inbox))?;
        Ok(Self { orders, thread })
    }

    /// Makes functions known. Waits until they are: their first record may be in the ring as soon as their probes are
    /// live, and the ring is emptied without a look at the orders.
    pub fn add_functions(&self, functions: Vec<FunctionDescription>) -> Result<(), SessionError> {
        self.order(|known| Order::Functions(functions, known))
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
    pipeline: Pipeline,
    recording: Option<Recording>,
}

impl DrainThread {
    fn run(mut self, inbox: &Receiver<Order>) -> (StreamTotals, Vec<Delivery>) {
        let mut flushed = Instant::now();
        loop {
            let drained = self.drain();
            match inbox.try_recv() {
                Ok(Order::Functions(functions, known)) => {
                    self.tape(|writer| writer.functions(&functions));
                    self.pipeline.add_functions(functions);
                    drop(known);
                }
                Ok(Order::PythonNames(names, known)) => {
                    self.tape(|writer| writer.python_names(&names));
                    self.pipeline.add_python_names(*names);
                    drop(known);
                }
                Ok(Order::Finish(end)) => {
                    let (counts, open_calls) = *end;
                    while self.drain() > 0 {}
                    return self.finish(counts, open_calls);
                }
                // The session was dropped on an error: what was taken is still delivered.
                Err(TryRecvError::Disconnected) => return self.finish(LossCounts::default(), Vec::new()),
                Err(TryRecvError::Empty) => {}
            }
            if flushed.elapsed() >= FLUSH_EVERY {
                self.pipeline.flush();
                flushed = Instant::now();
            }
            if drained < BATCH {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn drain(&mut self) -> usize {
        let Self { ring, pipeline, recording } = self;
        let mut problem = None;
        let count = ring.drain(BATCH, |record| {
            pipeline.record(&record);
            if let Some(recording) = recording
                && let Err(error) = recording.record(&record)
            {
                problem = Some(error);
            }
        });
        if let Some(error) = problem {
            self.stop_recording(&error);
        }
        count
    }

    fn tape(&mut self, write: impl FnOnce(&mut TapeWriter<BufWriter<File>>) -> Result<(), TapeError>) {
        if let Some(recording) = &mut self.recording
            && let Err(error) = write(&mut recording.writer)
        {
            self.stop_recording(&error);
        }
    }

    fn stop_recording(&mut self, error: &TapeError) {
        if let Some(recording) = self.recording.take() {
            tracing::error!(path = %recording.path.display(), %error, "the tape is incomplete");
        }
    }

    fn finish(mut self, counts: LossCounts, open_calls: Vec<Call>) -> (StreamTotals, Vec<Delivery>) {
        let end = TapeEnd { totals: counts.clone(), open_calls: open_calls.clone() };
        // Open calls can ask for names too: the end of the tape comes after them.
        self.pipeline.open_calls(open_calls);
        if let Some(recording) = self.recording {
            let path = recording.path.clone();
            if let Err(error) = recording.finish(&end) {
                tracing::error!(path = %path.display(), %error, "the tape is incomplete");
            }
        }
        self.pipeline.finish(Some(counts))
    }
}
