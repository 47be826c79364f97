//! The command line goes in; one call of a room below comes out, and its result as text and exit code.

mod arguments;
mod attach;
mod check_map;
mod class_options;
mod completions;
mod display_options;
mod doctor;
mod durations;
mod exit;
mod guard;
mod list;
mod man_pages;
mod place_empty_probes;
mod print;
mod progress;
mod replay;
mod run;
mod selected;
mod signals;
mod soak;
mod summary_file;
mod symbols;
mod top;
mod unnamed_classes;
mod wait_and_execute;

use std::process::ExitCode;
use std::time::Instant;

/// Holds leases on probed files, so that a writer waits until their probes are gone.
fn keep_leases() -> anyhow::Result<ExitCode> {
    crate::attach::keep_leases()?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the command that the arguments name.
#[must_use]
pub fn run() -> ExitCode {
    let began = Instant::now();
    let arguments = match arguments::parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    arguments::begin_log();
    let result = match arguments.command {
        arguments::Command::Attach(arguments) => attach::attach(&arguments, began),
        arguments::Command::Top(arguments) => top::top(&arguments, began),
        arguments::Command::Run(arguments) => run::run(&arguments, began),
        arguments::Command::Symbols(arguments) => symbols::symbols(&arguments),
        arguments::Command::CheckMap(arguments) => check_map::check_map(&arguments),
        arguments::Command::Doctor(arguments) => doctor::doctor(&arguments),
        arguments::Command::Completions(arguments) => completions::completions(&arguments),
        arguments::Command::ManPages(arguments) => man_pages::man_pages(&arguments),
        arguments::Command::Replay(arguments) => replay::replay(&arguments),
        arguments::Command::PlaceEmptyProbes(arguments) => place_empty_probes::place_empty_probes(&arguments),
        arguments::Command::Soak(arguments) => soak::soak(&arguments),
        arguments::Command::Guard(arguments) => guard::guard(&arguments),
        arguments::Command::KeepLeases => keep_leases(),
        arguments::Command::WaitAndExecute(arguments) => wait_and_execute::wait_and_execute(&arguments),
    };
    result.unwrap_or_else(|failure| exit::report(&failure))
}
