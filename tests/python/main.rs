//! Python suite: the tracer attached to interpreters that nobody prepared; spans compared with what the programs say of
//! themselves.

mod auto_mode;
mod changing_models;
mod churn;
mod containers;
mod crowd;
mod first_calls;
mod follow;
mod greenlets;
mod guard;
mod interpreters;
mod libraries;
mod looks;
mod native_code;
mod oracle;
mod own_classes;
mod pauses;
mod plain;
mod readers;
mod resources;
mod scikit_learn;
mod shapes;
mod sparse;
mod threads;
mod unharmed;
mod unwatched;
mod windows;
mod wrappers;

use std::process::ExitCode;

use tracer_tests::suite::{self, Case};

fn main() -> ExitCode {
    let beside_others = [
        plain::cases(),
        readers::cases(),
        greenlets::cases(),
        changing_models::cases(),
        scikit_learn::cases(),
        containers::cases(),
        interpreters::cases(),
        libraries::cases(),
        native_code::cases(),
        unharmed::cases(),
        wrappers::cases(),
        guard::cases(),
        follow::cases(),
        oracle::cases(),
        own_classes::cases(),
        unwatched::cases(),
        auto_mode::cases(),
        shapes::cases(),
        first_calls::cases(),
    ];
    // They measure, or want the processors for themselves.
    let alone = [
        looks::cases(),
        pauses::cases(),
        threads::cases(),
        crowd::cases(),
        churn::cases(),
        windows::cases(),
        sparse::cases(),
    ];
    let alone = alone.into_iter().flatten().map(Case::alone);
    suite::main(beside_others.into_iter().flatten().chain(alone).collect())
}
