//! `ml-tracer soak`: for tests of endurance.

use std::process::ExitCode;

use super::arguments::SoakArguments;
use super::exit::demand_privilege;
use crate::session::Soak;
use crate::symbol_map::read_file;
use crate::target::look_at;

/// Cycles between two lines of figures.
const TELL_EVERY: u32 = 100;

/// Attaches and lets go so many times; a JSON object a line says how that went.
#[expect(clippy::print_stdout, reason = "figures are what this command is for")]
pub fn soak(arguments: &SoakArguments) -> anyhow::Result<ExitCode> {
    demand_privilege()?;
    let mut maps = Vec::new();
    for file in &arguments.maps {
        maps.extend(read_file(file)?);
    }
    let mut soak = Soak::find(look_at(arguments.pid)?, &maps)?;
    println!("{}", serde_json::to_string(&soak.figures())?);
    for cycle in 1..=arguments.cycles {
        soak.cycle(arguments.hold)?;
        if cycle % TELL_EVERY == 0 || cycle == arguments.cycles {
            println!("{}", serde_json::to_string(&soak.figures())?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
