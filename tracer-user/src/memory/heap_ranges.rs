//! Where the heap of a process is: the pages that can hold objects made at run time.

use std::ops::Range;

use procfs::process::{MemoryPageFlags, PageInfo, PageMap, Process};

use super::{MemoryError, regions};
use crate::model::RemoteAddress;

/// Pages whose entries of /proc/PID/pagemap are read at once.
const PAGES_AT_ONCE: usize = 1 << 16;

/// Anonymous memory of a process that it may write to and that is in memory now, in order of addresses.
///
/// Pages that were never touched or that are swapped out are left out: reading them would make the process larger or
/// slower, and what has not been used for so long is no model at work.
///
/// # Errors
/// The process is gone, or may not be looked at.
pub fn heap_ranges(pid: u32) -> Result<Vec<Range<RemoteAddress>>, MemoryError> {
    let regions = regions(pid)?;
    // Not every system shows the page map: without it all pages are taken.
    let process = i32::try_from(pid).ok().and_then(|number| Process::new(number).ok());
    let mut pagemap = process.and_then(|process| process.pagemap().ok());
    let mut ranges = Ranges::default();
    for region in regions.iter().filter(|region| region.readable && region.writable && region.file.is_none()) {
        let (start, end) = (region.start.0, region.end.0);
        if pagemap.as_mut().and_then(|pagemap| ranges.add_resident(pagemap, start..end)).is_none() {
            ranges.add(start..end);
        }
    }
    Ok(ranges.found)
}

/// Ranges, where neighbours become one.
#[derive(Default)]
struct Ranges {
    found: Vec<Range<RemoteAddress>>,
}

impl Ranges {
    fn add(&mut self, range: Range<u64>) {
        match self.found.last_mut() {
            Some(last) if last.end.0 >= range.start => last.end = RemoteAddress(range.end.max(last.end.0)),
            _ => self.found.push(RemoteAddress(range.start)..RemoteAddress(range.end)),
        }
    }

    /// Adds the pages of a mapping that are in memory; `None` if the page map cannot be read.
    fn add_resident(&mut self, pagemap: &mut PageMap, mapping: Range<u64>) -> Option<()> {
        let page_size = procfs::page_size();
        let mut page = usize::try_from(mapping.start.checked_div(page_size)?).ok()?;
        let end = usize::try_from(mapping.end.checked_div(page_size)?).ok()?;
        while page < end {
            let infos = pagemap.get_range_info(page..end.min(page + PAGES_AT_ONCE)).ok()?;
            for info in &infos {
                if matches!(info, PageInfo::MemoryPage(flags) if flags.contains(MemoryPageFlags::PRESENT)) {
                    let start = page as u64 * page_size;
                    self.add(start..start + page_size);
                }
                page += 1;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_of_this_process_holds_what_is_on_it_and_no_code() {
        let own = vec![7_u8; 3 << 20];
        let ranges = heap_ranges(std::process::id()).expect("a process may look at itself");
        let holds = |address: usize| ranges.iter().any(|range| range.contains(&RemoteAddress(address as u64)));
        assert!(holds(own.as_ptr().addr()) && holds(own.as_ptr().addr() + own.len() - 1));
        assert!(!holds(heap_ranges as fn(u32) -> _ as usize));
        assert!(ranges.is_sorted_by_key(|range| range.start));
    }

    #[test]
    fn untouched_pages_are_left_out() {
        let large = Vec::<u8>::with_capacity(64 << 20);
        let middle = RemoteAddress((large.as_ptr().addr() + (32 << 20)) as u64);
        let ranges = heap_ranges(std::process::id()).expect("a process may look at itself");
        assert!(!ranges.iter().any(|range| range.contains(&middle)));
    }

    #[test]
    fn a_process_that_is_not_there_is_gone() {
        assert_eq!(heap_ranges(u32::MAX), Err(MemoryError::Gone { pid: u32::MAX }));
    }
}
