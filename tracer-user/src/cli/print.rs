//! What the commands print: every line goes through here, is escaped, and is no failure where nobody reads it.

use std::collections::VecDeque;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetwinsize;
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::model::printable;

/// Name of the program, before each of its sentences.
const PROGRAM: &str = "ml-tracer";

/// How long a line waits for a reader of stderr that sleeps.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a pipe that can be written takes without waiting, bytes (`PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;

/// One line to stderr, with the name of the program.
pub fn tell(sentence: &str) {
    // One write for the whole line, so that lines of other programs do not get into it.
    let _ = Errors.write_all(format!("{PROGRAM}: {}\n", printable(sentence)).as_bytes());
}

/// Standard error. Where it takes nothing (a full disk under a log, a reader that sleeps or has gone), what would have been
/// said is dropped: that is no reason to stop or to wait, and what matters is told by the exit code too.
pub struct Errors;

/// What was to be said while something else has the terminal.
static HELD: Mutex<Option<VecDeque<String>>> = Mutex::new(None);

/// Whether standard error is the terminal that somebody else has: elsewhere lines are written at once all the same.
fn is_withheld() -> bool {
    std::io::stderr().is_terminal()
}

/// Lines that are kept for later; of more, the first ones go.
const MOST_HELD: usize = 1_000;

/// Keeps what is said from the terminal, which somebody else has. It is said when this is dropped.
pub struct HeldErrors;

impl HeldErrors {
    /// From now on.
    pub fn begin() -> Self {
        *HELD.lock().unwrap_or_else(PoisonError::into_inner) = Some(VecDeque::new());
        Self
    }

    /// The last lines that wait.
    pub fn last(&self, lines: usize) -> Vec<String> {
        let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.iter().flatten();
        let all = held.clone().count();
        held.skip(all.saturating_sub(lines)).cloned().collect()
    }
}

impl Drop for HeldErrors {
    fn drop(&mut self) {
        let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
        if is_withheld() {
            held.into_iter().flatten().for_each(|line| drop(Errors.write_all(format!("{line}\n").as_bytes())));
        }
    }
}

/// Keeps these bytes for the view, if there is one. Gives whether they are to wait until it has ended.
fn hold(bytes: &[u8]) -> bool {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(held) = held.as_mut() else { return false };
    for line in String::from_utf8_lossy(bytes).lines().filter(|line| !line.is_empty()) {
        if held.len() >= MOST_HELD {
            held.pop_front();
        }
        held.push_back(line.to_owned());
    }
    is_withheld()
}

impl Write for Errors {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if hold(bytes) {
            return Ok(bytes.len());
        }
        static IS_STALLED: AtomicBool = AtomicBool::new(false);
        let errors = std::io::stderr();
        for piece in bytes.chunks(PIECE) {
            // A reader is waited for once, until it goes on.
            let patience = if IS_STALLED.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
            let timeout = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
            let mut place = [PollFd::new(&errors, PollFlags::OUT)];
            let is_ready = poll(&mut place, Some(&timeout)).is_ok_and(|ready| ready > 0);
            IS_STALLED.store(!is_ready, Ordering::Relaxed);
            if !is_ready || errors.lock().write_all(piece).is_err() {
                break;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Several lines of our own making to stderr, each escaped.
pub fn tell_lines(text: &str) {
    let lines: Vec<_> = text.lines().map(printable).collect();
    let text = format!("{PROGRAM}: {}\n", lines.join("\n"));
    let _ = Errors.write_all(text.as_bytes());
}

/// Lines that stand for themselves, to stderr: a table, whose names are escaped already.
pub fn tell_plain(lines: &[String]) {
    let _ = Errors.write_all(format!("\n{}\n\n", lines.join("\n")).as_bytes());
}

/// Columns of the terminal behind stderr, or of a file.
pub fn width_of_errors() -> usize {
    const USUAL: usize = 100;
    let columns = tcgetwinsize(std::io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { USUAL } else { columns }
}

/// One line of a list.
pub fn line(output: &mut impl Write, text: fmt::Arguments<'_>) -> std::io::Result<()> {
    writeln!(output, "{}", printable(&text.to_string()))
}

/// A value as JSON for people and machines. What a terminal must not see is written as `\u` and four digits, which means the
/// same to every reader.
pub fn json(output: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    let mut shown = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        // The line ends are the format's own: those in strings are escaped already.
        if character == '\n' || printable(character.encode_utf8(&mut [0; 4])) == *character.encode_utf8(&mut [0; 4]) {
            shown.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    shown.push('\n');
    Ok(output.write_all(shown.as_bytes())?)
}

/// Log lines look as all other sentences do: `ml-tracer: warning: what happened (field=value)`.
pub struct LogLines;

impl<S, N> FormatEvent<S, N> for LogLines
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, _context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut words = Words::default();
        event.record(&mut words);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let Words { message, fields } = words;
        let fields = if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
        writeln!(writer, "{PROGRAM}: {level}: {}", printable(&format!("{message}{fields}")))
    }
}

/// The message of a log line, and what else it says.
#[derive(Default)]
struct Words {
    message: String,
    fields: Vec<String>,
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push(format!("{name}={value:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_forges_no_line_and_clears_no_screen() {
        let mut page = Vec::new();
        line(&mut page, format_args!("  {}: x", "Model\u{1b}[2J\nml-tracer: attached 9\u{202e}")).expect("memory");
        let page = String::from_utf8(page).expect("text");
        assert_eq!(page, "  Model\\u{1b}[2J\\nml-tracer: attached 9\\u{202e}: x\n");
    }

    #[test]
    fn json_says_the_same_to_readers_and_nothing_to_terminals() {
        let name = "Modèle\u{1b}\u{9b}\u{202e}\u{e0041}模\"\\\n";
        let mut page = Vec::new();
        json(&mut page, &[name]).expect("memory");
        let page = String::from_utf8(page).expect("text");
        assert!(page.chars().all(|it| it == '\n' || printable(&it.to_string()) == it.to_string()), "{page}");
        assert!(page.contains("Modèle") && page.contains('模'));
        assert_eq!(serde_json::from_str::<Vec<String>>(&page).expect("JSON"), [name]);
    }
}
