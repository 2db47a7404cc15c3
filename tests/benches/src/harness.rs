//! Takes rows in turn, again and again, and makes spreads of what they came to.
//!
//! ```text
//! run 1: row a (subject, baseline)  row b (subject, baseline)  …
//! run 2: row a (baseline, subject)  row b (baseline, subject)  …
//! ```
//!
//! A row that cannot be taken, or does not take the same figures each time, is out with its reason and keeps no figure.
//! It reads no clock.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use host_runtime::engine::Time;
use host_sandbox::Shipped;

use crate::figure::{Figure, Spread, Taken, Untaken};
use crate::record::{Measured, Skipped};

/// Fewest runs of figures that are meant to be compared.
pub const RUNS_MIN: usize = 7;

/// Devices that are updated at once: what was promised is promised of so many.
pub const DEVICES: usize = 1000;

/// What one sample of a row comes to.
pub type Sample = Result<Vec<Taken>, Untaken>;

/// A row of the table.
#[derive(Clone, Copy)]
pub struct Row {
    /// Kebab-case.
    pub name: &'static str,
    /// Subject and baseline in a line.
    pub about: &'static str,
    /// Takes one sample.
    pub sample: fn(&Rig, Turn) -> Sample,
}

/// What all rows use.
pub struct Rig {
    /// This program, which is also the raw receiver.
    pub program: PathBuf,
    /// Bytes of the images that are downloaded.
    pub image_bytes: usize,
    /// Devices that are updated at once; [`DEVICES`] unless it is for trying out.
    pub devices: usize,
    shipped: OnceCell<Shipped>,
    hasty: OnceCell<Shipped>,
}

impl Rig {
    /// With this program as receiver, and images of so many bytes.
    #[must_use]
    pub fn new(program: PathBuf, image_bytes: usize) -> Self {
        Self {
            program,
            image_bytes,
            devices: DEVICES,
            shipped: OnceCell::new(),
            hasty: OnceCell::new(),
        }
    }

    /// The shipped components, compiled once and as the daemon compiles them: the time of simulations has instances at hand
    /// and no clock to look at.
    ///
    /// # Errors
    /// They cannot be run here.
    pub fn shipped(&self) -> Result<&Shipped, Untaken> {
        compiled(&self.shipped, Time::Real)
    }

    /// The same for a kitchen in haste.
    ///
    /// # Errors
    /// As [`shipped`](Self::shipped).
    pub fn hasty(&self) -> Result<&Shipped, Untaken> {
        compiled(&self.hasty, Time::Hasty)
    }
}

fn compiled(kept: &OnceCell<Shipped>, time: Time) -> Result<&Shipped, Untaken> {
    if let Some(shipped) = kept.get() {
        return Ok(shipped);
    }
    let loaded = Shipped::load_in(time);
    let shipped =
        loaded.map_err(|error| Untaken::by("compiling the shipped components", &error))?;
    Ok(kept.get_or_init(|| shipped))
}

/// Which run it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// From 0.
    pub run: usize,
}

impl Turn {
    /// Takes both, the subject first in every other run.
    ///
    /// # Errors
    /// What either says.
    pub fn both<S, B>(
        self,
        subject: impl FnOnce() -> Result<S, Untaken>,
        baseline: impl FnOnce() -> Result<B, Untaken>,
    ) -> Result<(S, B), Untaken> {
        if self.run.is_multiple_of(2) {
            let subject = subject()?;
            Ok((subject, baseline()?))
        } else {
            let baseline = baseline()?;
            Ok((subject()?, baseline))
        }
    }

    /// A seed of its own for each run.
    #[must_use]
    pub fn seed(self) -> u64 {
        self.run as u64 + 1
    }
}

/// What rows came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// Figures, in the order of rows.
    pub measured: Vec<Measured>,
    /// Rows without figures.
    pub skipped: Vec<Skipped>,
}

/// Takes each row `runs` times. `say` is told what is being done.
#[must_use]
pub fn take(rig: &Rig, rows: &[Row], runs: usize, say: &mut dyn FnMut(&str)) -> Results {
    let mut samples: Vec<Result<Vec<Vec<Taken>>, Untaken>> = vec![Ok(Vec::new()); rows.len()];
    for run in 0..runs {
        for (row, samples) in rows.iter().zip(&mut samples) {
            let Ok(taken) = samples else { continue };
            say(&format!("run {} of {runs}: {}", run + 1, row.name));
            match sample(rig, row, Turn { run }) {
                Ok(sample) => taken.push(sample),
                Err(error) => {
                    say(&format!("{}: {error}", row.name));
                    *samples = Err(error);
                }
            }
        }
    }
    let mut results = Results::default();
    for (row, samples) in rows.iter().zip(samples) {
        match samples.and_then(|samples| spreads(row.name, samples)) {
            Ok(measured) => results.measured.extend(measured),
            Err(error) => results.skipped.push(Skipped {
                row: row.name.to_owned(),
                why: error.to_string(),
            }),
        }
    }
    results
}

/// One sample; what is asserted on the way is a reason like any other.
fn sample(rig: &Rig, row: &Row, turn: Turn) -> Sample {
    let sampled = catch_unwind(AssertUnwindSafe(|| (row.sample)(rig, turn)));
    sampled.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        Err(Untaken::because(text.unwrap_or("it panicked")))
    })
}

/// All samples of a row as spreads.
fn spreads(row: &str, samples: Vec<Vec<Taken>>) -> Result<Vec<Measured>, Untaken> {
    let runs = samples.len();
    let mut order: Vec<Figure> = Vec::new();
    let mut pairs: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for taken in samples.into_iter().flatten() {
        let pairs = pairs.entry(taken.figure.name.clone()).or_default();
        pairs.push((taken.subject, taken.baseline));
        if pairs.len() == 1 {
            order.push(taken.figure);
        }
    }
    if order.is_empty() {
        return Err(Untaken::because("no figure was taken"));
    }
    let measured = order.into_iter().map(|figure| {
        let pairs = &pairs[&figure.name];
        if pairs.len() != runs {
            let count = pairs.len();
            return Err(Untaken::because(format!(
                "{} was taken {count} times in {runs} runs",
                figure.name
            )));
        }
        let of = |pick: fn(&(f64, f64)) -> f64| {
            let values: Vec<f64> = pairs.iter().map(pick).collect();
            let no_number = || {
                let text = format!("{}: a figure or its ratio is no number", figure.name);
                Untaken::because(format!("{text}: {values:?}"))
            };
            Spread::of(&values).ok_or_else(no_number)
        };
        Ok(Measured {
            row: row.to_owned(),
            subject: of(|pair| pair.0)?,
            baseline: of(|pair| pair.1)?,
            // Of each sample by itself: what slowed both down says nothing.
            ratio: of(|pair| pair.0 / pair.1)?,
            figure,
        })
    });
    measured.collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn rig() -> Rig {
        Rig::new(PathBuf::new(), 0)
    }

    fn row(name: &'static str, sample: fn(&Rig, Turn) -> Sample) -> Row {
        Row {
            name,
            about: "",
            sample,
        }
    }

    fn fine(_: &Rig, turn: Turn) -> Sample {
        let subject = [30.0, 10.0, 20.0][turn.run];
        Ok(vec![Figure::rate("speed", "m/s").taken(subject, 10.0)])
    }

    #[test]
    fn what_a_daemon_runs_is_measured_as_a_daemon_runs_it() {
        assert_eq!(rig().shipped().unwrap().engine.time(), Time::Real);
    }

    #[test]
    fn rows_are_taken_in_turn_and_become_spreads() {
        let mut said = Vec::new();
        let mut say = |text: &str| said.push(text.to_owned());
        let results = take(&rig(), &[row("a", fine), row("b", fine)], 3, &mut say);
        assert_eq!(
            said,
            [
                "run 1 of 3: a",
                "run 1 of 3: b",
                "run 2 of 3: a",
                "run 2 of 3: b",
                "run 3 of 3: a",
                "run 3 of 3: b"
            ]
        );
        assert_eq!(results.skipped, []);
        assert_eq!(results.measured.len(), 2);
        let ratio = results.measured[0].ratio;
        assert_eq!((ratio.least, ratio.median, ratio.most), (1.0, 2.0, 3.0));
    }

    #[test]
    fn subject_and_baseline_take_turns_at_being_first() {
        let order = RefCell::new(String::new());
        for run in 0..3 {
            let note = |letter: char| {
                order.borrow_mut().push(letter);
                Ok::<_, Untaken>(letter)
            };
            let both = Turn { run }.both(|| note('s'), || note('b'));
            assert_eq!(both, Ok(('s', 'b')));
        }
        assert_eq!(order.into_inner(), "sbbssb");
    }

    #[test]
    fn a_row_that_fails_says_why_keeps_no_figure_and_stops_no_other() {
        fn later(rig: &Rig, turn: Turn) -> Sample {
            match turn.run {
                0 => fine(rig, turn),
                _ => Err(Untaken::because("no such program")),
            }
        }
        fn panics(_: &Rig, turn: Turn) -> Sample {
            assert!(turn.run > 9, "run {} did not end", turn.run);
            Ok(Vec::new())
        }
        fn nothing(_: &Rig, _: Turn) -> Sample {
            Ok(Vec::new())
        }
        fn once(rig: &Rig, turn: Turn) -> Sample {
            match turn.run {
                0 => fine(rig, turn),
                _ => Ok(vec![Figure::rate("other", "m/s").taken(1.0, 1.0)]),
            }
        }
        fn by_zero(_: &Rig, _: Turn) -> Sample {
            Ok(vec![Figure::cost("share", "s").taken(1.0, 0.0)])
        }
        let rows = [
            row("later", later),
            row("panics", panics),
            row("nothing", nothing),
            row("once", once),
            row("by-zero", by_zero),
            row("fine", fine),
        ];
        let results = take(&rig(), &rows, 3, &mut |_| {});
        let skipped: Vec<(&str, &str)> = results
            .skipped
            .iter()
            .map(|skipped| (skipped.row.as_str(), skipped.why.as_str()))
            .collect();
        assert_eq!(
            skipped,
            [
                ("later", "no such program"),
                ("panics", "run 0 did not end"),
                ("nothing", "no figure was taken"),
                ("once", "speed was taken 1 times in 3 runs"),
                (
                    "by-zero",
                    "share: a figure or its ratio is no number: [inf, inf, inf]"
                ),
            ]
        );
        assert_eq!(results.measured.len(), 1);
        assert_eq!(results.measured[0].row, "fine");
    }
}
