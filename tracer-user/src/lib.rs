//! The rooms of ml-tracer; ARCHITECTURE.md is their map.

pub mod assemble;
pub mod export;
pub mod model;
