//! Counters for operators and tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::service::{Counters, ThingName};

/// What the endpoint has seen since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EndpointStats {
    pub(crate) connections: u64,
    pub(crate) connected: u64,
    pub(crate) refused: u64,
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) dropped: u64,
    pub(crate) things: BTreeMap<ThingName, ThingTraffic>,
}

/// MQTT traffic of one thing's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingTraffic {
    /// Connections ever accepted.
    pub connections: u64,
    /// Connections now.
    pub connected: u64,
    /// Messages it published.
    pub messages_in: u64,
    /// Messages sent to it.
    pub messages_out: u64,
    /// Times that it asked whether the connection still is one.
    #[serde(default)]
    pub pings: u64,
}

/// Everything counted about one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingStats {
    /// On its connections.
    #[serde(flatten)]
    pub traffic: ThingTraffic,
    /// At the service.
    #[serde(flatten)]
    pub service: Counters,
}

/// Everything the cloud counts, since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudStats {
    /// MQTT connections ever accepted.
    pub connections: u64,
    /// MQTT connections now.
    pub connected: u64,
    /// Clients that were not let in.
    pub refused: u64,
    /// Messages from clients.
    pub messages_in: u64,
    /// Messages to clients.
    pub messages_out: u64,
    /// Messages that a full queue dropped.
    pub dropped: u64,
    /// Blocks handed out.
    pub blocks: u64,
    /// `GetStream` requests.
    pub stream_requests: u64,
    /// Those of them that were in JSON.
    #[serde(default)]
    pub json_requests: u64,
    /// Answers with a range of an image, by URL.
    #[serde(default)]
    pub ranges: u64,
    /// Bytes of them that were handed to their connections.
    #[serde(default)]
    pub range_bytes: u64,
    /// By thing.
    pub things: BTreeMap<ThingName, ThingStats>,
}

/// What the image server has handed out. URLs do not say who asks.
#[derive(Debug, Default)]
pub(crate) struct RangeCounters {
    answers: AtomicU64,
    bytes: AtomicU64,
}

impl RangeCounters {
    pub(crate) fn answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }
}

impl CloudStats {
    pub(crate) fn new(
        endpoint: EndpointStats,
        ranges: &RangeCounters,
        service: &BTreeMap<ThingName, Counters>,
    ) -> Self {
        let mut stats = Self {
            connections: endpoint.connections,
            connected: endpoint.connected,
            refused: endpoint.refused,
            messages_in: endpoint.messages_in,
            messages_out: endpoint.messages_out,
            dropped: endpoint.dropped,
            ranges: ranges.answers.load(Ordering::Relaxed),
            range_bytes: ranges.bytes.load(Ordering::Relaxed),
            ..Self::default()
        };
        for (thing, traffic) in endpoint.things {
            stats.things.entry(thing).or_default().traffic = traffic;
        }
        for (thing, counters) in service {
            stats.blocks += counters.blocks;
            stats.stream_requests += counters.stream_requests;
            stats.json_requests += counters.json_requests;
            stats.things.entry(thing.clone()).or_default().service = *counters;
        }
        stats
    }
}
