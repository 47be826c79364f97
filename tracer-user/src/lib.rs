//! The rooms of ml-tracer; ARCHITECTURE.md is their map.

pub mod assemble;
pub mod attach;
pub mod cli;
pub mod decode;
pub mod engine;
pub mod export;
pub mod memory;
pub mod model;
pub mod plan;
pub mod ring;
pub mod session;
pub mod symbol;
pub mod symbol_map;
pub mod target;
pub mod view;
