//! Python suite: the tracer attached to interpreters that nobody prepared; spans compared with what the programs say of
//! themselves.

mod comings;
mod crowd;
mod follow;
mod guard;
mod interpreters;
mod libraries;
mod native_code;
mod oracle;
mod plain;
mod resources;
mod scikit_learn;
mod unharmed;

use std::process::ExitCode;

use tracer_tests::suite;

fn main() -> ExitCode {
    let cases = [
        plain::cases(),
        comings::cases(),
        scikit_learn::cases(),
        interpreters::cases(),
        libraries::cases(),
        native_code::cases(),
        unharmed::cases(),
        guard::cases(),
        follow::cases(),
        crowd::cases(),
        oracle::cases(),
    ];
    suite::main(cases.into_iter().flatten().collect(), true)
}
