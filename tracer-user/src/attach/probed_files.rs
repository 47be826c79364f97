//! The live probes by process and file, and what happens to them when somebody writes to the file.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::AttachError;
use super::leases::{Lease, LeaseClient, LeaseEvent};
use super::placement::{Link, Placed, Refused, remove};
use crate::memory::MappedFile;
use crate::model::{FileNumber, ModuleFile, ProcessId};

/// How often the placing of probes in a file that is open for writing is put off. A file that somebody keeps open is probed
/// without a lease then.
const MOST_DELAYS: u32 = 10;

/// Files whose delays are remembered.
const MOST_DELAYED: usize = 1_024;

/// A file as stat(2) numbers it.
type Identity = (u64, u64);

/// What the session and the thread that hears of writers share.
#[derive(Default)]
struct Shared {
    groups: Vec<Group>,
    leases: HashMap<u64, Leased>,
    /// Files that lost their probes to a writer, since this was asked last.
    written: Vec<(ProcessId, FileNumber)>,
}

/// The probes in one file of one process.
struct Group {
    process: ProcessId,
    number: FileNumber,
    /// Whether that is how /proc/PID/maps numbers it. Before it is mapped it is known by stat(2), and some file systems show
    /// another device number there.
    is_mapped: bool,
    identity: Identity,
    placed: Placed,
    /// Whether the process had not mapped the file when it was looked at last.
    is_idle: bool,
}

/// A file that a lease is held on.
struct Leased {
    identity: Identity,
    /// To see whether it still has a name.
    file: File,
    /// Whether a writer waits.
    is_broken: bool,
}

/// What became of a placement.
pub enum Outcome {
    /// The probes that the kernel took are live.
    Placed(Vec<Refused>),
    /// Somebody writes to the file: later.
    Later,
}

/// The live probes.
#[derive(Default)]
pub struct ProbedFiles {
    shared: Arc<Mutex<Shared>>,
    client: Option<LeaseClient>,
    /// Whether the keeper could not be started.
    has_none: bool,
    delays: HashMap<Identity, u32>,
}

impl ProbedFiles {
    /// Places probes in a file of a process, after a lease on it is held, where one can be had.
    ///
    /// # Errors
    /// As the placing.
    pub fn place(
        &mut self,
        module: &ModuleFile,
        file: &MappedFile,
        place: impl FnOnce() -> Result<(Placed, Vec<Refused>), AttachError>,
    ) -> Result<Outcome, AttachError> {
        let Ok(metadata) = file.file().metadata() else { return Ok(Outcome::Later) };
        let identity = (metadata.dev(), metadata.ino());
        if !self.lease(identity, file) {
            return Ok(Outcome::Later);
        }
        // Under the lock: whoever hears of a writer meanwhile waits, and finds these probes.
        let mut shared = lock(&self.shared);
        if shared.leases.values().any(|lease| lease.identity == identity && lease.is_broken) {
            return Ok(Outcome::Later);
        }
        let (placed, refused) = place()?;
        let (process, number, is_mapped) = (module.process, module.number, !module.mappings.is_empty());
        shared.groups.push(Group { process, number, is_mapped, identity, placed, is_idle: false });
        Ok(Outcome::Placed(refused))
    }

    /// Whether probes of a process are live in a file; one that it had not mapped for a while is in use again.
    pub fn is_placed(&self, process: ProcessId, file: FileNumber) -> bool {
        let mut shared = lock(&self.shared);
        let of_it = shared.groups.iter_mut().filter(|group| group.is_of(process, file));
        of_it.map(|group| group.is_idle = false).count() > 0
    }

    /// A process has mapped a file no more. Its probes stay for the next time only as long as nobody can write to the file
    /// unnoticed. Gives those that are to go.
    #[must_use]
    pub fn unmapped(&self, process: ProcessId, file: FileNumber) -> Vec<Link> {
        let mut shared = lock(&self.shared);
        shared.groups.iter_mut().filter(|group| group.is_of(process, file)).for_each(|group| group.is_idle = true);
        self.take_idle(shared)
    }

    /// Likewise those of files that were deleted since: they would keep the space of the file.
    #[must_use]
    pub fn deleted(&self) -> Vec<Link> {
        let shared = lock(&self.shared);
        if shared.groups.iter().all(|group| !group.is_idle) {
            return Vec::new();
        }
        self.take_idle(shared)
    }

    fn take_idle(&self, mut shared: MutexGuard<'_, Shared>) -> Vec<Link> {
        let Shared { groups, leases, .. } = &mut *shared;
        let is_safe = |group: &Group| {
            let mut of_file = leases.values().filter(|lease| lease.identity == group.identity);
            of_file.any(|lease| lease.file.metadata().is_ok_and(|file| file.nlink() > 0))
        };
        let gone: Vec<Group> = groups.extract_if(.., |group| group.is_idle && !is_safe(group)).collect();
        self.give_back(&mut shared);
        links(gone)
    }

    /// Gives the probes of a process away, or of one file of it.
    #[must_use]
    pub fn take(&self, process: ProcessId, file: Option<FileNumber>) -> Vec<Link> {
        let mut shared = lock(&self.shared);
        let is_it = |group: &mut Group| match file {
            Some(file) => group.is_of(process, file),
            None => group.process == process,
        };
        let gone: Vec<Group> = shared.groups.extract_if(.., is_it).collect();
        self.give_back(&mut shared);
        links(gone)
    }

    /// Gives all entry probes away; exits go on being seen.
    #[must_use]
    pub fn take_entries(&self) -> Vec<Link> {
        lock(&self.shared).groups.iter_mut().flat_map(|group| group.placed.take_entries()).collect()
    }

    /// Gives all other probes away. The leases stay until this is dropped: the probes are still there.
    #[must_use]
    pub fn take_exits(&self) -> Vec<Link> {
        lock(&self.shared).groups.iter_mut().flat_map(|group| group.placed.take_exits()).collect()
    }

    /// Files that lost their probes to a writer, since this was asked last.
    #[must_use]
    pub fn written(&self) -> Vec<(ProcessId, FileNumber)> {
        std::mem::take(&mut lock(&self.shared).written)
    }

    /// `false` while somebody writes to the file.
    fn lease(&mut self, identity: Identity, file: &MappedFile) -> bool {
        if let Some(known) = lock(&self.shared).leases.values().find(|lease| lease.identity == identity) {
            return !known.is_broken;
        }
        let Some(client) = self.client() else { return true };
        match client.hold(file.file()) {
            Lease::Held(lease) => {
                let Ok(file) = file.file().try_clone() else {
                    client.give_back(lease);
                    return true;
                };
                lock(&self.shared).leases.insert(lease, Leased { identity, file, is_broken: false });
                self.delays.remove(&identity);
                true
            }
            Lease::NotToBeHad => true,
            // It has no name: only who has made it can write to it, and keeps it open (a library in a memfd).
            Lease::BeingWritten if file.file().metadata().is_ok_and(|file| file.nlink() == 0) => true,
            Lease::BeingWritten => {
                if self.delays.len() >= MOST_DELAYED {
                    self.delays.clear();
                }
                let delays = self.delays.entry(identity).or_default();
                *delays += 1;
                *delays > MOST_DELAYS
            }
        }
    }

    fn client(&mut self) -> Option<&mut LeaseClient> {
        if self.client.is_none() && !self.has_none {
            let shared = Arc::clone(&self.shared);
            self.client = LeaseClient::new(move |told| hear(&shared, told))
                .inspect_err(|error| tracing::debug!(%error, "no leases can be held on probed files"))
                .ok();
            self.has_none = self.client.is_none();
        }
        self.client.as_mut()
    }

    /// Gives leases back that no probe needs any more. One that is broken goes once its probes are gone.
    fn give_back(&self, shared: &mut MutexGuard<'_, Shared>) {
        let Shared { groups, leases, .. } = &mut **shared;
        let is_needed = |lease: &Leased| groups.iter().any(|group| group.identity == lease.identity);
        for (number, _) in leases.extract_if(|_, lease| !lease.is_broken && !is_needed(lease)) {
            self.client.iter().for_each(|client| client.give_back(number));
        }
    }
}

impl Drop for ProbedFiles {
    fn drop(&mut self) {
        remove(self.take_entries());
        remove(self.take_exits());
    }
}

impl Group {
    fn is_of(&self, process: ProcessId, file: FileNumber) -> bool {
        self.process == process
            && self.number.inode == file.inode
            && (self.number.device == file.device || !self.is_mapped)
    }
}

/// Somebody is about to write to a file: its probes go, and when this returns the writer goes on.
fn hear(shared: &Mutex<Shared>, told: LeaseEvent) {
    let number = match told {
        LeaseEvent::Broken(number) => number,
        LeaseEvent::AllLost => {
            lock(shared).leases.clear();
            return;
        }
    };
    let gone = {
        let mut shared = lock(shared);
        let Some(lease) = shared.leases.get_mut(&number) else { return };
        lease.is_broken = true;
        let identity = lease.identity;
        let gone: Vec<Group> = shared.groups.extract_if(.., |group| group.identity == identity).collect();
        shared.written.extend(gone.iter().map(|group| (group.process, group.number)));
        gone
    };
    remove(links(gone));
    lock(shared).leases.remove(&number);
}

/// Entries first, so that none is seen whose exit cannot be.
fn links(mut groups: Vec<Group>) -> Vec<Link> {
    let mut links: Vec<Link> = groups.iter_mut().flat_map(|group| group.placed.take_entries()).collect();
    links.extend(groups.iter_mut().flat_map(|group| group.placed.take_exits()));
    links
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
