//! Settings and targets go in; a running tracer is wired up, kept up to date with its targets, and ended in order.

mod background;
mod clock;
mod control_loop;
mod descriptors;
mod drain;
mod end;
mod error;
mod failures;
#[cfg(test)]
mod fake_kernel;
mod findings;
mod first_calls;
mod instances;
mod left_calls;
mod measure;
mod message;
mod native_probes;
mod probe_load;
mod process_news;
mod processes;
mod python_mode;
mod recording;
mod replay;
mod report;
mod request_report;
mod settings;
mod soak;
mod start;
mod tape_header;
mod tracer;
mod wiring;

pub use control_loop::{Session, Stop};
pub use descriptors::enough_descriptors;
pub use error::SessionError;
pub use findings::{PlanOnly, plan_only};
pub use measure::{Throughput, measure};
pub use message::Message;
pub use processes::{Followed, ProcessChanges};
pub use python_mode::{CostReport, PythonModeReport};
pub use replay::replay;
pub use report::Report;
pub use settings::{PythonSettings, Settings, StatusFeed, TotalsFeed};
pub use soak::{Soak, SoakFigures};
pub use start::start;
pub use tracer::AFTER_SIGNAL;
