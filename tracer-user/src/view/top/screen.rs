//! One picture: what is known goes in, lines of a terminal come out.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline};
use unicode_width::UnicodeWidthStr as _;

use super::super::method_table::{own_time, table};
use super::keys::{Choices, Focus, KEYS};
use super::live::Snapshot;
use crate::export::{duration, shorten, tree_lines};
use crate::model::printable;

/// Lines of the bars: on a small terminal, and of so many lines one.
const BARS: (u16, u16) = (2, 10);
/// Lines of the table, at least, where there are so many methods.
const LEAST_ROWS: u16 = 4;
/// Lines of what is not seen, where not the whole screen is for it.
const MOST_NOT_SEEN: u16 = 3;

const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const WARNING: Style = Style::new().fg(Color::Yellow);

/// Draws the picture. `notes` is what was said lately.
pub fn draw(frame: &mut Frame<'_>, snapshot: &Snapshot, choices: &mut Choices, notes: &[String]) {
    let area = frame.area();
    let width = usize::from(area.width);
    let mut below = Below { area };
    title(frame, below.take(1), snapshot, choices);
    let foot = below.take_from_the_end(1);
    frame.render_widget(Paragraph::new(Line::styled(shorten(KEYS, width), DIM)), foot);
    if choices.focus == Focus::All && area.height >= 16 {
        bars(frame, &mut below, snapshot);
    }
    let not_seen = not_seen(snapshot, notes, width);
    let tree = tree(snapshot, width);
    match choices.focus {
        Focus::All => {
            let rows = u16::try_from(snapshot.rows.len()).unwrap_or(u16::MAX).max(1);
            let [of_tree, of_not_seen] = [&tree, &not_seen].map(|lines| below.lines(lines));
            let everything = u32::from(rows) + 1 + u32::from(of_tree) + u32::from(of_not_seen) + 2;
            if everything <= u32::from(below.area.height) {
                rows_of_table(frame, below.take(1 + rows), snapshot, choices);
                for (lines, room) in [(tree, of_tree), (not_seen, of_not_seen)] {
                    below.take(1);
                    show(frame, below.take(room), lines, &mut 0);
                }
                return;
            }
            // The table has what the others leave, and the tree what it and the table do not need.
            let of_not_seen = below.lines(&not_seen).min(1 + MOST_NOT_SEEN).min(below.area.height / 3);
            let of_not_seen = below.take_from_the_end(of_not_seen);
            let half = (below.area.height / 2).max(1 + LEAST_ROWS);
            let wanted = 1 + rows;
            let of_tree = below.area.height.saturating_sub(wanted).max(below.area.height.saturating_sub(half));
            let of_tree = below.take_from_the_end(of_tree.min(below.lines(&tree)));
            rows_of_table(frame, below.area, snapshot, choices);
            show(frame, of_tree, tree, &mut 0);
            show(frame, of_not_seen, not_seen, &mut 0);
        }
        Focus::Table => rows_of_table(frame, below.area, snapshot, choices),
        Focus::Tree => show(frame, below.area, tree, &mut choices.first_line),
        Focus::NotSeen => show(frame, below.area, not_seen, &mut choices.first_line),
    }
}

/// What is left of the screen.
struct Below {
    area: Rect,
}

impl Below {
    /// The next lines.
    fn take(&mut self, lines: u16) -> Rect {
        let lines = lines.min(self.area.height);
        let taken = Rect { height: lines, ..self.area };
        self.area = Rect { y: self.area.y + lines, height: self.area.height - lines, ..self.area };
        taken
    }

    /// The last lines.
    fn take_from_the_end(&mut self, lines: u16) -> Rect {
        let lines = lines.min(self.area.height);
        self.area.height -= lines;
        Rect { y: self.area.y + self.area.height, height: lines, ..self.area }
    }

    fn lines(&self, text: &[Line<'_>]) -> u16 {
        u16::try_from(text.len()).unwrap_or(u16::MAX).min(self.area.height)
    }
}

fn title(frame: &mut Frame<'_>, area: Rect, snapshot: &Snapshot, choices: &Choices) {
    let seconds = snapshot.counting.as_secs_f64().max(0.001);
    let processes = match snapshot.processes.as_slice() {
        [] => String::new(),
        [(process, name)] => format!("  {}[{process}]", printable(name)),
        [(_, name), others @ ..] => format!("  {} and {} more processes", printable(name), others.len()),
    };
    let counted = format!(
        "  {}  {} traces  {:.1}/s  ",
        clock(snapshot.counting),
        snapshot.traces,
        snapshot.traces as f64 / seconds
    );
    let unless_none = |count: u64, what: &str| if count > 0 { format!("{count} {what}  ") } else { String::new() };
    let (errors, lost) = (unless_none(snapshot.errors, "errors"), unless_none(snapshot.lost, "calls lost"));
    let paused = if choices.is_paused { "paused" } else { "" };
    let taken = "ml-tracer top".len() + counted.width() + errors.len() + lost.len() + paused.len();
    // Of all this, the name of the service is what can do with less.
    let processes = shorten(&processes, usize::from(area.width).saturating_sub(taken));
    let line = Line::from(vec![
        Span::styled("ml-tracer top", BOLD),
        Span::raw(processes),
        Span::raw(counted),
        Span::styled(errors, Style::new().fg(Color::Red)),
        Span::styled(lost, WARNING),
        Span::styled(paused, WARNING),
    ]);
    frame.render_widget(Paragraph::new(line), area);
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 3_600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// How long whole traces took, a bar for each second, the newest at the right.
fn bars(frame: &mut Frame<'_>, below: &mut Below, snapshot: &Snapshot) {
    let width = usize::from(below.area.width);
    let height = BARS.0.max(below.area.height / BARS.1);
    let seconds = &snapshot.seconds[snapshot.seconds.len().saturating_sub(width)..];
    let now = seconds.last().filter(|second| second.traces > 0);
    let most = seconds.iter().map(|second| second.p95_ns).max().filter(|most| *most > 0);
    let now = now.map_or("no calls".to_owned(), |second| duration(second.p95_ns));
    let most = most.map(|most| format!(", at most {} in {} s", duration(most), seconds.len())).unwrap_or_default();
    let heading = format!("p95 of whole traces, second by second: {now}{most}");
    frame.render_widget(Paragraph::new(Line::styled(shorten(&heading, width), BOLD)), below.take(1));
    let bars: Vec<Option<u64>> = seconds.iter().map(|second| (second.traces > 0).then_some(second.p95_ns)).collect();
    // They begin at the left and move to the right until the line is full.
    let line = Sparkline::default().data(bars).absent_value_symbol(" ").style(Style::new().fg(Color::Cyan));
    frame.render_widget(line, below.take(height));
}

fn rows_of_table(frame: &mut Frame<'_>, area: Rect, snapshot: &Snapshot, choices: &mut Choices) {
    if area.height == 0 {
        return;
    }
    if snapshot.rows.is_empty() {
        let text = "no call of a traced method has ended yet";
        frame.render_widget(Paragraph::new(Line::styled(text, DIM)), area);
        return;
    }
    let room = usize::from(area.height) - 1;
    let mut rows = snapshot.rows.clone();
    choices.sort.sort(&mut rows);
    let is_scrolled = matches!(choices.focus, Focus::All | Focus::Table);
    let mut first = if is_scrolled { choices.first_line } else { 0 };
    first = first.min(rows.len().saturating_sub(room.max(1)));
    if is_scrolled {
        choices.first_line = first;
    }
    let shown = &rows[first..rows.len().min(first + room)];
    let table = table(shown, own_time(&rows), usize::from(area.width), Some(choices.sort));
    let lines = std::iter::once(Line::styled(table.heading, Style::new().add_modifier(Modifier::REVERSED))).chain(
        table
            .rows
            .into_iter()
            .zip(shown)
            .map(|(line, row)| Line::styled(line, if row.errors > 0 { WARNING } else { Style::new() })),
    );
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
}

fn tree(snapshot: &Snapshot, width: usize) -> Vec<Line<'static>> {
    let Some((slow, ago)) = &snapshot.slowest else { return Vec::new() };
    let heading = format!("slowest trace of the last minute: {}, {} s ago", duration(slow.nanoseconds), ago.as_secs());
    let mut lines = vec![Line::styled(shorten(&heading, width), BOLD)];
    lines.extend(tree_lines(&slow.spans, width).into_iter().map(Line::raw));
    if slow.left_out > 0 {
        lines.push(Line::styled(format!("  {} calls inside are too many to be kept", slow.left_out), DIM));
    }
    lines
}

fn not_seen(snapshot: &Snapshot, notes: &[String], width: usize) -> Vec<Line<'static>> {
    let sentences = snapshot.not_seen.iter().chain(notes);
    // A sentence is broken where the line ends, and goes on below its beginning.
    let lines: Vec<Line<'static>> = sentences.flat_map(|sentence| broken(&printable(sentence), width)).collect();
    if lines.is_empty() {
        return lines;
    }
    [vec![Line::styled(shorten("what is seen and what not (Tab shows all of it)", width), BOLD)], lines].concat()
}

fn broken(sentence: &str, width: usize) -> Vec<Line<'static>> {
    let indent = sentence.len() - sentence.trim_start().len();
    let mut lines = vec![" ".repeat(indent)];
    for word in sentence.split_whitespace() {
        let last = lines.last_mut().expect("there is one");
        let is_empty = last.trim().is_empty();
        if !is_empty && last.width() + 1 + word.width() > width {
            lines.push(format!("{}{}", " ".repeat(indent + 4), word));
        } else {
            last.push_str(if is_empty { "" } else { " " });
            last.push_str(word);
        }
    }
    lines.into_iter().map(|line| Line::raw(shorten(&line, width))).collect()
}

/// Shows the lines from a first one on.
fn show(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'static>>, first: &mut usize) {
    *first = (*first).min(lines.len().saturating_sub(usize::from(area.height)));
    let shown: Vec<Line<'static>> = lines.into_iter().skip(*first).take(usize::from(area.height)).collect();
    frame.render_widget(Paragraph::new(shown), area);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::history::Second;
    use super::super::slowest::SlowTrace;
    use super::*;
    use crate::model::{
        Ending, MethodRow, Parent, ProcessId, Span as Call, SpanId, Subject, ThreadId, TraceId, WallClockNs,
    };

    const PROCESS: ProcessId = ProcessId { pid: 4242, start_time: 1 };

    fn call(number: u8, parent: Parent, times: (u64, u64)) -> Call {
        Call {
            trace_id: TraceId([1; 16]),
            span_id: SpanId([number; 8]),
            parent,
            parent_thread: None,
            depth: 0,
            process: PROCESS,
            thread: ThreadId(1),
            thread_name: None,
            start: WallClockNs(times.0),
            end: WallClockNs(times.1),
            subject: Subject::LostCall,
            ending: Ending::Returned { error: None },
            lost_before: 0,
            link: None,
            is_recorded: true,
            attributes: Vec::new(),
        }
    }

    fn snapshot(methods: usize) -> Snapshot {
        let row = |number: usize| MethodRow {
            method: if number == 0 {
                "Modèle模\u{1b}[2J.predict".into()
            } else {
                format!("M{number}.transform").into()
            },
            calls: 100 + number as u64,
            errors: 0,
            p50_ns: 1_000_000,
            p95_ns: 2_000_000,
            max_ns: 3_000_000,
            total_ns: 100_000_000,
            self_ns: 1_000_000 * (1_000 - number as u64),
            unwatched_steps: Vec::new(),
        };
        let inside = (2..12).map(|number| call(number, Parent::Span(SpanId([1; 8])), (u64::from(number), 100)));
        let spans = inside.chain([call(1, Parent::Root, (0, 99_000_000))]).collect();
        let slow = SlowTrace { ended: Instant::now(), nanoseconds: 99_000_000, spans: Arc::new(spans), left_out: 0 };
        Snapshot {
            counting: Duration::from_secs(83),
            rows: (0..methods).map(row).collect(),
            seconds: (0..300).map(|number| Second { traces: number % 3, p95_ns: number % 3 * 1_000_000 }).collect(),
            slowest: Some((slow, Duration::from_secs(7))),
            traces: 1_234,
            errors: 3,
            lost: 5,
            processes: vec![(PROCESS, "prices\u{202e}".into())],
            not_seen: vec![
                "CPython 3.11.7 of process 4242: covered Pipeline.predict".into(),
                "  not traced, no debug register left: RandomForestClassifier.predict, StandardScaler.transform, PCA.transform"
                    .into(),
            ],
        }
    }

    /// The lines of the screen.
    fn screen(size: (u16, u16), snapshot: &Snapshot, choices: &mut Choices) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).expect("memory");
        terminal.draw(|frame| draw(frame, snapshot, choices, &["ml-tracer: a note".to_owned()])).expect("memory");
        let buffer = terminal.backend().buffer();
        (0..size.1).map(|y| (0..size.0).map(|x| buffer[(x, y)].symbol()).collect()).collect()
    }

    #[test]
    fn every_part_is_there_on_a_small_terminal_and_on_big_ones() {
        for size in [(80, 24), (120, 40), (180, 50)] {
            let lines = screen(size, &snapshot(40), &mut Choices::default());
            let text = lines.join("\n");
            for part in [
                // Of the title, the name of the service is what is cut.
                "ml-tracer top  prices\\u{20",
                "  1:23  1234 traces  14.9/s  3 errors  5 calls lost",
                "p95 of whole traces, second by second: 2.000 ms",
                "▼self",
                "M1.transform",
                "slowest trace of the last minute: 99.00 ms, 7 s ago",
                "├─ ",
                "not traced, no debug register left",
            ] {
                assert!(text.contains(part), "{size:?}: no `{part}`:\n{text}");
            }
            assert!(lines.last().expect("lines").starts_with("q quit"), "{text}");
            assert!(!text.contains(['\u{1b}', '\u{202e}']));
        }
    }

    #[test]
    fn no_size_is_too_small() {
        for columns in [1, 5, 20, 39, 54, 300] {
            for rows in [1, 2, 3, 5, 8, 13, 100] {
                for focus in [Focus::All, Focus::Table, Focus::Tree, Focus::NotSeen] {
                    let mut choices = Choices { focus, first_line: 1_000, ..Choices::default() };
                    assert_eq!(screen((columns, rows), &snapshot(3), &mut choices).len(), usize::from(rows));
                    screen((columns, rows), &snapshot(0), &mut choices);
                }
            }
        }
    }

    #[test]
    fn a_list_is_scrolled_to_its_end_and_no_further() {
        let mut choices = Choices { focus: Focus::Table, first_line: 1_000, ..Choices::default() };
        let lines = screen((80, 24), &snapshot(40), &mut choices);
        assert!(lines[22].starts_with("M39.transform"), "{lines:#?}");
        assert_eq!(choices.first_line, 40 - 21);
    }

    #[test]
    fn a_long_sentence_goes_on_below_its_beginning() {
        let lines: Vec<String> =
            broken("  not traced, no register: A.b, C.d", 20).iter().map(Line::to_string).collect();
        assert_eq!(lines, ["  not traced, no", "      register: A.b,", "      C.d"]);
    }
}
