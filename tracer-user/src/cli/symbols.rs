//! `ml-tracer symbols`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::arguments::SymbolsArguments;
use super::attach::load_maps;
use super::exit::UsageError;
use super::list;
use super::selected::with_descendants;
use crate::model::{Module, ProcessId, Target};
use crate::session;
use crate::session::{PythonSettings, plan_only};

/// Lists what would be traced in a process or in files.
pub fn symbols(arguments: &SymbolsArguments) -> anyhow::Result<ExitCode> {
    session::enough_descriptors()?;
    let maps = load_maps(&arguments.maps, &arguments.classes)?;
    let targets = match arguments.selected.is_empty() {
        true => vec![files_as_target(&arguments.files)?],
        false => arguments.selected.look(!arguments.no_follow)?,
    };
    let targets = with_descendants(targets, !arguments.selected.is_empty() && !arguments.no_follow);
    list::print_plan(&plan_only(&targets, maps, PythonSettings::default(), false), arguments.json)
}

/// Files that no process has mapped, listed as if one had.
fn files_as_target(files: &[PathBuf]) -> anyhow::Result<Target> {
    let modules = files.iter().map(|file| module(file)).collect::<Result<_, UsageError>>()?;
    Ok(Target {
        process: ProcessId { pid: 0, start_time: 0 },
        command_line: Vec::new(),
        executable: PathBuf::new(),
        modules,
        container_id: None,
        image: crate::model::ProgramImage::default(),
        service: crate::model::Service::default(),
    })
}

fn module(file: &Path) -> Result<Module, UsageError> {
    let metadata = std::fs::metadata(file).map_err(|error| UsageError(format!("{}: {error}", file.display())))?;
    if !metadata.is_file() {
        return Err(UsageError(format!("{}: not a regular file; name a program or a library", file.display())));
    }
    Ok(Module {
        path: file.to_owned(),
        access_path: file.to_owned(),
        device: (0, 0),
        inode: 0,
        version: None,
        mappings: Vec::new(),
    })
}
