//! Processes by what people know of them: a name, or the port of a server.

use std::collections::HashSet;
use std::path::Path;

use globset::{Glob, GlobMatcher};
use procfs::net::TcpState;
use procfs::process::{FDTarget, Process, all_processes};

use super::application::names_of;
use super::error::TargetError;
use super::process::user_thread;

/// Which processes are wanted.
#[derive(Clone, Debug)]
pub enum Selection {
    /// Those of a name; see [`Selection::named`].
    Named(GlobMatcher),
    /// Those that listen on a TCP port.
    Listening(u16),
}

impl Selection {
    /// Processes that have a name that fits a glob: of their first thread, of the executable, of the script or module that an
    /// interpreter runs, or of the application that a server serves.
    ///
    /// # Errors
    /// What is wrong with the glob, in a few words.
    pub fn named(glob: &str) -> Result<Self, String> {
        let glob = Glob::new(glob).map_err(|error| error.kind().to_string())?;
        Ok(Self::Named(glob.compile_matcher()))
    }

    /// The processes that are there now, in the order of their numbers; never this one. What may not be looked at is left out.
    ///
    /// # Errors
    /// There is none, or /proc cannot be read.
    pub fn find(&self) -> Result<Vec<u32>, TargetError> {
        let own = std::process::id();
        let unreadable = |error: procfs::ProcError| TargetError::Unreadable { pid: own, problem: error.to_string() };
        let all = all_processes().map_err(unreadable)?.filter_map(Result::ok);
        let mut seen = Sockets::default();
        let is_wanted = |process: &Process| match self {
            Self::Named(glob) => names(process).iter().any(|name| glob.is_match(name)),
            Self::Listening(port) => seen.listens(process, *port),
        };
        let found = all.filter(is_wanted).filter_map(|process| u32::try_from(process.pid).ok());
        let mut found: Vec<u32> = found.filter(|pid| *pid != own).collect();
        found.sort_unstable();
        if found.is_empty() { Err(TargetError::NoneSelected { what: self.to_string() }) } else { Ok(found) }
    }
}

impl std::fmt::Display for Selection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(glob) => write!(formatter, "named `{}`", glob.glob()),
            Self::Listening(port) => write!(formatter, "listening on TCP port {port}"),
        }
    }
}

/// What a process is called. A thread of the kernel, which runs nothing that could be traced, has no name here, and neither has
/// one that has ended.
///
/// One that has just executed its program has a file before it has a command line (`begin_new_exec` in fs/exec.c, Linux 6.18):
/// it has a name all the same.
fn names(process: &Process) -> Vec<String> {
    let Some((thread, stat)) = user_thread(process.pid) else { return Vec::new() };
    let mut names = names_of(&thread.cmdline().unwrap_or_default());
    // Those of another user's executable cannot be read without privilege.
    names.extend(thread.exe().ok().as_deref().and_then(file_name));
    names.push(stat.comm);
    names
}

fn file_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

/// Listening sockets, by the network namespaces that were looked at.
#[derive(Default)]
struct Sockets {
    namespaces: HashSet<u64>,
    /// Inodes.
    listening: HashSet<u64>,
}

impl Sockets {
    fn listens(&mut self, process: &Process, port: u16) -> bool {
        let namespace =
            process.namespaces().ok().and_then(|all| Some(all.0.get(std::ffi::OsStr::new("net"))?.identifier));
        if namespace.is_none_or(|namespace| self.namespaces.insert(namespace)) {
            let tables = [process.tcp(), process.tcp6()];
            let sockets = tables.into_iter().flatten().flatten();
            let listening = sockets.filter(|it| it.state == TcpState::Listen && it.local_address.port() == port);
            self.listening.extend(listening.map(|socket| socket.inode));
        }
        let is_it = |target| matches!(target, FDTarget::Socket(inode) if self.listening.contains(&inode));
        !self.listening.is_empty()
            && process.fd().is_ok_and(|mut open| open.any(|file| file.is_ok_and(|file| is_it(file.target))))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_server_is_found_by_its_port_whatever_the_protocol() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(server) = TcpListener::bind(address) else { continue };
            let port = server.local_addr().expect("it is bound").port();
            let own = Process::myself().expect("this process can be looked at");
            assert!(Sockets::default().listens(&own, port), "{address}");
            drop(server);
            assert!(!Sockets::default().listens(&own, port), "{address}: it is closed");
        }
    }

    #[test]
    fn a_process_is_found_by_any_of_its_names() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
        let found = |glob: &str| Selection::named(glob).expect("a glob").find();
        assert!(found("sl?ep").expect("it is there").contains(&child.id()));
        child.kill().expect("our own child");
        child.wait().expect("our own child");
        let error = found("no-such-*").expect_err("nobody is called so").to_string();
        assert!(error.contains("no process named `no-such-*`"), "{error}");
        assert!(!found("tracer_user-*").is_ok_and(|found| found.contains(&std::process::id())), "never this one");
    }

    #[test]
    fn a_process_has_its_name_from_the_moment_that_it_is_there() {
        for _ in 0..200 {
            let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
            let found = Process::new(child.id().cast_signed()).map(|process| names(&process));
            child.kill().expect("our own child");
            child.wait().expect("our own child");
            let found = found.expect("it is there");
            assert!(found.iter().any(|name| name == "sleep"), "{found:?}");
        }
        if let Ok(kernel) = Process::new(2)
            && kernel.stat().is_ok_and(|stat| stat.comm == "kthreadd")
        {
            assert!(names(&kernel).is_empty());
        }
    }

    #[test]
    fn a_glob_that_is_none_says_what_is_wrong() {
        assert!(Selection::named("a[").expect_err("it is open").contains("character class"), "the crate's own words");
    }
}
