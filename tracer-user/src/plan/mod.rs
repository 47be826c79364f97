//! Pure choice: what the engines ask for and what the kernel can do go in, a `ProbePlan` comes out.

mod choose;

pub use choose::Planner;
