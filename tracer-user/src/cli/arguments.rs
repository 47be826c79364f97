//! What was typed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::class_options::ClassOptions;
use super::display_options::DisplayOptions;
use super::durations::parse_duration;
use super::exit::{self, UsageError};
use super::print::{Errors, LogLines};
use super::selected::Selected;
use crate::export::{DESTINATIONS, Destination, DestinationKind};
use crate::model;
use crate::session::PythonSettings;

/// How Python calls are seen where nobody says.
const USUAL_PYTHON_MODE: &str = "auto";

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 internal error, 2 usage or bad map, 3 not permitted or the kernel cannot, 4 no such process, \
5 nothing to trace.";

const MAIN_HELP: &str = "\
A first look:
  sudo ml-tracer doctor              can this machine do it
  sudo ml-tracer symbols --pid PID   what would be traced in a process, and what not and why
  sudo ml-tracer attach --pid PID    trace it; the spans appear on the terminal, Ctrl-C ends";

const SYMBOLS_HELP: &str = "\
Native functions are listed by file, with the places of their probes; Python code is listed with the methods of live \
models that run it. Looking into a Python process needs the right to read its memory (sudo).

Examples:
  sudo ml-tracer symbols --pid 4242
  ml-tracer symbols --json ./inference libmodels.so";

const ATTACH_HELP: &str = "\
Python: ml-tracer watches up to four methods (code objects) of a process at one time, with exact times. Where a process \
calls more, or calls nothing when ml-tracer attaches, chain mode sees all of them instead, and knows their times within \
bounds. What was not seen is named at the end.

Examples:
  sudo ml-tracer attach --name model-server
  sudo ml-tracer attach --port 8000
  sudo ml-tracer attach --pid 4242 --python frames --duty 5%
  sudo ml-tracer attach --pid 4242 --duration 10s --export jsonl=trace.jsonl --summary summary.json
  sudo ml-tracer attach --pid 4242 --export otlp=http://collector:4318
  sudo ml-tracer attach --pid 4242 --class app.PriceModel --methods predict,preprocess
  sudo ml-tracer attach --name gunicorn

The workers that a server has forked, and those that it forks later, are traced like the server unless --no-follow is \
given. Each has a resource of its own (process.pid), and a line on stderr says when its first functions are traced. Other \
programs that the server starts (a shell, a copy of a file) cost nothing and are not mentioned.

Tracing ends with Ctrl-C, SIGTERM, --duration or the end of all traced processes; every span is delivered first.";

const TOP_HELP: &str = "\
Keys: q or Ctrl-C quits; left and right choose the column to sort by, and so do the letters n c 5 9 m t s e (name, \
calls, p50, p95, max, total, self, errors); up and down scroll; Tab gives one part the whole screen; p pauses the picture; \
r counts from now on.

Examples:
  sudo ml-tracer top --pid 4242
  sudo ml-tracer top --port 8000 --follow
  sudo ml-tracer top --name gunicorn --export otlp=http://collector:4318

The table counts every call since the start, or since r. When top has ended, it prints the table, and what attach prints \
at its end.";

const RUN_HELP: &str = "\
Probes are live before the first instruction of CMD. ml-tracer prints its trees on stderr: stdout is CMD's own.

Examples:
  sudo ml-tracer run --export jsonl=trace.jsonl -- ./inference --model model.bin
  sudo ml-tracer run -- gunicorn --workers 4 app:app

The exit code is that of CMD (128 + N if signal N ended it). If CMD cannot be started, it is ml-tracer's own: 1 internal \
error, 2 usage or bad map, 3 not permitted or the kernel cannot.";

const COMPLETIONS_HELP: &str = "\
Examples:
  ml-tracer completions bash > /usr/share/bash-completion/completions/ml-tracer
  ml-tracer completions zsh > /usr/local/share/zsh/site-functions/_ml-tracer
  ml-tracer completions fish > ~/.config/fish/completions/ml-tracer.fish";

/// Nested OpenTelemetry spans of a running model server, without changing, restarting or wrapping it.
#[derive(Debug, Parser)]
#[command(name = "ml-tracer", version, after_help = with_exit_codes(MAIN_HELP), max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace running processes
    #[command(after_help = with_exit_codes(&with_destinations(ATTACH_HELP)))]
    Attach(AttachArguments),
    /// Watch running processes live: a table of their methods, the latency, and the slowest recent trace
    #[command(after_help = with_exit_codes(TOP_HELP))]
    Top(TopArguments),
    /// Start a command and trace it from its first instruction
    #[command(after_help = RUN_HELP)]
    Run(RunArguments),
    /// List what would be traced, how, and what not and why
    #[command(after_help = with_exit_codes(SYMBOLS_HELP))]
    Symbols(SymbolsArguments),
    /// Check symbol maps (YAML), with file:line:column for each error
    #[command(after_help = EXIT_CODES)]
    CheckMap(CheckMapArguments),
    /// Check this machine: kernel, permissions, and what a probe costs here
    #[command(after_help = EXIT_CODES)]
    Doctor(DoctorArguments),
    /// Print the completions of a shell for this program
    #[command(after_help = COMPLETIONS_HELP)]
    Completions(CompletionsArguments),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    ManPages(ManPagesArguments),
    /// Replay a recorded tape into destinations
    #[command(hide = true)]
    Replay(ReplayArguments),
    /// Place probes that do nothing, until standard input ends
    #[command(hide = true)]
    PlaceEmptyProbes(PlaceEmptyProbesArguments),
    /// Attach to Python processes and let go of them, again and again
    #[command(hide = true)]
    Soak(SoakArguments),
    /// Guard a watched process in a virtual machine, until standard input ends
    #[command(hide = true)]
    Guard(GuardArguments),
    /// Hold leases on probed files for the tracer that has started this, until it ends
    #[command(hide = true, name = "keep-leases")]
    KeepLeases,
    /// Stop, and when continued execute a command
    #[command(hide = true)]
    WaitAndExecute(WaitAndExecuteArguments),
}

/// Options that `attach` and `run` share.
#[derive(Debug, Args)]
pub struct TraceOptions {
    /// Symbol map (YAML) that says what else is traced (may be given several times; later ones win)
    #[arg(long = "map", value_name = "FILE")]
    pub maps: Vec<PathBuf>,
    #[command(flatten)]
    pub classes: ClassOptions,
    /// Stop after this time, e.g. 500ms, 10s, 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Where spans go.
    #[arg(long = "export", value_name = "DEST", help = destinations_in_short())]
    pub exports: Vec<Destination>,
    /// Write the totals to this file as JSON, and what of Python was traced and what was not
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// How Python calls are seen: `watch` sees up to four methods at one time, exactly, and slows nothing else down; `chain` sees every
    /// method by looking at the frames where C code calls Python code, with times within bounds; `frames` sees every method, slows every
    /// Python call of the process down, and is never chosen unasked; `auto` (default) begins with watch, and goes over to chain, where
    /// that is possible, if more methods are called
    #[arg(long, value_name = "MODE", default_value = USUAL_PYTHON_MODE, overrides_with = "python", hide_default_value = true, hide_possible_values = true)]
    pub python: PythonMode,
    /// With --python frames or chain: share of the time in which its probes are live, e.g. 5%
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    pub duty: Option<f64>,
    #[command(flatten)]
    pub forks: ForkOptions,
    /// Make spans of the HTTP/1.1 requests that the traced servers get, in the traces of their callers: `sockets` sees what the
    /// servers read and write, `auto` (default) does so if one of the processes listens and the kernel tells it without making other
    /// processes slower (Linux 6.5), `off` does not look at requests
    #[arg(long, value_name = "HOW", default_value = "auto", hide_default_value = true, hide_possible_values = true)]
    pub requests: Requests,
    /// Probe native functions also in files that move their own code to other memory (huge pages): safe only if it has been
    /// moved already, or never is
    #[arg(long)]
    pub probe_moving_code: bool,
    /// The most that the probes of a process may take of one processor, e.g. 20%; this is measured again and again. Where they take
    /// more, the native functions that cost most lose their probes, and Python calls (--python frames, chain) are seen only part of
    /// the time (chain: in whole trees)
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    pub max_overhead: Option<f64>,
    /// Print what would be probed, and probe nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Record the raw records, for `replay`
    #[arg(long, value_name = "FILE", hide = true)]
    pub record_tape: Option<PathBuf>,
    /// Place probes one by one, and see requests at system calls, as on older kernels
    #[arg(long, hide = true)]
    pub single_probes: bool,
    /// Bytes of the ring buffer: a power of two, at least 4096
    #[arg(long, value_name = "BYTES", hide = true, value_parser = parse_ring_bytes)]
    pub ring_bytes: Option<u32>,
    /// Entries of each table about Python code, which all processes share
    #[arg(long, value_name = "NUMBER", hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub python_entries: Option<u32>,
}

/// What becomes of the processes that a traced one forks.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ForkOptions {
    /// Trace the named processes alone: by default those that they have forked and will fork are traced too, and what they
    /// execute
    #[arg(long, overrides_with = "follow")]
    no_follow: bool,
    /// Keep waiting for processes that are forked later even if there is nothing to trace yet (without this option too they are
    /// traced, unless --no-follow is given)
    #[arg(long, overrides_with = "no_follow")]
    follow: bool,
}

impl ForkOptions {
    /// Whether forked processes are traced.
    pub fn are_followed(self) -> bool {
        !self.no_follow
    }

    /// Whether there is something to wait for while nothing at all can be traced.
    pub fn are_awaited(self) -> bool {
        self.follow
    }
}

/// How Python calls are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PythonMode {
    /// Hardware watchpoints on the code of a few methods.
    Watch,
    /// Probes that every Python call passes.
    Frames,
    /// Probes that calls through C pass.
    Chain,
    /// Watch or chain, as a measurement on this machine decides.
    Auto,
}

/// How requests are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Requests {
    /// At sockets, where the target listens and the kernel tells of them.
    Auto,
    /// Not at all.
    Off,
    /// At sockets, or else at system calls.
    Sockets,
    /// In the C library.
    Libc,
}

impl TraceOptions {
    /// Refuses options that say nothing without another one, and what is not there yet.
    pub fn check(&self) -> Result<(), UsageError> {
        let problem = match self.requests {
            Requests::Off | Requests::Auto | Requests::Sockets => None,
            Requests::Libc => {
                Some("requests are not seen in the C library yet: `--requests sockets` sees them at the sockets")
            }
        };
        if let Some(problem) = problem {
            return Err(UsageError(problem.to_owned()));
        }
        let has_windows = matches!(self.python, PythonMode::Frames | PythonMode::Chain);
        if self.duty.is_some() && !has_windows {
            return Err(UsageError("--duty needs `--python frames` or `--python chain`: add one of them".to_owned()));
        }
        Ok(())
    }

    /// How Python calls are to be seen.
    pub fn python(&self) -> PythonSettings {
        let mode = match self.python {
            // Until it is chosen.
            PythonMode::Watch | PythonMode::Auto => model::PythonMode::Watch,
            PythonMode::Frames => model::PythonMode::Frames,
            PythonMode::Chain => model::PythonMode::Chain,
        };
        let share = match (self.duty, self.max_overhead) {
            (Some(share), _) => model::Share::OfTime(share),
            (None, Some(most)) => model::Share::OfProcessor(most),
            (None, None) => model::Share::Always,
        };
        PythonSettings { mode, is_chosen: self.python == PythonMode::Auto, share, ..PythonSettings::default() }
    }
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["pids", "names", "ports"])))]
pub struct AttachArguments {
    #[command(flatten)]
    pub selected: Selected,
    #[command(flatten)]
    pub trace: TraceOptions,
    #[command(flatten)]
    pub display: DisplayOptions,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["pids", "names", "ports"])))]
pub struct TopArguments {
    #[command(flatten)]
    pub selected: Selected,
    #[command(flatten)]
    pub trace: TraceOptions,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    pub trace: TraceOptions,
    /// The command and its arguments, after `--`
    // Before the options of the console, under whose heading it would stand.
    #[arg(value_name = "CMD", required = true, last = true)]
    pub command: Vec<OsString>,
    #[command(flatten)]
    pub display: DisplayOptions,
}

/// Arguments of `symbols`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["pids", "names", "ports", "files"])))]
pub struct SymbolsArguments {
    #[command(flatten)]
    pub selected: Selected,
    /// Look into programs and libraries that need not be running
    #[arg(value_name = "FILE", conflicts_with_all = ["pids", "names", "ports"])]
    pub files: Vec<PathBuf>,
    /// Symbol map (YAML) that says what else is traced (may be given several times; later ones win)
    #[arg(long = "map", value_name = "FILE")]
    pub maps: Vec<PathBuf>,
    #[command(flatten)]
    pub classes: ClassOptions,
    /// List what there is in the named processes alone, not in those that they have forked
    #[arg(long)]
    pub no_follow: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `check-map`.
#[derive(Debug, Args)]
pub struct CheckMapArguments {
    /// The maps
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: CompletedShell,
}

/// Shells that are completed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletedShell {
    /// Bash.
    Bash,
    /// Z shell.
    Zsh,
    /// Fish.
    Fish,
}

/// Arguments of `man-pages`.
#[derive(Debug, Args)]
pub struct ManPagesArguments {
    /// Where they go; made if it is not there
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// The tape
    #[arg(value_name = "TAPE")]
    pub tape: PathBuf,
    /// Where spans go
    #[arg(long = "export", value_name = "DEST")]
    pub exports: Vec<Destination>,
    #[command(flatten)]
    pub display: DisplayOptions,
    /// Write the totals as JSON
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// Replay so many times from memory, without a destination unless some are given, and print how long that took
    #[arg(long, value_name = "TIMES")]
    pub measure: Option<u32>,
}

/// Arguments of `place-empty-probes`.
#[derive(Debug, Args)]
pub struct PlaceEmptyProbesArguments {
    /// Process
    #[arg(long, value_name = "PID")]
    pub pid: u32,
    /// Program or library
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Offset in the file of an instruction to probe (may be given several times)
    #[arg(long = "entry", value_name = "OFFSET")]
    pub entries: Vec<u64>,
    /// Offset in the file of the first instruction of a function whose return to probe (may be given several times)
    #[arg(long = "return", value_name = "OFFSET")]
    pub returns: Vec<u64>,
    /// Address in the process of a word to watch (may be given several times)
    #[arg(long = "watch", value_name = "ADDRESS")]
    pub watched: Vec<u64>,
    /// Place probes one by one, as on kernels before 6.6
    #[arg(long)]
    pub single_probes: bool,
}

/// Arguments of `soak`.
#[derive(Debug, Args)]
pub struct SoakArguments {
    /// Process
    #[arg(long, value_name = "PID")]
    pub pid: u32,
    /// Symbol map; no built-in one counts (may be given several times)
    #[arg(long = "map", value_name = "FILE", required = true)]
    pub maps: Vec<PathBuf>,
    /// How often to attach
    #[arg(long, value_name = "TIMES", default_value_t = 100)]
    pub cycles: u32,
    /// How long to stay attached each time
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "2ms")]
    pub hold: Duration,
}

/// Arguments of the guard that watch mode posts in a virtual machine.
#[derive(Debug, Args)]
pub struct GuardArguments {
    /// Process
    #[arg(long, value_name = "PID")]
    pub pid: u32,
}

/// What `run` starts: this program, which waits and then becomes the command.
#[derive(Debug, Args)]
pub struct WaitAndExecuteArguments {
    /// The command
    #[arg(required = true, last = true)]
    pub command: Vec<OsString>,
}

/// Every destination on a line of its own, before the rest.
fn with_destinations(help: &str) -> String {
    let lines: String = DESTINATIONS.iter().map(|kind| format!("  {:<16}{}\n", kind.form(), kind.about)).collect();
    format!("Destinations for --export (may be given several times):\n{lines}\n{help}")
}

fn destinations_in_short() -> String {
    let forms: Vec<String> = DESTINATIONS.iter().map(DestinationKind::form).collect();
    format!("Where spans go: {}", forms.join(", "))
}

fn with_exit_codes(help: &str) -> String {
    format!("{help}\n\n{EXIT_CODES}")
}

/// Reads the command line; help, version and mistakes are answered here.
pub fn parse() -> Result<Arguments, ExitCode> {
    Arguments::try_parse().map_err(|error| {
        let code = if error.use_stderr() { exit::USAGE } else { exit::DONE };
        // A closed terminal is no reason for another exit code.
        let _ = error.print();
        ExitCode::from(code)
    })
}

/// Log lines go to stderr; `RUST_LOG` chooses which.
pub fn begin_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,opentelemetry=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Errors).event_format(LogLines).init();
}

fn parse_share(text: &str) -> Result<f64, String> {
    let hint = "write a share above 0% and at most 100%: 5%, or 0.05";
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share: f64 = number.trim().parse::<f64>().map_err(|_| hint.to_owned())? / unit;
    if share > 0.0 && share <= 1.0 { Ok(share) } else { Err(hint.to_owned()) }
}

fn parse_ring_bytes(text: &str) -> Result<u32, String> {
    let bytes: u32 = text.parse().map_err(|_| "not a number".to_owned())?;
    if bytes.is_power_of_two() && bytes >= 4096 {
        Ok(bytes)
    } else {
        Err("must be a power of two and at least 4096".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn shares_are_above_nothing_and_at_most_all() {
        assert_eq!(parse_share("5%"), Ok(0.05));
        assert_eq!(parse_share("0.25"), Ok(0.25));
        assert_eq!(parse_share("100%"), Ok(1.0));
        for wrong in ["", "0", "0%", "101%", "-5%", "x", "2"] {
            assert!(parse_share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_share_of_the_time_is_for_modes_with_probes() {
        let check = |more: &[&str]| {
            let words = ["ml-tracer", "attach", "--pid=1", "--duty=5%"].iter().chain(more);
            match Arguments::try_parse_from(words).expect("a right command line").command {
                Command::Attach(attach) => attach.trace.check().is_ok(),
                _ => panic!("another command"),
            }
        };
        assert!(check(&["--python=frames"]) && check(&["--python=chain"]));
        assert!(!check(&["--python=watch"]) && !check(&["--python=auto"]) && !check(&[]));
    }

    #[test]
    fn processes_are_named_by_numbers_names_and_ports() {
        let words = ["ml-tracer", "attach", "--pid=1,22", "--pid=3", "--name=gunicorn*", "--port=8000"];
        let Command::Attach(attach) = Arguments::try_parse_from(words).expect("a right command line").command else {
            panic!("another command")
        };
        let Selected { pids, names, ports } = attach.selected;
        assert_eq!((pids, names.len(), ports.len()), (vec![1, 22, 3], 1, 1));
        for (wrong, hint) in [
            (["--pid", "gunicorn"], "`--name gunicorn`"),
            (["--pid", "0"], "from 1 to"),
            (["--pid", "99999999999"], "from 1 to"),
            (["--name", "a["], "character class"),
            (["--port", "70000"], "65535"),
        ] {
            for command in ["attach", "symbols"] {
                let words = ["ml-tracer", command].into_iter().chain(wrong);
                let error = Arguments::try_parse_from(words).expect_err(hint).to_string();
                assert!(error.contains(hint), "{error}");
            }
        }
        assert!(Arguments::try_parse_from(["ml-tracer", "symbols", "--pid=1", "/bin/ls"]).is_err(), "one or the other");
        assert!(Arguments::try_parse_from(["ml-tracer", "attach"]).is_err(), "somebody has to be named");
    }

    #[test]
    fn forked_processes_are_followed_unless_the_last_word_is_not_to() {
        let forks = |more: &[&str]| {
            let words = ["ml-tracer", "attach", "--pid=1"].iter().chain(more);
            match Arguments::try_parse_from(words).expect("a right command line").command {
                Command::Attach(attach) => (attach.trace.forks.are_followed(), attach.trace.forks.are_awaited()),
                _ => panic!("another command"),
            }
        };
        assert_eq!(forks(&[]), (true, false));
        assert_eq!(forks(&["--follow"]), (true, true));
        assert_eq!(forks(&["--no-follow"]), (false, false));
        assert_eq!(forks(&["--follow", "--no-follow"]), (false, false));
        assert_eq!(forks(&["--no-follow", "--follow"]), (true, true));
    }

    #[test]
    fn an_interval_has_a_usual_length() {
        let interval = |more: &[&str]| {
            let words = ["ml-tracer", "attach", "--pid=1"].iter().chain(more);
            match Arguments::try_parse_from(words).map(|arguments| arguments.command) {
                Ok(Command::Attach(attach)) => Ok(attach.display.interval),
                _ => Err(()),
            }
        };
        assert_eq!(interval(&[]), Ok(None));
        assert_eq!(interval(&["--interval"]), Ok(Some(Duration::from_secs(10))));
        assert_eq!(interval(&["--interval=2s"]), Ok(Some(Duration::from_secs(2))));
        assert_eq!(interval(&["--interval=1ms"]), Err(()));
    }
}
