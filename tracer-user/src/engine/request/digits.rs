//! The numbers of traces and spans in headers.

/// A number of so many bytes in hexadecimal digits of either case, in as many digits or in some of the fewer that are allowed; not 0.
pub fn identity<const BYTES: usize>(digits: &str, is_length: impl Fn(usize) -> bool) -> Option<[u8; BYTES]> {
    let are_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !are_digits || digits.len() > 2 * BYTES || !is_length(digits.len()) {
        return None;
    }
    let number = u128::from_str_radix(digits, 16).ok().filter(|number| *number != 0)?;
    number.to_be_bytes().last_chunk().copied()
}
