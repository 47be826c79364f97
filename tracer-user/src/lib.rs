//! The rooms of ml-tracer; ARCHITECTURE.md is their map.

pub mod attach;
pub mod decode;
pub mod model;
pub mod plan;
pub mod ring;
pub mod target;
