//! Takes a `ProbePlan` and makes it live probes; gives back the ring buffer, the totals and the calls still open.

mod asides;
mod checkup;
mod cost;
mod error;
mod features;
mod floor;
mod guard;
mod multi;
mod own_function;
mod placement;
mod programs;
mod python;
mod python_frames;
mod python_tables;
mod slots;
mod totals;
mod trial;
mod watchpoints;

pub use checkup::{Check, CheckState, check_machine};
pub use cost::{ProbeCost, SiteCosts, measure_emulated_probe, measure_probe_costs, measure_site_costs};
pub use error::AttachError;
pub use features::{Capability, MissingPrivilege, missing_privilege, probe_features};
pub use floor::{FloorProbes, FloorSites};
pub use guard::stand_guard;
pub use placement::Refused;
pub use programs::{LoadOptions, Programs};
pub use python::WatchOutcome;
