//! Remembers which pages a reading touched, and makes a snapshot of them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::page_cache::PAGE;
use super::reader::{Memory, MemoryError};
use super::snapshot::Snapshot;
use crate::model::RemoteAddress;

/// Memory that keeps what is read through it.
#[derive(Debug)]
pub struct Recorder<M> {
    memory: M,
    /// Bytes by address of their page; what was not read stays 0.
    pages: RefCell<BTreeMap<u64, Box<[u8; PAGE as usize]>>>,
}

impl<M: Memory> Recorder<M> {
    /// Records everything that is read from a memory from now on.
    pub fn new(memory: M) -> Self {
        Self { memory, pages: RefCell::default() }
    }

    /// A snapshot that holds exactly the bytes that were read, and zeros in the rest of their pages.
    pub fn into_snapshot(self, facts: serde_json::Value) -> Snapshot {
        let pages = self.pages.into_inner();
        Snapshot::new(facts, pages.into_iter().map(|(page, bytes)| (page * PAGE, bytes.to_vec())))
    }

    fn keep(&self, address: u64, bytes: &[u8]) {
        let mut pages = self.pages.borrow_mut();
        for (byte, address) in bytes.iter().zip(address..) {
            let page = pages.entry(address / PAGE).or_insert_with(|| Box::new([0; PAGE as usize]));
            let position = usize::try_from(address % PAGE).expect("less than a page");
            if let Some(kept) = page.get_mut(position) {
                *kept = *byte;
            }
        }
    }
}

impl<M: Memory> Memory for Recorder<M> {
    fn read(&self, address: RemoteAddress, buffer: &mut [u8]) -> Result<(), MemoryError> {
        self.memory.read(address, buffer)?;
        self.keep(address.0, buffer);
        Ok(())
    }

    fn refresh(&self) {
        self.memory.refresh();
    }
}
