//! Spans and losses go in; terminals, files and collectors get them, and what was lost on the way is reported.

mod attribute_limits;
mod attributes;
mod background_writer;
mod chrome_trace;
mod console;
mod covered;
mod described;
mod destination;
mod environment;
mod error;
mod folded;
mod json;
mod json_lines;
mod method_totals;
mod open;
mod otlp;
mod request_attributes;
mod resource;
#[cfg(test)]
mod samples;
mod shown;
mod sink;
mod speedscope;
mod stack_file;
mod stack_totals;
mod value_ref;

pub use console::{duration, shorten, tree_lines};
pub use destination::{DESTINATIONS, Destination, DestinationKind};
pub use environment::Environment;
pub use error::ExportError;
pub use method_totals::MethodTotals;
pub use open::{create_file, open};
pub use resource::Resource;
pub use shown::{NameFilter, Sample, Shown};
pub use sink::{Delivery, Sink, Summary};
