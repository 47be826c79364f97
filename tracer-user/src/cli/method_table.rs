//! The table of methods: what the calls of each have come to.

use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthStr as _;

use crate::export::{duration, shorten};
use crate::model::{MethodRow, printable};

/// Methods that are shown; the rest is summed up in a line.
const MOST_ROWS: usize = 20;

/// Columns where nobody says how many there are: a file, a pipe.
const USUAL_WIDTH: usize = 100;

/// Narrowest column of names.
const LEAST_NAME: usize = 20;

/// A column beside the name.
struct Column {
    heading: &'static str,
    width: usize,
    /// The greater, the sooner it is left out where there is no room.
    dispensable: u8,
    cell: fn(&MethodRow, &Sums) -> String,
}

/// Of all rows.
struct Sums {
    self_ns: u64,
}

const COLUMNS: [Column; 8] = [
    Column { heading: "calls", width: 9, dispensable: 0, cell: |row, _| row.calls.to_string() },
    Column { heading: "p50", width: 10, dispensable: 2, cell: |row, _| duration(row.p50_ns) },
    Column { heading: "p95", width: 10, dispensable: 1, cell: |row, _| duration(row.p95_ns) },
    Column { heading: "max", width: 10, dispensable: 3, cell: |row, _| duration(row.max_ns) },
    Column { heading: "total", width: 10, dispensable: 4, cell: |row, _| duration(row.total_ns) },
    Column { heading: "self", width: 10, dispensable: 0, cell: |row, _| duration(row.self_ns) },
    Column { heading: "share", width: 7, dispensable: 0, cell: |row, sums| share(row.self_ns, sums.self_ns) },
    Column { heading: "errors", width: 8, dispensable: 1, cell: |row, _| errors(row) },
];

/// The table as lines, for a place of so many columns; empty where nothing was called. `share` is that of the time of its own.
pub fn lines(rows: &[MethodRow], width: usize) -> Vec<String> {
    let names = rows.iter().take(MOST_ROWS).map(|row| printable(&row.method).width());
    let Some(longest) = names.max() else { return Vec::new() };
    let columns = columns_within(width.saturating_sub(longest.max(LEAST_NAME)), width);
    let room = width.saturating_sub(columns.iter().map(|column| column.width).sum()).max(LEAST_NAME);
    let name_width = longest.max("method".len()).min(room);
    let line = |name: &str, cells: Vec<String>| {
        let mut line = shorten(name, name_width);
        line.extend(std::iter::repeat_n(' ', name_width.saturating_sub(line.width())));
        for (column, cell) in columns.iter().zip(cells) {
            line.push_str(&format!("{cell:>width$}", width = column.width));
        }
        line
    };
    let sums = Sums { self_ns: rows.iter().map(|row| row.self_ns).sum() };
    let mut lines = vec![line("method", columns.iter().map(|column| column.heading.to_owned()).collect())];
    lines.extend(
        rows.iter()
            .take(MOST_ROWS)
            .map(|row| line(&printable(&row.method), columns.iter().map(|column| (column.cell)(row, &sums)).collect())),
    );
    let rest = rows.get(MOST_ROWS..).unwrap_or_default();
    if !rest.is_empty() {
        let (calls, own) = rest.iter().fold((0, 0), |(calls, own), row| (calls + row.calls, own + row.self_ns));
        lines.push(format!(
            "… {} more methods, {calls} calls, {} of their own (`--summary` has them all)",
            rest.len(),
            duration(own)
        ));
    }
    lines
}

/// The columns that find room beside the names: what is said least for is left out first.
fn columns_within(room: usize, width: usize) -> Vec<&'static Column> {
    let least = width.saturating_sub(LEAST_NAME);
    let mut columns: Vec<&Column> = COLUMNS.iter().collect();
    let taken = |columns: &[&Column]| columns.iter().map(|column| column.width).sum::<usize>();
    loop {
        let most = columns.iter().map(|column| column.dispensable).max().unwrap_or_default();
        // Names are cut before the columns that everybody looks for go.
        let room = if most <= 1 { least } else { room };
        if most == 0 || taken(&columns) <= room {
            return columns;
        }
        columns.retain(|column| column.dispensable != most);
    }
}

/// Columns of the terminal behind stderr.
pub fn terminal_width() -> usize {
    let columns = tcgetwinsize(std::io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { USUAL_WIDTH } else { columns }
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { String::new() } else { format!("{:.1}%", part as f64 * 100.0 / whole as f64) }
}

fn errors(row: &MethodRow) -> String {
    if row.errors == 0 { "-".to_owned() } else { row.errors.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(method: &str, self_ns: u64, errors: u64) -> MethodRow {
        let (p50_ns, p95_ns, max_ns) = (30_630_000, 62_540_000, 99_010_000);
        MethodRow {
            method: method.into(),
            calls: 177,
            errors,
            p50_ns,
            p95_ns,
            max_ns,
            total_ns: 5_700_000_000,
            self_ns,
        }
    }

    fn table(width: usize) -> Vec<String> {
        let rows = [row("RandomForestClassifier.predict", 5_010_000_000, 0), row("Pipeline.predict", 690_000_000, 3)];
        lines(&rows, width)
    }

    #[test]
    fn every_column_is_there_where_there_is_room() {
        assert_eq!(
            table(120),
            [
                "method                            calls       p50       p95       max     total      self  share  errors",
                "RandomForestClassifier.predict      177  30.63 ms  62.54 ms  99.01 ms   5.700 s   5.010 s  87.9%       -",
                "Pipeline.predict                    177  30.63 ms  62.54 ms  99.01 ms   5.700 s  690.0 ms  12.1%       3",
            ]
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [60, 70, 80, 90, 100, 180] {
            for line in table(width) {
                assert!(line.width() <= width, "{width}: {line}");
                assert!(line.contains("self") || line.contains(" s") || line.contains(" ms"), "{line}");
            }
        }
        assert!(table(80)[0].contains("p95"), "{}", table(80)[0]);
    }

    #[test]
    fn names_of_a_target_are_escaped_and_cut() {
        let lines = lines(&[row(&format!("Model\u{1b}[2J.{}", "x".repeat(300)), 1, 0)], 80);
        assert!(lines[1].starts_with("Model\\u{1b}[2J") && lines[1].width() <= 80, "{}", lines[1]);
    }

    #[test]
    fn columns_stand_below_each_other_in_every_script() {
        let rows = [row("模型模型模型模型.predict", 1, 0), row("e\u{301}coleClassifier.predict", 1, 0)];
        for width in [60, 80, 120] {
            let lines = lines(&rows, width);
            assert!(lines.iter().all(|line| line.width() == lines[0].width()), "{lines:#?}");
            assert!(lines[0].width() <= width);
        }
    }

    #[test]
    fn what_is_beyond_is_summed_up() {
        let rows: Vec<MethodRow> = (0..25).map(|number| row(&format!("M.m{number}"), 1_000_000, 0)).collect();
        let lines = lines(&rows, 100);
        assert_eq!(lines.len(), 1 + MOST_ROWS + 1);
        assert_eq!(
            lines[MOST_ROWS + 1],
            "… 5 more methods, 885 calls, 5.000 ms of their own (`--summary` has them all)"
        );
        assert!(super::lines(&[], 100).is_empty());
    }
}
