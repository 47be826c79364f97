//! Native functions: the symbols of an ELF file and the symbol maps go in; probe requests come out.

mod facts;
mod moving_code;
mod native_engine;
mod ownership;
mod shared_code;
#[cfg(test)]
mod tests;

pub use facts::NativeFacts;
pub use native_engine::{NativeEngine, NativeInstance};
