//! What went over a connection at once: the first bytes as they were, and of the others how many.

/// Bytes in their order. What has been taken is gone from it.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'bytes> {
    bytes: &'bytes [u8],
    unseen: u64,
}

/// The next byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This one.
    Byte(u8),
    /// There is one, and nobody knows which.
    Unseen,
    /// There is none.
    End,
}

impl<'bytes> Piece<'bytes> {
    /// So many bytes, of which these are the first.
    pub fn new(bytes: &'bytes [u8], length: u64) -> Self {
        let seen = bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        Self { bytes: &bytes[..seen], unseen: length - seen as u64 }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.unseen == 0
    }

    /// The bytes that are known.
    pub fn bytes(&self) -> &'bytes [u8] {
        self.bytes
    }

    /// Whether bytes follow that are not known.
    pub fn has_unseen(&self) -> bool {
        self.unseen > 0
    }

    /// Takes one byte.
    pub fn next(&mut self) -> Next {
        match self.bytes.split_first() {
            Some((byte, rest)) => {
                self.bytes = rest;
                Next::Byte(*byte)
            }
            None if self.unseen > 0 => Next::Unseen,
            None => Next::End,
        }
    }

    /// Takes so many bytes, known or not, or as many as there are; gives how many.
    pub fn skip(&mut self, most: u64) -> u64 {
        let seen = self.bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        self.bytes = &self.bytes[seen..];
        let unseen = self.unseen.min(most - seen as u64);
        self.unseen -= unseen;
        seen as u64 + unseen
    }

    /// Takes everything; gives how many bytes that were.
    pub fn skip_all(&mut self) -> u64 {
        self.skip(u64::MAX)
    }
}
