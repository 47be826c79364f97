//! Settings and targets go in; a running tracer is wired up, kept up to date with its targets, and ended in order.

mod background;
mod clock;
mod counted;
mod descriptors;
mod drain;
mod error;
mod findings;
mod follow;
mod instances;
mod left_calls;
mod measure;
mod probe_load;
mod python_remarks;
mod recording;
mod replay;
mod report;
mod roster;
mod settings;
mod soak;
mod tracer;
mod wiring;

pub use descriptors::enough_descriptors;
pub use error::SessionError;
pub use findings::{PlanOnly, plan_only};
pub use follow::AFTER_SIGNAL;
pub use measure::{Throughput, measure};
pub use python_remarks::first_names;
pub use replay::replay;
pub use report::Report;
pub use roster::{Followed, News};
pub use settings::{PythonSettings, Settings};
pub use soak::{Soak, SoakFigures};
pub use tracer::Tracer;

// What a command line needs of the rooms below, so that it knows only this one.
pub use crate::attach::{
    AttachError, Check, CheckState, FloorProbes, FloorSites, LoadOptions, MissingPrivilege, ProbeCost, check_machine,
    keep_leases, measure_probe_costs, missing_privilege, stand_guard,
};
pub use crate::export::{Destination, create_file};
pub use crate::symbol_map::{
    MAP_DIRECTORY, MapErrors, Summary as MapSummary, load as load_maps, read_file as read_map,
};
pub use crate::target::{TargetError, descendants, find_program, look_at, modules_at_start};
