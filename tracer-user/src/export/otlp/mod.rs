//! Spans go in; a collector gets them by OTLP, over HTTP or gRPC, or they are counted as lost.

mod grpc_answer;
mod outcome;
mod settings;
mod sink;
mod span_data;
#[cfg(test)]
mod tests;
mod transport;
mod worker;

pub use sink::Otlp;
