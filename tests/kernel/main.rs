//! Kernel suite: the tracer attached to real programs; spans compared with what the programs say of themselves.

mod endings;
mod fibers;
mod follow;
mod libraries;
mod names;
mod nesting;
mod overhead;
mod places;
mod privilege;

use std::process::ExitCode;

use tracer_tests::suite;

fn main() -> ExitCode {
    let cases = [
        nesting::cases(),
        endings::cases(),
        fibers::cases(),
        libraries::cases(),
        names::cases(),
        follow::cases(),
        overhead::cases(),
        places::cases(),
        privilege::cases(),
    ];
    suite::main(cases.into_iter().flatten().collect())
}
