//! Making blocks durable: data and map together by a worker, after so many bytes or so much time, and what a failure
//! of that takes back.

use std::sync::Arc;

use super::early::Early;
use super::machine::Target;
use super::map::BlockMap;
use super::record::Phase;
use super::work::{self, Flush, Report};
use crate::types::{Failure, code};

/// Towards the end of a file a sync comes after half of what was still to come, but no sooner than after so many bytes.
const SYNC_LAST_BYTES: u64 = 512 * 1024;

/// The sync under way, and the last one's failure.
#[derive(Debug, Default)]
pub(super) struct Sync {
    /// Report number.
    under_way: Option<u64>,
    /// When the first block since the last sync was written.
    since: Option<u64>,
    failed: Option<Failure>,
    /// Report number of the flush of a close.
    flush: Option<u64>,
    /// Report number of the map's being written anew, and how many blocks it holds there.
    mend: Option<(u64, u32)>,
    /// What was read back of what is durable already.
    pub(super) early: Early,
}

impl Sync {
    pub(super) fn flush_begins(&mut self, id: u64) {
        self.flush = Some(id);
    }

    pub(super) fn is_flush(&self, id: u64) -> bool {
        self.flush == Some(id)
    }

    pub(super) fn is_mend(&self, id: u64) -> bool {
        self.mend.is_some_and(|(mend, _)| mend == id)
    }

    pub(super) fn is_report(&self, id: u64) -> bool {
        self.under_way == Some(id)
    }

    /// Whether a sync is under way, or the map is being written anew.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some() || self.mend.is_some()
    }

    /// Whether neither is under way, and none has failed.
    pub(super) fn is_quiet(&self) -> bool {
        !self.is_under_way() && self.failed.is_none()
    }

    /// Blocks were written.
    pub(super) fn written(&mut self, now_ms: u64) {
        self.since.get_or_insert(now_ms);
    }

    /// What lies in the storage cannot be made durable.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.failed = Some(failure);
    }

    /// The failure of an earlier sync of this transfer.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match &self.failed {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Another transfer, or the same after its blocks were checked. Nothing is under way: it was drained.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Target {
    /// Twice as much as a sync covers waits for one already.
    pub(super) fn must_wait_for_sync(&self) -> bool {
        let fresh = self.map.as_deref().map_or(0, BlockMap::unsynced_bytes);
        self.sync.under_way.is_some() && fresh >= self.sync_due_bytes()
    }

    /// Bytes that are not durable with which something is due: a sync, or, while there is one, that blocks wait for it.
    ///
    /// A sync is due with fewer bytes the fewer are still to come: what the last one leaves, the close has to make durable and
    /// to read while nothing else goes on.
    pub(super) fn sync_due_bytes(&self) -> u64 {
        let sync_bytes = self.config.sync_bytes.max(1);
        if self.sync.under_way.is_some() {
            return sync_bytes.saturating_mul(2);
        }
        match self.map.as_deref().map_or(0, BlockMap::missing_bytes) {
            // Its close makes it durable.
            0 => sync_bytes,
            to_come => sync_bytes.min(to_come.max(SYNC_LAST_BYTES)),
        }
    }

    /// Begin to make data and map durable, if nothing of the kind is under way.
    pub(super) fn begin_sync(&mut self) -> Result<(), Failure> {
        let Some(map) = self.map.as_deref() else {
            return Ok(());
        };
        let (covered, held) = (map.entries(), map.prefix_bytes());
        if self.sync.under_way.is_some() || self.map_torn {
            return Ok(());
        }
        let layout = self.layout()?;
        self.sync.early.sync_begins(&layout, held);
        let (state, name) = (Arc::clone(&self.ports.state), self.map_name());
        let (id, promise) = self.promise(true);
        self.sync.under_way = Some(id);
        self.sync.since = None;
        self.ports.workers.run(Box::new(move || {
            let end = work::sync(&*state, &name, &layout, covered);
            promise.keep(Report::Synced(covered, end));
        }));
        Ok(())
    }

    pub(super) fn on_synced(&mut self, now_ms: u64, report: Report) {
        self.sync.under_way = None;
        let end = match report {
            Report::Synced(covered, Ok(())) => {
                if let Some(map) = self.map.as_mut() {
                    map.synced(covered);
                    if map.unsynced_bytes() > 0 {
                        self.sync.written(now_ms);
                    }
                }
                self.sync.early.synced();
                // An append that failed meanwhile has left it to this end, and perhaps no block comes to begin it.
                self.begin_mend();
                Ok(())
            }
            Report::Synced(_, Err(failure)) => Err(failure),
            _ => Err(Failure::new(
                code::STORAGE,
                0,
                "the syncing worker has died",
            )),
        };
        if let Err(failure) = end {
            self.lose_unsynced(failure);
        }
    }

    /// The flush of a close is over, whether or not anybody still waits for the close.
    pub(super) fn on_flushed(&mut self, report: &Report) {
        self.sync.flush = None;
        let failure = match report {
            Report::Flushed(Flush::Closed) => return self.closed(),
            Report::Flushed(Flush::NotRecorded(_)) => return,
            Report::Flushed(Flush::Lost(failure)) => failure.clone(),
            _ => Failure::new(code::STORAGE, 0, "the flushing worker has died"),
        };
        // What was closed before is durable; this was one fsync more.
        if self.phase() == Some(Phase::Receiving) {
            self.lose_unsynced(failure);
        }
    }

    fn lose_unsynced(&mut self, failure: Failure) {
        tracing::error!(
            device = %self.device, target = %self.config.name,
            "blocks since the last sync are lost: {failure}"
        );
        self.release_unsynced();
        self.sync.early.give_up();
        self.sync.failed = Some(failure);
    }

    /// Forget the blocks since the last sync, here and on the medium. Should the process die before that is written: `check`
    /// reads blocks from the medium.
    fn release_unsynced(&mut self) {
        let Some(map) = self.map.as_mut() else { return };
        map.drop_unsynced();
        self.map_torn = true;
        self.begin_mend();
    }

    /// Write the map anew, if what the medium has of it is torn or says too much. Until then nothing is appended.
    pub(super) fn begin_mend(&mut self) {
        let Some(log) = self.torn_log() else { return };
        if self.sync.mend.is_some() || self.sync.under_way.is_some() {
            return;
        }
        let (state, name) = (Arc::clone(&self.ports.state), self.map_name());
        let (id, promise) = self.promise(true);
        let held = self.map.as_deref().map_or(0, BlockMap::held_blocks);
        self.sync.mend = Some((id, held));
        self.ports.workers.run(Box::new(move || {
            let end = state.store(&name, &log);
            promise.keep(Report::Done(
                end.map_err(|e| Failure::storage("write the block map", &e)),
            ));
        }));
    }

    /// The log that is to stand on the medium and does not.
    pub(super) fn torn_log(&self) -> Option<Vec<u8>> {
        let map = self.map.as_ref().filter(|_| self.map_torn)?;
        Some(map.log())
    }

    /// The map was written anew, or not: then nobody can wait for it.
    pub(super) fn on_mended(&mut self, report: &Report) {
        let written = self.sync.mend.take();
        match report {
            Report::Done(Ok(())) => {
                self.map_torn = false;
                if let Some(map) = self.map.as_mut() {
                    // What was entered meanwhile is not there.
                    self.map_torn = written.is_some_and(|(_, held)| held != map.held_blocks());
                    map.log_rewritten();
                }
            }
            Report::Done(Err(failure)) => self.fail_writes(failure),
            _ => {
                let failure =
                    Failure::new(code::STORAGE, 0, "the worker of the block map has died");
                self.fail_writes(&failure);
            }
        }
    }

    /// Sync what has been lying about for long enough.
    pub(super) fn sync_by_time(&mut self, now_ms: u64) {
        let due = self.sync_wake_at().is_some_and(|at| now_ms >= at);
        if due && self.phase() == Some(Phase::Receiving) {
            if let Err(failure) = self.begin_sync() {
                self.sync.failed = Some(failure);
            }
            self.collect(now_ms);
        }
    }

    pub(super) fn sync_wake_at(&self) -> Option<u64> {
        let held_up = self.sync.under_way.is_some() || self.sync.failed.is_some();
        if held_up || self.map.is_none() || self.map_torn {
            return None;
        }
        Some(self.sync.since? + self.config.limits.sync_after_ms)
    }
}
