//! Spans and totals go in; what people look at comes out: the table of methods, and the live view of it.

mod method_table;
mod top;

pub use method_table::lines as method_lines;
pub use top::{Live, LiveSink, Top, TopError, run_top};
