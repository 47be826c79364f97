//! Requests, surveys, counts of calls and kernel features go in, a `ProbePlan`, a `PythonPlan` or a step of the policy comes
//! out, with every candidate that was left out and the reason; pure, so that `--dry-run` prints exactly what a run would do.

mod budget;
mod calibration;
mod call_counts;
mod call_profile;
mod covered_code;
mod duty_cycle;
mod elsewhere;
mod function_numbers;
mod look_schedule;
mod look_turns;
mod mode_choice;
mod planner;
mod python_choice;
mod python_cost;
mod python_plan;
mod step;
mod survey_history;
mod unwatched;
mod watch_policy;
mod witness_choice;

pub use calibration::Calibration;
pub use call_counts::Counts;
pub use call_profile::CallProfile;
pub use duty_cycle::{DutyCycle, Turn};
pub use look_schedule::StartSchedule;
pub use look_turns::LookTurns;
pub use mode_choice::{Machine, ModeChoice, choose_mode, suits_chain};
pub use planner::Planner;
pub use python_cost::{PythonCost, each_ns, few_witnesses_sentence};
pub use step::{Others, Step};
pub use survey_history::SurveyDelta;
pub use watch_policy::WatchPolicy;
pub use witness_choice::{WitnessChoice, WitnessCount, WitnessStep};
