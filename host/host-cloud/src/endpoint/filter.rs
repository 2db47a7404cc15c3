//! Topic filters: which are legal, and who subscribed to what matches a topic.
//!
//! MQTT 3.1.1, section 4.7: `+` is one level, `#` the rest, and neither at the first level matches a topic that begins
//! with `$`.

use std::collections::HashMap;

use crate::service::QoS;

/// Longest topic and filter: the longest names of thing and stream with the levels round them come to some 300 bytes.
pub(crate) const TOPIC_BYTES_MAX: usize = 512;
/// Most levels of a topic. AWS allows eight behind the reserved ones; it also bounds the depth of the tree below.
pub(crate) const TOPIC_LEVELS_MAX: usize = 16;

/// Number of a connection, never used twice.
pub(crate) type ClientNo = u64;

fn bounded(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= TOPIC_BYTES_MAX
        && !text.contains('\0')
        && text.split('/').count() <= TOPIC_LEVELS_MAX
}

/// Whether a client may publish to such a topic at all.
pub(crate) fn is_topic(topic: &str) -> bool {
    bounded(topic) && !topic.contains(['+', '#'])
}

/// Whether a client may subscribe to such a filter at all.
pub(crate) fn is_filter(filter: &str) -> bool {
    if !bounded(filter) {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let legal = match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            other => !other.contains(['+', '#']),
        };
        if !legal {
            return false;
        }
    }
    true
}

/// Subscriptions of all clients as a tree of levels.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Self>,
    plus: Option<Box<Self>>,
    /// Subscribers of `…/#` that ends here.
    rest: Vec<(ClientNo, QoS)>,
    /// Subscribers of the filter that ends here.
    here: Vec<(ClientNo, QoS)>,
}

impl Routes {
    /// Adds a legal filter; one that the client has already gets the new QoS.
    pub(crate) fn insert(&mut self, filter: &str, client: ClientNo, qos: QoS) {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            match level {
                "#" => return set(&mut node.rest, client, qos),
                "+" => node = node.plus.get_or_insert_default(),
                level => node = node.children.entry(level.into()).or_default(),
            }
        }
        set(&mut node.here, client, qos);
    }

    /// Removes a filter of a client, and the levels that nobody needs then.
    pub(crate) fn remove(&mut self, filter: &str, client: ClientNo) {
        self.root.remove(&mut filter.split('/'), client);
    }

    /// Calls `found` for each subscription that matches; a client with several may come several times.
    pub(crate) fn matches(&self, topic: &str, found: &mut dyn FnMut(ClientNo, QoS)) {
        self.root
            .matches(topic.split('/'), topic.starts_with('$'), found);
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.plus.is_none()
            && self.rest.is_empty()
            && self.here.is_empty()
    }

    fn remove(&mut self, levels: &mut dyn Iterator<Item = &str>, client: ClientNo) {
        match levels.next() {
            None => self.here.retain(|(c, _)| *c != client),
            Some("#") => self.rest.retain(|(c, _)| *c != client),
            Some("+") => {
                if let Some(node) = &mut self.plus {
                    node.remove(levels, client);
                    if node.is_empty() {
                        self.plus = None;
                    }
                }
            }
            Some(level) => {
                if let Some(node) = self.children.get_mut(level) {
                    node.remove(levels, client);
                    if node.is_empty() {
                        self.children.remove(level);
                    }
                }
            }
        }
    }

    fn matches<'a>(
        &self,
        mut levels: impl Iterator<Item = &'a str> + Clone,
        reserved: bool,
        found: &mut dyn FnMut(ClientNo, QoS),
    ) {
        // `a/#` matches `a` too; at the first level wildcards do not match reserved topics.
        if !reserved {
            self.rest.iter().for_each(|(c, qos)| found(*c, *qos));
        }
        match levels.next() {
            None => self.here.iter().for_each(|(c, qos)| found(*c, *qos)),
            Some(level) => {
                if let Some(node) = self.children.get(level) {
                    node.matches(levels.clone(), false, found);
                }
                if let Some(node) = self.plus.as_ref().filter(|_| !reserved) {
                    node.matches(levels, false, found);
                }
            }
        }
    }
}

fn set(list: &mut Vec<(ClientNo, QoS)>, client: ClientNo, qos: QoS) {
    match list.iter_mut().find(|(c, _)| *c == client) {
        Some(entry) => entry.1 = qos,
        None => list.push((client, qos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_matching() {
        let rows = [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+", "a/b/c", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("#", "a/b", true),
            ("+", "a", true),
            ("+/b", "/b", true),
            ("/+", "/b", true),
            ("#", "$aws/things/gw/jobs/notify", false),
            (
                "+/things/gw/jobs/notify",
                "$aws/things/gw/jobs/notify",
                false,
            ),
            ("$aws/#", "$aws/things/gw/jobs/notify", true),
            (
                "$aws/things/+/jobs/#",
                "$aws/things/gw/jobs/a/update/accepted",
                true,
            ),
            (
                "$aws/things/gw/jobs/+/update/#",
                "$aws/things/gw/jobs/a/update/accepted",
                true,
            ),
            (
                "$aws/things/gw/jobs/$next/get/#",
                "$aws/things/gw/jobs/$next/get/accepted",
                true,
            ),
            (
                "$aws/things/gw/jobs/$next/get/#",
                "$aws/things/gw/jobs/x/get/accepted",
                false,
            ),
        ];
        for (filter, topic, want) in rows {
            assert!(is_filter(filter) && is_topic(topic), "{filter} {topic}");
            let mut routes = Routes::default();
            routes.insert(filter, 1, QoS::AtMostOnce);
            let mut hits = 0;
            routes.matches(topic, &mut |_, _| hits += 1);
            assert_eq!(hits == 1, want, "{filter} {topic}");
            routes.remove(filter, 1);
            assert!(routes.is_empty(), "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_or_no_topic_is_refused() {
        let long = "a".repeat(TOPIC_BYTES_MAX + 1);
        let deep = "/".repeat(TOPIC_LEVELS_MAX);
        for bad in ["", "a/#/b", "a#", "a+/b", "#/a", "a\0", &long, &deep] {
            assert!(!is_filter(bad), "{bad}");
        }
        for bad in ["", "a/+", "#", "a\0", &long, &deep] {
            assert!(!is_topic(bad), "{bad}");
        }
        assert!(is_topic(&long[1..]) && is_filter(&deep[1..]));
    }

    #[test]
    fn a_second_subscription_to_a_filter_replaces_the_first() {
        let mut routes = Routes::default();
        routes.insert("a/+", 1, QoS::AtMostOnce);
        routes.insert("a/+", 1, QoS::AtLeastOnce);
        routes.insert("a/b", 2, QoS::AtMostOnce);
        let mut hits = Vec::new();
        routes.matches("a/b", &mut |client, qos| hits.push((client, qos)));
        hits.sort();
        assert_eq!(hits, [(1, QoS::AtLeastOnce), (2, QoS::AtMostOnce)]);
        routes.remove("a/b", 1);
        routes.remove("x/y", 1);
        routes.remove("a/+", 1);
        routes.remove("a/b", 2);
        assert!(routes.is_empty());
    }
}
