//! What a connection may use: a thing its own topics, and everybody the ordinary ones.
//!
//! As an AWS policy with `${iot:Connection.Thing.ThingName}` in it. A connection without a certificate exists only on the
//! listener without TLS, which is for this machine, and may speak for every thing.

use std::collections::BTreeSet;

use crate::service::{ThingName, split_thing};

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Not known; may speak for any thing.
    Open,
    /// The holder of a registered certificate.
    Certificate {
        /// SHA-256 of it.
        fingerprint: String,
        /// What it may speak for.
        things: BTreeSet<ThingName>,
    },
}

impl Identity {
    /// Whether it may publish to a legal topic.
    pub(crate) fn may_publish(&self, topic: &str) -> bool {
        match self {
            Self::Open => true,
            Self::Certificate { things, .. } => Self::owns(things, topic),
        }
    }

    /// Whether it may subscribe to a legal filter.
    pub(crate) fn may_subscribe(&self, filter: &str) -> bool {
        match self {
            Self::Open => true,
            // A wildcard is no thing's name, so `$aws/things/+/…` and `$aws/#` belong to nobody.
            Self::Certificate { things, .. } => Self::owns(things, filter),
        }
    }

    fn owns(things: &BTreeSet<ThingName>, topic: &str) -> bool {
        if !topic.starts_with('$') {
            return true;
        }
        split_thing(topic).is_some_and(|(thing, _)| things.contains(thing))
    }

    /// Whether the register still says what it said when this was made.
    pub(crate) fn still_holds(&self, register: impl FnOnce(&str) -> BTreeSet<ThingName>) -> bool {
        match self {
            Self::Open => true,
            Self::Certificate {
                fingerprint,
                things,
            } => register(fingerprint) == *things,
        }
    }

    /// The certificate's fingerprint.
    pub(crate) fn fingerprint(&self) -> Option<&str> {
        match self {
            Self::Open => None,
            Self::Certificate { fingerprint, .. } => Some(fingerprint),
        }
    }

    /// The thing a connection with this client id counts for.
    pub(crate) fn thing(&self, client_id: &str) -> Option<ThingName> {
        let named = ThingName::new(client_id).ok();
        match self {
            Self::Open => named,
            Self::Certificate { things, .. } => named
                .filter(|name| things.contains(name))
                .or_else(|| things.first().cloned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_reaches_its_own_topics_and_the_ordinary_ones() {
        let gw = Identity::Certificate {
            fingerprint: String::new(),
            things: [ThingName::new("gw").unwrap()].into(),
        };
        let rows = [
            ("$aws/things/gw/jobs/$next/get", true),
            ("$aws/things/gw/#", true),
            ("$aws/things/gw/streams/+/data/cbor", true),
            ("telemetry/gw", true),
            ("#", true),
            ("$aws/things/gw2/jobs/$next/get", false),
            ("$aws/things/g/jobs/notify", false),
            ("$aws/things/+/jobs/notify", false),
            ("$aws/things/#", false),
            ("$aws/#", false),
            ("$aws/events/x", false),
            ("$SYS/broker", false),
            ("$share/g/$aws/things/gw2/#", false),
        ];
        for (topic, want) in rows {
            assert_eq!(gw.may_subscribe(topic), want, "{topic}");
            assert_eq!(gw.may_publish(topic), want, "{topic}");
            assert!(Identity::Open.may_subscribe(topic));
        }
    }

    #[test]
    fn a_connection_counts_for_the_thing_its_client_id_names_if_it_may() {
        let two = Identity::Certificate {
            fingerprint: String::new(),
            things: ["a", "b"].map(|n| ThingName::new(n).unwrap()).into(),
        };
        let rows = [("b", "b"), ("a", "a"), ("c", "a"), ("no thing", "a")];
        for (client_id, want) in rows {
            assert_eq!(two.thing(client_id).unwrap().as_str(), want);
        }
        assert_eq!(Identity::Open.thing("no thing"), None);
    }
}
