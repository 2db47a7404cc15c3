//! Who gets how much: max-min fairness, and what a device can use.

use super::REQUEST_MAX_BYTES;

/// A device that uses less than three quarters of its share leaves the rest to others.
const USED_PART: (u64, u64) = (3, 4);

/// Shortest time that says what a device uses, in milliseconds.
const WATCHED_MIN_MS: u64 = 2000;

/// Requests that have to fit into that time: of fewer, one more or less would decide.
const WATCHED_REQUESTS: u64 = 8;

/// How long a device with this share is watched before its use says anything.
pub(super) fn watched_ms(share: u64) -> u64 {
    let requests = WATCHED_REQUESTS * REQUEST_MAX_BYTES * 1000;
    WATCHED_MIN_MS.max(requests / share.max(1))
}

/// What a device can use that has used so much of its share; none = whatever it is given. It may fall to a half at a time,
/// and grows as soon as it uses what it has.
pub(super) fn demand(share: u64, used: u64) -> Option<u64> {
    let (part, whole) = USED_PART;
    if used >= share / whole * part {
        return None;
    }
    Some((used / part * whole).max(share / 2))
}

/// Shares `rate` among devices that can use so much each: nobody gets more than it can use while another gets less than it
/// could, and what nobody can use is given to all alike, so that each can grow.
pub(super) fn split(rate: u64, demands: &[Option<u64>]) -> Vec<u64> {
    let mut order: Vec<(u64, usize)> = demands
        .iter()
        .enumerate()
        .map(|(at, demand)| (demand.unwrap_or(u64::MAX), at))
        .collect();
    order.sort_unstable();
    let mut shares = vec![0; demands.len()];
    let (mut left, mut count) = (rate, demands.len() as u64);
    for (demand, at) in order {
        let fair = left / count.max(1);
        let share = demand.min(fair);
        if let Some(slot) = shares.get_mut(at) {
            *slot = share;
        }
        left -= share;
        count -= 1;
    }
    let more = left / (demands.len() as u64).max(1);
    for share in &mut shares {
        *share += more;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_is_split_evenly_but_for_those_who_can_use_less() {
        type Row = (u64, &'static [Option<u64>], &'static [u64]);
        let rows: &[Row] = &[
            (1000, &[], &[]),
            (1000, &[None], &[1000]),
            (1000, &[None, None], &[500, 500]),
            (1000, &[Some(100), None, None], &[100, 450, 450]),
            (1000, &[None, Some(600), Some(100)], &[450, 450, 100]),
            (1000, &[Some(100), Some(300)], &[400, 600]),
            (0, &[None, Some(5)], &[0, 0]),
            (1, &[None, None], &[0, 1]),
        ];
        for (rate, demands, shares) in rows {
            assert_eq!(split(*rate, demands), *shares, "{rate} {demands:?}");
        }
    }

    #[test]
    fn shares_never_add_up_to_more_than_the_cap() {
        for rate in [1, 7, 1000, 12_500_000] {
            for demands in [
                vec![None; 7],
                vec![Some(1), None, Some(3)],
                vec![Some(0); 3],
                vec![Some(u64::MAX), Some(rate), Some(rate / 2), None],
            ] {
                let sum: u64 = split(rate, &demands).iter().sum();
                assert!(sum <= rate, "{sum} of {rate} for {demands:?}");
            }
        }
    }

    #[test]
    fn who_uses_its_share_may_have_more_and_who_does_not_leaves_some() {
        assert_eq!(demand(1000, 1000), None);
        assert_eq!(demand(1000, 750), None);
        assert_eq!(demand(1000, 600), Some(800));
        assert_eq!(demand(1000, 0), Some(500));
        assert_eq!(demand(0, 0), None);
        assert_eq!(watched_ms(12_500_000), 2000);
        assert_eq!(watched_ms(10_000), 104_857);
    }
}
