//! Python suite: the tracer attached to interpreters that nobody prepared; spans compared with what the programs say of
//! themselves.

mod churn;
mod comings;
mod crowd;
mod follow;
mod greenlets;
mod guard;
mod interpreters;
mod libraries;
mod looks;
mod native_code;
mod oracle;
mod pauses;
mod plain;
mod readers;
mod resources;
mod scikit_learn;
mod threads;
mod unharmed;
mod wrappers;

use std::process::ExitCode;

use tracer_tests::suite;

fn main() -> ExitCode {
    let cases = [
        plain::cases(),
        readers::cases(),
        greenlets::cases(),
        comings::cases(),
        scikit_learn::cases(),
        interpreters::cases(),
        libraries::cases(),
        looks::cases(),
        native_code::cases(),
        unharmed::cases(),
        wrappers::cases(),
        guard::cases(),
        pauses::cases(),
        threads::cases(),
        follow::cases(),
        crowd::cases(),
        churn::cases(),
        oracle::cases(),
    ];
    suite::main(cases.into_iter().flatten().collect(), true)
}
