//! One line of the tree: names on the left, times in columns, remarks on the right.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr as _;

use super::columns::{DURATION, Room};
use crate::model::{AttributeValue, CallError, CallFacts, Ending, Parent, Span, Subject, WallClockNs, printable};

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

/// Guides in front of a name: for each level above, whether more siblings follow. A level takes three columns; those above the
/// last `drawn` ones are numbered instead of drawn.
pub fn guides(more_follow: &[bool], drawn: usize) -> String {
    let Some((own, above)) = more_follow.split_last() else { return String::new() };
    let mut text = String::new();
    let hidden = above.len().saturating_sub(drawn);
    if hidden > 0 {
        let _ = write!(text, "({hidden}) ");
    }
    for more in above.iter().skip(hidden) {
        text.push_str(if *more { "│  " } else { "   " });
    }
    text.push_str(if *own { "├─ " } else { "└─ " });
    text
}

/// Guides in front of a second line for the same call.
fn guides_below(more_follow: &[bool], drawn: usize, has_children: bool) -> String {
    let hidden = more_follow.len().saturating_sub(drawn + 1);
    let above = more_follow.iter().skip(hidden).map(|more| if *more { "│  " } else { "   " });
    let number = if hidden > 0 { " ".repeat(format!("({hidden}) ").len()) } else { String::new() };
    number + &above.collect::<String>() + if has_children { "│  " } else { "   " }
}

/// What stands on the line of a call besides the call itself.
#[derive(Clone, Copy, Debug)]
pub struct Line<'tree> {
    /// For each level above, whether more siblings follow.
    pub more_follow: &'tree [bool],
    /// The time of its own, where that differs from the duration.
    pub self_time: Option<u64>,
    /// Whether it stands below the line of its parent.
    pub parent_is_shown: bool,
    /// Whether calls inside it stand below it.
    pub has_children: bool,
    /// Calls inside it that are not shown.
    pub hidden_calls: usize,
}

/// Appends the line of a span, and a second one where its remarks find no room on the first and may have one.
pub fn span_line(text: &mut String, palette: Palette, room: &Room, span: &Span, line: Line<'_>) {
    let guides = guides(line.more_follow, room.levels);
    text.push_str("  ");
    palette.paint(text, DIM, &guides);
    let columns = room.name.saturating_sub(guides.width());
    let (name, step) = name_and_step(span, columns);
    let has_failed = span.error().is_some();
    let style = match span.subject {
        _ if has_failed => ERROR,
        Subject::LostCall => WARNING,
        _ if guides.is_empty() => BOLD,
        _ => PLAIN,
    };
    palette.paint(text, style, &name);
    palette.paint(text, DIM, &step);
    text.extend(std::iter::repeat_n(' ', columns.saturating_sub(name.width() + step.width())));
    // The true duration may be shorter (the end was noticed late) or longer (it has not ended, or was not seen).
    let bound = match span.ending {
        _ if span.ending.is_end_observed() => ' ',
        Ending::Returned { .. } | Ending::Vanished { .. } => ' ',
        Ending::Unwound { .. } | Ending::ThreadEnded => '≤',
        Ending::Lost | Ending::StillOpen | Ending::Unobserved | Ending::Unanswered => '≥',
    };
    let duration = duration(span.duration_ns());
    let _ = write!(text, "{:>DURATION$}", format!("{bound}{duration}"));
    let self_column = line.self_time.map(|time| format!("self {:>8}", self::duration(time))).unwrap_or_default();
    let style = if has_failed { ERROR } else { WARNING };
    let style = if is_remarkable(span) { style } else { DIM };
    let remarks = remarks(span, &line, room);
    let has_room = remarks.width() <= room.remarks || !room.has_own_line;
    if !self_column.is_empty() || (has_room && !remarks.is_empty()) {
        text.push_str("  ");
    }
    if has_room && !remarks.is_empty() {
        palette.paint(text, DIM, &format!("{self_column:<13}"));
        text.push_str("  ");
        palette.paint(text, style, &shorten(&remarks, room.remarks));
    } else {
        palette.paint(text, DIM, &self_column);
    }
    text.push('\n');
    if !has_room {
        let guides = guides_below(line.more_follow, room.levels, line.has_children);
        text.push_str("  ");
        palette.paint(text, DIM, &guides);
        palette.paint(text, style, &shorten(&remarks, room.line.saturating_sub(2 + guides.width())));
        text.push('\n');
    }
}

fn is_remarkable(span: &Span) -> bool {
    !matches!(span.ending, Ending::Returned { error: None } | Ending::Vanished { .. })
        || span.lost_before > 0
        || span.parent_is_far()
        || match &span.subject {
            Subject::Call(call) => !call.children_observed || !call.unwatched_steps.is_empty(),
            Subject::LostCall | Subject::Request(_) => false,
        }
}

/// The name, and the step in brackets: where there is no room for both, each gets some of it.
fn name_and_step(span: &Span, room: usize) -> (String, String) {
    let name = printable(span.name());
    let step = match &span.subject {
        Subject::Request(facts) => {
            // The path, which is no name, and the status are what people look for. The route, which is part of the name, is more.
            let status = facts.status.map(|status| format!(" {status}")).unwrap_or_default();
            let path = if facts.route.is_none() { format!(" {}", printable(&facts.path)) } else { String::new() };
            return (shorten(&format!("{name}{path}"), room.saturating_sub(status.width())), status);
        }
        Subject::Call(CallFacts { step: Some(step), .. }) => printable(step),
        Subject::Call(_) | Subject::LostCall => return (shorten(&name, room), String::new()),
    };
    let of_step = (step.width() + 3).min((room / 2).max(room.saturating_sub(name.width())));
    let step = format!(" ({})", shorten(&step, of_step.saturating_sub(3)));
    (shorten(&name, room.saturating_sub(step.width())), step)
}

fn remarks(span: &Span, line: &Line<'_>, room: &Room) -> String {
    let mut remarks: Vec<String> = Vec::new();
    match (span.error(), &span.ending) {
        (Some(CallError::ThreadEnded), _) => remarks.push("(thread ended)".to_owned()),
        (Some(CallError::Unwound(None)), _) => remarks.push("(unwound)".to_owned()),
        (Some(error), _) => remarks.push(printable(&error.to_string()).into_owned()),
        (None, Ending::StillOpen | Ending::Unobserved) => remarks.push("(still open)".to_owned()),
        (None, Ending::Lost) => remarks.push("(not observed)".to_owned()),
        (None, Ending::Unanswered) => remarks.push("(answer not seen)".to_owned()),
        (None, _) => {}
    }
    let call = match &span.subject {
        Subject::Call(call) => Some(call),
        Subject::LostCall | Subject::Request(_) => None,
    };
    if let Some(steps) = call.map(|call| &call.unwatched_steps).filter(|steps| !steps.is_empty()) {
        // It stands beside the time of its own, which may be theirs.
        let names = format!("({} not watched)", steps.text());
        let is_short = steps.count() == 1 || names.width() <= room.remarks;
        remarks.push(if is_short { names } else { format!("({} steps not watched)", steps.count()) });
    }
    if let Some(parent_thread) = span.parent_thread {
        remarks.push(match line.parent_is_shown {
            true => format!("thread {}", span.thread.0),
            false => format!("parent: thread {}", parent_thread.0),
        });
    }
    if let Some(folded_calls) = call.map(|call| call.folded_calls).filter(|calls| *calls > 0) {
        remarks.push(format!("+{folded_calls} folded"));
    }
    if line.hidden_calls > 0 {
        remarks.push(format!("+{} below", line.hidden_calls));
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
    use super::super::super::samples;
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
        assert_eq!(guides(&[], 9), "");
        assert_eq!(guides(&[true, false], 9), "│  └─ ");
        let deep = guides(&[false; 64], 9);
        assert!(deep.starts_with("(54) ") && deep.width() <= 35, "{deep}");
    }

    fn lines(columns: usize, change: impl FnOnce(&mut Span)) -> String {
        let mut span = samples::python_spans().remove(0);
        change(&mut span);
        let (more_follow, self_time) = (&[true, true][..], None);
        let line = Line { more_follow, self_time, parent_is_shown: true, has_children: true, hidden_calls: 0 };
        let mut text = String::new();
        span_line(&mut text, Palette { colour: false }, &Room::of(columns, true), &span, line);
        text
    }

    #[test]
    fn a_step_is_never_left_out() {
        for columns in [54, 80, 100, 180] {
            let text = lines(columns, |_| {});
            assert!(text.contains(" (scaler)"), "{columns}: {text}");
            let text = lines(columns, |span| {
                let function = samples::python_function(1, &"VeryLongName".repeat(10), "transform");
                samples::facts(span).function = Some(function);
                samples::facts(span).step = Some("a_step_with_a_name_of_some_length".into());
            });
            assert!(
                text.contains("Very") && text.contains(" (a_ste") && text.width() <= columns + 1,
                "{columns}: {text}"
            );
        }
    }

    #[test]
    fn a_request_is_shown_with_its_path_and_its_status() {
        let line =
            Line { more_follow: &[], self_time: None, parent_is_shown: false, has_children: false, hidden_calls: 0 };
        let spans = samples::request_spans();
        let shown = spans.iter().map(|span| {
            let mut text = String::new();
            span_line(&mut text, Palette { colour: false }, &Room::of(120, true), span, line);
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        });
        let expected = [
            "POST /predict/{model} 200 1.000 ms",
            "POST /predict/7 500 1.000 ms status 500",
            "HTTP /predict/7 ≥1.000 ms (answer not seen)",
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_remark_without_room_gets_a_line_of_its_own_on_a_terminal() {
        let mark = |span: &mut Span| samples::facts(span).children_observed = false;
        let text = lines(80, mark);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert_eq!(text.lines().nth(1), Some("  │  │  │  calls inside not all seen"));
        let text = lines(180, mark);
        assert!(text.lines().count() == 1 && text.ends_with("calls inside not all seen\n"), "{text}");
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
