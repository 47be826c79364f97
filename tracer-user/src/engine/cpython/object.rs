//! Integers, pointers, object headers and types: what every other reading begins with.

use super::error::ReadProblem;
use super::interpreter::{INTEGER_DIGIT, Interpreter};
use super::type_facts::{TypeFacts, flag};
use crate::memory::Memory;
use crate::model::RemoteAddress;

/// Lowest address that a process can have mapped (vm.mmap_min_addr is 64 KiB, never less than a page).
const LOWEST_ADDRESS: u64 = 4096;
/// Address after the highest of user space with five-level page tables (Documentation/arch/x86/x86_64/5level-paging.rst).
const ADDRESS_LIMIT: u64 = 1 << 56;
/// Largest `tp_basicsize` that is believed, bytes.
const BASIC_SIZE_LIMIT: u64 = 16 << 20;

impl<M: Memory> Interpreter<M> {
    /// Type of an object.
    ///
    /// # Errors
    /// There is no object there, or no longer.
    pub fn type_of(&self, object: RemoteAddress) -> Result<RemoteAddress, ReadProblem> {
        self.facts_of(object).map(|(class, _)| class)
    }

    /// Type of an object and what is known of the type.
    pub(super) fn facts_of(&self, object: RemoteAddress) -> Result<(RemoteAddress, TypeFacts), ReadProblem> {
        let class = self.header(object)?;
        Ok((class, self.facts(class)?))
    }

    /// Checks that an object is an instance of a built-in type, told by a flag of its type.
    pub(super) fn expect_flag(
        &self,
        object: RemoteAddress,
        flag: u64,
        expected: &'static str,
    ) -> Result<TypeFacts, ReadProblem> {
        let (_, facts) = self.facts_of(object)?;
        if facts.has(flag) { Ok(facts) } else { Err(ReadProblem::WrongType { address: object, expected }) }
    }

    /// Checks that an object is of exactly this type.
    pub(super) fn expect_type(
        &self,
        object: RemoteAddress,
        class: RemoteAddress,
        expected: &'static str,
    ) -> Result<(), ReadProblem> {
        if self.header(object)? == class { Ok(()) } else { Err(ReadProblem::WrongType { address: object, expected }) }
    }

    /// What is known of a type, after checking that it is one.
    pub(super) fn facts(&self, class: RemoteAddress) -> Result<TypeFacts, ReadProblem> {
        if let Some(facts) = self.known_types.borrow().get(&class) {
            return Ok(*facts);
        }
        let torn = || ReadProblem::Torn { address: class, what: "type" };
        let metaclass = self.header(class)?;
        let layout = &self.layout.class;
        if self.u64(metaclass, layout.tp_flags)? & flag::TYPE == 0 || self.header(metaclass).is_err() {
            return Err(torn());
        }
        let facts = TypeFacts {
            flags: self.u64(class, layout.tp_flags)?,
            basic_size: self.u64(class, layout.tp_basicsize)?,
            item_size: self.u64(class, layout.tp_itemsize)?,
            dictionary_offset: self.u64(class, layout.tp_dictoffset)?.cast_signed(),
        };
        let is_sound = facts.has(flag::READY)
            && facts.basic_size <= BASIC_SIZE_LIMIT
            && facts.item_size <= BASIC_SIZE_LIMIT
            && facts.dictionary_offset.unsigned_abs() <= BASIC_SIZE_LIMIT;
        if !is_sound {
            return Err(torn());
        }
        self.known_types.borrow_mut().insert(class, facts);
        Ok(facts)
    }

    /// The type that the header of an object names, which is not looked at. A freed object has no sensible reference
    /// count: it is 0, or (freed blocks are chained by their first eight bytes) a pointer.
    fn header(&self, object: RemoteAddress) -> Result<RemoteAddress, ReadProblem> {
        let torn = ReadProblem::Torn { address: object, what: "object" };
        if !is_plausible(object.0) {
            return Err(torn);
        }
        // From 3.14 the upper 16 bits are flags (Include/object.h, ob_flags).
        let references = self.u64(object, 0)? & 0x0000_ffff_ffff_ffff;
        match self.pointer(object, self.layout.object.ob_type)? {
            Some(class) if references != 0 && references <= u64::from(u32::MAX) => Ok(class),
            _ => Err(torn),
        }
    }

    /// The number in an int of less than 2^30, or in a bool, without its sign.
    ///
    /// # Errors
    /// It is no int.
    pub(super) fn small_integer(&self, object: RemoteAddress) -> Result<u32, ReadProblem> {
        self.expect_flag(object, flag::INTEGER, "int")?;
        self.u32(object, INTEGER_DIGIT)
    }

    /// Eight bytes of a structure.
    pub(super) fn u64(&self, structure: RemoteAddress, offset: u32) -> Result<u64, ReadProblem> {
        Ok(u64::from_le_bytes(self.array(structure, i64::from(offset))?))
    }

    /// Four bytes of a structure.
    pub(super) fn u32(&self, structure: RemoteAddress, offset: u32) -> Result<u32, ReadProblem> {
        Ok(u32::from_le_bytes(self.array(structure, i64::from(offset))?))
    }

    /// One byte of a structure.
    pub(super) fn u8(&self, structure: RemoteAddress, offset: u32) -> Result<u8, ReadProblem> {
        let [byte] = self.array(structure, i64::from(offset))?;
        Ok(byte)
    }

    /// A pointer in a structure; `None` for NULL.
    pub(super) fn pointer(&self, structure: RemoteAddress, offset: u32) -> Result<Option<RemoteAddress>, ReadProblem> {
        self.pointer_before(structure, i64::from(offset))
    }

    /// A pointer in a structure, or before it; `None` for NULL.
    pub(super) fn pointer_before(
        &self,
        structure: RemoteAddress,
        offset: i64,
    ) -> Result<Option<RemoteAddress>, ReadProblem> {
        match u64::from_le_bytes(self.array(structure, offset)?) {
            0 => Ok(None),
            value if is_plausible(value) => Ok(Some(RemoteAddress(value))),
            _ => Err(ReadProblem::Torn { address: structure, what: "pointer" }),
        }
    }

    /// A pointer that is never NULL in a complete object.
    pub(super) fn required(
        &self,
        structure: RemoteAddress,
        offset: u32,
        what: &'static str,
    ) -> Result<RemoteAddress, ReadProblem> {
        self.pointer(structure, offset)?.ok_or(ReadProblem::Torn { address: structure, what })
    }

    pub(super) fn array<const N: usize>(&self, structure: RemoteAddress, offset: i64) -> Result<[u8; N], ReadProblem> {
        let mut bytes = [0; N];
        let address = structure.0.checked_add_signed(offset);
        let address = address.ok_or(ReadProblem::Torn { address: structure, what: "address" })?;
        self.memory.read(RemoteAddress(address), &mut bytes)?;
        Ok(bytes)
    }

    /// Bytes at an address, their number checked by the caller.
    pub(super) fn bytes_at(&self, address: u64, length: usize) -> Result<Vec<u8>, ReadProblem> {
        let mut bytes = vec![0; length];
        self.memory.read(RemoteAddress(address), &mut bytes)?;
        Ok(bytes)
    }

    /// Pointers that lie one after the other; `None` for NULL.
    pub(super) fn pointers_at(
        &self,
        address: u64,
        count: usize,
    ) -> Result<impl Iterator<Item = Result<Option<RemoteAddress>, ReadProblem>>, ReadProblem> {
        let bytes = self.bytes_at(address, count.saturating_mul(8))?;
        let torn = ReadProblem::Torn { address: RemoteAddress(address), what: "pointer" };
        let (numbers, _) = bytes.as_chunks::<8>();
        let numbers: Vec<u64> = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
        Ok(numbers.into_iter().map(move |number| match number {
            0 => Ok(None),
            number if is_plausible(number) => Ok(Some(RemoteAddress(number))),
            _ => Err(torn.clone()),
        }))
    }
}

/// Whether an object can be at an address: all are aligned to 8 bytes.
pub(super) fn is_plausible(address: u64) -> bool {
    address.is_multiple_of(8) && (LOWEST_ADDRESS..ADDRESS_LIMIT).contains(&address)
}
