//! Python suite: the tracer attached to interpreters that nobody prepared; spans compared with what the programs say of
//! themselves.

mod comings;
mod follow;
mod guard;
mod interpreters;
mod libraries;
mod native_code;
mod oracle;
mod pauses;
mod plain;
mod resources;
mod scikit_learn;
mod threads;
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
        pauses::cases(),
        threads::cases(),
        follow::cases(),
        oracle::cases(),
    ];
    suite::main(cases.into_iter().flatten().collect(), true)
}
