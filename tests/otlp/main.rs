//! OTLP suite: spans at receivers built on the official protobufs, through a collector that is not ours, and what
//! happens when the other side is bad.

mod bad_collectors;
mod delivery;

use std::process::ExitCode;

use tracer_tests::suite;

fn main() -> ExitCode {
    let cases = [delivery::cases(), bad_collectors::cases()];
    // Those that measure how long the target takes allow it three times as long as without a tracer.
    suite::main(cases.into_iter().flatten().collect())
}
