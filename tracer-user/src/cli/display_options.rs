//! What of the traces is shown on the terminal: options that change nothing anywhere else.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::Args;

use super::durations::{parse_duration, parse_interval};
use crate::export::{Destination, NameFilter, Sample, Shown};

/// Options about the console alone.
#[derive(Clone, Debug, Default, Args)]
#[command(
    next_help_heading = "What the console shows (other destinations and the totals have everything all the same)"
)]
pub struct DisplayOptions {
    /// Print no trees; losses, the table of methods and the totals are printed all the same
    #[arg(long, short)]
    pub quiet: bool,
    /// Only traces in which a call has this name, e.g. `RandomForest*.predict`; a class or a method alone is enough. They are shown
    /// whole (may be given several times; one of them has to fit)
    #[arg(long = "filter", value_name = "GLOB")]
    pub filters: Vec<NameFilter>,
    /// Only traces whose outermost call took at least this long, e.g. 10ms
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub min_duration: Option<Duration>,
    /// Only traces in which a call failed
    #[arg(long)]
    pub errors: bool,
    /// Only so many levels of each tree; calls below are counted
    #[arg(long, value_name = "LEVELS", value_parser = parse_levels)]
    pub depth: Option<NonZeroU32>,
    /// Only a share of the traces, whole: 1/10, or 10%
    #[arg(long, value_name = "SHARE")]
    pub sample: Option<Sample>,
    /// Print the table of methods while tracing as well, this often (10s unless given), on stderr
    #[arg(long, value_name = "TIME", value_parser = parse_interval, num_args = 0..=1, require_equals = true, default_missing_value = "10s")]
    pub interval: Option<Duration>,
}

fn parse_levels(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| "write how many levels of a tree to show: 1, 2, 3".to_owned())
}

impl DisplayOptions {
    /// What the console is to show.
    fn shown(&self) -> Shown {
        Shown {
            quiet: self.quiet,
            names: self.filters.clone(),
            min_duration: self.min_duration.unwrap_or_default(),
            errors: self.errors,
            depth: self.depth,
            sample: self.sample,
            on_stderr: false,
        }
    }

    /// The destinations, or the console where none is named, with what it is to show.
    pub fn destinations(&self, exports: &[Destination]) -> Vec<Destination> {
        let console = || Destination::Console(Box::new(self.shown()));
        let with_options = |destination: &Destination| match destination {
            Destination::Console(_) => console(),
            other => other.clone(),
        };
        if exports.is_empty() { vec![console()] } else { exports.iter().map(with_options).collect() }
    }
}
