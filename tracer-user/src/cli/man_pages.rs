//! `ml-tracer man-pages`.

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;

use super::arguments::{Arguments, ManPagesArguments};
use super::exit::UsageError;

/// Writes `ml-tracer.1`, and a page for each command.
pub fn man_pages(arguments: &ManPagesArguments) -> anyhow::Result<ExitCode> {
    let folder = &arguments.folder;
    write(folder).map_err(|error| UsageError(format!("no pages can be written to {}: {error}", folder.display())))?;
    Ok(ExitCode::SUCCESS)
}

fn write(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Arguments::command(), folder)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    #[test]
    fn every_command_that_people_see_has_a_page() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path()).expect("pages");
        let pages = fs::read_dir(folder.path()).expect("pages").flatten();
        let pages: BTreeSet<String> = pages.map(|page| page.file_name().to_string_lossy().into_owned()).collect();
        let arguments = Arguments::command();
        let commands = arguments.get_subcommands().filter(|command| !command.is_hide_set());
        let wanted = commands.map(|command| format!("ml-tracer-{}.1", command.get_name()));
        assert_eq!(pages, wanted.chain(["ml-tracer.1".to_owned()]).collect());
        let attach = fs::read_to_string(folder.path().join("ml-tracer-attach.1")).expect("text");
        assert!(attach.contains("min\\-duration") && !attach.contains("ring\\-bytes"), "{attach}");
    }
}
