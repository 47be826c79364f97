//! Spans and losses go in; terminals, files and collectors get them, and what was lost on the way is reported.

mod attribute_limits;
mod attributes;
mod background_writer;
mod chrome_trace;
mod console;
mod described;
mod destination;
mod environment;
mod error;
mod json;
mod json_lines;
mod open;
mod otlp;
mod resource;
#[cfg(test)]
mod samples;
mod sink;

pub use destination::Destination;
pub use environment::Environment;
pub use error::ExportError;
pub use open::{create_file, open};
pub use resource::Resource;
pub use sink::{Delivery, Sink, Summary};
