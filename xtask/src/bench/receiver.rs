//! A collector that takes everything and keeps nothing, so that the sender is what is measured.

use std::io::{BufRead, BufReader, Read, Result, Write, copy, sink};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An answer without refused spans: an empty `ExportTraceServiceResponse`.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";

/// It serves until this program ends.
pub struct Receiver {
    /// Where spans go.
    pub url: String,
    bytes: Arc<AtomicU64>,
}

impl Receiver {
    /// Listens on loopback.
    ///
    /// # Errors
    /// When it cannot.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                // A connection ends with an error when the sender is gone.
                std::thread::spawn(move || drop(serve(stream, &counted)));
            }
        });
        Ok(Self { url, bytes })
    }

    /// Bytes of the requests so far, without their heads.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn serve(mut stream: TcpStream, counted: &AtomicU64) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::with_capacity(1 << 18, stream.try_clone()?);
    loop {
        let mut length = 0;
        let mut line = String::new();
        while input.read_line(&mut line)? > 2 {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        counted.fetch_add(copy(&mut input.by_ref().take(length), &mut sink())?, Ordering::Relaxed);
        stream.write_all(ANSWER)?;
    }
}
