//! Spans go in; a screen comes out that shows what the methods come to while they are called, until a key ends it.

mod history;
mod keys;
mod live;
mod screen;
mod slowest;
mod terminal;

pub use live::{Live, LiveSink};
pub use terminal::{Top, TopError, run_top};
