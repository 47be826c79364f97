//! Takes a `ProbePlan` and makes it live probes; gives back the ring buffer, the totals and the calls still open.

mod checkup;
mod cost;
mod error;
mod features;
mod multi;
mod placement;
mod programs;
mod totals;

pub use checkup::{Check, CheckState, check_machine};
pub use cost::{ProbeCost, measure_probe_costs};
pub use error::AttachError;
pub use features::{Capability, missing_capabilities, probe_features};
pub use placement::Refused;
pub use programs::{LoadOptions, Programs};
