//! Interpreters that have imported what many Python targets need, and fork for each of them
//! (`tests/targets/shared_python/fork_server.py`): importing scikit-learn takes longer than most tests.
//!
//! What a forked target lacks is a start: tests that are about it, about imports under a tracer or about a root directory or
//! namespace of its own have theirs executed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{IoSlice, PipeReader, Read, pipe};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};

use crate::process::{PATIENCE, Running};
use crate::python::Interpreter;

/// What they import: what most targets with scikit-learn have in common. The rest each target imports itself.
const MODULES: [&str; 5] =
    ["numpy", "sklearn.compose", "sklearn.linear_model", "sklearn.pipeline", "sklearn.preprocessing"];

/// Descriptors that go with each message: three streams, and where to tell how it goes.
const DESCRIPTORS: usize = 4;

/// Started when they are first wanted; each ends when the suite does, with its socket.
static SERVERS: LazyLock<Mutex<HashMap<Interpreter, Arc<ForkServer>>>> = LazyLock::new(Mutex::default);

/// One interpreter that forks.
struct ForkServer {
    control: OwnedFd,
    /// Nobody waits for it.
    _process: Child,
}

/// A process that a server has forked.
pub(crate) struct Forked {
    pid: u32,
    told: PipeReader,
    status: Option<ExitStatus>,
}

/// Runs a script of the folder `tests` as the interpreter's command would, in a process that is forked from one that has
/// imported [`MODULES`].
///
/// # Errors
/// When the server cannot be started or has ended.
pub(crate) fn start(interpreter: Interpreter, script: &str, arguments: &[impl AsRef<str>]) -> Result<Running> {
    let place = interpreter.place_of(script)?;
    let place = place.to_str().context("a path is text")?;
    let command_line: Vec<&str> = [place].into_iter().chain(arguments.iter().map(AsRef::as_ref)).collect();
    let server = ForkServer::of(interpreter)?;
    server.fork(&command_line).with_context(|| format!("the fork server of {interpreter:?} for {script}"))
}

impl ForkServer {
    /// The one of this interpreter, which need not have imported everything yet.
    fn of(interpreter: Interpreter) -> Result<Arc<Self>> {
        let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match servers.entry(interpreter) {
            Entry::Occupied(server) => Arc::clone(server.get()),
            Entry::Vacant(place) => Arc::clone(place.insert(Arc::new(Self::start(interpreter)?))),
        })
    }

    fn start(interpreter: Interpreter) -> Result<Self> {
        // Messages stay apart, whatever their length.
        let (control, its_end) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = interpreter.command("targets/shared_python/fork_server.py")?;
        // What keeps it from importing is said where the suite's own errors are.
        command.args(MODULES).stdin(its_end).stdout(Stdio::null()).process_group(0);
        let process = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { control, _process: process })
    }

    fn fork(&self, command_line: &[&str]) -> Result<Running> {
        let name = command_line.first().copied().unwrap_or_default().to_owned();
        let message = serde_json::to_vec(command_line)?;
        let (its_input, input) = pipe()?;
        let (output, its_output) = pipe()?;
        let (errors, its_errors) = pipe()?;
        let (mut told, its_told) = pipe()?;
        let descriptors = [its_input.as_fd(), its_output.as_fd(), its_errors.as_fd(), its_told.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.control, &[IoSlice::new(&message)], &mut ancillary, SendFlags::NOSIGNAL)
            .context("it has ended")?;
        // Its end of the pipe must be the only one: where it dies, this reads the end of the pipe instead of nothing.
        drop(its_told);
        ensure!(is_readable(&told, PATIENCE)?, "it has not answered for {PATIENCE:?}");
        let pid = number(&mut told).context("it has not forked")?.cast_unsigned();
        Ok(Running::forked(name, Forked { pid, told, status: None }, input, output, errors))
    }
}

impl Forked {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let is_told = self.status.is_some() || is_readable(&self.told, Duration::ZERO)?;
        if is_told { self.wait().map(Some) } else { Ok(None) }
    }

    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let status = ExitStatus::from_raw(number(&mut self.told).context("the fork server has not told its end")?);
        self.status = Some(status);
        Ok(status)
    }
}

/// Waits until a number is there, or the end of the pipe.
fn is_readable(pipe: &PipeReader, within: Duration) -> Result<bool> {
    Ok(poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&within.try_into()?))? > 0)
}

fn number(from: &mut PipeReader) -> Result<i32> {
    let mut bytes = [0; size_of::<i32>()];
    from.read_exact(&mut bytes)?;
    Ok(i32::from_ne_bytes(bytes))
}
