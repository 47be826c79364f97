//! Where a CPython interpreter makes and frees contexts (`contextvars.Context`).

use object::read::ReadRef;

use super::disassembly;
use super::entry;
use super::exits;
use super::resolve::Functions;
use super::returned_value;
use crate::model::{ContextSite, ContextSites, FileOffset, SkipReason, VirtualAddress};

/// The function that copies the context of a thread (`Python/context.c`), exported by every version: event loops and thread pools
/// call it for whatever they put off.
const COPY_CURRENT: &str = "PyContext_CopyCurrent";

/// Other functions that make contexts, likewise, and whether they copy one: threads of CPython 3.14 and later begin with an empty one.
const OTHERS: [(&str, bool); 2] = [("PyContext_New", false), ("PyContext_Copy", true)];

impl<'data, R: ReadRef<'data>> Functions<'data, R> {
    /// The places that each new context passes, and the one that each passes that is freed: the entry of the function at this address.
    ///
    /// # Errors
    /// The reason why they cannot be probed where the kernel emulates the instruction.
    pub fn context_sites(&self, freeing: VirtualAddress) -> Result<ContextSites, SkipReason> {
        if !self.image.file.is_x86_64() {
            return Err(SkipReason::ForeignArchitecture);
        }
        let mut made = self.made_in(COPY_CURRENT, true)?;
        for (other, is_copy) in OTHERS {
            match self.made_in(other, is_copy) {
                Ok(sites) => made.extend(sites),
                // Whatever is copied from what they make belongs to nobody that is known.
                Err(problem) => tracing::debug!(function = other, %problem, "contexts that it makes are not seen"),
            }
        }
        // What may be an empty one comes first, and is no copy.
        made.sort_unstable_by_key(|site| (site.offset, site.register, site.is_copy));
        made.dedup_by_key(|site| (site.offset, site.register));
        Ok(ContextSites { made, freed: self.freed_in(freeing)? })
    }

    fn made_in(&self, function: &str, is_copy: bool) -> Result<Vec<ContextSite>, SkipReason> {
        let candidates = self.image.functions.find(|symbol| symbol == function, |_| Some(0)).candidates;
        let candidate = candidates.first().ok_or(SkipReason::NoCode)?;
        let address = candidate.address.0;
        let size = self.image.size_of(address, candidate.size).ok_or(SkipReason::NoCode)?;
        let places = returned_value::places(&self.image, address, size, function)?.ok_or(SkipReason::NoReturnSite)?;
        let site = |(address, register): (u64, iced_x86::Register)| {
            let offset = self.image.file.code_offset(address)?;
            Some(ContextSite { offset, register: u8::try_from(register.number()).ok()?, is_copy })
        };
        places.into_iter().map(site).collect::<Option<_>>().ok_or(SkipReason::NoCode)
    }

    fn freed_in(&self, function: VirtualAddress) -> Result<FileOffset, SkipReason> {
        let size = self.image.size_of(function.0, 0).ok_or(SkipReason::NoCode)?;
        let code = disassembly::decode(&self.image, function.0, size, &[])?;
        let exits = exits::find(&self.image, &code)?;
        let entry = entry::find(&self.image, &code, &exits)?;
        match entry.emulated {
            true => Ok(entry.offset),
            false => Err(SkipReason::ForbiddenInstruction { address: function }),
        }
    }
}
