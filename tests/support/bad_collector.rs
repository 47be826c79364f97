//! Collectors that fail their clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use anyhow::Result;

/// How a collector can fail its clients.
#[derive(Clone, Copy, Debug)]
pub enum Misbehaviour {
    /// Takes connections and bytes, and never answers.
    Silent,
    /// Answers with bytes that are no HTTP.
    Garbage,
    /// Answers each request with `503 Service Unavailable`.
    Overloaded,
    /// Closes each connection as soon as something arrives.
    HangsUp,
    /// Answers `200 OK` with a body without end.
    EndlessBody,
}

/// A bad collector on loopback. Dropping it ends it.
pub struct BadCollector {
    /// Its `http://` address.
    pub address: String,
    connections: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    local: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl BadCollector {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(misbehaviour: Misbehaviour) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let local = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let acceptor = {
            let (connections, stopping) = (Arc::clone(&connections), Arc::clone(&stopping));
            spawn(move || {
                for stream in listener.incoming().flatten() {
                    if stopping.load(Ordering::Relaxed) {
                        return;
                    }
                    connections.fetch_add(1, Ordering::Relaxed);
                    let stopping = Arc::clone(&stopping);
                    spawn(move || misbehave(stream, misbehaviour, &stopping));
                }
            })
        };
        Ok(Self { address: format!("http://{local}"), connections, stopping, local, acceptor: Some(acceptor) })
    }

    /// Connections that were made to it.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for BadCollector {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the acceptor; if that fails it has ended already.
        let _ = TcpStream::connect(self.local);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn misbehave(mut stream: TcpStream, misbehaviour: Misbehaviour, stopping: &AtomicBool) {
    let mut buffer = [0; 65536];
    if stream.set_read_timeout(Some(Duration::from_millis(200))).is_err() {
        return;
    }
    while !stopping.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => return,
        }
        let answered = match misbehaviour {
            Misbehaviour::Silent => Ok(()),
            Misbehaviour::Garbage => stream.write_all(b"\x00\xff\x13garbage\r\n\r\n\x07\x07\x07"),
            Misbehaviour::Overloaded => {
                stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
            }
            Misbehaviour::HangsUp => return,
            Misbehaviour::EndlessBody => endless_body(&mut stream, stopping),
        };
        if answered.is_err() {
            return;
        }
    }
}

fn endless_body(stream: &mut TcpStream, stopping: &AtomicBool) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\r\n")?;
    while !stopping.load(Ordering::Relaxed) {
        stream.write_all(&[b'x'; 4096])?;
    }
    Ok(())
}
