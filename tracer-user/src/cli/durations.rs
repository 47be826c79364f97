//! Times, as they are typed.

use std::time::Duration;

/// A time with a unit, or in seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = if is_number { "s" } else { "" };
    let duration = humantime::parse_duration(&format!("{text}{seconds}"));
    duration.map_err(|_| "write a number and a unit: 500ms, 10s, 5m, 1h".to_owned())
}

/// A time from one table to the next.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval >= Duration::from_millis(100) { Ok(interval) } else { Err("write a time of at least 100ms".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("3"), Ok(Duration::from_secs(3)));
        assert_eq!(parse_duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "s", "10x", "-1s", "1e99h"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
