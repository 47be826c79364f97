//! Python suite: the tracer attached to interpreters that nobody prepared; spans compared with what the programs say of
//! themselves.

mod comings;
mod guard;
mod oracle;
mod plain;
mod resources;
mod scikit_learn;
mod unharmed;

use std::process::ExitCode;

use tracer_tests::suite;

fn main() -> ExitCode {
    let cases =
        [plain::cases(), comings::cases(), scikit_learn::cases(), unharmed::cases(), guard::cases(), oracle::cases()];
    suite::main(cases.into_iter().flatten().collect(), true)
}
