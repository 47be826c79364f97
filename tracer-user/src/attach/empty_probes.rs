//! Places programs that do nothing in another process: what probes cost before ml-tracer adds anything.

use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::programs::{PerfEvent, UProbe};
use aya::{Ebpf, EbpfLoader};

use super::error::AttachError;
use super::multi::MultiPrograms;
use super::object::{OBJECT, load_error, program, program_error};
use super::placement::{Link, PlacedFile, place_one};
use super::site::{Role, Site};
use super::watchpoints::{Obstacle, Watchpoint};

/// Where they are placed.
#[derive(Clone, Debug)]
pub struct EmptyProbeSites {
    /// The process.
    pub process: u32,
    /// The program or library, as this process can open it; of no consequence where only words are watched.
    pub path: PathBuf,
    /// Offsets in the file of the instructions to be probed.
    pub entries: Vec<u64>,
    /// Those of functions whose return is to be probed by the kernel's trampoline.
    pub returns: Vec<u64>,
    /// Addresses in the process of words to watch for writes.
    pub watched: Vec<u64>,
    /// Place them one by one even where the kernel takes many in one link.
    pub single_probes: bool,
}

/// Live probes that do nothing. Dropping them takes them away.
pub struct EmptyProbes {
    #[expect(dead_code, reason = "dropping the links takes the probes away")]
    links: Vec<Link>,
    #[expect(dead_code, reason = "dropping them takes them away")]
    watchpoints: Vec<Watchpoint>,
    #[expect(dead_code, reason = "the programs go with it")]
    ebpf: Ebpf,
}

impl EmptyProbes {
    /// Places them.
    ///
    /// # Errors
    /// Not permitted, or the kernel does not take a probe.
    pub fn place(sites: &EmptyProbeSites) -> Result<Self, AttachError> {
        let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(|error| load_error(&error))?;
        let multi = if sites.single_probes { None } else { MultiPrograms::load_empty(OBJECT, &ebpf)? };
        let mut links = Vec::new();
        for (role, name, offsets) in
            [(Role::Return, "empty_return", &sites.returns), (Role::Entry, "empty_entry", &sites.entries)]
        {
            if offsets.is_empty() {
                continue;
            }
            let failed = |source: io::Error| AttachError::Place { path: sites.path.clone(), source };
            let wanted: Vec<Site> = offsets.iter().map(|offset| Site { offset: *offset, cookie: 0 }).collect();
            if let Some(multi) = &multi {
                links.push(Link::Multi(multi.link(role, &sites.path, sites.process, &wanted).map_err(failed)?));
                continue;
            }
            let single = program::<UProbe>(&mut ebpf, name)?;
            single.load().map_err(|error| program_error(&error))?;
            let file = PlacedFile { path: Path::new(&sites.path), process: sites.process, role };
            for site in wanted {
                links.push(Link::Single(place_one(single, &file, site).map_err(failed)?));
            }
        }
        let watchpoints = watch(&mut ebpf, sites)?;
        Ok(Self { links, watchpoints, ebpf })
    }
}

fn watch(ebpf: &mut Ebpf, sites: &EmptyProbeSites) -> Result<Vec<Watchpoint>, AttachError> {
    let watcher = program::<PerfEvent>(ebpf, "empty_watchpoint")?;
    watcher.load().map_err(|error| program_error(&error))?;
    let descriptor = watcher.fd().map_err(|error| program_error(&error))?.as_fd();
    let failed = |obstacle| {
        let source = match obstacle {
            Obstacle::NoSlot => io::Error::from_raw_os_error(libc::ENOSPC),
            Obstacle::Gone => io::Error::from_raw_os_error(libc::ESRCH),
            Obstacle::NoDescriptors { .. } => io::Error::from_raw_os_error(libc::EMFILE),
            Obstacle::Other(error) => error,
        };
        AttachError::Watchpoint { pid: sites.process, source }
    };
    let set = |(others, address): (usize, &u64)| {
        Watchpoint::set(descriptor, sites.process, *address, others, || {}).map_err(failed)
    };
    sites.watched.iter().enumerate().map(set).collect()
}
