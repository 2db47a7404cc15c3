//! Reading a file back while the rest of it is still coming, so that its close has less to read.
//!
//! ```text
//! blocks      ────────────────────────────────────────▶
//! fence       raised ┐      raised ┐
//! sync               └─────▶       └─────▶
//! worker                     reads ─────────▶ reads ──▶
//! close                                             stop ▶ lock ▶ flush ▶ reads the rest ▶ signature
//! ```
//!
//! It proves what a read at the close proves, by these rules: a byte is read from its medium after a sync that covers it has
//! succeeded; from before that sync to the lock nobody has changed it, or the [`Fence`] is torn; and what was read behind a torn
//! fence is thrown away, as it is with a failed read or a dead worker: then the close reads everything. So is what belongs to
//! another opening of the transfer ([`Sync::reset`](super::sync::Sync::reset)), and all of it ends with the process. There is
//! no second try within a transfer: a plugin that writes everything twice has it read twice, and no more.
//!
//! It disturbs no operation: a worker stops after the read that it is in once one begins. What it has read by then is kept. A
//! sync does not stop it, for that is about what comes behind the fence; syncs come often towards the end of a file, and what
//! they would hold up is left to the close.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::config::VersionReader;
use super::fence::{Fence, GRID_BYTES};
use super::image::Glance;
use super::layout::Layout;
use super::machine::Target;
use super::record::Phase;
use super::work::{self, Prefix, Report};

/// What is read back of a file that is still coming.
#[derive(Debug, Default)]
pub(super) enum Early {
    /// Nothing was synced yet.
    #[default]
    Nothing,
    /// It goes on.
    Going(Box<Going>),
    /// Not in this transfer.
    Never,
}

#[derive(Debug, Default)]
pub(super) struct Going {
    fence: Fence,
    /// So much of the file, of what is fenced in, a sync has covered.
    durable: u64,
    /// As far as it was read; none before the first read, and while the worker has it.
    prefix: Option<Box<Prefix>>,
    worker: Option<Worker>,
}

#[derive(Debug)]
struct Worker {
    report: u64,
    stop: Arc<AtomicBool>,
}

impl Early {
    /// A sync of a file begins that is held without a gap so far. The fence comes before: what is changed from now on the
    /// sync may not cover.
    pub(super) fn sync_begins(&mut self, layout: &Layout, held: u64) {
        let upto = held - held % GRID_BYTES;
        if matches!(self, Self::Nothing) && upto > 0 {
            *self = Self::Going(Box::default());
        }
        if let Self::Going(going) = self
            && upto > going.fence.upto()
            && !going.fence.raise(layout, upto)
        {
            self.give_up();
        }
    }

    /// The sync that began last has succeeded.
    pub(super) fn synced(&mut self) {
        if let Self::Going(going) = self {
            going.durable = going.fence.upto();
        }
    }

    /// The worker is to end soon, and keeps what it has.
    pub(super) fn give_way(&self) {
        if let Self::Going(going) = self
            && let Some(worker) = &going.worker
        {
            worker.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Throw away what was read. A worker that still reads ends soon, and nobody listens to it.
    pub(super) fn give_up(&mut self) {
        *self = Self::Never;
    }

    pub(super) fn is_report(&self, id: u64) -> bool {
        let Self::Going(going) = self else {
            return false;
        };
        going.worker.as_ref().is_some_and(|w| w.report == id)
    }

    pub(super) fn on_report(&mut self, report: Report) {
        let Self::Going(going) = self else { return };
        going.worker = None;
        match report {
            Report::Early(Ok(prefix)) => going.prefix = Some(prefix),
            Report::Early(Err(failure)) => {
                tracing::debug!("no more is read early: {failure}");
                self.give_up();
            }
            // The worker has died.
            _ => self.give_up(),
        }
    }

    /// What was read of the file that lies here, if it is the file's still. Whoever asks has locked it.
    pub(super) fn take(&mut self, layout: &Layout) -> Option<Box<Prefix>> {
        let Self::Going(going) = std::mem::replace(self, Self::Never) else {
            return None;
        };
        let prefix = going.prefix?;
        going.fence.stands(layout, prefix.size()).then_some(prefix)
    }

    /// Whether the fence stands round the first `upto` bytes of the file that lies here.
    fn stands(&self, layout: &Layout, upto: u64) -> bool {
        matches!(self, Self::Going(going) if going.fence.stands(layout, upto))
    }

    /// How far a worker may read now that has not read so far; none if there is one already.
    fn wants(&self) -> Option<u64> {
        let Self::Going(going) = self else {
            return None;
        };
        let read = going.prefix.as_ref().map_or(0, |prefix| prefix.size());
        (going.worker.is_none() && read < going.durable).then_some(going.durable)
    }

    /// A worker reads on in a file of `size` bytes: what was read, and what tells it to stop.
    fn reads(
        &mut self,
        report: u64,
        reader: &VersionReader,
        size: u64,
    ) -> Option<(Box<Prefix>, Weak<AtomicBool>)> {
        let Self::Going(going) = self else {
            return None;
        };
        let begin = || Box::new(Prefix::new(Glance::new(reader, size)));
        let prefix = going.prefix.take().unwrap_or_else(begin);
        let stop = Arc::default();
        let stopped = Arc::downgrade(&stop);
        going.worker = Some(Worker { report, stop });
        Some((prefix, stopped))
    }
}

impl Target {
    /// Let a worker read what is durable and was not read yet, if nothing else is to be done.
    pub(super) fn read_early(&mut self, now_ms: u64) {
        let is_free = self.op.is_none() && self.sync.check().is_ok();
        let to = self.sync.early.wants().filter(|_| is_free);
        let (Some(to), Some(grid), Some(Phase::Receiving)) = (to, self.grid(), self.phase()) else {
            return;
        };
        let Ok(layout) = self.layout() else { return };
        if !self.sync.early.stands(&layout, to) {
            return self.sync.early.give_up();
        }
        let (id, promise) = self.promise(true);
        let reader = &self.config.version_from;
        let Some((prefix, stop)) = self.sync.early.reads(id, reader, grid.size) else {
            return;
        };
        self.ports.workers.run(Box::new(move || {
            let end = work::read_early(&layout, prefix, to, &stop);
            promise.keep(Report::Early(end));
        }));
        self.collect(now_ms);
    }
}
