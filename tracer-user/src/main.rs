//! ml-tracer.
fn main() {}
