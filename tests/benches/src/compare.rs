//! Two files of figures: what has changed beyond the spread of both.
//!
//! Ratios are compared, so that another machine, or a busy one, is not taken for a change. Builds of another profile and
//! images of another size are not the same subject, and are refused.

use crate::figure::Better;
use crate::record::{Measured, Record};

/// What has become of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Every run was better than all runs before.
    Better,
    /// Every run was worse than all runs before.
    Worse,
    /// Within the spread of both.
    Same,
    /// It was not there before.
    New,
}

/// Why two files say nothing about each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unlike {
    /// Another profile.
    #[error("those are of a {then} build, these of a {now} build")]
    Profile {
        /// Then.
        then: String,
        /// Now.
        now: String,
    },
    /// Images of another size.
    #[error("those are of images of {then} bytes, these of {now}; `--mib` sets the size")]
    Image {
        /// Then.
        then: usize,
        /// Now.
        now: usize,
    },
}

/// An earlier file, to hold figures against.
#[derive(Clone, Debug)]
pub struct Earlier(Record);

impl Earlier {
    /// Whether an earlier file can be held against a run that is to be made.
    ///
    /// # Errors
    /// [`Unlike`].
    pub fn of(earlier: Record, profile: &str, image_bytes: usize) -> Result<Self, Unlike> {
        if earlier.machine.profile != profile {
            return Err(Unlike::Profile {
                then: earlier.machine.profile,
                now: profile.to_owned(),
            });
        }
        if earlier.image_bytes != image_bytes {
            return Err(Unlike::Image {
                then: earlier.image_bytes,
                now: image_bytes,
            });
        }
        Ok(Self(earlier))
    }

    fn find(&self, now: &Measured) -> Option<&Measured> {
        let mut all = self.0.measured.iter();
        all.find(|then| then.row == now.row && then.figure.name == now.figure.name)
    }

    /// What has become of a figure, and its median ratio then.
    #[must_use]
    pub fn change(&self, now: &Measured) -> (Change, Option<f64>) {
        let Some(then) = self.find(now) else {
            return (Change::New, None);
        };
        let apart = now.ratio.is_apart_from(&then.ratio);
        let more = now.ratio.least > then.ratio.most;
        let change = match (apart, more == (now.figure.better == Better::More)) {
            (false, _) => Change::Same,
            (true, true) => Change::Better,
            (true, false) => Change::Worse,
        };
        (change, Some(then.ratio.median))
    }

    /// Figures of rows that were taken now as well, and are there no longer: `row, figure`.
    #[must_use]
    pub fn gone(&self, now: &[Measured]) -> Vec<String> {
        let is_gone = |then: &&Measured| {
            let mut row = now.iter().filter(|now| now.row == then.row).peekable();
            row.peek().is_some() && row.all(|now| now.figure.name != then.figure.name)
        };
        let gone = self.0.measured.iter().filter(is_gone);
        gone.map(|then| format!("{}, {}", then.row, then.figure.name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Figure;
    use crate::record::tests::{measured, record, spread};

    const MIB_16: usize = 16 << 20;

    fn change(figure: Figure, then: (f64, f64), now: (f64, f64)) -> Change {
        let of = |(least, most)| Measured {
            figure: figure.clone(),
            ..measured("", spread(least, f64::midpoint(least, most), most))
        };
        let earlier = Earlier::of(record(vec![of(then)]), "release", MIB_16).unwrap();
        earlier.change(&of(now)).0
    }

    #[test]
    fn a_ratio_beyond_the_spread_of_both_has_changed_and_no_other() {
        let rate = || Figure::rate("speed", "MiB/s");
        let cost = || Figure::cost("time", "s");
        assert_eq!(change(rate(), (1.0, 2.0), (2.1, 3.0)), Change::Better);
        assert_eq!(change(rate(), (1.0, 2.0), (0.1, 0.9)), Change::Worse);
        assert_eq!(change(cost(), (1.0, 2.0), (2.1, 3.0)), Change::Worse);
        assert_eq!(change(cost(), (1.0, 2.0), (0.1, 0.9)), Change::Better);
        assert_eq!(change(rate(), (1.0, 2.0), (1.9, 9.0)), Change::Same);
        assert_eq!(change(cost(), (1.0, 2.0), (0.1, 1.0)), Change::Same);
    }

    #[test]
    fn figures_that_came_and_went_are_told() {
        let old = measured("old", spread(1.0, 1.0, 1.0));
        let mut elsewhere = old.clone();
        elsewhere.row = "crypto".into();
        let earlier = Earlier::of(record(vec![old, elsewhere]), "release", MIB_16).unwrap();
        let new = measured("new", spread(1.0, 1.0, 1.0));
        assert_eq!(earlier.change(&new), (Change::New, None));
        assert_eq!(earlier.gone(&[new]), ["loopback, old"]);
        assert_eq!(earlier.gone(&[]), Vec::<String>::new());
    }

    #[test]
    fn another_subject_is_not_compared() {
        let unlike = |profile, bytes| {
            Earlier::of(record(Vec::new()), profile, bytes)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            unlike("debug", MIB_16),
            "those are of a release build, these of a debug build"
        );
        assert!(unlike("release", 1).contains("16777216 bytes"));
    }
}
