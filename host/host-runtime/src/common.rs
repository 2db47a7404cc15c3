//! What is equal for many devices is held once: a gateway may have very many of them, and they are mostly of one kind.
//!
//! Not here: what is a device's own.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Values that are looked for: kinds of devices that a gateway has. Where there are more, some are held more than once.
const KNOWN_MAX: usize = 32;

/// Values of one type that somebody holds.
pub(crate) struct Common<T>(Mutex<Vec<Weak<T>>>);

impl<T: Eq> Common<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The same value for all who have an equal one.
    pub(crate) fn hold(&self, value: T) -> Arc<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = known.iter().rev().filter_map(Weak::upgrade);
        if let Some(same) = same.into_iter().find(|same| **same == value) {
            return same;
        }
        known.retain(|known| known.strong_count() > 0);
        if known.len() == KNOWN_MAX {
            known.remove(0);
        }
        let value = Arc::new(value);
        known.push(Arc::downgrade(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_as_long_as_somebody_holds_it() {
        let common = Common::new();
        let [one, other, same] = [1, 2, 1].map(|n| common.hold(n));
        assert!(Arc::ptr_eq(&one, &same));
        assert!(!Arc::ptr_eq(&one, &other));
        drop((one, same));
        common.hold(3);
        assert_eq!(common.0.lock().unwrap().len(), 2, "1 was forgotten");
    }

    #[test]
    fn more_kinds_than_are_looked_for_are_held_all_the_same() {
        let common = Common::new();
        let held: Vec<_> = (0..=KNOWN_MAX).map(|n| common.hold(n)).collect();
        assert_eq!(common.0.lock().unwrap().len(), KNOWN_MAX);
        assert!(!Arc::ptr_eq(&held[0], &common.hold(0)));
        assert!(Arc::ptr_eq(&held[KNOWN_MAX], &common.hold(KNOWN_MAX)));
    }
}
