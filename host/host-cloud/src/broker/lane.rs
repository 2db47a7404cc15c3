//! Requests from the broker wait here for the service: in order for each thing, side by side for different ones.
//!
//! A request that changes something waits for the disk; lanes keep that from holding up the blocks of other things. What
//! finds its lane full is dropped and counted: its device asks again.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinSet};

use super::link::Shared;
use crate::service::{QoS, ThingName};

/// Requests at the service at once. Those that wait for the disk share a write.
const LANES: usize = 64;
/// Requests waiting in a lane.
const LANE_REQUESTS_MAX: usize = 64;
/// Bytes waiting in all lanes together: 256 of the largest requests.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A request as it came.
pub(super) struct Request {
    /// Number of the connection it came over; its answer leaves over the same one or not at all.
    pub(super) connection: u64,
    pub(super) thing: ThingName,
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: QoS,
}

/// All lanes.
pub(super) struct Lanes {
    lanes: Vec<mpsc::Sender<Request>>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Lanes {
    /// Lanes whose tasks run in `tasks` until this is dropped.
    pub(super) fn start(shared: &Arc<Shared>, tasks: &mut JoinSet<()>) -> Self {
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let lanes = (0..LANES).map(|_| {
            let (sender, mut lane) = mpsc::channel::<Request>(LANE_REQUESTS_MAX);
            let (shared, waiting_bytes) = (Arc::clone(shared), Arc::clone(&waiting_bytes));
            tasks.spawn(async move {
                while let Some(request) = lane.recv().await {
                    waiting_bytes.fetch_sub(request.payload.len(), Ordering::Relaxed);
                    shared.answer(request).await;
                }
            });
            sender
        });
        Self {
            lanes: lanes.collect(),
            waiting_bytes,
        }
    }

    /// Puts a request into its lane; false = no room.
    pub(super) fn put(&self, request: Request) -> bool {
        let bytes = request.payload.len();
        if self.waiting_bytes.load(Ordering::Relaxed) + bytes > WAITING_BYTES_MAX {
            return false;
        }
        let mut hasher = DefaultHasher::new();
        request.thing.hash(&mut hasher);
        // The remainder is below the number of lanes.
        let index = (hasher.finish() % LANES as u64) as usize;
        // Before it is in the lane, or it could be taken off before it was added.
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let taken = self
            .lanes
            .get(index)
            .is_some_and(|lane| lane.try_send(request).is_ok());
        if !taken {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        taken
    }
}
