//! Whole pages read once per pass, so that many small objects on a page cost one system call.

use std::cell::RefCell;
use std::collections::HashMap;

use super::reader::{Memory, MemoryError};
use crate::model::RemoteAddress;

/// Bytes of a page (x86-64).
pub(super) const PAGE: u64 = 4096;
/// Pages that are kept, 4 MiB; when there are more all are forgotten.
const PAGE_LIMIT: usize = 1_024;
/// Reads longer than this go around the cache.
const CACHED_READ: usize = 16 * PAGE as usize;

/// Memory with a cache of the pages that were read since the last [`Memory::refresh`].
///
/// All reads of a page between two refreshes see the same bytes. Two pages may still be of different moments: whoever
/// reads has to check what it gets.
#[derive(Debug)]
pub struct PageCache<M> {
    memory: M,
    pages: RefCell<HashMap<u64, Box<[u8; PAGE as usize]>>>,
}

impl<M: Memory> PageCache<M> {
    /// An empty cache over a memory.
    pub fn new(memory: M) -> Self {
        Self { memory, pages: RefCell::default() }
    }

    /// Bytes of one page, from the cache if they are there.
    fn read_page(&self, page: u64, skip: usize, part: &mut [u8]) -> Result<(), MemoryError> {
        let mut pages = self.pages.borrow_mut();
        if pages.len() >= PAGE_LIMIT {
            pages.clear();
        }
        let bytes = match pages.entry(page) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let mut bytes = Box::new([0; PAGE as usize]);
                self.memory.read(RemoteAddress(page * PAGE), bytes.as_mut_slice())?;
                entry.insert(bytes)
            }
        };
        let source = bytes.get(skip..skip + part.len()).expect("a part of a page lies within the page");
        part.copy_from_slice(source);
        Ok(())
    }
}

impl<M: Memory> Memory for PageCache<M> {
    fn read(&self, address: RemoteAddress, buffer: &mut [u8]) -> Result<(), MemoryError> {
        if buffer.len() > CACHED_READ {
            return self.memory.read(address, buffer);
        }
        let bytes = buffer.len();
        let mut position = address.0;
        let mut rest = buffer;
        while !rest.is_empty() {
            let skip = usize::try_from(position % PAGE).expect("less than a page");
            let here = rest.len().min(PAGE as usize - skip);
            let (part, after) = rest.split_at_mut(here);
            self.read_page(position / PAGE, skip, part)?;
            rest = after;
            let next = position.checked_add(here as u64);
            position = match next {
                Some(next) => next,
                None if rest.is_empty() => break,
                None => return Err(MemoryError::Unmapped { address, bytes }),
            };
        }
        Ok(())
    }

    fn refresh(&self) {
        self.pages.borrow_mut().clear();
        self.memory.refresh();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Each byte is the low byte of its address plus a generation; two pages are mapped, from 0x1000.
    #[derive(Default)]
    struct Pattern {
        generation: Cell<u8>,
        reads: Cell<usize>,
    }

    impl Memory for Pattern {
        fn read(&self, address: RemoteAddress, buffer: &mut [u8]) -> Result<(), MemoryError> {
            self.reads.set(self.reads.get() + 1);
            let end = address.0.saturating_add(buffer.len() as u64);
            if address.0 < 0x1000 || end > 0x3000 {
                return Err(MemoryError::Unmapped { address, bytes: buffer.len() });
            }
            for (byte, address) in buffer.iter_mut().zip(address.0..) {
                *byte = (address as u8).wrapping_add(self.generation.get());
            }
            Ok(())
        }
    }

    #[test]
    fn pages_are_read_once_until_refreshed() {
        let pattern = Pattern::default();
        let cache = PageCache::new(&pattern);
        let mut bytes = [0; 4];
        cache.read(RemoteAddress(0x1ffe), &mut bytes).expect("two pages are mapped");
        assert_eq!(bytes, [0xfe, 0xff, 0, 1]);
        pattern.generation.set(1);
        cache.read(RemoteAddress(0x2000), &mut bytes).expect("the second page");
        assert_eq!((bytes, pattern.reads.get()), ([0, 1, 2, 3], 2), "the cached page, no further read");
        cache.refresh();
        cache.read(RemoteAddress(0x2000), &mut bytes).expect("the second page");
        assert_eq!(bytes, [1, 2, 3, 4]);
    }

    #[test]
    fn the_ends_of_memory_are_errors() {
        let cache = PageCache::new(Pattern::default());
        for address in [0x0ffe, 0x2ffe, u64::MAX - 1, 0] {
            assert!(cache.read(RemoteAddress(address), &mut [0; 4]).is_err(), "{address:#x}");
        }
        assert!(cache.read(RemoteAddress(0x2ffc), &mut [0; 4]).is_ok());
    }
}
