//! The middle of many measurements and their spread.

use std::fmt;

/// Median and quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of the measurements are smaller.
    pub median: f64,
    /// A quarter is smaller.
    pub lower: f64,
    /// A quarter is larger.
    pub upper: f64,
}

impl Spread {
    /// Of these measurements; `None` if there are none.
    pub fn of(measurements: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = measurements.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted.get(((sorted.len() - 1) as f64 * share).round() as usize).copied();
        if sorted.is_empty() {
            return None;
        }
        Some(Self { median: at(0.5)?, lower: at(0.25)?, upper: at(0.75)? })
    }

    /// Of the quotients of measurements that belong together.
    pub fn of_ratios(above: &[f64], below: &[f64]) -> Option<Self> {
        Self::of(above.iter().zip(below).map(|(above, below)| above / below))
    }
}

impl fmt::Display for Spread {
    /// `median (lower..upper)`, with decimals as the formatter asks, or three significant digits or so.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting = match self.median.abs() {
            size if size < 10.0 => 2,
            size if size < 100.0 => 1,
            _ => 0,
        };
        let decimals = formatter.precision().unwrap_or(fitting);
        write!(formatter, "{:.decimals$} ({:.decimals$}..{:.decimals$})", self.median, self.lower, self.upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_quarters() {
        let spread = Spread::of([5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!(spread, Some(Spread { median: 3.0, lower: 2.0, upper: 4.0 }));
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of_ratios(&[4.0, 9.0, 1.0], &[2.0, 3.0, 1.0]).map(|spread| spread.median), Some(2.0));
    }

    #[test]
    fn decimals_fit_the_size() {
        let show = |median| Spread { median, lower: median / 2.0, upper: median * 2.0 }.to_string();
        assert_eq!(show(1.234), "1.23 (0.62..2.47)");
        assert_eq!(show(12.34), "12.3 (6.2..24.7)");
        assert_eq!(show(1234.0), "1234 (617..2468)");
    }
}
