//! Figures: collecting them, their minimum and median, and writing them for people.

use std::collections::BTreeMap;
use std::fmt;

use super::rows::Row;

/// Whose figure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Ours,
    Theirs,
}

impl Side {
    /// Returns a word for folders and keys.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "rbuild",
            Self::Theirs => "buildkit",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "rbuild",
            Self::Theirs => "BuildKit",
        })
    }
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Bytes,
}

impl Unit {
    /// Writes a figure with as many digits as mean something.
    pub(super) fn text(self, figure: f64) -> String {
        match self {
            Self::Seconds if figure < 0.1 => format!("{:.0} ms", figure * 1e3),
            Self::Seconds if figure < 10.0 => format!("{figure:.2} s"),
            Self::Seconds => format!("{figure:.1} s"),
            Self::Bytes => format!("{:.0} MB", figure / 1e6),
        }
    }
}

/// All figures of a run.
#[derive(Debug, Default)]
pub(super) struct Figures {
    all: BTreeMap<(&'static str, Side), Vec<f64>>,
}

impl Figures {
    /// Begins with none.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds the figure of one round.
    pub(super) fn add(&mut self, row: &'static str, side: Side, figure: f64) {
        self.all.entry((row, side)).or_default().push(figure);
    }

    /// Returns what was measured of one row on one side.
    pub(super) fn of(&self, row: &'static str, side: Side) -> Option<Sample> {
        Sample::new(self.all.get(&(row, side))?)
    }

    /// Says what the last round gave.
    pub(super) fn last(&self, row: &Row) -> String {
        [Side::Ours, Side::Theirs]
            .into_iter()
            .filter_map(|side| {
                let figure = self.all.get(&(row.name, side))?.last()?;
                Some(format!("{side} {:>9}", row.unit().text(*figure)))
            })
            .collect::<Vec<_>>()
            .join("   ")
    }
}

/// What was measured of one row on one side.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    /// In the order of the rounds.
    pub(super) all: Vec<f64>,
    pub(super) min: f64,
    pub(super) median: f64,
}

impl Sample {
    /// Summarises; nothing when there is nothing.
    pub(super) fn new(all: &[f64]) -> Option<Self> {
        let mut sorted = all.to_vec();
        sorted.sort_by(f64::total_cmp);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self {
            all: all.to_vec(),
            min: *sorted.first()?,
            median: f64::midpoint(lower, upper),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let sample = |all: &[f64]| Sample::new(all).map(|s| (s.min, s.median));
        assert_eq!(sample(&[]), None);
        assert_eq!(sample(&[3.0]), Some((3.0, 3.0)));
        assert_eq!(sample(&[4.0, 1.0, 2.0]), Some((1.0, 2.0)));
        assert_eq!(sample(&[4.0, 1.0, 2.0, 3.0]), Some((1.0, 2.5)));
    }

    #[test]
    fn figures_are_written_with_the_digits_that_mean_something() {
        assert_eq!(Unit::Seconds.text(0.0123), "12 ms");
        assert_eq!(Unit::Seconds.text(1.234), "1.23 s");
        assert_eq!(Unit::Seconds.text(12.34), "12.3 s");
        assert_eq!(Unit::Bytes.text(15_400_000.0), "15 MB");
    }
}
