//! The rooms of ml-tracer; ARCHITECTURE.md is their map.

pub mod engine;
pub mod model;
pub mod symbol;
pub mod symbol_map;
