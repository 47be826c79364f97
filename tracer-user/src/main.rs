//! The command `ml-tracer`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracer_user::cli::run()
}
