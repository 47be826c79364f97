//! Takes a `ProbePlan` and makes it live probes; gives back the ring buffer, the totals and the calls still open.

mod asides;
mod checkup;
mod cost;
mod end_of_process;
mod error;
mod features;
mod floor;
mod forks;
mod guard;
mod leases;
mod multi;
mod own_function;
mod placement;
mod probed_files;
mod programs;
mod python;
mod python_frames;
mod python_tables;
mod readback;
mod slots;
mod task_layout;
mod totals;
mod trial;
mod watchpoints;

pub use checkup::{Check, CheckState, check_machine};
pub use cost::{ProbeCost, SiteCosts, measure_emulated_probe, measure_probe_costs, measure_site_costs};
pub use end_of_process::EndOfProcess;
pub use error::AttachError;
pub use features::{Capability, MissingPrivilege, missing_privilege, probe_features};
pub use floor::{FloorProbes, FloorSites};
pub use guard::stand_guard;
pub use leases::keep_leases;
pub use placement::{Refusal, Refused};
pub use programs::{LoadOptions, Programs};
pub use python::WatchOutcome;
