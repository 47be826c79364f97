//! The targets that run a language runtime go in; what is watched of their code, kept up to date, and what is covered by it come
//! out.

mod all_instances;
mod call_probes;
mod chain_in_reserve;
mod context;
mod contexts;
mod cost;
mod exceptions;
mod first_count;
mod looked;
mod meanings;
mod traced_instance;
mod witnesses;

pub use all_instances::Instances;
pub use context::Context;
pub use cost::Measured;
pub use meanings::class_names;
pub use traced_instance::TracedInstance;
