//! Spans go in; a tree that people can read comes out for each trace, as soon as its outermost call has ended.

mod columns;
mod layout;
mod sink;
mod tree;

pub use columns::Columns;
pub use layout::{duration, shorten};
pub use sink::Console;
pub use tree::tree_lines;
