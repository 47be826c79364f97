//! An input as a list of changes to something sound: most bytes of a file or of a memory must be right for anything to be
//! read at all.

/// Reads changes: two bytes for the place, four for the offset in it, one for the length, then so many bytes.
pub struct Changes<'input>(&'input [u8]);

/// Bytes that are written over those of one place.
pub struct Change<'input> {
    /// Which of the places; to be taken modulo their number.
    pub place: u16,
    offset: u32,
    bytes: &'input [u8],
}

impl<'input> Changes<'input> {
    /// Those of an input.
    pub fn new(input: &'input [u8]) -> Self {
        Self(input)
    }
}

impl<'input> Iterator for Changes<'input> {
    type Item = Change<'input>;

    fn next(&mut self) -> Option<Change<'input>> {
        let (place, rest) = self.0.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first()?;
        let (bytes, rest) = rest.split_at_checked(usize::from(*length)).unwrap_or((rest, &[]));
        self.0 = rest;
        Some(Change { place: u16::from_le_bytes(*place), offset: u32::from_le_bytes(*offset), bytes })
    }
}

impl Change<'_> {
    /// Writes the bytes into a place, from the offset (taken modulo its length) to its end at most.
    pub fn apply(&self, place: &mut [u8]) {
        let offset = self.offset as usize % place.len().max(1);
        for (byte, new) in place.iter_mut().skip(offset).zip(self.bytes) {
            *byte = *new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_stay_in_their_place() {
        let mut place = [0; 4];
        let input = [7, 0, 2, 0, 0, 0, 3, 1, 2, 3, 0, 0, 4, 0, 0, 0, 1, 9];
        let changes: Vec<Change<'_>> = Changes::new(&input).collect();
        assert_eq!(changes.iter().map(|change| change.place).collect::<Vec<_>>(), [7, 0]);
        changes.iter().for_each(|change| change.apply(&mut place));
        assert_eq!(place, [9, 0, 1, 2]);
        changes[0].apply(&mut []);
    }
}
