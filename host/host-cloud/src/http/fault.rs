//! Faults of the image server on purpose: each strikes the next so many requests, in the order of the list.

use std::{
    collections::VecDeque,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpFault {
    /// Nothing: how others come in the middle of a file.
    Nothing,
    /// 403, as for a URL whose time is over.
    Expired,
    /// This status, with a short text.
    Status(u16),
    /// 503, and not to be asked again for a second.
    Busy,
    /// 206 with a range that begins a byte beside the one that was asked for.
    WrongRange,
    /// 200 with the whole file.
    Whole,
    /// A body that ends in its middle.
    Short,
    /// A head that promises more than the range has.
    Long,
    /// A byte every 100 ms.
    Slow,
    /// 307 to the same URL.
    RedirectLoop,
    /// 307 to the same URL without TLS.
    RedirectPlain,
    /// The connection ends before TLS is there. Strikes connections, not requests.
    BrokenTls,
}

/// Names of faults, as operators write them; `status-NNN` is the other one.
const NAMES: [(&str, HttpFault); 11] = [
    ("nothing", HttpFault::Nothing),
    ("expired", HttpFault::Expired),
    ("busy", HttpFault::Busy),
    ("wrong-range", HttpFault::WrongRange),
    ("whole", HttpFault::Whole),
    ("short", HttpFault::Short),
    ("long", HttpFault::Long),
    ("slow", HttpFault::Slow),
    ("redirect-loop", HttpFault::RedirectLoop),
    ("redirect-plain", HttpFault::RedirectPlain),
    ("broken-tls", HttpFault::BrokenTls),
];

/// A name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no fault \"{0}\"; there are: nothing, expired, busy, wrong-range, whole, short, long, slow, redirect-loop, \
     redirect-plain, broken-tls, and status-NNN with 400 to 599"
)]
pub struct UnknownFault(String);

impl FromStr for HttpFault {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if let Some(fault) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(fault.1);
        }
        let status = name.strip_prefix("status-").and_then(|s| s.parse().ok());
        match status {
            Some(status @ 400..=599) => Ok(Self::Status(status)),
            _ => Err(UnknownFault(name.to_owned())),
        }
    }
}

/// Faults in force. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct HttpFaults(Arc<Mutex<VecDeque<(HttpFault, u32)>>>);

impl HttpFaults {
    /// Puts others in force: each for so many requests, one after the other.
    pub fn set(&self, faults: impl IntoIterator<Item = (HttpFault, u32)>) {
        *self.lock() = faults.into_iter().filter(|(_, count)| *count > 0).collect();
    }

    /// What is left of them.
    #[must_use]
    pub fn left(&self) -> Vec<(HttpFault, u32)> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(HttpFault, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the next connection is broken.
    pub(super) fn breaks_tls(&self) -> bool {
        self.take(|fault| fault == HttpFault::BrokenTls).is_some()
    }

    /// What strikes the next request.
    pub(super) fn next(&self) -> Option<HttpFault> {
        self.take(|fault| fault != HttpFault::BrokenTls)
    }

    fn take(&self, is_due: impl Fn(HttpFault) -> bool) -> Option<HttpFault> {
        let mut faults = self.lock();
        let (fault, count) = faults.front_mut().filter(|(fault, _)| is_due(*fault))?;
        let fault = *fault;
        *count -= 1;
        if *count == 0 {
            faults.pop_front();
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_named_as_it_is_listed() {
        for (name, fault) in NAMES {
            assert_eq!(name.parse(), Ok(fault));
            assert!(UnknownFault(String::new()).to_string().contains(name));
        }
        assert_eq!("status-503".parse(), Ok(HttpFault::Status(503)));
        for name in ["", "Expired", "status-", "status-206", "status-600"] {
            assert_eq!(
                name.parse::<HttpFault>(),
                Err(UnknownFault(name.to_owned()))
            );
        }
    }

    #[test]
    fn each_fault_strikes_as_often_as_asked_in_its_turn() {
        let faults = HttpFaults::default();
        faults.set([
            (HttpFault::Short, 2),
            (HttpFault::Slow, 0),
            (HttpFault::BrokenTls, 1),
            (HttpFault::Expired, 1),
        ]);
        assert!(!faults.breaks_tls());
        assert_eq!(faults.next(), Some(HttpFault::Short));
        assert_eq!(faults.next(), Some(HttpFault::Short));
        assert_eq!(faults.next(), None, "the next one is for a connection");
        assert!(faults.breaks_tls());
        assert_eq!(faults.left(), [(HttpFault::Expired, 1)]);
        assert_eq!(faults.next(), Some(HttpFault::Expired));
        assert_eq!((faults.next(), faults.breaks_tls()), (None, false));
    }
}
