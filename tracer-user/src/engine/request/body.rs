//! Where a body ends: by its length, or by its chunks (RFC 9112, sections 6 and 7). Its bytes are counted and not kept.

use super::piece::{Next, Piece};

/// The rest of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks, from this place on.
    Chunked(Chunk),
}

/// A place among chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// In the digits of a size: its value so far, and how many digits that were.
    Size(u64, u8),
    /// Behind them, with the size.
    AfterSize(u64),
    /// In the data of a chunk, of which so much is left.
    Data(u64),
    /// Behind it: a line ends.
    AfterData,
    /// At the beginning of a line behind the last chunk; whether only its end is missing.
    Trailer(bool),
    /// Within such a line.
    TrailerLine,
}

/// How far a piece has led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The body has ended; the piece may hold more.
    Ended,
    /// The piece is used up.
    More,
    /// The next byte must be known, and is not.
    Unseen,
    /// This is no body.
    Malformed,
}

/// Digits of a size: more than any chunk has.
const MOST_DIGITS: u8 = 15;

impl Body {
    /// Chunks, from their beginning.
    pub const CHUNKED: Self = Self::Chunked(Chunk::Size(0, 0));

    /// Takes from a piece what belongs to the body, and counts it.
    pub fn advance(&mut self, piece: &mut Piece<'_>, count: &mut u64) -> Progress {
        match self {
            Self::Length(left) => {
                let taken = piece.skip(*left);
                *left -= taken;
                *count += taken;
                if *left == 0 { Progress::Ended } else { Progress::More }
            }
            Self::Chunked(chunk) => loop {
                if let Chunk::Data(left) = chunk {
                    let taken = piece.skip(*left);
                    *left -= taken;
                    *count += taken;
                    if *left > 0 {
                        return Progress::More;
                    }
                    *chunk = Chunk::AfterData;
                }
                let byte = match piece.next() {
                    Next::Byte(byte) => byte,
                    Next::Unseen => return Progress::Unseen,
                    Next::End => return Progress::More,
                };
                match chunk.after(byte) {
                    Step::To(next) => *chunk = next,
                    Step::Ended => return Progress::Ended,
                    Step::Malformed => return Progress::Malformed,
                }
            },
        }
    }
}

enum Step {
    To(Chunk),
    Ended,
    Malformed,
}

impl Chunk {
    fn after(self, byte: u8) -> Step {
        match (self, byte) {
            (Self::Size(value, digits), _) if byte.is_ascii_hexdigit() => match digits < MOST_DIGITS {
                true => Step::To(Self::Size(value << 4 | u64::from(digit(byte)), digits + 1)),
                false => Step::Malformed,
            },
            (Self::Size(_, 0), _) => Step::Malformed,
            (Self::Size(value, _) | Self::AfterSize(value), b'\n') => Step::To(match value {
                0 => Self::Trailer(false),
                _ => Self::Data(value),
            }),
            (Self::Size(value, _), b'\r' | b';' | b' ' | b'\t') | (Self::AfterSize(value), _) => {
                Step::To(Self::AfterSize(value))
            }
            (Self::AfterData | Self::TrailerLine, b'\n') => Step::To(match self {
                Self::AfterData => Self::Size(0, 0),
                _ => Self::Trailer(false),
            }),
            (Self::AfterData, b'\r') => Step::To(self),
            (Self::Trailer(_), b'\n') => Step::Ended,
            (Self::Trailer(false), b'\r') => Step::To(Self::Trailer(true)),
            (Self::Trailer(false) | Self::TrailerLine, _) => Step::To(Self::TrailerLine),
            (Self::Size(..) | Self::Data(_) | Self::AfterData | Self::Trailer(true), _) => Step::Malformed,
        }
    }
}

fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKS: &[u8] = b"5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\nGET";

    #[test]
    fn chunks_end_where_they_end_however_they_are_cut() {
        for cut in 0..=CHUNKS.len() {
            let (mut body, mut count) = (Body::CHUNKED, 0);
            let (first, second) = CHUNKS.split_at(cut);
            let (mut left, mut has_ended) = (0, false);
            for part in [first, second] {
                let mut piece = Piece::new(part, part.len() as u64);
                has_ended = has_ended || body.advance(&mut piece, &mut count) == Progress::Ended;
                left += piece.skip_all();
            }
            // Of what follows the end, nothing is taken.
            assert_eq!((count, left), (15, 3), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let (mut body, mut count) = (Body::CHUNKED, 0);
        // The data may be unseen, and what follows must be seen.
        assert_eq!(body.advance(&mut Piece::new(b"ff\r\nabc", 4 + 256), &mut count), Progress::Unseen);
        let mut body = Body::CHUNKED;
        assert_eq!(body.advance(&mut Piece::new(b"ff\r\nabc", 4 + 200), &mut count), Progress::More);
        assert_eq!(body.advance(&mut Piece::new(b"", 55), &mut count), Progress::More);
        assert_eq!(body.advance(&mut Piece::new(b"\r\n0\r\n\r\n", 7), &mut count), Progress::Ended);
        for malformed in [&b"\r\n"[..], b"x\r\n", b"5\r\nhelloX", b"1234567890abcdef0\r\n", b"0\r\n\rX"] {
            let piece = &mut Piece::new(malformed, malformed.len() as u64);
            assert_eq!(Body::CHUNKED.clone().advance(piece, &mut count), Progress::Malformed, "{malformed:?}");
        }
    }
}
