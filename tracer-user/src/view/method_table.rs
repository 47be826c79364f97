//! The table of methods: what the calls of each have come to.

use unicode_width::UnicodeWidthStr as _;

use crate::export::{duration, shorten};
use crate::model::{MethodRow, counted, printable};

/// Methods that are shown; the rest is summed up in a line.
const MOST_ROWS: usize = 20;

/// Methods of which it is said what their own time may hide.
const MOST_HIDING: usize = 5;

/// Narrowest column of names.
const LEAST_NAME: usize = 20;

/// What a table is sorted by: a column, the greatest first, or the names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortKey {
    /// The names.
    Name,
    /// Calls.
    Calls,
    /// Half of the calls took at most this.
    P50,
    /// 95 of 100.
    P95,
    /// All.
    Max,
    /// Time in the calls.
    Total,
    /// Time in the calls in which no traced call inside was running.
    #[default]
    Own,
    /// Calls that failed.
    Errors,
}

/// The parts of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The names of the columns.
    pub heading: String,
    /// A line for each method.
    pub rows: Vec<String>,
}

/// A column beside the name.
struct Column {
    heading: &'static str,
    /// What the table is sorted by where its name is marked.
    key: Option<SortKey>,
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
    Column {
        heading: "calls",
        key: Some(SortKey::Calls),
        width: 9,
        dispensable: 0,
        cell: |row, _| row.calls.to_string(),
    },
    Column { heading: "p50", key: Some(SortKey::P50), width: 10, dispensable: 2, cell: |row, _| duration(row.p50_ns) },
    Column { heading: "p95", key: Some(SortKey::P95), width: 10, dispensable: 1, cell: |row, _| duration(row.p95_ns) },
    Column { heading: "max", key: Some(SortKey::Max), width: 10, dispensable: 3, cell: |row, _| duration(row.max_ns) },
    Column {
        heading: "total",
        key: Some(SortKey::Total),
        width: 10,
        dispensable: 4,
        cell: |row, _| duration(row.total_ns),
    },
    Column {
        heading: "self",
        key: Some(SortKey::Own),
        width: 10,
        dispensable: 0,
        cell: |row, _| duration(row.self_ns),
    },
    Column {
        heading: "share",
        key: None,
        width: 7,
        dispensable: 0,
        cell: |row, sums| share(row.self_ns, sums.self_ns),
    },
    Column { heading: "errors", key: Some(SortKey::Errors), width: 8, dispensable: 1, cell: |row, _| errors(row) },
];

/// The table as lines, for a place of so many columns; empty where nothing was called. `share` is that of the time of its own.
#[must_use]
pub fn lines(rows: &[MethodRow], width: usize) -> Vec<String> {
    let shown = &rows[..rows.len().min(MOST_ROWS)];
    let table = table(shown, own_time(rows), width, None);
    if table.rows.is_empty() {
        return Vec::new();
    }
    let mut lines = [vec![table.heading], table.rows].concat();
    let hiding = shown.iter().filter(|row| !row.unwatched_steps.is_empty());
    lines.extend(hiding.take(MOST_HIDING).map(|row| shorten(&hidden_in(row), width)));
    let rest = rows.get(MOST_ROWS..).unwrap_or_default();
    if !rest.is_empty() {
        let (calls, own) = rest.iter().fold((0, 0), |(calls, own), row| (calls + row.calls, own + row.self_ns));
        lines.push(format!(
            "… {}, {}, {} of their own (`--summary` has them all)",
            counted(rest.len() as u64, "more method", "more methods"),
            counted(calls, "call", "calls"),
            duration(own)
        ));
    }
    lines
}

/// What the time of its own of a container may hide.
fn hidden_in(row: &MethodRow) -> String {
    let steps: Vec<&str> = row.unwatched_steps.iter().map(AsRef::as_ref).collect();
    format!("self of {} includes steps that were not watched: {}", printable(&row.method), steps.join(", "))
}

/// Time of their own of these methods, for shares of it.
pub fn own_time(rows: &[MethodRow]) -> u64 {
    rows.iter().map(|row| row.self_ns).sum()
}

/// These rows for a place of so many columns. `self_ns` is what shares are of, and the column of `sorted` is marked.
pub fn table(rows: &[MethodRow], self_ns: u64, width: usize, sorted: Option<SortKey>) -> Table {
    let longest = rows.iter().map(|row| printable(&row.method).width()).max().unwrap_or_default();
    let columns = columns_within(width.saturating_sub(longest.max(LEAST_NAME)), width);
    let room = width.saturating_sub(columns.iter().map(|column| column.width).sum()).max(LEAST_NAME);
    let name_width = longest.max("▼method".width()).min(room);
    let line = |name: &str, cells: Vec<String>| {
        let mut line = shorten(name, name_width);
        line.extend(std::iter::repeat_n(' ', name_width.saturating_sub(line.width())));
        for (column, cell) in columns.iter().zip(cells) {
            line.push_str(&format!("{cell:>width$}", width = column.width));
        }
        line
    };
    let sums = Sums { self_ns };
    let mark = |key: SortKey, name: &str| if sorted == Some(key) { format!("▼{name}") } else { name.to_owned() };
    let heading =
        |column: &&Column| column.key.map_or_else(|| column.heading.to_owned(), |key| mark(key, column.heading));
    Table {
        heading: line(&mark(SortKey::Name, "method"), columns.iter().map(heading).collect()),
        rows: rows
            .iter()
            .map(|row| line(&printable(&row.method), columns.iter().map(|column| (column.cell)(row, &sums)).collect()))
            .collect(),
    }
}

impl SortKey {
    /// All, in the order of the columns.
    pub const ALL: [Self; 8] =
        [Self::Name, Self::Calls, Self::P50, Self::P95, Self::Max, Self::Total, Self::Own, Self::Errors];

    /// The key so many columns to the right, or from the left again.
    pub fn next(self, columns: usize) -> Self {
        let place = Self::ALL.iter().position(|key| *key == self).unwrap_or_default();
        Self::ALL[(place + columns) % Self::ALL.len()]
    }

    /// The key of a letter: the first of the column's name, or a digit of its number.
    pub fn of(letter: char) -> Option<Self> {
        Some(match letter {
            'n' => Self::Name,
            'c' => Self::Calls,
            '5' => Self::P50,
            '9' => Self::P95,
            'm' => Self::Max,
            't' => Self::Total,
            's' => Self::Own,
            'e' => Self::Errors,
            _ => return None,
        })
    }

    /// Sorts rows: the greatest first, those that are alike by their names.
    pub fn sort(self, rows: &mut [MethodRow]) {
        let value = |row: &MethodRow| match self {
            Self::Name => 0,
            Self::Calls => row.calls,
            Self::P50 => row.p50_ns,
            Self::P95 => row.p95_ns,
            Self::Max => row.max_ns,
            Self::Total => row.total_ns,
            Self::Own => row.self_ns,
            Self::Errors => row.errors,
        };
        rows.sort_by(|one, other| value(other).cmp(&value(one)).then_with(|| one.method.cmp(&other.method)));
    }
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
            unwatched_steps: Vec::new(),
        }
    }

    fn sample(width: usize) -> Vec<String> {
        let rows = [row("RandomForestClassifier.predict", 5_010_000_000, 0), row("Pipeline.predict", 690_000_000, 3)];
        lines(&rows, width)
    }

    #[test]
    fn every_column_is_there_where_there_is_room() {
        assert_eq!(
            sample(120),
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
            for line in sample(width) {
                assert!(line.width() <= width, "{width}: {line}");
                assert!(line.contains("self") || line.contains(" s") || line.contains(" ms"), "{line}");
            }
        }
        assert!(sample(80)[0].contains("p95"), "{}", sample(80)[0]);
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
    fn rows_go_by_a_column_and_its_name_is_marked() {
        let mut rows = [row("B.predict", 5, 0), row("A.predict", 5, 2), row("C.predict", 9, 1)];
        for (key, expected) in [(SortKey::Own, "CAB"), (SortKey::Errors, "ACB"), (SortKey::Name, "ABC")] {
            key.sort(&mut rows);
            let order: String = rows.iter().filter_map(|row| row.method.chars().next()).collect();
            assert_eq!(order, expected);
        }
        for key in SortKey::ALL {
            assert_eq!(table(&rows, 19, 120, Some(key)).heading.matches('▼').count(), 1, "{key:?}");
        }
        assert_eq!((SortKey::Name.next(1), SortKey::Errors.next(1)), (SortKey::Calls, SortKey::Name));
    }

    #[test]
    fn time_that_hides_steps_says_so() {
        let hiding =
            MethodRow { unwatched_steps: vec!["rf".into(), "x".repeat(200).into()], ..row("Pipeline.predict", 1, 0) };
        let lines = lines(&[hiding, row("Scaler.transform", 1, 0)], 100);
        assert_eq!(lines.len(), 4);
        assert!(
            lines[3].starts_with("self of Pipeline.predict includes steps that were not watched: rf, xxx"),
            "{}",
            lines[3]
        );
        assert!(lines[3].chars().count() <= 100);
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
