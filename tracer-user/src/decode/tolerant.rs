//! Reads structs of which an older version may have written less and a newer one more.

use zerocopy::{FromBytes, IntoBytes};

use super::error::DecodeError;

/// The struct at the beginning of these bytes. Fields that are not there are 0, and what follows is left alone.
///
/// # Errors
/// Fewer bytes are there than every version has written.
pub fn read<Struct: FromBytes + IntoBytes>(bytes: &[u8], least: usize) -> Result<Struct, DecodeError> {
    if bytes.len() < least {
        return Err(DecodeError::TooShort { found: bytes.len(), needed: least });
    }
    let mut value = Struct::new_zeroed();
    let there = bytes.len().min(size_of::<Struct>());
    value.as_mut_bytes()[..there].copy_from_slice(&bytes[..there]);
    Ok(value)
}
