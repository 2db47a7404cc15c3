//! What is measured: figures, samples of them, and the spread of samples.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// A rate.
    More,
    /// A cost.
    Less,
}

/// What a figure is held to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Of {
    /// The ratio.
    Ratio,
    /// The subject itself, in the figure's unit.
    Subject,
}

/// A promise about a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// What is held to it.
    pub of: Of,
    /// What must be reached.
    pub floor: f64,
    /// What is aimed at.
    pub goal: f64,
}

/// One figure of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Unique within its row.
    pub name: String,
    /// Of subject and baseline.
    pub unit: String,
    /// Which way is better, of subject and ratio alike.
    pub better: Better,
    /// What was promised about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bound: Option<Bound>,
}

impl Figure {
    /// A rate.
    #[must_use]
    pub fn rate(name: impl Into<String>, unit: &str) -> Self {
        Self {
            name: name.into(),
            unit: unit.to_owned(),
            better: Better::More,
            bound: None,
        }
    }

    /// A cost.
    #[must_use]
    pub fn cost(name: impl Into<String>, unit: &str) -> Self {
        Self {
            better: Better::Less,
            ..Self::rate(name, unit)
        }
    }

    /// With a promise.
    #[must_use]
    pub fn held(self, of: Of, floor: f64, goal: f64) -> Self {
        Self {
            bound: Some(Bound { of, floor, goal }),
            ..self
        }
    }

    /// This figure in one sample.
    #[must_use]
    pub fn taken(self, subject: f64, baseline: f64) -> Taken {
        Taken {
            figure: self,
            subject,
            baseline,
        }
    }
}

/// A figure in one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// Which one.
    pub figure: Figure,
    /// Of what is judged.
    pub subject: f64,
    /// Of what it is compared with, in the same sample.
    pub baseline: f64,
}

/// Why a row cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Untaken(String);

impl Untaken {
    /// For this reason, with the reasons below it.
    #[must_use]
    pub fn by(step: &str, error: &dyn std::error::Error) -> Self {
        let mut text = format!("{step}: {error}");
        let mut source = error.source();
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        Self(text)
    }

    /// In these words.
    #[must_use]
    pub fn because(text: impl fmt::Display) -> Self {
        Self(text.to_string())
    }
}

/// The middle of some values and their ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of values in any order; none of no values, or where one is no number.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self {
            median: low + (high - low) / 2.0,
            least,
            most,
        })
    }

    /// Whether there is no value that both could have had.
    #[must_use]
    pub fn is_apart_from(&self, other: &Self) -> bool {
        self.least > other.most || self.most < other.least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value_or_the_mean_of_the_two() {
        let check = |values: &[f64], expected: (f64, f64, f64)| {
            let spread = Spread::of(values).unwrap();
            assert_eq!((spread.median, spread.least, spread.most), expected);
        };
        check(&[5.0], (5.0, 5.0, 5.0));
        check(&[9.0, 1.0, 4.0], (4.0, 1.0, 9.0));
        check(&[9.0, 1.0, 4.0, 6.0], (5.0, 1.0, 9.0));
    }

    #[test]
    fn no_values_and_what_is_no_number_have_no_spread() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
        assert_eq!(Spread::of(&[1.0, f64::INFINITY]), None);
    }

    #[test]
    fn spreads_that_touch_are_not_apart() {
        let spread = |least, most| Spread {
            median: least,
            least,
            most,
        };
        assert!(spread(1.0, 2.0).is_apart_from(&spread(2.1, 3.0)));
        assert!(spread(2.1, 3.0).is_apart_from(&spread(1.0, 2.0)));
        assert!(!spread(1.0, 2.0).is_apart_from(&spread(2.0, 3.0)));
        assert!(!spread(1.0, 9.0).is_apart_from(&spread(2.0, 3.0)));
    }

    #[test]
    fn a_reason_tells_everything_that_is_below_it() {
        let error = support::Error::Missing {
            path: "x".into(),
            hint: "build it",
        };
        let untaken = Untaken::by("looking for x", &error);
        assert_eq!(
            untaken.to_string(),
            "looking for x: x does not exist; build it"
        );
    }
}
