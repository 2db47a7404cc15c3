//! One table for people: ratios with their spreads, what they are of, what was promised, what has changed.

use crate::compare::{Change, Earlier};
use crate::figure::{Better, Bound, Of};
use crate::record::{Measured, Record};

/// The table and what there is to say below it.
#[must_use]
pub fn render(record: &Record, earlier: Option<&Earlier>) -> String {
    let machine = &record.machine;
    let mut text = format!(
        "{} runs, medians (least to most); images of {} MiB; {} cores, {}, kernel {}, {} build, load {}\n\n",
        record.runs,
        record.image_bytes >> 20,
        machine.cores,
        machine.cpu,
        machine.kernel,
        machine.profile,
        machine.load
    );
    let head = [
        "row", "figure", "ratio", "subject", "baseline", "unit", "promised", "before",
    ];
    let mut cells: Vec<[String; 8]> = vec![head.map(str::to_owned)];
    cells.extend(record.measured.iter().map(|figure| line(figure, earlier)));
    text.push_str(&aligned(&cells));
    for skipped in &record.skipped {
        text.push_str(&format!("NOT TAKEN {}: {}\n", skipped.row, skipped.why));
    }
    let gone = earlier.map(|earlier| earlier.gone(&record.measured));
    for gone in gone.unwrap_or_default() {
        text.push_str(&format!("no longer there: {gone}\n"));
    }
    text
}

fn line(measured: &Measured, earlier: Option<&Earlier>) -> [String; 8] {
    let (ratio, figure) = (&measured.ratio, &measured.figure);
    let arrow = match figure.better {
        Better::More => "↑",
        Better::Less => "↓",
    };
    let before = match earlier.map(|earlier| earlier.change(measured)) {
        None => String::new(),
        Some((Change::New, _) | (_, None)) => "new".to_owned(),
        Some((change, Some(then))) => {
            let word = match change {
                Change::Better => " BETTER",
                Change::Worse => " WORSE",
                Change::Same | Change::New => "",
            };
            format!("{}{word}", number(then))
        }
    };
    [
        measured.row.clone(),
        figure.name.clone(),
        format!(
            "{} ({} to {}) {arrow}",
            number(ratio.median),
            number(ratio.least),
            number(ratio.most)
        ),
        number(measured.subject.median),
        number(measured.baseline.median),
        figure.unit.clone(),
        figure
            .bound
            .map_or_else(String::new, |bound| promised(measured, bound)),
        before,
    ]
}

/// What was promised, and whether the median keeps it.
fn promised(measured: &Measured, bound: Bound) -> String {
    let (what, value) = match bound.of {
        Of::Ratio => ("", measured.ratio.median),
        Of::Subject => ("subject ", measured.subject.median),
    };
    let (sign, kept) = match measured.figure.better {
        Better::More => ("≥", value >= bound.floor),
        Better::Less => ("≤", value <= bound.floor),
    };
    let word = if kept { "" } else { " MISSED" };
    format!(
        "{what}{sign} {} ({}){word}",
        number(bound.floor),
        number(bound.goal)
    )
}

/// Three digits that count.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        size if size >= 0.001 || size == 0.0 => 4,
        _ => 6,
    };
    format!("{value:.digits$}")
}

fn aligned<const N: usize>(cells: &[[String; N]]) -> String {
    let width = |at: usize| cells.iter().map(|line| line[at].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|at| width(at).unwrap_or(0));
    let mut text = String::new();
    for line in cells {
        let padded: Vec<String> = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Skipped;
    use crate::record::tests::{measured, record, spread};

    #[test]
    fn the_table_says_what_was_kept_missed_changed_and_not_taken() {
        let earlier = record(vec![
            measured("4 KiB", spread(0.8, 0.85, 0.9)),
            measured("gone", spread(1.0, 1.0, 1.0)),
        ]);
        let earlier = Earlier::of(earlier, "release", 16 << 20).unwrap();
        let mut now = record(vec![
            measured("4 KiB", spread(0.5, 0.7, 0.75)),
            measured("16 KiB", spread(0.7, 0.8, 0.9)),
        ]);
        now.skipped.push(Skipped {
            row: "crypto".into(),
            why: "no openssl".into(),
        });
        let text = render(&now, Some(&earlier));
        let line = |start: &str| {
            let found = text.lines().find(|line| line.starts_with(start));
            found.unwrap_or_else(|| panic!("{text}")).to_owned()
        };
        let small = line("loopback  4 KiB");
        assert!(small.contains("0.700 (0.500 to 0.750) ↑"), "{small}");
        assert!(small.contains("≥ 0.750 (1.00) MISSED"), "{small}");
        assert!(small.ends_with("0.850 WORSE"), "{small}");
        let large = line("loopback  16 KiB");
        assert!(large.contains("≥ 0.750 (1.00)  "), "{large}");
        assert!(large.ends_with("new"), "{large}");
        assert_eq!(line("NOT TAKEN"), "NOT TAKEN crypto: no openssl");
        assert_eq!(line("no longer"), "no longer there: loopback, gone");
        assert!(line("7 runs").contains("release build"));
    }

    #[test]
    fn numbers_show_three_digits_that_count() {
        let check = |value: f64, expected: &str| assert_eq!(number(value), expected);
        check(1234.4, "1234");
        check(12.345, "12.3");
        check(1.2345, "1.23");
        check(0.12345, "0.123");
        check(0.012_345, "0.0123");
        check(0.0, "0.0000");
        check(0.000_012_3, "0.000012");
    }
}
