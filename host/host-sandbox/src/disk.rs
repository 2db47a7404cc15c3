//! A medium with a page cache above it: files and regions, of which a power cut loses what was not synced.
//!
//! ```text
//!   write, truncate ──▶ cache (what reads see)        link, rename, unlink ──▶ names (what opens see)
//!                        └─▶ pending changes                                    └─▶ pending entries
//!   sync ────────────── pending ──▶ durable           sync-directory ──────── pending ──▶ durable names
//! ```
//!
//! A power cut draws, for each pending change by itself, whether it reached the medium, did not, or did so in some of its
//! sectors; so the order of changes between two syncs means nothing. Entries of a directory reach it in any selection,
//! but in their order. A file whose data is lost may keep its new length, and reads as zeros there. Not here: who calls,
//! and when the power goes (`ground.rs`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::random::Random;

/// What a medium writes at once.
const SECTOR_BYTES: usize = 512;

/// A file or region.
pub(crate) type NodeId = usize;

/// See the module. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    nodes: Vec<Node>,
    names: BTreeMap<String, NodeId>,
    durable_names: BTreeMap<String, NodeId>,
    entries: Vec<Entry>,
}

#[derive(Default)]
struct Node {
    cache: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Bytes of the pending writes.
    written: Vec<u8>,
}

enum Change {
    /// So many bytes, which begin at `from` among those that were written.
    Write {
        at: usize,
        from: usize,
        length: usize,
    },
    Resize(usize),
}

#[derive(Clone)]
enum Entry {
    Link {
        name: String,
        node: NodeId,
    },
    Unlink {
        name: String,
    },
    Rename {
        from: String,
        to: String,
        node: NodeId,
    },
}

impl Entry {
    /// The directory that it changes: there are no renames between two.
    fn directory(&self) -> &str {
        match self {
            Self::Link { name, .. } | Self::Unlink { name } => directory(name),
            Self::Rename { to, .. } => directory(to),
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, NodeId>) {
        match self {
            Self::Link { name, node } => {
                names.insert(name.clone(), *node);
            }
            Self::Unlink { name } => {
                names.remove(name);
            }
            Self::Rename { from, to, node } => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

fn directory(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}

impl Node {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        overlay(&mut self.cache, at, bytes);
        let (from, length) = (self.written.len(), bytes.len());
        self.written.extend_from_slice(bytes);
        self.pending.push(Change::Write { at, from, length });
    }

    fn resize(&mut self, length: usize) {
        self.cache.resize(length, 0);
        self.pending.push(Change::Resize(length));
    }

    fn sync(&mut self) {
        self.sync_some(self.pending.len());
    }

    /// So many of the pending changes are durable, the first ones.
    fn sync_some(&mut self, some: usize) {
        for change in self.pending.drain(..some) {
            change.apply(&self.written, &mut self.durable);
        }
        if self.pending.is_empty() {
            self.written.clear();
        }
    }

    /// The power is gone: what did not reach the medium? Returns how many changes were lost, in whole or in part.
    fn cut(&mut self, random: &mut Random) -> usize {
        if self.pending.is_empty() {
            return 0;
        }
        let mut lost = 0;
        let written = std::mem::take(&mut self.written);
        for change in self.pending.drain(..) {
            lost += usize::from(!change.survive(&written, &mut self.durable, random));
        }
        self.cache.clone_from(&self.durable);
        lost
    }
}

impl Change {
    fn apply(&self, written: &[u8], bytes: &mut Vec<u8>) {
        match *self {
            Self::Write { at, from, length } => overlay(bytes, at, &written[from..from + length]),
            Self::Resize(length) => bytes.resize(length, 0),
        }
    }

    /// Let all, some or nothing of it reach the medium; false if it was not all.
    fn survive(&self, written: &[u8], durable: &mut Vec<u8>, random: &mut Random) -> bool {
        match (random.below(4), self) {
            (0 | 1, change) => {
                change.apply(written, durable);
                true
            }
            (2, &Self::Write { at, from, length }) => {
                write_sectors(durable, at, &written[from..from + length], random);
                false
            }
            (_, &Self::Write { at, length, .. }) => {
                // The new length may be there without the bytes.
                if random.below(2) == 0 && durable.len() < at + length {
                    durable.resize(at + length, 0);
                }
                false
            }
            (_, Self::Resize(_)) => false,
        }
    }
}

/// Some sectors of a write.
fn write_sectors(bytes: &mut Vec<u8>, at: usize, new: &[u8], random: &mut Random) {
    let mut start = 0;
    while start < new.len() {
        // Sectors are the medium's, not the write's.
        let end = (SECTOR_BYTES - (at + start) % SECTOR_BYTES + start).min(new.len());
        if random.below(2) == 0 {
            overlay(bytes, at + start, &new[start..end]);
        }
        start = end;
    }
}

/// Put `new` into `bytes` at `at`; a gap before it is a hole.
fn overlay(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    if bytes.len() < at {
        bytes.resize(at, 0);
    }
    let (over, beyond) = new.split_at(new.len().min(bytes.len() - at));
    bytes[at..at + over.len()].copy_from_slice(over);
    bytes.extend_from_slice(beyond);
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A region: a file without a name.
    pub(crate) fn region(&self) -> NodeId {
        self.lock().add()
    }

    /// Lay bytes down, durable: before a run begins.
    pub(crate) fn fill(&self, node: NodeId, bytes: &[u8]) {
        let mut inner = self.lock();
        let node = &mut inner.nodes[node];
        node.cache = bytes.to_vec();
        node.durable = bytes.to_vec();
        node.pending.clear();
        node.written.clear();
    }

    /// Fill `buffer` from `at`; `blank` stands beyond the end.
    pub(crate) fn read(&self, node: NodeId, at: usize, buffer: &mut [u8], blank: u8) {
        let inner = self.lock();
        let bytes = &inner.nodes[node].cache;
        let start = at.min(bytes.len());
        let there = &bytes[start
            ..(at.saturating_add(buffer.len()))
                .min(bytes.len())
                .max(start)];
        let (front, back) = buffer.split_at_mut(there.len());
        front.copy_from_slice(there);
        back.fill(blank);
    }

    /// Look at what reads see.
    pub(crate) fn with<R>(&self, node: NodeId, look: impl FnOnce(&[u8]) -> R) -> R {
        look(&self.lock().nodes[node].cache)
    }

    pub(crate) fn length(&self, node: NodeId) -> usize {
        self.lock().nodes[node].cache.len()
    }

    pub(crate) fn write(&self, node: NodeId, at: usize, bytes: &[u8]) {
        self.lock().nodes[node].write(at, bytes);
    }

    /// The process was killed in the middle of a write: a beginning of it is in the cache.
    pub(crate) fn write_part(&self, node: NodeId, at: usize, bytes: &[u8], random: &mut Random) {
        let length = random.below_len(bytes.len() + 1);
        self.lock().nodes[node].write(at, &bytes[..length]);
    }

    pub(crate) fn resize(&self, node: NodeId, length: usize) {
        self.lock().nodes[node].resize(length);
    }

    pub(crate) fn sync(&self, node: NodeId) {
        self.lock().nodes[node].sync();
    }

    /// The power went in the middle of a sync: some pending changes are durable, the rest is still pending.
    pub(crate) fn sync_part(&self, node: NodeId, random: &mut Random) {
        let mut inner = self.lock();
        let node = &mut inner.nodes[node];
        // Later changes must not come to lie under earlier ones, so a beginning is synced.
        let some = random.below_len(node.pending.len() + 1);
        node.sync_some(some);
    }

    pub(crate) fn open(&self, name: &str) -> Option<NodeId> {
        self.lock().names.get(name).copied()
    }

    /// Open a file, creating it if need be; true = created.
    pub(crate) fn create(&self, name: &str) -> (NodeId, bool) {
        let mut inner = self.lock();
        if let Some(node) = inner.names.get(name) {
            return (*node, false);
        }
        let node = inner.add();
        inner.enter(Entry::Link {
            name: name.to_owned(),
            node,
        });
        (node, true)
    }

    /// False if there is no such file.
    pub(crate) fn rename(&self, from: &str, to: &str) -> bool {
        let mut inner = self.lock();
        let Some(node) = inner.names.get(from).copied() else {
            return false;
        };
        inner.enter(Entry::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
            node,
        });
        true
    }

    /// False if there is no such file.
    pub(crate) fn remove(&self, name: &str) -> bool {
        let mut inner = self.lock();
        let there = inner.names.contains_key(name);
        if there {
            inner.enter(Entry::Unlink {
                name: name.to_owned(),
            });
        }
        there
    }

    /// Make the names in the directory of a file durable.
    pub(crate) fn sync_directory(&self, of: &str) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let directory = directory(of);
        inner.entries.retain(|entry| {
            let here = entry.directory() == directory;
            if here {
                entry.apply(&mut inner.durable_names);
            }
            !here
        });
    }

    pub(crate) fn list(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    /// The power is gone; returns how many changes were lost, in whole or in part.
    pub(crate) fn cut(&self, random: &mut Random) -> usize {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let mut lost: usize = inner.nodes.iter_mut().map(|node| node.cut(random)).sum();
        for entry in inner.entries.drain(..) {
            if random.below(2) == 0 {
                entry.apply(&mut inner.durable_names);
            } else {
                lost += 1;
            }
        }
        inner.names.clone_from(&inner.durable_names);
        lost
    }
}

impl Inner {
    fn add(&mut self) -> NodeId {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }

    fn enter(&mut self, entry: Entry) {
        entry.apply(&mut self.names);
        self.entries.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(disk: &Disk, name: &str) -> Option<Vec<u8>> {
        disk.open(name).map(|node| disk.with(node, <[u8]>::to_vec))
    }

    #[test]
    fn what_was_synced_survives_every_cut() {
        for seed in 0..200 {
            let disk = Disk::default();
            let (node, _) = disk.create("d/a");
            disk.write(node, 0, b"synced");
            disk.sync(node);
            disk.sync_directory("d/a");
            disk.write(node, 0, b"S");
            disk.cut(&mut Random::new(seed));
            let found = contents(&disk, "d/a").unwrap();
            assert!(found == b"synced" || found == b"Synced", "{found:?}");
        }
    }

    #[test]
    fn what_was_not_synced_is_lost_by_some_cuts_kept_by_others_and_torn_by_others() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let disk = Disk::default();
            let node = disk.region();
            disk.write(node, 0, &[1; 1024]);
            disk.cut(&mut Random::new(seed));
            seen.insert(disk.with(node, |bytes| {
                let of = |at: usize| bytes.get(at).copied();
                (of(0), of(600), bytes.len())
            }));
        }
        let wanted = [
            (None, None, 0),
            (Some(0), Some(0), 1024),
            (Some(0), Some(1), 1024),
            (Some(1), None, 512),
            (Some(1), Some(1), 1024),
        ];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_rename_before_the_directory_is_synced_may_be_lost_and_a_synced_one_may_not() {
        let outcomes = |sync: bool| -> std::collections::BTreeSet<_> {
            (0..100)
                .map(|seed| {
                    let disk = Disk::default();
                    for (name, bytes) in [("d/a", b"old"), ("d/a.new", b"new")] {
                        let (node, _) = disk.create(name);
                        disk.write(node, 0, bytes);
                        disk.sync(node);
                        disk.sync_directory(name);
                    }
                    assert!(disk.rename("d/a.new", "d/a"));
                    if sync {
                        disk.sync_directory("d/a");
                    }
                    disk.cut(&mut Random::new(seed));
                    contents(&disk, "d/a").unwrap()
                })
                .collect()
        };
        assert_eq!(outcomes(true), [b"new".to_vec()].into());
        assert_eq!(outcomes(false), [b"new".to_vec(), b"old".to_vec()].into());
    }

    #[test]
    fn a_file_of_another_directory_is_not_made_durable_with_this_one() {
        let found: std::collections::BTreeSet<_> = (0..100)
            .map(|seed| {
                let disk = Disk::default();
                disk.create("d/a");
                disk.create("e/b");
                disk.sync_directory("d/a");
                disk.cut(&mut Random::new(seed));
                (disk.open("d/a").is_some(), disk.open("e/b").is_some())
            })
            .collect();
        assert_eq!(found, [(true, false), (true, true)].into());
    }
}
