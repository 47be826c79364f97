//! Takes a `ProbePlan` and makes it live probes; gives back the ring buffer, the totals and the calls still open.

mod checkup;
mod code_watch;
mod cost;
mod empty_probes;
mod end_of_process;
mod error;
mod features;
mod first_objects;
mod forks;
mod guard;
mod heaps;
mod hit_cost;
mod kernel;
mod leases;
mod loaded;
mod multi;
mod object;
mod own_function;
mod placement;
mod probed_files;
mod programs;
mod python_chain;
mod python_frames;
mod python_probes;
mod python_tables;
mod python_watch;
mod readback;
mod removals;
mod requests;
mod signals;
mod site;
mod slots;
mod task_layout;
mod totals;
mod traced_process;
mod tracepoints;
mod trial;
mod watchpoints;

pub use checkup::{Check, CheckState, check_machine};
pub use code_watch::{CodeWatch, Moved};
pub use cost::{ProbeCost, SiteCosts, measure_emulated_probe, measure_probe_costs, measure_site_costs};
pub use empty_probes::{EmptyProbeSites, EmptyProbes};
pub use end_of_process::EndOfProcess;
pub use error::AttachError;
pub use features::{
    Capability, MissingPrivilege, is_virtual_machine, kernel_version, missing_privilege, probe_features,
};
pub use guard::run_guard;
pub use heaps::share_heaps;
pub use hit_cost::measure_watchpoint_hit;
pub use kernel::{Kernel, KernelProcess};
pub use leases::keep_leases;
pub use loaded::LoadOptions;
pub use placement::{Refusal, Refused};
pub use programs::Programs;
pub use python_watch::WatchOutcome;
