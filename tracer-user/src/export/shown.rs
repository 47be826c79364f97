//! Which traces the console shows, and how much of each.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use globset::{Glob, GlobMatcher};

use crate::model::{Span, TraceId};

/// Which traces the console shows, and how much of each. What is not shown goes to every other destination all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// No trace at all: what was lost is told nevertheless.
    pub quiet: bool,
    /// Only traces with a call of such a name, unless there is none of these.
    pub names: Vec<NameFilter>,
    /// Only traces whose outermost call took this long.
    pub min_duration: Duration,
    /// Only traces in which a call failed.
    pub errors: bool,
    /// So many levels of a tree.
    pub depth: Option<NonZeroU32>,
    /// A share of the traces.
    pub sample: Option<Sample>,
    /// On standard error: standard output belongs to somebody else.
    pub on_stderr: bool,
}

/// A glob on the name of a call, on its class alone, or on its method alone.
#[derive(Clone, Debug)]
pub struct NameFilter(GlobMatcher);

/// A share of all traces, chosen by their ids: those of one trace are all chosen, or none is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// A trace is chosen if the second half of its id is less than this.
    below: u128,
}

impl Shown {
    /// The options that keep a trace from being shown, as they are written.
    pub fn reasons(&self) -> Vec<&'static str> {
        let all = [
            ("--filter", !self.names.is_empty()),
            ("--min-duration", !self.min_duration.is_zero()),
            ("--errors", self.errors),
            ("--sample", self.sample.is_some()),
        ];
        all.into_iter().filter_map(|(option, is_given)| is_given.then_some(option)).collect()
    }

    /// Whether nothing of a trace will be shown, whatever comes of it.
    pub fn leaves_out(&self, trace: TraceId) -> bool {
        self.quiet || self.sample.is_some_and(|sample| !sample.takes(trace))
    }

    /// Whether these spans of one trace are shown: all that is known of it, or a part. `longest` is how long the longest of
    /// the outermost calls among them took.
    pub fn takes(&self, spans: &[Span], longest: Duration) -> bool {
        let is_named = |span: &Span| self.names.iter().any(|name| name.fits(span.name()));
        spans.first().is_some_and(|span| !self.leaves_out(span.trace_id))
            && longest >= self.min_duration
            && (!self.errors || spans.iter().any(|span| span.error().is_some()))
            && (self.names.is_empty() || spans.iter().any(is_named))
    }
}

impl NameFilter {
    fn fits(&self, name: &str) -> bool {
        let parts = name.rsplit_once('.');
        self.0.is_match(name) || parts.is_some_and(|(class, method)| self.0.is_match(class) || self.0.is_match(method))
    }
}

impl FromStr for NameFilter {
    type Err = String;

    fn from_str(glob: &str) -> Result<Self, String> {
        let glob = Glob::new(glob).map_err(|error| error.kind().to_string())?;
        Ok(Self(glob.compile_matcher()))
    }
}

impl PartialEq for NameFilter {
    fn eq(&self, other: &Self) -> bool {
        self.0.glob() == other.0.glob()
    }
}

impl Eq for NameFilter {}

impl Sample {
    fn takes(self, trace: TraceId) -> bool {
        let [.., a, b, c, d, e, f, g, h] = trace.0;
        u128::from(u64::from_be_bytes([a, b, c, d, e, f, g, h])) < self.below
    }
}

impl FromStr for Sample {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ALL: u128 = 1 << 64;
        let hint = || "write 1/N or a percentage: 1/10, 10%".to_owned();
        if let Some(number) = text.strip_prefix("1/") {
            let number: NonZeroU32 = number.parse().map_err(|_| hint())?;
            return Ok(Self { below: ALL / u128::from(number.get()) });
        }
        let percent: f64 = text.strip_suffix('%').and_then(|number| number.trim().parse().ok()).ok_or_else(hint)?;
        if !(percent > 0.0 && percent <= 100.0) {
            return Err("a share is above 0% and at most 100%".to_owned());
        }
        // A millionth of a per cent is the least that can be told apart, and more than none.
        let parts = (percent * 1e6).round().max(1.0) as u128;
        Ok(Self { below: ALL * parts / 100_000_000 })
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn shows(shown: &Shown) -> bool {
        shown.takes(&samples::python_spans(), Duration::from_micros(1_210))
    }

    fn named(names: &[&str]) -> Shown {
        Shown { names: names.iter().map(|name| name.parse().expect("a glob")).collect(), ..Shown::default() }
    }

    #[test]
    fn a_name_is_that_of_a_call_or_of_its_class_or_of_its_method() {
        for fitting in ["PCA.transform", "PCA", "transform", "P*.transform", "*Forest*", "{PCA,LDA}.*"] {
            assert!(shows(&named(&[fitting])), "{fitting}");
        }
        for other in ["pca", "PCA.fit", "Forest", "trans", ""] {
            assert!(!shows(&named(&[other])), "{other}");
        }
        assert!(shows(&named(&["nothing", "PCA"])), "one of several is enough");
        assert!("a[".parse::<NameFilter>().is_err());
    }

    #[test]
    fn a_trace_has_to_pass_everything() {
        let least = |micros| Shown { min_duration: Duration::from_micros(micros), ..Shown::default() };
        assert!(shows(&Shown::default()) && shows(&least(1_210)) && !shows(&least(1_211)));
        assert!(shows(&Shown { errors: true, ..named(&["PCA"]) }));
        assert!(!shows(&Shown { errors: true, ..named(&["LDA"]) }));
        assert!(!shows(&Shown { quiet: true, ..Shown::default() }));
        let mut well = samples::python_spans();
        well.retain(|span| span.error().is_none());
        assert!(!Shown { errors: true, ..Shown::default() }.takes(&well, Duration::ZERO));
    }

    #[test]
    fn a_sample_is_the_share_that_it_says() {
        let taken = |text: &str| {
            let sample: Sample = text.parse().expect("a share");
            let ids = (0..10_000_u64).map(|number| {
                let mut id = [0; 16];
                id[8..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
                TraceId(id)
            });
            ids.filter(|id| sample.takes(*id)).count()
        };
        assert_eq!((taken("1/1"), taken("100%")), (10_000, 10_000));
        for (text, expected) in [("1/10", 1_000_usize), ("10%", 1_000), ("2.5%", 250), ("1/3", 3_333)] {
            assert!(taken(text).abs_diff(expected) < 30, "{text}: {}", taken(text));
        }
        for wrong in ["", "10", "0%", "101%", "1/0", "2/3", "-1%", "NaN%", "1/x"] {
            assert!(wrong.parse::<Sample>().is_err(), "{wrong}");
        }
    }
}
