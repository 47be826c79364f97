//! How wide the place is that trees are printed on, and what of a line has how much room.

use std::os::fd::AsFd;

use rustix::termios::tcgetwinsize;

/// Columns where nobody says how many there are: a file, a pipe.
const USUAL: usize = 100;
/// A terminal that is narrower than this breaks lines.
const LEAST: usize = 54;
/// Columns of a name, guides in front of it included, where there are [`USUAL`] columns.
const USUAL_NAME: usize = 47;
/// The least and the most of them.
const NAMES: std::ops::RangeInclusive<usize> = 24..=64;
/// A duration.
pub const DURATION: usize = 11;
/// The time of its own, with the gap in front of it.
const SELF: usize = 15;
/// Space at the left and in front of remarks.
const GAP: usize = 2;

/// Where the number of columns comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Always as many as a file gets.
    Fixed,
    /// The terminal that standard output is.
    Terminal,
    /// The one that standard error is.
    TerminalOfErrors,
}

/// The room on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Columns of the line.
    pub line: usize,
    /// Columns of a name with the guides in front of it.
    pub name: usize,
    /// Levels of a tree that are drawn; those above are numbered.
    pub levels: usize,
    /// Columns of the remarks at the right.
    pub remarks: usize,
    /// Whether remarks that do not fit get a line of their own; a file gets none, it has always had one line for each call.
    pub has_own_line: bool,
}

impl Columns {
    /// The room that there is now.
    pub fn now(self) -> Room {
        match self {
            Self::Fixed => Room::of(USUAL, false),
            Self::Terminal => Room::on(std::io::stdout()),
            Self::TerminalOfErrors => Room::on(std::io::stderr()),
        }
    }
}

impl Room {
    /// The room on a terminal.
    fn on(terminal: impl AsFd) -> Self {
        let columns = tcgetwinsize(terminal).map_or(0, |size| usize::from(size.ws_col));
        Self::of(if columns == 0 { USUAL } else { columns }, true)
    }

    /// The room on a line of so many columns.
    pub fn of(columns: usize, has_own_line: bool) -> Self {
        let line = columns.max(LEAST);
        let name = match line.checked_sub(USUAL) {
            // Of what is more, remarks get the most.
            Some(more) => USUAL_NAME + more / 3,
            None => USUAL_NAME.saturating_sub((USUAL - line) / 2),
        };
        let name = name.clamp(*NAMES.start(), *NAMES.end());
        let remarks = line.saturating_sub(GAP + name + DURATION + SELF + GAP);
        // A name has twenty columns at any level, and a level takes three.
        Self { line, name, levels: (name - 20) / 3, remarks, has_own_line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_a_hundred_columns() {
        let room = Columns::Fixed.now();
        assert_eq!((room.line, room.name, room.levels, room.remarks, room.has_own_line), (100, 47, 9, 23, false));
    }

    #[test]
    fn every_terminal_has_room_for_names() {
        for columns in [1, 20, 54, 60, 80, 99, 100, 120, 180, 400] {
            let room = Room::of(columns, true);
            assert!(room.name >= 24 && room.name - 3 * room.levels >= 20, "{columns}: {room:?}");
            assert!(columns < LEAST || GAP + room.name + DURATION + SELF <= columns, "{columns}: {room:?}");
        }
        assert!(Room::of(180, true).remarks > Room::of(120, true).remarks);
    }
}
