//! An agent that has nothing to do, without an instance: what it knows is kept, and so is what it said last.
//!
//! ```text
//!          park                    an event, its deadline, an order
//! running ──────▶ parked (snapshot) ────────────────────────────────▶ started from it, given the event
//! ```
//!
//! The start is that of an agent that broke (`slot.rs`), and so is what is done when it goes wrong. Not here: when an agent
//! has nothing to do, and what wakes it (`device/park.rs`).

use super::Context;
use super::slot::{AgentSlot, Stamp};
use crate::status::AgentLife;

/// A longer snapshot is not worth an instance, in bytes: that has some 34 KiB. Those of the shipped agent without a job
/// have a few hundred.
const PARKED_MAX_BYTES: usize = 16 * 1024;

impl AgentSlot {
    /// Whether there is no instance because none is needed.
    pub(crate) fn is_parked(&self) -> bool {
        self.life() == AgentLife::Parked
    }

    /// Keep what the instance knows and let it go. It stays if it breaks over that, or knows too much; and if it broke lately,
    /// for such a one is not started from a snapshot.
    pub(crate) fn park(&mut self, now: Context, stamp: Stamp) {
        self.forgive(now);
        if self.strikes > 0 {
            return;
        }
        self.fresh_status(now);
        self.keep_snapshot(now, stamp);
        let fits = self
            .kept
            .as_ref()
            .is_some_and(|kept| kept.stamp == stamp && kept.blob.bytes.len() <= PARKED_MAX_BYTES);
        if self.is_running() && fits {
            if let Some(kept) = &mut self.kept {
                kept.blob.bytes.shrink_to_fit();
            }
            self.instance = None;
            self.life = AgentLife::Parked;
        }
    }

    /// It is needed: the next start is due.
    pub(crate) fn wake(&mut self, now: Context) {
        if self.is_parked() {
            self.retry_at_ms = Some(now.now_ms);
        }
    }
}
