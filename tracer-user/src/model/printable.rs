//! Text from a target, made fit to be shown on a terminal.

use std::borrow::Cow;

/// The text with every character escaped that would not be shown as itself: control characters, which can clear a screen or
/// forge a line, and those that hide or turn around what stands beside them (U+202E and its like). Escapes have Rust's form,
/// `\u{1b}`, `\n`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_plain(character) {
            shown.push(character);
        } else {
            // The standard library knows what can be printed. It escapes a combining mark only at the beginning of a text.
            shown.extend(format!("x{character}").escape_debug().skip(1));
        }
    }
    Cow::Owned(shown)
}

/// Quotes and the backslash are shown as they are: paths and generic names have them, and nothing is quoted here.
fn is_plain(character: char) -> bool {
    character.is_ascii_graphic() || character == ' '
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_not_passed_on() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\r"), "a\\u{1b}[2Jb\\nc\\r");
        assert_eq!(printable("\u{9b}2J\u{7f}"), "\\u{9b}2J\\u{7f}");
    }

    #[test]
    fn what_hides_or_turns_text_around_is_shown() {
        for hidden in ["\u{202e}", "\u{2066}", "\u{200b}", "\u{feff}", "\u{2028}", "\u{ad}", "\u{e0041}", "\u{61c}"] {
            let shown = printable(hidden).into_owned();
            assert!(shown.starts_with("\\u{"), "{shown}");
        }
    }

    #[test]
    fn names_of_all_languages_stay_as_they_are() {
        for name in ["Pipeline<'a, \"x\">::predict", "C:\\models", "模型.predict", "Wäld", "e\u{301}cole", "नमूना"]
        {
            assert_eq!(printable(name), name);
        }
    }
}
