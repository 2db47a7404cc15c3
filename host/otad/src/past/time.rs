//! Instants and durations for people: `2026-11-21 07:14:03Z`, `12.3 s`, `2 h 5 min`.

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: u64 = 400 * 365 + 97;

/// An instant in UTC.
#[must_use]
pub fn utc(wall_s: u64) -> String {
    let (days, second) = (wall_s / DAY_S, wall_s % DAY_S);
    let (year, month, day) = date(days);
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}Z")
}

/// Year, month and day of a number of days since 1970-01-01. Years begin in March here, so that the odd day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    // 1970-01-01 is day 719,468 of a calendar that begins on 0000-03-01: 1970 years x 365.2425 - 60.
    let days = days.saturating_add(719_468);
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let in_month = day - (153 * month + 2) / 5 + 1;
    let (month, late) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + late, month, in_month)
}

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
    fn instants_are_told_in_utc() {
        let rows = [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_772_323_200, "2026-03-01 00:00:00Z"),
            (1_795_245_243, "2026-11-21 07:14:03Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
            (4_107_542_399, "2100-02-28 23:59:59Z"),
        ];
        for (wall_s, wanted) in rows {
            assert_eq!(utc(wall_s), wanted, "{wall_s}");
        }
        // Whatever a damaged file says.
        assert!(utc(u64::MAX).ends_with('Z'));
    }

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
