//! Lent storage: bounds, alignment, an account, and the locks that make a verified image stay what was verified.
//!
//! Reading is allowed at any time but in `open`. Writing:
//!
//! - a slot: only within the window, which is the extents of the transfer while it receives; closed by `close` and by
//!   everything after it, and closed after a restart until `reopen`. The window is set by the target engine alone, and
//!   only for phase `receiving`.
//! - a record: only while the engine runs `activate`, or a `reset`, `commit` or `reject` after it.
//!
//! Refused writes end with 0xdc and change nothing. A plugin that passes that on is not busy: its call has failed for good.
//!
//! A record is read from a cache, and the cloud is told what it says: what the cache may have alone is settled before a
//! plugin is asked anything.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config::{RegionConfig, RegionKind, limit};
use super::fence::Fenced;
use super::layout::{Layout, Piece};
use super::record::StoredExtent;
use crate::engine::Use;
use crate::plugin::Extent;
use crate::plugin::lend::{BlockDevice, Region, check_length};
use crate::types::{Failure, code};

/// Most extents of one file: a slot is one; a file spread over flash banks a few.
const EXTENTS_MAX: usize = 64;

/// What a plugin may still move and make durable in the call under way.
pub(super) struct Account {
    left: AtomicU64,
    max: u64,
    syncs: AtomicU32,
    syncs_max: u32,
    /// Of all calls before the one under way.
    books: Mutex<Books>,
    /// In the call under way, of what has moved.
    written: AtomicU64,
    /// In the call under way.
    synced: AtomicU32,
}

/// What a plugin has moved through lent storage.
#[derive(Clone, Copy, Default)]
pub(super) struct Books {
    pub(super) moved: Use,
    pub(super) written: Use,
    pub(super) syncs: Use,
}

impl Account {
    pub(super) fn new(max: u64, syncs_max: u32) -> Self {
        Self {
            left: AtomicU64::new(max),
            max,
            syncs: AtomicU32::new(syncs_max),
            syncs_max,
            books: Mutex::default(),
            written: AtomicU64::new(0),
            synced: AtomicU32::new(0),
        }
    }

    /// A call begins.
    pub(super) fn begin_call(&self) {
        let books = self.books();
        *self.lock() = books;
        self.left.store(self.max, Ordering::Relaxed);
        self.syncs.store(self.syncs_max, Ordering::Relaxed);
        self.written.store(0, Ordering::Relaxed);
        self.synced.store(0, Ordering::Relaxed);
    }

    /// What was moved so far, with the call under way.
    pub(super) fn books(&self) -> Books {
        let mut books = *self.lock();
        let left = self.left.load(Ordering::Relaxed);
        let synced = self.synced.load(Ordering::Relaxed);
        books.moved.add(self.max.saturating_sub(left));
        books.written.add(self.written.load(Ordering::Relaxed));
        books.syncs.add(synced.into());
        books.moved.limit = self.max;
        books.written.limit = self.max;
        books.syncs.limit = self.syncs_max.into();
        books
    }

    /// Another build begins.
    pub(super) fn close_books(&self) {
        self.begin_call();
        *self.lock() = Books::default();
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins in which the plugin has nothing to make durable.
    pub(super) fn no_syncs(&self) {
        self.syncs.store(0, Ordering::Relaxed);
    }

    fn spend_sync(&self) -> Result<(), Failure> {
        let left = self.syncs.load(Ordering::Relaxed);
        let rest = left.checked_sub(1).ok_or_else(|| {
            Failure::new(
                code::LIMIT,
                limit::PLUGIN_CALL_SYNCS,
                format!(
                    "a call may sync {} times, and not at all in write-block, where the host does",
                    self.syncs_max
                ),
            )
        })?;
        self.syncs.store(rest, Ordering::Relaxed);
        self.synced.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn spend(&self, bytes: u64) -> Result<(), Failure> {
        // One instance, one call at a time: no other thread spends meanwhile.
        let left = self.left.load(Ordering::Relaxed);
        let rest = left.checked_sub(bytes).ok_or_else(|| {
            Failure::new(
                code::LIMIT,
                limit::PLUGIN_CALL_BYTES,
                format!(
                    "a call may move {} bytes; {left} are left, {bytes} were asked for",
                    self.max
                ),
            )
        })?;
        self.left.store(rest, Ordering::Relaxed);
        Ok(())
    }
}

/// The regions of one target.
pub(super) struct Regions {
    regions: Vec<RegionConfig>,
    /// Their storage: what `regions` has of it is the same.
    fenced: Vec<Arc<Fenced>>,
    account: Arc<Account>,
    access: Mutex<Access>,
    /// How far each region's cache is what its medium has.
    caches: Mutex<Vec<Cache>>,
}

/// Whether what is read of a record outlasts a power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    /// It does.
    Durable,
    /// Not all of it: the instance that wrote it has not made it durable yet.
    Written,
    /// Nobody knows: a write or a sync has failed, or who wrote it is gone.
    Doubtful,
}

#[derive(Default)]
struct Access {
    /// No access at all: the plugin is in `open`, where another instance may still own the target.
    shut: bool,
    window: Vec<Extent>,
    record: bool,
    /// Why a write of the call under way was refused, the first one.
    refused: Option<String>,
}

impl Regions {
    pub(super) fn new(mut regions: Vec<RegionConfig>, account: Arc<Account>) -> Self {
        let caches = regions.iter().map(|region| {
            if region.kind == RegionKind::Record && !region.read_only {
                // An earlier process may have been killed before it could sync.
                Cache::Doubtful
            } else {
                Cache::Durable
            }
        });
        let caches = Mutex::new(caches.collect());
        let fence = |region: &mut RegionConfig| {
            let fenced = Fenced::new(Arc::clone(&region.storage));
            region.storage = Arc::clone(&fenced) as _;
            fenced
        };
        Self {
            caches,
            fenced: regions.iter_mut().map(fence).collect(),
            regions,
            account,
            access: Mutex::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// The instance is gone: its successor cannot know what it has written and not made durable.
    pub(super) fn change_hands(&self) {
        for storage in &self.fenced {
            storage.tear_down();
        }
        for cache in self.caches().iter_mut() {
            if *cache == Cache::Written {
                *cache = Cache::Doubtful;
            }
        }
    }

    /// Let records be read as their media have them, and make durable what can be.
    ///
    /// # Errors
    /// A medium that still refuses; its record cannot be believed.
    pub(super) fn settle(&self) -> Result<(), Failure> {
        let mut caches = self.caches();
        for (region, cache) in self.regions.iter().zip(caches.iter_mut()) {
            if *cache == Cache::Doubtful {
                // After a failed sync the cache may call written what the medium never got, so it is dropped as well.
                let settled = region.storage.sync().and_then(|()| region.storage.evict());
                settled.map_err(|e| {
                    Failure::storage(format_args!("make `{}` durable", region.name), &e)
                })?;
                *cache = Cache::Durable;
            }
        }
        Ok(())
    }

    /// A duty ends well: what the plugin has written of a record and not made durable, the host does before anybody is
    /// told. Otherwise a power cut could take back what the job service knows already.
    ///
    /// # Errors
    /// A write or a sync of a record has failed since the last [`settle`](Self::settle), or does now.
    pub(super) fn end_duty(&self) -> Result<(), Failure> {
        let mut caches = self.caches();
        for (region, cache) in self.regions.iter().zip(caches.iter_mut()) {
            let mut why = String::new();
            if *cache == Cache::Written {
                *cache = match region.storage.sync() {
                    Ok(()) => Cache::Durable,
                    Err(error) => {
                        why = format!(": {error}");
                        Cache::Doubtful
                    }
                };
            }
            if *cache == Cache::Doubtful {
                return Err(Failure::new(
                    code::STORAGE,
                    0,
                    format!(
                        "the plugin has ended its duty, but `{}` could not be written or made durable{why}",
                        region.name
                    ),
                ));
            }
        }
        Ok(())
    }

    fn caches(&self) -> MutexGuard<'_, Vec<Cache>> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a change of a region, or its sync, has come to.
    fn note(&self, region: u32, end: &io::Result<()>, good: Cache) {
        let index = region as usize;
        if self.regions[index].kind != RegionKind::Record {
            // Blocks are the host's to make durable.
            return;
        }
        let cache = &mut self.caches()[index];
        *cache = match (*cache, end) {
            (Cache::Doubtful, _) | (_, Err(_)) => Cache::Doubtful,
            (Cache::Durable | Cache::Written, Ok(())) => good,
        };
    }

    /// Whether all records read as their media have them.
    pub(super) fn are_durable(&self) -> bool {
        self.caches().iter().all(|cache| *cache == Cache::Durable)
    }

    /// They do: this process has seen to it, and nobody has written since.
    pub(super) fn go_on_durable(&self) {
        self.caches().fill(Cache::Durable);
    }

    /// No access until it is opened again.
    pub(super) fn shut(&self, shut: bool) {
        self.access().shut = shut;
    }

    /// A call begins.
    pub(super) fn begin_call(&self) {
        self.access().refused = None;
    }

    /// Why a write of the call that has ended was refused for its place or its time, if one was.
    pub(super) fn take_refused(&self) -> Option<String> {
        self.access().refused.take()
    }

    /// Let the extents be written, or nothing (empty).
    pub(super) fn set_window(&self, extents: Vec<Extent>) {
        self.access().window = extents;
    }

    /// Let records be written, or not.
    pub(super) fn set_record(&self, open: bool) {
        self.access().record = open;
    }

    /// Check extents that a plugin names for a file of `size` bytes.
    pub(super) fn check_extents(&self, extents: &[Extent], size: u64) -> Result<(), Failure> {
        let refuse = |reason: String| Err(Failure::new(code::PLUGIN_FAILED, 0, reason));
        if extents.is_empty() || extents.len() > EXTENTS_MAX {
            return refuse(format!(
                "plugin names {} extents, expected 1 to {EXTENTS_MAX}",
                extents.len()
            ));
        }
        let mut total: u64 = 0;
        for (n, extent) in extents.iter().enumerate() {
            let Some(region) = self.regions.get(extent.region as usize) else {
                return refuse(format!(
                    "plugin names region {}, which is not lent",
                    extent.region
                ));
            };
            if region.kind != RegionKind::Slot || region.read_only {
                return refuse(format!(
                    "plugin puts the file into `{}`, which is no writable slot",
                    region.name
                ));
            }
            let end = extent.offset.checked_add(extent.length);
            if extent.length == 0 || end.is_none_or(|end| end > region.storage.capacity()) {
                return refuse(format!(
                    "extent {n} ({} bytes at {} of `{}`) is not within its {} bytes",
                    extent.length,
                    extent.offset,
                    region.name,
                    region.storage.capacity()
                ));
            }
            if extents[..n].iter().any(|other| overlap(other, extent)) {
                return refuse(format!(
                    "extent {n} overlaps an earlier one in `{}`",
                    region.name
                ));
            }
            total = total.saturating_add(extent.length);
        }
        if total != size {
            return refuse(format!(
                "the plugin's extents have {total} bytes, the file has {size}"
            ));
        }
        Ok(())
    }

    /// Extents by region name, for the record.
    pub(super) fn to_stored(&self, extents: &[Extent]) -> Vec<StoredExtent> {
        extents
            .iter()
            .filter_map(|extent| {
                let region = self.regions.get(extent.region as usize)?;
                Some(StoredExtent {
                    region: region.name.clone(),
                    offset: extent.offset,
                    length: extent.length,
                })
            })
            .collect()
    }

    /// Extents of the record by region number; `None` if a region is no longer granted.
    pub(super) fn to_extents(&self, stored: &[StoredExtent]) -> Option<Vec<Extent>> {
        stored
            .iter()
            .map(|extent| {
                let region = self.regions.iter().position(|r| r.name == extent.region)?;
                Some(Extent {
                    region: u32::try_from(region).ok()?,
                    offset: extent.offset,
                    length: extent.length,
                })
            })
            .collect()
    }

    /// Where the bytes of these extents lie.
    pub(super) fn layout(&self, extents: &[Extent]) -> Layout {
        Layout(
            extents
                .iter()
                .filter_map(|extent| {
                    let region = self.regions.get(extent.region as usize)?;
                    let storage = self.fenced.get(extent.region as usize)?;
                    Some(Piece {
                        name: Arc::from(region.name.as_str()),
                        storage: Arc::clone(storage),
                        offset: extent.offset,
                        length: extent.length,
                    })
                })
                .collect(),
        )
    }

    fn access(&self) -> MutexGuard<'_, Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The region, if `offset..offset + length` is within it and the instance may touch anything at all.
    fn place(&self, region: u32, offset: u64, length: u64) -> Result<&RegionConfig, Failure> {
        if self.access().shut {
            return Err(Failure::new(
                code::BUSY,
                0,
                "storage is not lent in `open`: another instance may own it",
            ));
        }
        let config = self.regions.get(region as usize).ok_or_else(|| {
            Failure::new(
                code::BAD_ARGUMENT,
                0,
                format!("region {region} of {} does not exist", self.regions.len()),
            )
        })?;
        let size = config.storage.capacity();
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(Failure::new(
                code::BAD_ARGUMENT,
                0,
                format!(
                    "{length} bytes at {offset} are beyond the {size} bytes of `{}`",
                    config.name
                ),
            ));
        }
        Ok(config)
    }

    /// Whether the plugin may change these bytes now.
    fn check_write(&self, config: &RegionConfig, extent: Extent) -> Result<(), Failure> {
        let mut access = self.access();
        let (allowed, rule) = match config.kind {
            RegionKind::Slot => (
                access.window.iter().any(|w| contains(w, &extent)),
                "a slot is written only within the transfer's extents, from create to close",
            ),
            RegionKind::Record => (
                access.record,
                "a record is written only in activate and the reset, commit or reject after it",
            ),
        };
        let reason = if config.read_only {
            format!("`{}` is lent read-only", config.name)
        } else if !allowed {
            format!(
                "{} bytes at {} of `{}` may not be written now: {rule}",
                extent.length, extent.offset, config.name
            )
        } else {
            return Ok(());
        };
        access.refused.get_or_insert_with(|| reason.clone());
        Err(Failure::new(code::BUSY, 0, reason))
    }
}

impl BlockDevice for Regions {
    fn regions(&self) -> Vec<Region> {
        self.regions
            .iter()
            .map(|region| Region {
                name: region.name.clone(),
                kind: match region.kind {
                    RegionKind::Slot => 0,
                    RegionKind::Record => 1,
                },
                size: region.storage.capacity(),
                erase_size: region.erase_size,
                write_size: region.write_size,
                read_only: region.read_only,
            })
            .collect()
    }

    fn read_at(&self, region: u32, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        check_length(u64::from(length))?;
        let config = self.place(region, offset, u64::from(length))?;
        self.account.spend(u64::from(length))?;
        let mut buffer = vec![0; length as usize];
        config
            .storage
            .read_at(offset, &mut buffer)
            .map_err(|e| Failure::storage(format_args!("read `{}`", config.name), &e))?;
        Ok(buffer)
    }

    fn write_at(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Failure> {
        let length = data.len() as u64;
        check_length(length)?;
        let config = self.place(region, offset, length)?;
        check_alignment(config, "write", config.write_size, offset, length)?;
        let extent = Extent {
            region,
            offset,
            length,
        };
        self.check_write(config, extent)?;
        self.account.spend(length)?;
        self.account.written.fetch_add(length, Ordering::Relaxed);
        let end = config.storage.write_at(offset, data);
        self.note(region, &end, Cache::Written);
        end.map_err(|e| Failure::storage(format_args!("write `{}`", config.name), &e))
    }

    fn erase(&self, region: u32, offset: u64, length: u64) -> Result<(), Failure> {
        let config = self.place(region, offset, length)?;
        check_alignment(config, "erase", config.erase_size, offset, length)?;
        let extent = Extent {
            region,
            offset,
            length,
        };
        self.check_write(config, extent)?;
        self.account.spend(length)?;
        let end = config.storage.erase(offset, length);
        self.note(region, &end, Cache::Written);
        end.map_err(|e| Failure::storage(format_args!("erase `{}`", config.name), &e))
    }

    fn sync(&self, region: u32) -> Result<(), Failure> {
        let config = self.place(region, 0, 0)?;
        self.account.spend_sync()?;
        let end = config.storage.sync();
        self.note(region, &end, Cache::Durable);
        end.map_err(|e| Failure::storage(format_args!("sync `{}`", config.name), &e))
    }
}

fn check_alignment(
    config: &RegionConfig,
    what: &str,
    unit: u32,
    offset: u64,
    length: u64,
) -> Result<(), Failure> {
    let unit = u64::from(unit.max(1));
    if !offset.is_multiple_of(unit) || !length.is_multiple_of(unit) {
        return Err(Failure::new(
            code::BAD_ARGUMENT,
            0,
            format!(
                "{what} of {length} bytes at {offset} of `{}` is not in units of {unit}",
                config.name
            ),
        ));
    }
    Ok(())
}

fn overlap(a: &Extent, b: &Extent) -> bool {
    a.region == b.region
        && a.offset < b.offset.saturating_add(b.length)
        && b.offset < a.offset.saturating_add(a.length)
}

fn contains(outer: &Extent, inner: &Extent) -> bool {
    outer.region == inner.region
        && inner.offset >= outer.offset
        && inner.offset.saturating_add(inner.length) <= outer.offset.saturating_add(outer.length)
}
