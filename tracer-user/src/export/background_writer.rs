//! Bytes go in; a thread of their own writes them, so that a slow disk or a sleeping reader does not keep the caller
//! waiting.

use std::fs::File;
use std::io::{ErrorKind, Seek as _, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::ExportError;

/// Chunks under way at one time. With [`CHUNK_BYTES`] this bounds the memory: 8 MiB.
const MAX_CHUNKS: usize = 32;
/// Size at which a chunk should be passed on, bytes.
pub const CHUNK_BYTES: usize = 256 << 10;
/// How long the caller waits for a writer that has begun to lag, before chunks are dropped.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the end waits while nothing moves.
const PATIENCE_AT_END: Duration = Duration::from_secs(3);
/// Pause before a chunk that could not be written is tried again: a disk may get room, a terminal may go on.
const RETRY_AFTER: Duration = Duration::from_millis(100);

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
    /// The newest error.
    error: Mutex<Option<std::io::Error>>,
    /// Nobody will ever read what is written.
    reader_is_gone: AtomicBool,
    /// No more chunks come: what cannot be written now is given up.
    is_finishing: AtomicBool,
}

/// A place that bytes are written to.
pub trait Place: Write + Send {
    /// Whether it is a pipe or a socket that nobody reads any more.
    fn reader_is_gone(&self) -> bool {
        false
    }

    /// Takes back the last bytes, of a line whose rest could not be written. Gives how many are still there.
    fn take_back(&mut self, bytes: u64) -> u64 {
        bytes
    }
}

/// The place can be a file, a pipe or a terminal.
impl Place for File {
    fn reader_is_gone(&self) -> bool {
        let mut places = [PollFd::new(self, PollFlags::empty())];
        let now = Timespec::default();
        poll(&mut places, Some(&now)).is_ok() && places[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }

    fn take_back(&mut self, bytes: u64) -> u64 {
        let mut take_back = || {
            let end = self.stream_position()?;
            // Others may have written behind us.
            if !self.metadata()?.is_file() || self.metadata()?.len() != end {
                return Ok(bytes);
            }
            self.set_len(end - bytes)?;
            self.seek(SeekFrom::Start(end - bytes))?;
            Ok::<_, std::io::Error>(0)
        };
        take_back().unwrap_or(bytes)
    }
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
    pub fn start(sink: &'static str, place: impl Place + 'static) -> Result<Self, ExportError> {
        let (filled, to_write) = sync_channel(MAX_CHUNKS);
        let (give_back, emptied) = sync_channel(MAX_CHUNKS);
        let progress = Arc::new(Progress::default());
        let shared = Arc::clone(&progress);
        let thread = std::thread::Builder::new()
            .name(format!("export-{sink}"))
            .spawn(move || write_chunks(place, &to_write, &give_back, &shared))
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

    /// Whether nobody will ever read what is written.
    pub fn reader_is_gone(&self) -> bool {
        self.progress.reader_is_gone.load(Ordering::Acquire)
    }

    /// Waits for the thread as long as it makes progress.
    pub fn finish(self) -> WriteReport {
        let Self { filled, emptied, thread, progress, accepted, dropped, .. } = self;
        progress.is_finishing.store(true, Ordering::Release);
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
            Some(_) if self.lost == 0 => None, // it was written later
            Some(error) => Some(format!("writing {place} failed: {error}; free space or choose another file")),
            None if self.too_slow => Some(format!("{place} could not be written fast enough; choose a faster place")),
            None => None,
        }
    }
}

fn write_chunks(
    mut place: impl Place,
    to_write: &Receiver<Chunk>,
    give_back: &SyncSender<Vec<u8>>,
    progress: &Progress,
) {
    loop {
        let mut chunk = match to_write.recv_timeout(RETRY_AFTER) {
            Ok(chunk) => chunk,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                // Without a word to write nothing else would tell.
                if place.reader_is_gone() {
                    progress.reader_is_gone.store(true, Ordering::Release);
                }
                continue;
            }
        };
        if !write_chunk(&mut place, &chunk.bytes, progress) {
            return;
        }
        progress.written_spans.fetch_add(chunk.spans, Ordering::Release);
        chunk.bytes.clear();
        let _ = give_back.try_send(chunk.bytes);
    }
}

/// Writes a chunk as a whole or not at all, and tries for as long as there may be hope. `false` if there is none.
fn write_chunk(place: &mut impl Place, bytes: &[u8], progress: &Progress) -> bool {
    let mut written = 0;
    loop {
        let error = match place.write(&bytes[written..]) {
            Ok(0) => std::io::Error::from(ErrorKind::WriteZero),
            Ok(count) => {
                written += count;
                if written < bytes.len() {
                    continue;
                }
                match place.flush() {
                    Ok(()) => return true,
                    Err(error) => error,
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        if error.kind() == ErrorKind::BrokenPipe {
            progress.reader_is_gone.store(true, Ordering::Release);
        }
        // A file must not end in half a line, whenever it is read.
        written = usize::try_from(place.take_back(written as u64)).unwrap_or(written);
        *progress.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        if progress.reader_is_gone.load(Ordering::Acquire) || progress.is_finishing.load(Ordering::Acquire) {
            return false;
        }
        std::thread::sleep(RETRY_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn pipe() -> (std::io::PipeReader, File) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        (reader, File::from(std::os::fd::OwnedFd::from(writer)))
    }

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
        impl Place for Shared {}
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
        let (reader, pipe) = pipe();
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
        let (reader, pipe) = pipe();
        drop(reader);
        let mut writer = BackgroundWriter::start("test", pipe).expect("a thread");
        for _ in 0..100 {
            writer.pass_on(&mut chunk());
        }
        let report = writer.finish();
        assert_eq!((report.written, report.lost), (0, 1_000));
        assert_eq!(report.problem("standard output").as_deref(), Some("standard output was closed by its reader"));
    }

    #[test]
    fn a_reader_that_goes_is_noticed_without_a_word_to_write() {
        let (reader, pipe) = pipe();
        let writer = BackgroundWriter::start("test", pipe).expect("a thread");
        std::thread::sleep(2 * RETRY_AFTER);
        assert!(!writer.reader_is_gone());
        drop(reader);
        let begin = Instant::now();
        while !writer.reader_is_gone() && begin.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(RETRY_AFTER / 10);
        }
        assert!(writer.reader_is_gone());
        writer.finish();
    }

    /// A disk that takes some bytes, then none, then all again.
    struct SmallDisk(File, Arc<AtomicU64>);

    impl Write for SmallDisk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let room = usize::try_from(self.1.load(Ordering::Acquire)).expect("a small number");
            if room == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let count = self.0.write(&bytes[..room.min(bytes.len())])?;
            self.1.fetch_sub(count as u64, Ordering::AcqRel);
            Ok(count)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Place for SmallDisk {
        fn take_back(&mut self, bytes: u64) -> u64 {
            let left = self.0.take_back(bytes);
            self.1.fetch_add(bytes - left, Ordering::AcqRel);
            left
        }
    }

    #[test]
    fn a_file_never_ends_in_half_a_line_and_goes_on_when_there_is_room() {
        let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let room = Arc::new(AtomicU64::new(25));
        let file = File::create(&path).expect("a file");
        let mut writer = BackgroundWriter::start("test", SmallDisk(file, Arc::clone(&room))).expect("a thread");
        let text = || std::fs::read_to_string(&path).expect("a file");
        let wait_for = |wanted: &str| {
            let begin = Instant::now();
            while text() != wanted && begin.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(RETRY_AFTER / 10);
            }
            assert_eq!(text(), wanted);
        };
        for line in ["first line\n", "second line\n", "third line\n"] {
            writer.pass_on(&mut Chunk { bytes: line.into(), spans: 1 });
        }
        wait_for("first line\nsecond line\n");
        room.store(1000, Ordering::Release);
        wait_for("first line\nsecond line\nthird line\n");
        room.store(5, Ordering::Release);
        writer.pass_on(&mut Chunk { bytes: b"fourth line\n".to_vec(), spans: 1 });
        let report = writer.finish();
        assert_eq!((report.written, report.lost), (3, 1));
        assert_eq!(text(), "first line\nsecond line\nthird line\n");
    }
}
