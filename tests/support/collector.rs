//! The `rotel` collector between the tracer and a receiver: what it passes on it has accepted.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::{Running, poll};
use crate::receiver::unused_address;
use crate::workspace;

/// A running collector on loopback that passes all traces on.
pub struct Collector {
    /// `http://` address of its gRPC receiver.
    pub grpc: String,
    /// `http://` address of its HTTP receiver.
    pub http: String,
    running: Running,
    _folder: TempDir,
}

impl Collector {
    /// Starts it; `forward` is the `http://` address of a gRPC receiver.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(forward: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (grpc, http) = (unused_address()?, unused_address()?);
        let mut command = Command::new(program()?);
        command.args(["start", "--exporter", "otlp", "--otlp-exporter-protocol", "grpc"]);
        command.args(["--otlp-exporter-endpoint", forward]);
        command.args(["--otlp-grpc-endpoint", &grpc.to_string(), "--otlp-http-endpoint", &http.to_string()]);
        command.arg("--pid-file").arg(folder.path().join("pid")).arg("--log-file").arg(folder.path().join("log"));
        let mut running = Running::start(command)?;
        poll("the collector to listen", || {
            anyhow::ensure!(!running.has_ended()?, "the collector has ended");
            Ok((TcpStream::connect(grpc).is_ok() && TcpStream::connect(http).is_ok()).then_some(()))
        })?;
        Ok(Self { grpc: format!("http://{grpc}"), http: format!("http://{http}"), running, _folder: folder })
    }

    /// Ends it in good order, so that it passes on what it still holds.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(self) -> Result<()> {
        self.running.signal(rustix::process::Signal::TERM)?;
        self.running.finish().map(drop)
    }
}

/// The program inside the wheel.
fn program() -> Result<PathBuf> {
    let libraries = workspace::python_environment("collector", "lib");
    let versions = std::fs::read_dir(&libraries).with_context(|| format!("cannot read {}", libraries.display()))?;
    versions
        .flatten()
        .map(|version| version.path().join("site-packages/rotel/rotel-agent"))
        .find(|program| program.is_file())
        .with_context(|| format!("no rotel-agent below {}", libraries.display()))
}
