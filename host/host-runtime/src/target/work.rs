//! What runs off the device's task: erasing, syncing, reading back. Each piece of work gets all it needs as values, and
//! its end comes back through the target's inbox; a worker that dies is an end too.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use host_crypto::{Hasher, Request, TrustPolicy, Verified, VerifyError};

use super::config::StorageFactory;
use super::image::{Facts, Glance};
use super::layout::{At, Layout};
use super::map::{BlockMap, Grid};
use crate::agent::text;
use crate::ports::commands::CommandEnd;
use crate::ports::state_dir::StateDir;
use crate::ports::workers::Wake;
use crate::types::{DETAIL_MAX_BYTES, Failure, FileSpec, code};

/// Bytes read at a time: large enough for any disk, small enough to notice a cancel.
const READ_BYTES: usize = 256 * 1024;

/// How something ended that was started elsewhere.
#[derive(Debug)]
pub(super) enum Report {
    /// It is done, or not: an erase, or something small that was made durable.
    Done(Result<(), Failure>),
    /// The block map was replayed and checked.
    Checked(Result<BlockMap, Failure>),
    /// What was locked was made durable, or not.
    Flushed(Flush),
    /// The file was read back.
    ReadBack(Result<Box<ReadBack>, Failure>),
    /// So much of the file was read back while it comes, or no more of it could be.
    Early(Result<Box<Prefix>, Failure>),
    /// Data and map were synced; the entries that it covers.
    Synced(u32, Result<(), Failure>),
    /// An operator's command ended.
    Command(CommandEnd),
    /// Whoever should have reported is gone.
    Lost,
}

/// How the flush of a locked file ended.
#[derive(Debug)]
pub(super) enum Flush {
    /// Data and record are durable.
    Closed,
    /// The data is, the record still says what it said.
    NotRecorded(Failure),
    /// The data may not be, whatever a read says.
    Lost(Failure),
}

/// A file that was read back, hashed and verified.
#[derive(Debug)]
pub(super) struct ReadBack {
    pub(super) verified: Verified,
    pub(super) facts: Facts,
}

/// A file as far as it was read back and hashed, from its start.
#[derive(Debug)]
pub(super) struct Prefix {
    hasher: Hasher,
    glance: Glance,
}

impl Prefix {
    /// Nothing yet.
    pub(super) fn new(glance: Glance) -> Self {
        Self {
            hasher: Hasher::default(),
            glance,
        }
    }

    /// Bytes so far.
    pub(super) fn size(&self) -> u64 {
        self.hasher.size()
    }

    /// Read on up to `to`, as long as `goes_on` is told how far it is and agrees; `false` if it did not.
    fn read_on(
        &mut self,
        layout: &Layout,
        to: u64,
        goes_on: impl Fn(u64) -> bool,
    ) -> Result<bool, Failure> {
        let left = to.saturating_sub(self.size());
        let most = usize::try_from(left).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        let mut buffer = vec![0; most];
        while self.size() < to {
            let at = self.size();
            if !goes_on(at) {
                return Ok(false);
            }
            let n = usize::try_from(to - at).map_or(most, |left| left.min(most));
            let bytes = &mut buffer[..n];
            layout
                .read_at(at, bytes)
                .map_err(|at| storage("read back", &at))?;
            self.hasher.update(bytes);
            self.glance.update(at, bytes);
        }
        Ok(true)
    }
}

/// Where reports arrive, from any thread.
#[derive(Default)]
pub(super) struct Inbox(Mutex<VecDeque<(u64, Report)>>);

impl Inbox {
    /// The oldest report.
    pub(super) fn take(&self) -> Option<(u64, Report)> {
        self.lock().pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, Report)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right and duty to report once; dropped without a report it reports [`Report::Lost`].
pub(super) struct Promise {
    inbox: Arc<Inbox>,
    wake: Wake,
    id: u64,
    kept: bool,
}

impl Promise {
    pub(super) fn new(inbox: &Arc<Inbox>, wake: &Wake, id: u64) -> Self {
        Self {
            inbox: Arc::clone(inbox),
            wake: Arc::clone(wake),
            id,
            kept: false,
        }
    }

    pub(super) fn keep(mut self, report: Report) {
        self.send(report);
    }

    fn send(&mut self, report: Report) {
        self.kept = true;
        self.inbox.lock().push_back((self.id, report));
        (self.wake)();
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.kept {
            self.send(Report::Lost);
        }
    }
}

/// A storage failure with its place.
pub(super) fn storage(step: &str, at: &At) -> Failure {
    Failure::storage(format_args!("{step} `{}`", at.place), &at.error)
}

/// Erase all storage that the file touches.
fn erase(layout: &Layout) -> Result<(), Failure> {
    layout.erase().map_err(|at| storage("erase", &at))?;
    layout.sync().map_err(|at| storage("sync erased", &at))
}

/// Erase the storage of a file, and find room for it there.
pub(super) fn make_room(layout: &Layout) -> Result<(), Failure> {
    erase(layout)?;
    let reserved = layout.reserve();
    reserved.map_err(|at| storage("find room for the image in", &at))
}

/// Delete or erase what a transfer that was thrown away has left. All of it is tried; the first failure is told.
pub(super) fn clean(
    staging: Option<&dyn StorageFactory>,
    state: &dyn StateDir,
    map: &str,
    layout: &Layout,
) -> Result<(), Failure> {
    let unstaged = staging.map_or(Ok(()), StorageFactory::remove);
    let unmapped = state.remove(map);
    let erased = if layout.0.is_empty() {
        Ok(())
    } else {
        erase(layout)
    };
    unstaged.map_err(|e| Failure::storage("delete staging", &e))?;
    unmapped.map_err(|e| Failure::storage("delete the block map", &e))?;
    erased
}

/// Replay the block map, after `torn` was put in its place if that says more, and read again what was not synced; a map
/// that lost something is written anew.
///
/// What was not synced is synced and then read from the medium: the process before may have died between a sync that
/// failed and the map that says so, and the page cache shows those blocks as if they were written.
pub(super) fn check(
    state: &dyn StateDir,
    name: &str,
    grid: Grid,
    number: u64,
    layout: &Layout,
    torn: Option<Vec<u8>>,
) -> Result<BlockMap, Failure> {
    let unwritten = |e| Failure::storage("write the block map", &e);
    if let Some(log) = torn {
        state.store(name, &log).map_err(unwritten)?;
    }
    let log = state
        .load(name)
        .map_err(|e| Failure::storage("read the block map", &e))?
        .unwrap_or_default();
    let replayed = BlockMap::replay(&log, grid, number);
    let mut map = replayed.map;
    let mut bad = Vec::new();
    let mut buffer = vec![0; grid.block as usize];
    let suspects = map.suspects();
    if !suspects.is_empty() {
        layout.sync().map_err(|at| storage("sync", &at))?;
        layout.evict().map_err(|at| storage("evict", &at))?;
    }
    for (index, crc) in suspects {
        let block = &mut buffer[..grid.length(index) as usize];
        layout
            .read_at(grid.offset(index), block)
            .map_err(|at| storage("check blocks in", &at))?;
        if crc32c::crc32c(block) != crc {
            bad.push(index);
        }
    }
    if replayed.torn || !bad.is_empty() {
        map.drop_blocks(&bad);
        layout.sync().map_err(|at| storage("sync", &at))?;
        map.all_synced();
        state.store(name, &map.log()).map_err(unwritten)?;
    }
    Ok(map)
}

/// Make data durable, then the map that says so.
pub(super) fn sync(
    state: &dyn StateDir,
    name: &str,
    layout: &Layout,
    covered: u32,
) -> Result<(), Failure> {
    layout.sync().map_err(|at| storage("sync", &at))?;
    state
        .append(name, &BlockMap::mark(covered), true)
        .map_err(|e| Failure::storage("write the block map", &e))
}

/// What reading back needs.
pub(super) struct ReadBackOrder {
    pub(super) layout: Layout,
    pub(super) spec: FileSpec,
    pub(super) trust: Arc<TrustPolicy>,
    pub(super) wall_s: Option<u64>,
    /// What was read early, and is still there.
    pub(super) prefix: Prefix,
    /// What the blocks were when they came.
    pub(super) came: Came,
    /// Set to give up, or gone: nobody waits for it any more.
    pub(super) cancel: Weak<AtomicBool>,
    /// Bytes read so far.
    pub(super) progress: Arc<AtomicU64>,
}

/// The block map of a file, as it was logged.
pub(super) struct Came {
    pub(super) state: Arc<dyn StateDir>,
    pub(super) name: Arc<str>,
    pub(super) grid: Grid,
    pub(super) number: u64,
    pub(super) writer: Writer,
}

/// Who has written the blocks of a file.
pub(super) enum Writer {
    Host,
    /// The build of this label.
    Plugin(String),
    /// One build after the other, or nobody knows.
    Plugins,
}

impl Came {
    /// The first block that reads otherwise than it came: whoever wrote or keeps it is to blame, and not its signer. The
    /// map has what was given to be written.
    fn check(&self, layout: &Layout, cancel: &Weak<AtomicBool>) -> Result<(), Failure> {
        // Without the map nobody knows.
        let Ok(Some(log)) = self.state.load(&self.name) else {
            return Ok(());
        };
        let map = BlockMap::replay(&log, self.grid, self.number).map;
        let evicted = layout.evict();
        evicted.map_err(|at| storage("evict", &at))?;
        let mut buffer = vec![0; self.grid.block as usize];
        for index in 0..self.grid.blocks() {
            let Some(crc) = map.crc(index) else { continue };
            if !is_wanted(cancel) {
                return Ok(());
            }
            let (offset, length) = (self.grid.offset(index), self.grid.length(index));
            let block = &mut buffer[..length as usize];
            let read = layout.read_at(offset, block);
            read.map_err(|at| storage("compare blocks in", &at))?;
            if crc32c::crc32c(block) != crc {
                return Err(self.changed(index, offset, length));
            }
        }
        Ok(())
    }

    fn changed(&self, index: u32, offset: u64, length: u32) -> Failure {
        let what = format!(
            "block {index} ({length} bytes at {offset} of the file) reads back otherwise than it came"
        );
        let (main, detail) = match &self.writer {
            Writer::Plugin(plugin) => (
                code::PLUGIN_FAILED,
                format!(
                    "{what}: its plugin has written other bytes, or its storage has changed them ({plugin})"
                ),
            ),
            Writer::Plugins => (
                code::PLUGIN_FAILED,
                format!(
                    "{what}: a plugin of this transfer has written other bytes, or its storage has changed them"
                ),
            ),
            Writer::Host => (
                code::STORAGE,
                format!("{what}: the storage of the staged file has changed it"),
            ),
        };
        Failure::new(main, 0, text::clean(&detail, DETAIL_MAX_BYTES))
    }
}

/// Make the file durable, then let `record` write down that it is closed.
pub(super) fn flush(layout: &Layout, record: impl FnOnce() -> Result<(), Failure>) -> Flush {
    if let Err(at) = layout.sync() {
        return Flush::Lost(storage("sync", &at));
    }
    match record() {
        Ok(()) => Flush::Closed,
        Err(failure) => Flush::NotRecorded(failure),
    }
}

/// Read on in a file that is still coming, from its medium, up to `to`, all of which was synced. It stops early, between two
/// reads, once `stop` is set, or gone.
pub(super) fn read_early(
    layout: &Layout,
    mut prefix: Box<Prefix>,
    to: u64,
    stop: &Weak<AtomicBool>,
) -> Result<Box<Prefix>, Failure> {
    if is_wanted(stop) {
        let evicted = layout.evict_range(prefix.size(), to);
        evicted.map_err(|at| storage("evict", &at))?;
        prefix.read_on(layout, to, |_| is_wanted(stop))?;
    }
    Ok(prefix)
}

/// Whether somebody waits for what is done, and has not said that it should end.
fn is_wanted(cancel: &Weak<AtomicBool>) -> bool {
    let cancel = cancel.upgrade();
    cancel.is_some_and(|cancel| !cancel.load(Ordering::Relaxed))
}

/// Read the file back from its medium, as far as that was not done before, hash it, and check the signature. It was flushed
/// before.
pub(super) fn read_back(order: ReadBackOrder) -> Result<Box<ReadBack>, Failure> {
    let size = order.spec.size;
    let mut prefix = order.prefix;
    let evicted = order.layout.evict_range(prefix.size(), size);
    evicted.map_err(|at| storage("evict", &at))?;
    let whole = prefix.read_on(&order.layout, size, |done| {
        order.progress.store(done, Ordering::Relaxed);
        is_wanted(&order.cancel)
    })?;
    if !whole {
        return Err(Failure::new(
            code::CANCELLED,
            0,
            "reading back was cancelled",
        ));
    }
    let Prefix { hasher, glance } = prefix;
    let hashed = hasher.finish();
    let request = Request {
        kind: &order.spec.signature_kind,
        signature: &order.spec.signature,
        label: &order.spec.certificate,
    };
    let verified = match order.trust.verify(&hashed, &request, order.wall_s) {
        Ok(verified) => verified,
        Err(error) => {
            if matches!(error, VerifyError::Mismatch { .. }) {
                order.came.check(&order.layout, &order.cancel)?;
            }
            return Err(refused(&error));
        }
    };
    let facts = glance.finish(size)?;
    Ok(Box::new(ReadBack { verified, facts }))
}

/// A signature that does not hold, in the agent's codes.
pub(super) fn refused(error: &VerifyError) -> Failure {
    Failure::new(error.main(), error.sub(), error.to_string())
}
