//! The terminal: taken when the view begins, given back as it was on every way out.

use std::io::{IsTerminal, stdin, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{Event, poll, read};
use crossterm::execute;
use crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, size};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{DefaultTerminal, Terminal, TerminalOptions, Viewport};

use super::keys::{Choices, Wish};
use super::live::{Live, Snapshot};
use super::screen::draw;

/// From one picture to the next, if no key is pressed.
const PICTURE_EVERY: Duration = Duration::from_millis(500);
/// How long a key is waited for before the end is looked for.
const WAIT: Duration = Duration::from_millis(50);

/// Whether the terminal has been given back by somebody else: a panic gives it back before it says anything.
static IS_GIVEN_BACK: AtomicBool = AtomicBool::new(false);

/// Why there is no live view.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// Nothing can be drawn there, or no keys come from there.
    #[error("top needs a terminal, and {what} is none; `attach --interval` prints the same table again and again")]
    NoTerminal {
        /// What is none.
        what: &'static str,
    },
    /// The terminal does not do what it is asked to.
    #[error("the terminal cannot be drawn on: {0}")]
    Terminal(#[from] std::io::Error),
}

/// The terminal, while it is ours. Dropping it gives it back.
pub struct Top {
    terminal: DefaultTerminal,
    area: Rect,
}

impl Top {
    /// Whether there is a terminal.
    ///
    /// # Errors
    /// [`TopError::NoTerminal`].
    pub fn check() -> Result<(), TopError> {
        let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        let what = match (stdout().is_terminal(), stdin().is_terminal()) {
            (false, _) => "standard output",
            (_, false) => "standard input",
            _ if is_dumb => "one of the kind `dumb` (TERM)",
            _ => return Ok(()),
        };
        Err(TopError::NoTerminal { what })
    }

    /// Takes the terminal: what was on it is there again afterwards.
    ///
    /// # Errors
    /// There is none, or it cannot be drawn on.
    pub fn begin() -> Result<Self, TopError> {
        Self::check()?;
        give_back_before_panics();
        IS_GIVEN_BACK.store(false, Ordering::Release);
        let begun = area().and_then(|area| {
            let terminal = ratatui::try_init_with_options(options(area))?;
            execute!(stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
            Ok(Self { terminal, area })
        });
        begun.map_err(|error| {
            give_back();
            error.into()
        })
    }

    /// Begins with an empty screen where the terminal has another size than before. The library would ask the terminal where its
    /// cursor is, whose answer comes too late over a slow line.
    fn fit(&mut self) -> std::io::Result<()> {
        let area = area()?;
        if area != self.area {
            self.terminal = Terminal::with_options(CrosstermBackend::new(stdout()), options(area))?;
            self.area = area;
            execute!(stdout(), Clear(ClearType::All))?;
        }
        Ok(())
    }
}

/// All of the terminal.
fn area() -> std::io::Result<Rect> {
    size().map(|(columns, rows)| Rect::new(0, 0, columns, rows))
}

fn options(area: Rect) -> TerminalOptions {
    TerminalOptions { viewport: Viewport::Fixed(area) }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.terminal.show_cursor();
        give_back();
    }
}

/// Gives the terminal back, once: doing it again would put the cursor where it was, over what was said since. Where the terminal
/// has gone nothing needs to be given back.
fn give_back() {
    if !IS_GIVEN_BACK.swap(true, Ordering::AcqRel) {
        let _ = ratatui::try_restore();
    }
}

/// What a panic says is to be read on the terminal as it was.
fn give_back_before_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
    });
}

/// Shows what is known until a key or `is_over` ends it. `notes` gives what was said lately.
///
/// # Errors
/// The terminal has gone, or cannot be drawn on.
pub fn run_top(
    top: &mut Top,
    live: &Live,
    notes: impl Fn() -> Vec<String>,
    is_over: impl Fn() -> bool,
) -> Result<(), TopError> {
    let mut choices = Choices::default();
    let mut snapshot: Snapshot = live.snapshot();
    let mut drawn: Option<Instant> = None;
    while !is_over() && !IS_GIVEN_BACK.load(Ordering::Acquire) {
        if drawn.is_none_or(|drawn| drawn.elapsed() >= PICTURE_EVERY) {
            if !choices.is_paused {
                snapshot = live.snapshot();
            }
            let notes = notes();
            top.fit()?;
            top.terminal.draw(|frame| draw(frame, &snapshot, &mut choices, &notes))?;
            drawn = Some(Instant::now());
        }
        if !poll(WAIT)? {
            continue;
        }
        match read()? {
            Event::Key(key) => match choices.press(key) {
                Wish::End => return Ok(()),
                Wish::Restart => {
                    live.restart();
                    snapshot = live.snapshot();
                }
                Wish::Nothing => {}
            },
            Event::Resize(..) => {}
            _ => continue,
        }
        drawn = None;
    }
    Ok(())
}
