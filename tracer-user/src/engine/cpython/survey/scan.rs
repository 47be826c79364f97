//! Memory and types go in; the places that look like objects of these types come out.

use std::collections::HashSet;
use std::ops::Range;

use crate::memory::Memory;
use crate::model::RemoteAddress;

/// Objects lie on multiples of this: `ALIGNMENT` of pymalloc (CPython 3.8 to 3.15, Objects/obmalloc.c and
/// Include/internal/pycore_obmalloc.h) and of glibc's malloc on 64-bit machines.
const ALIGNMENT: usize = 16;
/// Offset of `ob_type` (CPython 3.8 to 3.15, Include/object.h, builds with the GIL).
const TYPE: usize = 8;
/// Bytes before an object that are shown with it: its header of the garbage collector.
const BEFORE: usize = 16;
/// Bytes from the start of an object that are shown with it.
const SHOWN: usize = 64;
/// Bytes read at once: they stay in the cache of the processor while they are looked through.
const CHUNK: usize = 512 * 1024;
/// Memory that one look goes through at most, bytes.
const LIMIT: u64 = 2 << 30;

/// How much memory was looked through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// Bytes looked through.
    pub read: u64,
    /// Bytes that could not be read, or that were beyond the limit.
    pub left_out: u64,
}

/// A set of addresses that mostly answers "no", and that quickly.
#[derive(Clone, Debug)]
pub(super) struct AddressSet {
    exact: HashSet<u64>,
    /// One bit for each value of the bits 4 to 19 of an address.
    sieve: Box<[u64; 1024]>,
}

/// A place whose second eight bytes are one of the types.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'chunk> {
    /// Its address.
    pub address: RemoteAddress,
    /// The type.
    pub kind: RemoteAddress,
    chunk: &'chunk [u8],
    position: usize,
}

impl FromIterator<RemoteAddress> for AddressSet {
    fn from_iter<I: IntoIterator<Item = RemoteAddress>>(addresses: I) -> Self {
        let mut set = Self { exact: HashSet::new(), sieve: Box::new([0; 1024]) };
        for RemoteAddress(address) in addresses {
            let (number, bit) = Self::place(address);
            if let Some(number) = set.sieve.get_mut(number) {
                *number |= bit;
            }
            set.exact.insert(address);
        }
        set
    }
}

impl AddressSet {
    fn place(address: u64) -> (usize, u64) {
        let key = (address >> 4) as u16;
        (usize::from(key >> 6), 1 << (key & 63))
    }

    #[inline]
    fn contains(&self, address: u64) -> bool {
        let (number, bit) = Self::place(address);
        self.sieve.get(number).is_some_and(|number| number & bit != 0) && self.exact.contains(&address)
    }
}

impl Candidate<'_> {
    /// The eight bytes at an offset from the object; `None` beyond what is shown.
    pub(super) fn u64(&self, offset: isize) -> Option<u64> {
        let bytes = self.chunk.get(self.position.checked_add_signed(offset)?..)?;
        bytes.first_chunk().map(|number| u64::from_le_bytes(*number))
    }
}

/// Calls `found` for each place in these ranges that looks like an object of one of the types. Many of them are none: what
/// stands there may be a list of types, or what is left of an object that was freed.
pub(super) fn scan(
    memory: &impl Memory,
    ranges: &[Range<RemoteAddress>],
    types: &AddressSet,
    mut found: impl FnMut(Candidate),
) -> Extent {
    let mut extent = Extent::default();
    let mut buffer = vec![0; BEFORE + CHUNK + SHOWN];
    for range in ranges {
        let mut position = range.start.0;
        while position < range.end.0 {
            let length = (range.end.0 - position).min(CHUNK as u64);
            if extent.read + length > LIMIT {
                extent.left_out += range.end.0 - position;
                break;
            }
            // What belongs to objects at the edges is read with the chunk, as far as the range goes.
            let first = position.saturating_sub(BEFORE as u64).max(range.start.0);
            let last = (position + length).saturating_add(SHOWN as u64).min(range.end.0);
            let Some(chunk) = buffer.get_mut(..(last - first) as usize) else { break };
            if memory.read(RemoteAddress(first), chunk).is_ok() {
                extent.read += length;
                let start = (position - first) as usize;
                look_through(chunk, first, start..start + length as usize, types, &mut found);
            } else {
                extent.left_out += length;
            }
            position += length;
        }
    }
    extent
}

fn look_through(
    chunk: &[u8],
    address: u64,
    objects: Range<usize>,
    types: &AddressSet,
    found: &mut impl FnMut(Candidate),
) {
    let Some(places) = chunk.get(objects.clone()) else { return };
    let (places, _) = places.as_chunks::<ALIGNMENT>();
    for (index, place) in places.iter().enumerate() {
        let Some(kind) = place.last_chunk::<{ ALIGNMENT - TYPE }>() else { return };
        let kind = u64::from_le_bytes(*kind);
        if types.contains(kind) {
            let position = objects.start + index * ALIGNMENT;
            let address = RemoteAddress(address + position as u64);
            found(Candidate { address, kind: RemoteAddress(kind), chunk, position });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryError;

    const START: u64 = 0x7f00_0000_0000;

    struct Heap(Vec<u8>);

    impl Memory for Heap {
        fn read(&self, address: RemoteAddress, buffer: &mut [u8]) -> Result<(), MemoryError> {
            let start = address.0.checked_sub(START).map(|start| start as usize);
            let held = start.and_then(|start| self.0.get(start..start + buffer.len()));
            let held = held.ok_or(MemoryError::Unmapped { address, bytes: buffer.len() })?;
            buffer.copy_from_slice(held);
            Ok(())
        }
    }

    impl Heap {
        fn put(&mut self, offset: usize, numbers: &[u64]) {
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            self.0[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }

        fn range(&self) -> Range<RemoteAddress> {
            RemoteAddress(START)..RemoteAddress(START + self.0.len() as u64)
        }
    }

    #[test]
    fn finds_objects_at_the_edges_of_chunks_and_shows_what_is_around_them() {
        let kinds = [RemoteAddress(0x5555_0000_1230), RemoteAddress(0x5555_0001_1230)];
        // The same bits 4 to 19 as one of the types.
        let lookalike = 0x5555_0100_1230;
        let mut heap = Heap(vec![0; 2 * CHUNK + 4096]);
        for (offset, kind) in [(0, kinds[0].0), (CHUNK - 16, kinds[1].0), (CHUNK, kinds[0].0), (CHUNK + 64, lookalike)]
        {
            heap.put(offset, &[3, kind, 77]);
        }
        heap.put(CHUNK - 32, &[11, 12]);
        let end = heap.0.len() - 16;
        heap.put(end, &[9, kinds[0].0]);
        let types: AddressSet = kinds.into_iter().collect();
        let mut places = Vec::new();
        let extent = scan(&heap, &[heap.range()], &types, |candidate| {
            places.push((candidate.address.0 - START, candidate.kind, candidate.u64(0), candidate.u64(16)));
            if candidate.address.0 == START + CHUNK as u64 - 16 {
                assert_eq!((candidate.u64(-16), candidate.u64(-8)), (Some(11), Some(12)));
            }
        });
        let chunk = CHUNK as u64;
        let expected = [
            (0, kinds[0], Some(3), Some(77)),
            (chunk - 16, kinds[1], Some(3), Some(3)),
            (chunk, kinds[0], Some(3), Some(77)),
            (end as u64, kinds[0], Some(9), None),
        ];
        assert_eq!(places, expected);
        assert_eq!(extent, Extent { read: heap.0.len() as u64, left_out: 0 });
    }

    #[test]
    fn what_cannot_be_read_is_counted() {
        let heap = Heap(vec![0; 4096]);
        let beyond = RemoteAddress(START + 8192)..RemoteAddress(START + 8192 + 4096);
        let extent = scan(&heap, &[heap.range(), beyond], &AddressSet::from_iter([]), |_| {});
        assert_eq!(extent, Extent { read: 4096, left_out: 4096 });
    }
}
