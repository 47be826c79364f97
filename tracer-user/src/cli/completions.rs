//! `ml-tracer completions`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::arguments::{Arguments, CompletedShell, CompletionsArguments};

/// Prints what the shell reads.
pub fn completions(arguments: &CompletionsArguments) -> anyhow::Result<ExitCode> {
    // The generator panics where it cannot write, as to a closed pipe.
    std::io::stdout().write_all(&script(arguments.shell))?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: CompletedShell) -> Vec<u8> {
    let shell = match shell {
        CompletedShell::Bash => Shell::Bash,
        CompletedShell::Zsh => Shell::Zsh,
        CompletedShell::Fish => Shell::Fish,
    };
    let whole = Arguments::command();
    let name = whole.get_name().to_owned();
    let mut script = Vec::new();
    generate(shell, &mut visible(&whole), name, &mut script);
    script
}

/// The same without what is hidden, which the generator would offer.
fn visible(whole: &Command) -> Command {
    let options = whole.get_arguments().filter(|option| !option.is_hide_set()).cloned();
    let commands = whole.get_subcommands().filter(|command| !command.is_hide_set()).map(visible);
    // A command keeps its words as long as the program runs, which is about to end.
    let kept = |text: &str| -> &'static str { text.to_owned().leak() };
    let shown = Command::new(kept(whole.get_name())).args(options).subcommands(commands);
    let shown = whole.get_about().cloned().into_iter().fold(shown, Command::about);
    whole.get_version().map(kept).into_iter().fold(shown, Command::version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_not_completed() {
        for shell in [CompletedShell::Bash, CompletedShell::Zsh, CompletedShell::Fish] {
            let script = String::from_utf8(script(shell)).expect("text");
            for shown in ["attach", "check-map", "completions", "export", "min-duration"] {
                assert!(script.contains(shown), "{shown} is not in the script for {shell:?}");
            }
            for hidden in ["keep-leases", "wait-and-execute", "place-empty-probes", "ring-bytes", "single-probes"] {
                assert!(!script.contains(hidden), "{hidden} is in the script for {shell:?}");
            }
        }
    }
}
