//! Numbers in sentences.

/// A number with the word that goes with it.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
