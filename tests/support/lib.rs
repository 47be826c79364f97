//! What the suites share: programs to trace, the tracer at work on them, the spans it wrote, and OTLP receivers.

pub mod bad_collector;
pub mod bpf_maps;
pub mod collector;
mod fork_server;
pub mod golden;
pub mod probes;
pub mod process;
pub mod python;
pub mod python_run;
pub mod receiver;
pub mod root;
pub mod spans;
pub mod suite;
pub mod targets;
pub mod terminal;
pub mod tracer;
pub mod workspace;
