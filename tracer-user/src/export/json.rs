//! Pieces of JSON text appended to a buffer, for the sinks that write hundreds of thousands of spans a second.

use super::value_ref::ValueRef;

/// Appends a quoted and escaped string.
pub fn push_string(buffer: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(buffer, text).expect("writing text to memory cannot fail");
}

/// Appends a number.
pub fn push_number(buffer: &mut Vec<u8>, number: impl Into<i128>) {
    let number = number.into();
    if number < 0 {
        buffer.push(b'-');
    }
    push_digits(buffer, number.unsigned_abs(), 1);
}

/// Appends nanoseconds as microseconds with three decimals.
pub fn push_microseconds(buffer: &mut Vec<u8>, nanoseconds: i128) {
    if nanoseconds < 0 {
        buffer.push(b'-');
    }
    let nanoseconds = nanoseconds.unsigned_abs();
    push_digits(buffer, nanoseconds / 1_000, 1);
    buffer.push(b'.');
    push_digits(buffer, nanoseconds % 1_000, 3);
}

/// Appends bytes as lower-case hexadecimal digits.
pub fn push_hexadecimal(buffer: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        buffer.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
    }
}

/// Appends a value as JSON has it.
pub fn push_value(buffer: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Integer(value) => push_number(buffer, value),
        ValueRef::Boolean(value) => buffer.extend_from_slice(if value { b"true" } else { b"false" }),
        ValueRef::Text(value) => push_string(buffer, value),
    }
}

fn push_digits(buffer: &mut Vec<u8>, number: u128, at_least: usize) {
    let mut digits = [b'0'; 39];
    let mut first = digits.len();
    // Nearly all numbers fit 64 bits, where division is cheap.
    let mut push = |digit: u8| {
        first -= 1;
        digits[first] = b'0' + digit;
    };
    match u64::try_from(number) {
        Ok(mut rest) => {
            while rest > 0 {
                push((rest % 10) as u8);
                rest /= 10;
            }
        }
        Err(_) => {
            let mut rest = number;
            while rest > 0 {
                push((rest % 10) as u8);
                rest /= 10;
            }
        }
    }
    let first = first.min(digits.len() - at_least);
    buffer.extend_from_slice(&digits[first..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(fill: impl Fn(&mut Vec<u8>)) -> String {
        let mut buffer = Vec::new();
        fill(&mut buffer);
        String::from_utf8(buffer).expect("text")
    }

    #[test]
    fn numbers_are_written_as_the_library_would() {
        for number in [0, 1, -1, 9, 10, 1_234_567, i64::MAX, i64::MIN] {
            assert_eq!(text(|buffer| push_number(buffer, number)), number.to_string());
        }
        assert_eq!(text(|buffer| push_number(buffer, i128::MIN)), i128::MIN.to_string());
        assert_eq!(text(|buffer| push_microseconds(buffer, 1_234_567)), "1234.567");
        assert_eq!(text(|buffer| push_microseconds(buffer, 7)), "0.007");
        assert_eq!(text(|buffer| push_microseconds(buffer, -1_050)), "-1.050");
        assert_eq!(text(|buffer| push_hexadecimal(buffer, &[0, 0xaf, 0xff])), "00afff");
    }
}
