//! Compressed sections (`-gz`).

use std::io::Read;

use flate2::read::ZlibDecoder;
use ruzstd::decoding::StreamingDecoder;

/// Half a sentence about debugging information that does not fit together.
pub(super) const DAMAGED: &str = "is damaged";
/// Half a sentence about debugging information that would take too much memory and time.
pub(super) const TOO_LARGE: &str = "is larger than what is read";

/// How a section is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// RFC 1950.
    Zlib,
    /// RFC 8878.
    Zstandard,
}

/// Unpacks a section that states its size; one that holds more than that, or less, is damaged.
pub(super) fn unpack(packing: Packing, data: &[u8], size: u64, limit: u64) -> Result<Vec<u8>, &'static str> {
    if size > limit {
        return Err(TOO_LARGE);
    }
    let mut bytes = Vec::new();
    let read = match packing {
        Packing::Zlib => ZlibDecoder::new(data).take(size).read_to_end(&mut bytes).map(drop).map_err(drop),
        Packing::Zstandard => frames(data, size, &mut bytes),
    };
    let is_whole = read.is_ok() && bytes.len() as u64 == size;
    is_whole.then_some(bytes).ok_or(DAMAGED)
}

/// Linkers that work in parallel write one frame after the other.
fn frames(mut data: &[u8], size: u64, bytes: &mut Vec<u8>) -> Result<(), ()> {
    while (bytes.len() as u64) < size && !data.is_empty() {
        let left = size - bytes.len() as u64;
        let decoder = StreamingDecoder::new(&mut data).map_err(drop)?;
        decoder.take(left).read_to_end(bytes).map_err(drop)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("memory takes everything");
        encoder.finish().expect("memory takes everything")
    }

    #[test]
    fn what_was_packed_comes_back() {
        let bytes = b"debugging information ".repeat(100);
        let size = bytes.len() as u64;
        assert_eq!(unpack(Packing::Zlib, &zlib(&bytes), size, 1 << 20).as_deref(), Ok(bytes.as_slice()));
        let packed = ruzstd::encoding::compress_to_vec(bytes.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
        assert_eq!(unpack(Packing::Zstandard, &packed, size, 1 << 20).as_deref(), Ok(bytes.as_slice()));
        let twice = [packed.as_slice(), &packed].concat();
        assert_eq!(unpack(Packing::Zstandard, &twice, 2 * size, 1 << 20), Ok(bytes.repeat(2)));
    }

    #[test]
    fn a_false_size_is_damage_and_a_large_one_is_not_tried() {
        let packed = zlib(&[0; 100_000]);
        assert_eq!(unpack(Packing::Zlib, &packed, 100_001, 1 << 20), Err(DAMAGED));
        assert_eq!(unpack(Packing::Zlib, &packed, u64::MAX, 1 << 20), Err(TOO_LARGE));
        assert_eq!(unpack(Packing::Zstandard, &packed, 100, 1 << 20), Err(DAMAGED));
        assert_eq!(unpack(Packing::Zlib, &[], 0, 1 << 20), Ok(Vec::new()));
    }
}
