//! build.
fn main() {}
