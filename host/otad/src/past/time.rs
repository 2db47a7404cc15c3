//! Instants and durations for people: `2026-11-21 07:14:03Z`, `12.3 s`, `2 h 5 min`.

pub use host_runtime::ports::clock::utc;

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// A duration: tenths of a second below two minutes, whole units above.
#[must_use]
pub fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..120 => format!("{s}.{} s", ms % 1000 / 100),
        120..7200 => format!("{} min {} s", s / 60, s % 60),
        7200..172_800 => format!("{} h {} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {} h", s / DAY_S, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_units_that_people_use() {
        let rows = [
            (0, "0.0 s"),
            (12_399, "12.3 s"),
            (119_999, "119.9 s"),
            (120_000, "2 min 0 s"),
            (7_500_000, "2 h 5 min"),
            (200_000_000, "2 d 7 h"),
        ];
        for (ms, wanted) in rows {
            assert_eq!(duration(ms), wanted, "{ms}");
        }
    }
}
