//! The rooms of ml-tracer; ARCHITECTURE.md is their map.

pub mod assemble;
pub mod attach;
pub mod decode;
pub mod export;
pub mod model;
pub mod plan;
pub mod ring;
pub mod symbol;
pub mod symbol_map;
pub mod target;
