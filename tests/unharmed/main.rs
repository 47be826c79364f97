//! Target-unharmed suite: the same output and the same end with and without the tracer, whatever the target does and
//! however the tracer ends.

mod behaviour;
mod files;
mod return_probes;
mod tracer_ends;

use std::process::ExitCode;

use tracer_tests::suite;

fn main() -> ExitCode {
    let cases = [behaviour::cases(), files::cases(), return_probes::cases(), tracer_ends::cases()];
    suite::main(cases.into_iter().flatten().collect())
}
