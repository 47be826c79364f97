//! One line of the tree: names on the left, times in columns, remarks on the right; at most 100 columns.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr as _;

use crate::model::{AttributeValue, CallError, CallFacts, Ending, Parent, Span, Subject, WallClockNs, printable};

/// Width of everything.
pub const WIDTH: usize = 100;
const NAME_WIDTH: usize = 47;
/// A level of the tree takes three columns; deeper levels are numbered instead of drawn.
const DRAWN_LEVELS: usize = 9;

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    /// Whether escape sequences are written.
    pub colour: bool,
}

/// As it is.
const PLAIN: Style = Style::new();
/// Guides and headings.
pub const DIM: Style = Style::new().dimmed();
/// The outermost call.
const BOLD: Style = Style::new().bold();
/// Something that is not as it should be.
pub const WARNING: Style = AnsiColor::Yellow.on_default();
/// A failed call.
const ERROR: Style = AnsiColor::Red.on_default();

impl Palette {
    /// Appends text in a style.
    pub fn paint(self, line: &mut String, style: Style, text: &str) {
        let style = if self.colour { style } else { PLAIN };
        let _ = write!(line, "{style}{text}{style:#}");
    }
}

/// Guides in front of a name: for each level above, whether more siblings follow.
pub fn guides(more_follow: &[bool]) -> String {
    let Some((own, above)) = more_follow.split_last() else { return String::new() };
    let mut text = String::new();
    let hidden = above.len().saturating_sub(DRAWN_LEVELS);
    if hidden > 0 {
        let _ = write!(text, "({hidden}) ");
    }
    for more in above.iter().skip(hidden) {
        text.push_str(if *more { "│  " } else { "   " });
    }
    text.push_str(if *own { "├─ " } else { "└─ " });
    text
}

/// The line of a span. `self_time` is given where it differs from the duration; `parent_is_shown` says whether the line
/// stands below that of its parent.
pub fn span_line(palette: Palette, guides: &str, span: &Span, self_time: Option<u64>, parent_is_shown: bool) -> String {
    let mut line = String::from("  ");
    palette.paint(&mut line, DIM, guides);
    let room = NAME_WIDTH.saturating_sub(guides.width());
    let name = shorten(&printable(span.name()), room);
    let step = step(span, room.saturating_sub(name.width()));
    let has_failed = span.ending.error().is_some();
    let style = match span.subject {
        _ if has_failed => ERROR,
        Subject::LostCall => WARNING,
        _ if guides.is_empty() => BOLD,
        _ => PLAIN,
    };
    palette.paint(&mut line, style, &name);
    palette.paint(&mut line, DIM, &step);
    line.extend(std::iter::repeat_n(' ', room.saturating_sub(name.width() + step.width())));
    // The true duration may be shorter (the end was noticed late) or longer (it has not ended, or was not seen).
    let bound = match span.ending {
        _ if span.ending.is_end_observed() => ' ',
        Ending::Returned { .. } | Ending::Vanished { .. } => ' ',
        Ending::Unwound { .. } | Ending::ThreadEnded => '≤',
        Ending::Lost | Ending::StillOpen | Ending::Unobserved => '≥',
    };
    let duration = duration(span.duration_ns());
    let _ = write!(line, "{:>11}", format!("{bound}{duration}"));
    let self_column = self_time.map(|time| format!("self {:>8}", self::duration(time))).unwrap_or_default();
    let remarks = remarks(span, parent_is_shown);
    if self_column.is_empty() && remarks.is_empty() {
        return line;
    }
    line.push_str("  ");
    if remarks.is_empty() {
        palette.paint(&mut line, DIM, &self_column);
        return line;
    }
    palette.paint(&mut line, DIM, &format!("{self_column:<13}"));
    line.push_str("  ");
    let style = if has_failed { ERROR } else { WARNING };
    let style = if is_remarkable(span) { style } else { DIM };
    palette.paint(&mut line, style, &shorten(&remarks, WIDTH - (2 + NAME_WIDTH + 11 + 2 + 13 + 2)));
    line
}

fn is_remarkable(span: &Span) -> bool {
    !matches!(span.ending, Ending::Returned { error: None } | Ending::Vanished { .. })
        || span.lost_before > 0
        || span.parent_is_far()
        || matches!(span.subject, Subject::Call(CallFacts { children_observed: false, .. }))
}

/// The step in brackets, if there is room for some of it.
fn step(span: &Span, room: usize) -> String {
    let Subject::Call(CallFacts { step: Some(step), .. }) = &span.subject else { return String::new() };
    if room <= 4 {
        return String::new();
    }
    format!(" ({})", shorten(&printable(step), room - 3))
}

fn remarks(span: &Span, parent_is_shown: bool) -> String {
    let mut remarks: Vec<String> = Vec::new();
    match (span.ending.error(), &span.ending) {
        (Some(CallError::ThreadEnded), _) => remarks.push("(thread ended)".to_owned()),
        (Some(CallError::Unwound(None)), _) => remarks.push("(unwound)".to_owned()),
        (Some(error), _) => remarks.push(printable(&error.to_string()).into_owned()),
        (None, Ending::StillOpen | Ending::Unobserved) => remarks.push("(still open)".to_owned()),
        (None, Ending::Lost) => remarks.push("(not observed)".to_owned()),
        (None, _) => {}
    }
    if let Some(parent_thread) = span.parent_thread {
        remarks.push(match parent_is_shown {
            true => format!("thread {}", span.thread.0),
            false => format!("parent: thread {}", parent_thread.0),
        });
    }
    let call = match &span.subject {
        Subject::Call(call) => Some(call),
        Subject::LostCall => None,
    };
    if let Some(folded_calls) = call.map(|call| call.folded_calls).filter(|calls| *calls > 0) {
        remarks.push(format!("+{folded_calls} folded"));
    }
    if span.lost_before > 0 {
        remarks.push(format!("{} lost before", span.lost_before));
    }
    if span.parent_is_far() {
        remarks.push("parent lost".to_owned());
    }
    if span.parent == Parent::Unknown {
        remarks.push("parent not known".to_owned());
    }
    if call.is_some_and(|call| !call.children_observed) {
        remarks.push("calls inside not all seen".to_owned());
    }
    if call.is_some_and(|call| call.may_be_several) {
        remarks.push("perhaps several calls".to_owned());
    }
    if call.is_some_and(|call| !call.class_observed) {
        remarks.push("class not seen".to_owned());
    }
    for (name, value) in &span.attributes {
        let name = name.strip_prefix("ml.").unwrap_or(name);
        remarks.push(match value {
            AttributeValue::Integer(value) => format!("{name}={value}"),
            AttributeValue::Boolean(value) => format!("{name}={value}"),
            AttributeValue::Text(value) => format!("{name}={}", printable(value)),
        });
    }
    remarks.join("  ")
}

impl Span {
    fn parent_is_far(&self) -> bool {
        matches!(self.parent, Parent::Ancestor(_))
    }
}

/// A duration with four digits: `1.234 ms`.
pub fn duration(nanoseconds: u64) -> String {
    const UNITS: [(f64, &str); 3] = [(1e3, "µs"), (1e6, "ms"), (1e9, "s")];
    if nanoseconds < 1_000 {
        return format!("{nanoseconds} ns");
    }
    let nanoseconds = nanoseconds as f64;
    // A value that would round up to 1000 belongs to the next unit.
    let (size, unit) = UNITS.into_iter().find(|(size, _)| nanoseconds / size < 999.95).unwrap_or(UNITS[2]);
    let value = nanoseconds / size;
    let decimals = match value {
        value if value < 9.9995 => 3,
        value if value < 99.995 => 2,
        value if value < 999.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// Time of day in UTC, with microseconds.
pub fn time_of_day(instant: WallClockNs) -> String {
    let microseconds = instant.0 / 1_000;
    let seconds = microseconds / 1_000_000;
    format!("{:02}:{:02}:{:02}.{:06}Z", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60, microseconds % 1_000_000)
}

/// Text cut to a width, its end marked.
pub fn shorten(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let beginnings = text.char_indices().map(|(end, _)| &text[..end]);
    let fits = beginnings.take_while(|beginning| beginning.width() < room).last();
    format!("{}…", fits.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_four_digits() {
        for (nanoseconds, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.000 µs"),
            (12_345, "12.35 µs"),
            (999_949, "999.9 µs"),
            (999_951, "1.000 ms"),
            (123_456_789, "123.5 ms"),
            (5_000_000_000, "5.000 s"),
            (86_400_000_000_000, "86400 s"),
        ] {
            assert_eq!(duration(nanoseconds), text);
        }
    }

    #[test]
    fn deep_levels_are_numbered() {
        assert_eq!(guides(&[]), "");
        assert_eq!(guides(&[true, false]), "│  └─ ");
        let deep = guides(&[false; 64]);
        assert!(deep.starts_with("(54) ") && deep.width() <= 35, "{deep}");
    }

    #[test]
    fn text_is_as_wide_as_a_terminal_shows_it() {
        assert_eq!(shorten("模型.predict", 12), "模型.predict");
        assert_eq!(shorten("模型.predict", 6), "模型.…");
        assert_eq!(shorten("模型.predict", 4), "模…");
        assert_eq!(shorten("e\u{301}cole", 5), "e\u{301}cole");
        assert_eq!(shorten("e\u{301}cole", 3), "e\u{301}c…");
    }
}
