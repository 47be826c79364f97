//! The BPF programs in the kernel: loaded once, given processes, taken away when dropped.

use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering::Relaxed;

use aya::Ebpf;
use aya::maps::{Map, MapData, RingBuf};

use super::error::AttachError;
use super::forks;
use super::kernel::{Kernel, KernelProcess};
use super::loaded::{LoadOptions, Loaded, SharedLoaded};
use super::object::map_error;
use super::placement::remove;
use super::removals::Removals;
use super::totals;
use super::traced_process::TracedProcess;
use crate::model::{FileNumber, FunctionId, KernelFeatures, LossCounts, OpenCall, ProcessId};

/// The loaded programs. They go once this is dropped and every [`TracedProcess`] with it.
pub struct Programs {
    pub(super) loaded: SharedLoaded,
    forward_log: Option<Box<dyn FnMut() + Send>>,
}

impl Programs {
    /// Loads maps and programs; nothing fires yet.
    ///
    /// # Errors
    /// Not permitted, or the kernel cannot run the programs.
    pub fn load(options: LoadOptions) -> Result<Self, AttachError> {
        let mut loaded = Loaded::load(options)?;
        let forward_log = if options.debug_log { log_forwarder(&mut loaded.ebpf) } else { None };
        Ok(Self { loaded: SharedLoaded::new(loaded), forward_log })
    }

    /// The ring buffer that the programs fill; `None` when it has been taken already.
    ///
    /// # Errors
    /// The ring buffer cannot be mapped.
    pub fn take_ring(&mut self) -> Result<Option<RingBuf<MapData>>, AttachError> {
        let mut loaded = self.loaded.lock();
        let Some(map) = loaded.ebpf.take_map("RECORDS") else { return Ok(None) };
        if let Map::RingBuf(data) = &map {
            let ring = data.fd().as_fd().try_clone_to_owned();
            loaded.ring = Some(ring.map_err(|error| map_error("RECORDS", &error))?);
        }
        RingBuf::try_from(map).map(Some).map_err(|error| map_error("RECORDS", &error))
    }
}

impl Kernel for Programs {
    fn features(&self) -> KernelFeatures {
        self.loaded.lock().features
    }

    fn process(&self, process: ProcessId) -> Box<dyn KernelProcess> {
        Box::new(TracedProcess::new(process, self.loaded.clone()))
    }

    fn written(&mut self) -> Vec<(ProcessId, FileNumber)> {
        let mut loaded = self.loaded.lock();
        let deleted = loaded.files.deleted();
        loaded.removals.begin_if(!deleted.is_empty(), move || remove(deleted));
        loaded.files.written()
    }

    fn remove_entries(&mut self) {
        remove(self.loaded.lock().files.take_entries());
    }

    fn remove_exits(&mut self) {
        let mut loaded = self.loaded.lock();
        loaded.is_over = true;
        loaded.removals = Removals::default();
        loaded.watch.end();
        loaded.tracepoints.clear();
        if let Some(requests) = loaded.requests.take() {
            requests.go(&mut loaded.ebpf);
        }
        remove(loaded.files.take_exits());
    }

    fn totals(&self) -> Result<(LossCounts, Vec<OpenCall>), AttachError> {
        let loaded = self.loaded.lock();
        totals::read(&loaded.ebpf, &loaded.left_elsewhere)
    }

    fn calls_of(&self, functions: &[FunctionId]) -> Result<Vec<u64>, AttachError> {
        totals::calls_of(&self.loaded.lock().ebpf, functions)
    }

    fn empty_probe_ns(&self) -> Option<f64> {
        self.loaded.lock().empty_probe_ns
    }

    fn kept_signals(&self) -> u64 {
        self.loaded.lock().kept_signals.load(Relaxed)
    }

    fn tell_of(&mut self, process: ProcessId) -> Result<(), AttachError> {
        forks::tell_of(&mut self.loaded.lock().ebpf, process.pid)
    }

    fn take_notice_of(&mut self, process: ProcessId) -> Result<bool, AttachError> {
        forks::take_notice_of(&mut self.loaded.lock().ebpf, process.pid)
    }

    fn tell_no_more_of(&mut self, process: ProcessId) {
        forks::tell_no_more_of(&mut self.loaded.lock().ebpf, process.pid);
    }

    fn forks_are_told(&self) -> bool {
        self.loaded.lock().tells_forks
    }

    fn unseen_forks(&self) -> Option<u64> {
        let loaded = self.loaded.lock();
        if loaded.tells_forks { forks::unseen(&loaded.ebpf) } else { None }
    }

    fn forward_log(&mut self) {
        if let Some(forward) = &mut self.forward_log {
            forward();
        }
    }

    fn follow_unix_sockets(&mut self) {
        let mut loaded = self.loaded.lock();
        let Loaded { ebpf, requests, .. } = &mut *loaded;
        if let Some(requests) = requests {
            requests.follow_unix_sockets(ebpf);
        }
    }
}

fn log_forwarder(ebpf: &mut Ebpf) -> Option<Box<dyn FnMut() + Send>> {
    match aya_log::EbpfLogger::init(ebpf) {
        Ok(mut logger) => Some(Box::new(move || logger.flush())),
        Err(error) => {
            tracing::warn!(%error, "the log of the BPF programs cannot be read");
            None
        }
    }
}
