//! How long a text on a span may be: names and paths come from a target, which may make them as long as it likes.

use super::environment::{Environment, set};
use super::error::ExportError;

/// Variables of the OpenTelemetry SDK specification ("Attribute limits"), the first one that is set counts.
const VARIABLES: [&str; 2] = ["OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"];

/// Characters of a text where no variable says how many. Paths of Linux have at most 4096 bytes.
const LONGEST: usize = 4096;

/// The limit on the texts of span attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributeLimits {
    /// Characters of a text, at most.
    value_length: usize,
}

impl Default for AttributeLimits {
    fn default() -> Self {
        Self { value_length: LONGEST }
    }
}

impl AttributeLimits {
    /// The limit that the environment sets.
    ///
    /// # Errors
    /// A variable is no number.
    pub fn read(environment: Environment<'_>) -> Result<Self, ExportError> {
        let given = VARIABLES.into_iter().find_map(|name| set(environment, name).map(|value| (name, value)));
        let Some((variable, value)) = given else { return Ok(Self::default()) };
        match value.trim().parse() {
            Ok(value_length) => Ok(Self { value_length }),
            Err(_) => {
                let reason = format!("`{value}` is no number of characters");
                Err(ExportError::BadSetting { variable, reason })
            }
        }
    }

    /// The text, or as much of it as may be shown.
    pub fn shorten<'text>(&self, text: &'text str) -> &'text str {
        first(text, self.value_length)
    }
}

/// The text of a name or of a resource attribute, which the variables do not speak of.
pub fn shorten_name(text: &str) -> &str {
    first(text, LONGEST)
}

/// The first characters of a text.
fn first(text: &str, characters: usize) -> &str {
    if text.len() <= characters {
        return text;
    }
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_counted_not_bytes() {
        let limits = AttributeLimits { value_length: 3 };
        for (text, short) in [("", ""), ("abc", "abc"), ("abcd", "abc"), ("模型模型", "模型模"), ("模型", "模型")]
        {
            assert_eq!(limits.shorten(text), short);
        }
        assert_eq!(shorten_name(&"x".repeat(120 << 10)).len(), LONGEST);
    }

    #[test]
    fn the_environment_sets_the_limit() {
        let read = |values: &[(&str, &str)]| {
            AttributeLimits::read(&|name| {
                values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let limit = |values: &[(&str, &str)]| read(values).expect("a limit").value_length;
        assert_eq!(limit(&[]), LONGEST);
        assert_eq!(limit(&[("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "")]), LONGEST);
        assert_eq!(limit(&[("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "8")]), 8);
        assert_eq!(limit(&[("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "8"), (VARIABLES[0], "9000")]), 9000);
        let error = read(&[("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1")]).expect_err("no limit").to_string();
        assert!(error.contains("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT: `-1` is no number"), "{error}");
    }
}
