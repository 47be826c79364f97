//! The connections that a process is asked over, as /proc tells them.

use std::collections::HashSet;
use std::path::PathBuf;

use procfs::net::{TcpNetEntry, TcpState, UnixNetEntry, UnixState};
use procfs::process::{FDTarget, Process};
use rustix::net::SocketType;

use crate::model::{AcceptedConnection, ProcessId, ServerSockets};

/// What a process listens on, and the connections that it has accepted: those of a socket that it listens on too. What cannot be read
/// is not there.
#[must_use]
pub fn server_sockets(process: ProcessId) -> ServerSockets {
    let Some(OpenSockets { open, tcp, unix }) = OpenSockets::of(process) else { return ServerSockets::default() };
    let accepted = accepted(&tcp, &unix);
    let accepted = open.into_iter().filter(|(inode, _)| accepted.contains(inode));
    let listening = tcp.iter().filter(|entry| entry.state == TcpState::Listen);
    ServerSockets {
        accepted: accepted.map(|(inode, descriptor)| AcceptedConnection { descriptor, inode }).collect(),
        ports: listening.map(|entry| entry.local_address.port()).collect(),
        listens_on_unix: unix.iter().any(is_listened_on),
    }
}

/// Whether a process listens on a TCP port or a unix socket, as far as can be read.
#[must_use]
pub fn listens(process: ProcessId) -> bool {
    OpenSockets::of(process).is_some_and(|OpenSockets { tcp, unix, .. }| {
        tcp.iter().any(|entry| entry.state == TcpState::Listen) || unix.iter().any(is_listened_on)
    })
}

/// The sockets of one process.
struct OpenSockets {
    /// Inodes and descriptors.
    open: Vec<(u64, u32)>,
    tcp: Vec<TcpNetEntry>,
    unix: Vec<UnixNetEntry>,
}

impl OpenSockets {
    fn of(process: ProcessId) -> Option<Self> {
        let process = Process::new(i32::try_from(process.pid).ok()?).ok()?;
        let socket = |inode: FDTarget, descriptor: i32| match inode {
            FDTarget::Socket(inode) => Some((inode, u32::try_from(descriptor).ok()?)),
            _ => None,
        };
        let open = process.fd().ok()?.filter_map(|file| file.ok().and_then(|file| socket(file.target, file.fd)));
        let open: Vec<(u64, u32)> = open.collect();
        let own: HashSet<u64> = open.iter().map(|(inode, _)| *inode).collect();
        let tcp = [process.tcp(), process.tcp6()].into_iter().flatten().flatten();
        let tcp = tcp.filter(|entry| own.contains(&entry.inode)).collect();
        let unix = process.unix().unwrap_or_default().into_iter().filter(|entry| own.contains(&entry.inode)).collect();
        Some(Self { open, tcp, unix })
    }
}

fn is_stream(entry: &UnixNetEntry) -> bool {
    u32::from(entry.socket_type) == SocketType::STREAM.as_raw()
}

/// A stream that has a name and no other end is one that is listened on.
fn is_listened_on(entry: &UnixNetEntry) -> bool {
    is_stream(entry) && entry.state == UnixState::UNCONNECTED && entry.path.is_some()
}

/// Inodes of the sockets of one process that it has accepted.
fn accepted(tcp: &[TcpNetEntry], unix: &[UnixNetEntry]) -> HashSet<u64> {
    let listening = tcp.iter().filter(|entry| entry.state == TcpState::Listen);
    let ports: HashSet<u16> = listening.map(|entry| entry.local_address.port()).collect();
    let listening = unix.iter().filter(|entry| is_listened_on(entry));
    let paths: HashSet<&PathBuf> = listening.filter_map(|entry| entry.path.as_ref()).collect();
    let is_accepted = |entry: &&TcpNetEntry| {
        let goes_on = matches!(entry.state, TcpState::Established | TcpState::CloseWait);
        goes_on && ports.contains(&entry.local_address.port())
    };
    let has_path = |entry: &&UnixNetEntry| entry.path.as_ref().is_some_and(|path| paths.contains(path));
    let unix = unix.iter().filter(|entry| is_stream(entry) && entry.state == UnixState::CONNECTED).filter(has_path);
    tcp.iter().filter(is_accepted).map(|entry| entry.inode).chain(unix.map(|entry| entry.inode)).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn what_listens_is_found() {
        let sleeper = std::process::Command::new("sleep").arg("60").spawn();
        let mut sleeper = sleeper.expect("sleep is everywhere");
        let listens_now = listens(ProcessId { pid: sleeper.id(), start_time: 0 });
        sleeper.kill().expect("our own child");
        sleeper.wait().expect("our own child");
        assert!(!listens_now);
    }

    #[test]
    fn what_was_accepted_is_found_and_nothing_else() {
        let own = ProcessId { pid: std::process::id(), start_time: 0 };
        let number = |socket: &dyn std::os::fd::AsRawFd| u32::try_from(socket.as_raw_fd()).expect("a descriptor");
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(server.local_addr().expect("an address")).expect("it listens");
        let (connection, _) = server.accept().expect("a client");
        let folder = tempfile::tempdir().expect("a folder");
        let unix_server = UnixListener::bind(folder.path().join("socket")).expect("a path");
        let unix_client = UnixStream::connect(folder.path().join("socket")).expect("it listens");
        let (unix_connection, _) = unix_server.accept().expect("a client");
        let ServerSockets { accepted, ports, listens_on_unix } = server_sockets(own);
        assert!(ports.contains(&server.local_addr().expect("an address").port()) && listens_on_unix, "{ports:?}");
        let found: Vec<u32> = accepted.iter().map(|connection| connection.descriptor).collect();
        assert!(found.contains(&number(&connection)) && found.contains(&number(&unix_connection)), "{found:?}");
        assert!(listens(own));
        for other in [number(&server), number(&client), number(&unix_server), number(&unix_client)] {
            assert!(!found.contains(&other), "{other} in {found:?}");
        }
    }
}
