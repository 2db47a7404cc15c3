//! When an agent has nothing to do, and what wakes it: every event, its deadline, an order to swap it. Whoever gives it
//! something does not know whether it is parked.
//!
//! What a device waits for stays the device's: connection, mailbox, deadline. So nothing is lost, and nothing has to be told
//! that the agent sleeps. Not here: how an agent is kept without an instance (`agent/park.rs`).

use super::Device;
use crate::agent::Context;
use crate::status::STATE_INIT;

impl Device {
    /// Park an agent that has been quiet for long enough; returns when to look again. To be called when nothing is due.
    pub(super) fn park_if_idle(&mut self, now: Context) -> Option<u64> {
        let after_ms = self.park_after_ms?;
        if !self.is_idle() {
            return None;
        }
        let at = self.quiet_since_ms.saturating_add(after_ms);
        if at > now.now_ms {
            return Some(at);
        }
        let stamp = self.stamp(now);
        self.slot.park(now, stamp);
        if self.slot.is_parked() {
            tracing::debug!(device = %self.name, "the agent has nothing to do and is parked");
            return None;
        }
        self.quiet_since_ms = now.now_ms;
        Some(now.now_ms.saturating_add(after_ms.max(1)))
    }

    /// Give back the room of queues that are empty now, and will be for long, and what targets work with that have nothing
    /// to do.
    pub(super) fn shrink(&self) {
        self.mailbox.shrink();
        self.door.lock().shrink();
    }

    /// Whether there is no job, nothing is under way and nobody watches how the agent does.
    fn is_idle(&self) -> bool {
        let status = self.slot.status();
        self.slot.is_running()
            && status.state != STATE_INIT
            && status.job_id.is_none()
            && self.swap.is_none()
            && !self.slot.is_on_trial()
            && self.door.lock().tokens.count() == 0
    }

    /// Start an agent that is parked, or that broke and whose time has come.
    pub(super) fn wake(&mut self, now: Context) {
        self.slot.wake(now);
        self.revive(now);
    }
}
