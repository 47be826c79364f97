//! Python suite: the tracer attached to interpreters that nobody prepared; spans compared with what the programs say of
//! themselves.

mod follow;
mod machine;
mod oracle;
mod plain;
mod scikit_learn;
mod unharmed;

use std::process::ExitCode;

use tracer_tests::suite;

fn main() -> ExitCode {
    let cases = [plain::cases(), scikit_learn::cases(), unharmed::cases(), oracle::cases(), follow::cases()];
    // One at a time: an overloaded virtual machine is bad for watched processes.
    suite::main(cases.into_iter().flatten().collect(), true)
}
