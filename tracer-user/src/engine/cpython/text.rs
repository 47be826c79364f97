//! Strings: every kind that CPython has.

use super::error::ReadProblem;
use super::interpreter::Interpreter;
use super::type_facts::flag;
use crate::memory::Memory;
use crate::model::RemoteAddress;

/// Longest string that is read, bytes of its characters.
pub(super) const TEXT_LIMIT: u64 = 64 << 10;

/// Bits of the `state` of a string: `interned` takes two bits, then these follow (CPython 3.8 to 3.15,
/// Include/cpython/unicodeobject.h, `PyASCIIObject`).
mod state {
    pub const KIND_SHIFT: u32 = 2;
    pub const KIND_MASK: u32 = 0b111;
    pub const COMPACT: u32 = 1 << 5;
    pub const ASCII: u32 = 1 << 6;
    /// To 3.11; the bit means something else afterwards.
    pub const READY: u32 = 1 << 7;
}

/// Where the characters of a string are, and of which kind they are.
struct Characters {
    data: u64,
    /// Bytes of one character: 1, 2 or 4.
    width: u8,
    is_ascii: bool,
    count: u64,
}

impl<M: Memory> Interpreter<M> {
    /// A string. Lone surrogates, which Rust's strings cannot hold, become U+FFFD.
    ///
    /// # Errors
    /// It is no string, is longer than 64 KiB, or changed meanwhile. CPython keeps each string in the narrowest
    /// form, with a zero at the end: what is not so is torn.
    pub fn text(&self, object: RemoteAddress) -> Result<String, ReadProblem> {
        let characters = self.characters(object)?;
        let torn = || ReadProblem::Torn { address: object, what: "string" };
        let size = characters.count * u64::from(characters.width);
        if size > TEXT_LIMIT {
            return Err(ReadProblem::TooLarge { address: object, what: "string", size, limit: TEXT_LIMIT });
        }
        let length = usize::try_from(size).map_err(|_| torn())?;
        let bytes = self.bytes_at(characters.data, length + usize::from(characters.width))?;
        let (bytes, end) = bytes.split_at_checked(length).ok_or_else(torn)?;
        if end.iter().any(|byte| *byte != 0) {
            return Err(torn());
        }
        let text = match characters.width {
            1 if characters.is_ascii => bytes.is_ascii().then(|| bytes.iter().map(|byte| char::from(*byte)).collect()),
            1 => (!bytes.is_ascii()).then(|| bytes.iter().map(|byte| char::from(*byte)).collect()),
            2 => wide(bytes.as_chunks().0.iter().map(|unit| u32::from(u16::from_le_bytes(*unit))), 0x100),
            _ => wide(bytes.as_chunks().0.iter().map(|unit| u32::from_le_bytes(*unit)), 0x1_0000),
        };
        text.ok_or_else(torn)
    }

    /// Whether an object is exactly this string of ASCII characters.
    ///
    /// # Errors
    /// The object cannot be read. What is no string is another string.
    pub fn text_is(&self, object: RemoteAddress, ascii: &str) -> Result<bool, ReadProblem> {
        let characters = match self.characters(object) {
            Err(ReadProblem::WrongType { .. }) => return Ok(false),
            characters => characters?,
        };
        if !characters.is_ascii || characters.count != ascii.len() as u64 {
            return Ok(false);
        }
        Ok(self.bytes_at(characters.data, ascii.len())? == ascii.as_bytes())
    }

    fn characters(&self, object: RemoteAddress) -> Result<Characters, ReadProblem> {
        self.expect_flag(object, flag::TEXT, "string")?;
        let layout = &self.layout.text;
        let torn = || ReadProblem::Torn { address: object, what: "string" };
        let state = self.u32(object, layout.state)?;
        if layout.has_ready_bit && state & state::READY == 0 {
            return Err(torn());
        }
        let width = match state >> state::KIND_SHIFT & state::KIND_MASK {
            kind @ (1 | 2 | 4) => kind as u8,
            _ => return Err(torn()),
        };
        let is_ascii = state & state::ASCII != 0;
        if is_ascii && width != 1 {
            return Err(torn());
        }
        let data = match (state & state::COMPACT != 0, is_ascii) {
            (true, true) => object.0.saturating_add(u64::from(layout.ascii_data)),
            (true, false) => object.0.saturating_add(u64::from(layout.compact_data)),
            (false, _) => u64::from_le_bytes(self.array(object, i64::from(layout.separate_data))?),
        };
        let count = self.u64(object, layout.length)?;
        // No string is longer than the address space.
        if count > u64::MAX >> 8 || data == 0 {
            return Err(torn());
        }
        Ok(Characters { data, width, is_ascii, count })
    }

    /// A string of C, which ends with a zero, of at most 1024 bytes.
    pub(super) fn c_text(&self, address: RemoteAddress) -> Result<String, ReadProblem> {
        let torn = || ReadProblem::Torn { address, what: "name" };
        let mut bytes = Vec::new();
        while bytes.len() < 1024 {
            // Never over the end of a page: the next one may not be mapped.
            let position = address.0.checked_add(bytes.len() as u64).ok_or_else(torn)?;
            let length = usize::try_from(64 - position % 64).map_err(|_| torn())?;
            let part = self.bytes_at(position, length)?;
            if let Some(end) = part.iter().position(|byte| *byte == 0) {
                bytes.extend(part.get(..end).unwrap_or_default());
                return String::from_utf8(bytes).map_err(|_| torn());
            }
            bytes.extend(part);
        }
        Err(torn())
    }
}

/// Text of wide characters, `None` if all would fit into narrower ones or one is none.
fn wide(units: impl Iterator<Item = u32>, widest_needs: u32) -> Option<String> {
    let mut needs_width = false;
    let text = units
        .map(|unit| {
            needs_width |= unit >= widest_needs;
            match unit {
                0xd800..=0xdfff => Some(char::REPLACEMENT_CHARACTER),
                _ => char::from_u32(unit),
            }
        })
        .collect::<Option<String>>()?;
    needs_width.then_some(text)
}
