//! What keys do: which column the table is sorted by, what has the room, where the list stands.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::super::method_table::SortKey;

/// What has the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Focus {
    /// A part for each.
    #[default]
    All,
    /// The table alone.
    Table,
    /// The tree of the slowest trace alone.
    Tree,
    /// What is not seen alone.
    NotSeen,
}

/// How the screen is to look.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// What the table is sorted by.
    pub sort: SortKey,
    /// What has the screen.
    pub focus: Focus,
    /// The first line that is shown of what has the screen, or of the table.
    pub first_line: usize,
    /// Whether the picture stands still.
    pub is_paused: bool,
}

/// What a key asks of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Nothing,
    /// The end.
    End,
    /// To count from now on.
    Restart,
}

/// What the keys are, for the last line.
pub const KEYS: &str = "q quit  ←→ sort  ↑↓ scroll  Tab part  p pause  r count anew";

impl Choices {
    /// A key was pressed.
    pub fn press(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        let has_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if has_control => return Wish::End,
            KeyCode::Char(_) if has_control => {}
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Wish::End,
            KeyCode::Char('r') => {
                self.first_line = 0;
                return Wish::Restart;
            }
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Right => self.sort = self.sort.next(1),
            KeyCode::Left => self.sort = self.sort.next(SortKey::ALL.len() - 1),
            KeyCode::Char(letter) => self.sort = SortKey::of(letter).unwrap_or(self.sort),
            KeyCode::Tab => self.turn_to(match self.focus {
                Focus::All => Focus::Table,
                Focus::Table => Focus::Tree,
                Focus::Tree => Focus::NotSeen,
                Focus::NotSeen => Focus::All,
            }),
            KeyCode::BackTab => self.turn_to(match self.focus {
                Focus::All => Focus::NotSeen,
                Focus::Table => Focus::All,
                Focus::Tree => Focus::Table,
                Focus::NotSeen => Focus::Tree,
            }),
            KeyCode::Down => self.first_line += 1,
            KeyCode::Up => self.first_line = self.first_line.saturating_sub(1),
            KeyCode::PageDown => self.first_line += 10,
            KeyCode::PageUp => self.first_line = self.first_line.saturating_sub(10),
            KeyCode::Home => self.first_line = 0,
            _ => {}
        }
        Wish::Nothing
    }

    fn turn_to(&mut self, focus: Focus) {
        self.focus = focus;
        self.first_line = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(choices: &mut Choices, code: KeyCode) -> Wish {
        choices.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn keys_do_what_the_last_line_says() {
        let mut choices = Choices::default();
        assert_eq!(choices.sort, SortKey::Own);
        assert_eq!(press(&mut choices, KeyCode::Char('c')), Wish::Nothing);
        assert_eq!(choices.sort, SortKey::Calls);
        press(&mut choices, KeyCode::Left);
        press(&mut choices, KeyCode::Right);
        assert_eq!(choices.sort, SortKey::Calls);
        press(&mut choices, KeyCode::Up);
        press(&mut choices, KeyCode::PageDown);
        assert_eq!(choices.first_line, 10);
        press(&mut choices, KeyCode::Tab);
        assert_eq!((choices.focus, choices.first_line), (Focus::Table, 0));
        press(&mut choices, KeyCode::BackTab);
        assert_eq!(choices.focus, Focus::All);
        press(&mut choices, KeyCode::Char('p'));
        assert!(choices.is_paused);
        assert_eq!(press(&mut choices, KeyCode::Char('r')), Wish::Restart);
        for end in
            [KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), KeyCode::Char('q').into(), KeyCode::Esc.into()]
        {
            assert_eq!(choices.press(end), Wish::End);
        }
    }
}
