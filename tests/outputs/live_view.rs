//! `ml-tracer top` on a terminal: what it shows at several sizes, what its keys do, and that the terminal is given back as it
//! was on every way out.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tracer_tests::suite::{Case, Need, case};
use tracer_tests::targets::{Target, build};
use tracer_tests::terminal::Terminal;
use tracer_tests::tracer::ml_tracer;
use tracer_tests::workspace;

/// The tests of this file.
pub fn cases() -> Vec<Case> {
    const KERNEL: &[Need] = &[Need::Program, Need::Kernel, Need::Command("setsid")];
    vec![
        case("top_shows_table_tree_and_what_is_seen", KERNEL, sizes_and_keys),
        case("top_gives_the_terminal_back_on_every_way_out", KERNEL, ways_out),
        case("top_wants_a_terminal", &[Need::Program], no_terminal),
        case("top_shows_no_name_as_it_is", KERNEL, hostile_names),
    ]
}

fn top(pid: u32, more: &[&str]) -> Command {
    let mut command = Command::new(workspace::ml_tracer());
    command.args(["top", "--pid", &pid.to_string()]).args(more);
    command
}

fn sizes_and_keys() -> Result<()> {
    let mut target = Target::start("cpp_pipeline", &["--requests", "20"])?;
    let mut terminal = Terminal::start(&top(target.pid(), &[]), 24, 80)?;
    terminal.wait_for("no call of a traced method has ended yet")?;
    target.batch()?;
    let predictions =
        |screen: &str| screen.lines().any(|line| line.starts_with("Pipeline.predict") && line.contains(" 12 "));
    let screen = terminal.wait_until("12 predictions", predictions)?;
    for text in ["cpp_pipeline[", "▼self", "slowest trace of the last minute", "native functions are probed", "q quit"]
    {
        ensure!(screen.contains(text), "no `{text}`:\n{screen}");
    }
    terminal.press("c")?;
    terminal.wait_for("▼calls")?;
    terminal.press("\u{1b}[D")?;
    terminal.wait_for("▼method")?;
    // The tree has the screen, then what is seen and what not.
    terminal.press("\t\t")?;
    terminal.wait_until("the tree alone", |screen| screen.contains("  └─ ") && !screen.contains("▼method"))?;
    terminal.press("\t")?;
    terminal.wait_until("the rest alone", |screen| screen.contains("probed") && !screen.contains("└─"))?;
    terminal.press("\t")?;
    for (rows, columns) in [(40, 120), (50, 180), (10, 40)] {
        terminal.resize(rows, columns)?;
        let foot = if columns > 60 { "r count anew" } else { "q quit" };
        let at_the_end =
            |screen: &str| screen.lines().nth(usize::from(rows) - 1).is_some_and(|line| line.contains(foot));
        let screen = terminal.wait_until("the keys in the last line", at_the_end)?;
        ensure!(screen.contains("▼method"), "{rows} x {columns}:\n{screen}");
        ensure!(rows < 20 || screen.contains("Pipeline.predict"), "{rows} x {columns}:\n{screen}");
    }
    // A key that comes together with another size is a key like others.
    for (columns, key, column) in [(90, "c", "▼calls"), (80, "9", "▼p95"), (90, "s", "▼self"), (80, "n", "▼method")]
    {
        terminal.signal(Signal::STOP)?;
        terminal.resize(24, columns)?;
        terminal.press(key)?;
        terminal.signal(Signal::CONT)?;
        terminal.wait_for(column)?;
    }
    terminal.press("r")?;
    terminal.wait_for("no call of a traced method has ended yet")?;
    target.batch()?;
    terminal.wait_until("12 predictions again", predictions)?;
    terminal.press("q")?;
    let (status, text) = terminal.finish()?;
    ensure!(status.code() == Some(0), "{status}:\n{text}");
    // The table at the end is that of all calls.
    ensure!(text.contains("spans=") && text.contains("Pipeline.predict"), "{text}");
    ensure!(target.finish()?.code == Some(0), "the target ended badly");
    Ok(())
}

fn ways_out() -> Result<()> {
    let mut target = Target::start("cpp_pipeline", &["--requests", "20"])?;
    let ways: [(&[&str], Way); 5] = [
        (&[], Way::Keys("\u{3}")),
        (&[], Way::Signal(Signal::TERM)),
        (&[], Way::Signal(Signal::INT)),
        (&[], Way::Signal(Signal::HUP)),
        (&["--duration", "1s"], Way::Wait),
    ];
    for (more, way) in ways {
        let mut terminal = Terminal::start(&top(target.pid(), more), 24, 80)?;
        if !matches!(way, Way::Wait) {
            terminal.wait_for("ml-tracer top")?;
        }
        match way {
            Way::Keys(keys) => terminal.press(keys)?,
            Way::Signal(signal) => terminal.signal(signal)?,
            Way::Wait => {}
        }
        let (status, text) = terminal.finish().with_context(|| format!("{way:?}"))?;
        ensure!(status.code() == Some(0) && text.contains("spans="), "{way:?}, {status}:\n{text}");
    }
    // The target's end is the last way.
    let mut terminal = Terminal::start(&top(target.pid(), &[]), 24, 80)?;
    terminal.wait_for("ml-tracer top")?;
    target.batch()?;
    ensure!(target.finish()?.code == Some(0), "the target ended badly");
    let (status, text) = terminal.finish()?;
    ensure!(status.code() == Some(0) && text.contains("spans="), "{status}:\n{text}");
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Keys(&'static str),
    Signal(Signal),
    Wait,
}

fn no_terminal() -> Result<()> {
    let finished = ml_tracer(["top", "--pid", "1"])?;
    ensure!(finished.code == Some(2) && finished.output.is_empty(), "{finished:?}");
    ensure!(finished.errors.contains("needs a terminal") && finished.errors.lines().count() == 1, "{finished:?}");
    Ok(())
}

/// The name of a process that would clear the screen and turn its text around.
fn hostile_names() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("e\u{1b}[2J\u{202e}x");
    std::fs::copy(build("cpp_pipeline")?, &program)?;
    let mut command = Command::new(&program);
    command.args(["--requests", "20", "--gate"]);
    let mut target = Target::start_command(command)?;
    let mut terminal = Terminal::start(&top(target.pid(), &[]), 24, 100)?;
    terminal.wait_for("ml-tracer top")?;
    target.batch()?;
    let screen = terminal.wait_for("Pipeline.predict")?;
    ensure!(screen.contains("e\\u{1b}[2J\\u{202e}x") && !screen.contains('\u{202e}'), "{screen}");
    terminal.press("q")?;
    terminal.finish().map(drop)
}
