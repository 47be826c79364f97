//! Settings and targets go in; a running tracer is wired up, kept up to date with its targets, and ended in order.

mod drain;
mod error;
mod replay;
mod report;
mod settings;
mod survey;
mod tracer;
mod wiring;

pub use error::SessionError;
pub use replay::replay;
pub use report::Report;
pub use settings::Settings;

pub use tracer::{Tracer, plan_only};
