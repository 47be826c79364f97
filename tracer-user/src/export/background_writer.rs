//! Bytes go in; a thread of their own writes them, so that a slow disk or a sleeping reader does not keep the caller
//! waiting.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::error::ExportError;

/// Chunks under way at one time. With [`CHUNK_BYTES`] this bounds the memory: 8 MiB.
const MAX_CHUNKS: usize = 32;
/// Size at which a chunk should be passed on, bytes.
pub const CHUNK_BYTES: usize = 256 << 10;
/// How long the caller waits for a writer that has begun to lag, before chunks are dropped.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the end waits while nothing moves.
const PATIENCE_AT_END: Duration = Duration::from_secs(3);

/// Some bytes, and how many spans they hold.
#[derive(Debug, Default)]
pub struct Chunk {
    /// What to write.
    pub bytes: Vec<u8>,
    /// Spans in it.
    pub spans: u64,
}

/// Hands chunks to a writing thread and counts what becomes of them.
#[derive(Debug)]
pub struct BackgroundWriter {
    filled: SyncSender<Chunk>,
    emptied: Receiver<Vec<u8>>,
    thread: JoinHandle<()>,
    progress: Arc<Progress>,
    chunks: usize,
    /// The writer has been waited for in vain and has not caught up since.
    stalled: bool,
    accepted: u64,
    dropped: u64,
}

#[derive(Debug, Default)]
struct Progress {
    written_spans: AtomicU64,
    error: Mutex<Option<std::io::Error>>,
}

/// What became of the spans.
#[derive(Debug)]
pub struct WriteReport {
    /// Spans whose bytes were written.
    pub written: u64,
    /// Spans whose bytes were not.
    pub lost: u64,
    /// The error that ended the writing.
    pub error: Option<std::io::Error>,
    /// Whether chunks were dropped because the writer was too slow.
    pub too_slow: bool,
}

impl BackgroundWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`ExportError::CannotStartThread`].
    pub fn start(sink: &'static str, writer: impl Write + Send + 'static) -> Result<Self, ExportError> {
        let (filled, to_write) = sync_channel(MAX_CHUNKS);
        let (give_back, emptied) = sync_channel(MAX_CHUNKS);
        let progress = Arc::new(Progress::default());
        let shared = Arc::clone(&progress);
        let thread = std::thread::Builder::new()
            .name(format!("export-{sink}"))
            .spawn(move || write_all(writer, &to_write, &give_back, &shared))
            .map_err(|source| ExportError::CannotStartThread { sink, source })?;
        Ok(Self { filled, emptied, thread, progress, chunks: 1, stalled: false, accepted: 0, dropped: 0 })
    }

    /// Takes the bytes of a chunk, leaving an empty one behind. Waits at most [`PATIENCE`], and only once until the
    /// writer has caught up; then the chunk is dropped and counted.
    pub fn pass_on(&mut self, chunk: &mut Chunk) {
        if chunk.bytes.is_empty() {
            return;
        }
        self.accepted += chunk.spans;
        match self.empty_buffer() {
            Some(buffer) => {
                let full = Chunk { bytes: std::mem::replace(&mut chunk.bytes, buffer), spans: chunk.spans };
                // As many chunks exist as fit the channel: it cannot be full. A writer that has given up is no reader.
                let _ = self.filled.try_send(full);
            }
            None => {
                self.dropped += chunk.spans;
                chunk.bytes.clear();
            }
        }
        chunk.spans = 0;
    }

    fn empty_buffer(&mut self) -> Option<Vec<u8>> {
        let lag = match self.emptied.try_recv() {
            Ok(buffer) => {
                self.stalled = false;
                return Some(buffer);
            }
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => self.chunks,
        };
        if lag < MAX_CHUNKS {
            self.chunks += 1;
            return Some(Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8));
        }
        if self.stalled {
            return None;
        }
        let waited = self.emptied.recv_timeout(PATIENCE).ok();
        self.stalled = waited.is_none();
        waited
    }

    /// Waits for the thread as long as it makes progress.
    pub fn finish(self) -> WriteReport {
        let Self { filled, emptied, thread, progress, accepted, dropped, .. } = self;
        drop(filled);
        loop {
            match emptied.recv_timeout(PATIENCE_AT_END) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = thread.join();
                    break;
                }
                Err(RecvTimeoutError::Timeout) => break, // stuck in a system call: left to the end of the process
            }
        }
        let written = progress.written_spans.load(Ordering::Acquire);
        let error = progress.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        let lost = accepted.saturating_sub(written);
        let too_slow = dropped > 0 || (lost > 0 && error.is_none());
        WriteReport { written, lost, error, too_slow }
    }
}

impl WriteReport {
    /// One sentence about what went wrong with `place`.
    pub fn problem(&self, place: &str) -> Option<String> {
        match &self.error {
            Some(error) if error.kind() == ErrorKind::BrokenPipe => Some(format!("{place} was closed by its reader")),
            Some(error) => Some(format!("writing {place} failed: {error}; free space or choose another file")),
            None if self.too_slow => Some(format!("{place} could not be written fast enough; choose a faster place")),
            None => None,
        }
    }
}

fn write_all(mut writer: impl Write, to_write: &Receiver<Chunk>, give_back: &SyncSender<Vec<u8>>, progress: &Progress) {
    for mut chunk in to_write {
        if let Err(error) = writer.write_all(&chunk.bytes).and_then(|()| writer.flush()) {
            // A part of the chunk may be written: anything after it would be garbage.
            *progress.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            return;
        }
        progress.written_spans.fetch_add(chunk.spans, Ordering::Release);
        chunk.bytes.clear();
        let _ = give_back.try_send(chunk.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn chunk() -> Chunk {
        Chunk { bytes: vec![b'x'; 1000], spans: 10 }
    }

    #[test]
    fn everything_is_written_in_order() {
        let written = Arc::new(Mutex::new(Vec::new()));
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().expect("not poisoned").extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut writer = BackgroundWriter::start("test", Shared(Arc::clone(&written))).expect("a thread");
        let mut expected = Vec::new();
        for number in 0..500_u32 {
            let bytes = number.to_le_bytes().repeat(50);
            expected.extend_from_slice(&bytes);
            writer.pass_on(&mut Chunk { bytes, spans: 1 });
        }
        let report = writer.finish();
        assert_eq!((report.written, report.lost, report.problem("x")), (500, 0, None));
        assert_eq!(*written.lock().expect("not poisoned"), expected);
    }

    #[test]
    fn a_reader_that_sleeps_delays_the_caller_once_and_costs_counted_spans() {
        let (reader, pipe) = std::io::pipe().expect("a pipe");
        let mut writer = BackgroundWriter::start("test", pipe).expect("a thread");
        let begin = Instant::now();
        for _ in 0..2_000 {
            writer.pass_on(&mut chunk());
        }
        assert!(begin.elapsed() < 10 * PATIENCE, "{:?}", begin.elapsed());
        assert!(writer.chunks <= MAX_CHUNKS);
        let report = writer.finish();
        drop(reader);
        assert!(begin.elapsed() < Duration::from_secs(10));
        assert_eq!(report.written + report.lost, 20_000);
        assert!(report.lost > 15_000 && report.too_slow);
    }

    #[test]
    fn a_closed_pipe_is_a_problem_not_a_panic() {
        let (reader, pipe) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut writer = BackgroundWriter::start("test", pipe).expect("a thread");
        for _ in 0..100 {
            writer.pass_on(&mut chunk());
        }
        let report = writer.finish();
        assert_eq!((report.written, report.lost), (0, 1_000));
        assert_eq!(report.problem("standard output").as_deref(), Some("standard output was closed by its reader"));
    }
}
