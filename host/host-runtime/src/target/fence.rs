//! Lent storage with a fence: who changes a byte behind it, by whatever way, has torn it down.
//!
//! ```text
//! raise(P) ─▶ sync ─▶ read 0..P ─▶ … more blocks, more syncs … ─▶ lock ─▶ does it still stand?
//!          └─ a write or an erase below P, a sync that failed, another instance: torn, for good ─┘
//! ```
//!
//! All storage that a target writes to is [`Fenced`], in lent regions and in the staged file, and nothing else of the target
//! has it: there is no way past the fence, and nobody need remember it. Not here: who reads what is behind it (`early.rs`).

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::layout::Layout;
use super::write::WRITE_MAX_BYTES;
use crate::ports::storage::Storage;

/// Both ends of a fenced range are on this grid: no page of any cache lies on both sides, and no folio, which Linux makes as
/// large as a write at most and puts on a multiple of its size. So what is behind the fence is not made dirty again by what
/// is written before it, and can be evicted without it.
pub(super) const GRID_BYTES: u64 = WRITE_MAX_BYTES as u64;

/// A fence round the first bytes of a file. Told apart from every other fence by where it lies in memory.
#[derive(Debug, Default)]
pub(super) struct Fence {
    mark: Arc<()>,
    upto: u64,
}

impl Fence {
    /// Bytes of the file that it encloses.
    pub(super) fn upto(&self) -> u64 {
        self.upto
    }

    /// Let it enclose the first `upto` bytes of the file, at least as many as before. `false`: it was torn down, or they cannot
    /// be fenced in.
    pub(super) fn raise(&mut self, layout: &Layout, upto: u64) -> bool {
        let first = self.upto == 0;
        self.upto = self.upto.max(upto);
        let ranges = layout.below(self.upto);
        ranges
            .into_iter()
            .all(|(storage, ranges)| storage.raise(&self.mark, ranges, first))
    }

    /// Whether it stands round the first `upto` bytes of the file, where that lies now.
    pub(super) fn stands(&self, layout: &Layout, upto: u64) -> bool {
        let ranges = layout.below(upto);
        upto <= self.upto
            && ranges
                .iter()
                .all(|(storage, ranges)| storage.stands(&self.mark, ranges))
    }
}

/// Storage whose changes are seen.
pub(super) struct Fenced {
    storage: Arc<dyn Storage>,
    watch: Mutex<Watch>,
}

#[derive(Default)]
struct Watch {
    fence: Option<(Arc<()>, Vec<Range<u64>>)>,
    /// What was written by this process ends here at the least. Beyond the end of what was ever written a storage reads as
    /// 0xff, and that changes once something is written further on.
    end: u64,
}

impl Fenced {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self {
            storage,
            watch: Mutex::default(),
        })
    }

    /// Whatever was fenced in may be another.
    pub(super) fn tear_down(&self) {
        self.watch().fence = None;
    }

    fn raise(&self, mark: &Arc<()>, ranges: Vec<Range<u64>>, first: bool) -> bool {
        let mut watch = self.watch();
        let stands = first || watch.carries(mark);
        let even = |range: &Range<u64>| {
            range.end <= watch.end
                && range.start.is_multiple_of(GRID_BYTES)
                && range.end.is_multiple_of(GRID_BYTES)
        };
        let raised = stands && ranges.iter().all(even);
        watch.fence = raised.then(|| (Arc::clone(mark), ranges));
        raised
    }

    fn stands(&self, mark: &Arc<()>, wanted: &[Range<u64>]) -> bool {
        let watch = self.watch();
        let encloses = |wanted: &Range<u64>| {
            let ranges = watch.fence.iter().flat_map(|(_, ranges)| ranges);
            ranges
                .into_iter()
                .any(|range| range.start <= wanted.start && wanted.end <= range.end)
        };
        watch.carries(mark) && wanted.iter().all(encloses)
    }

    /// These bytes are about to change. The watch is kept meanwhile: a fence is raised before a change or after it, not in its
    /// middle.
    fn before_change(&self, changed: Range<u64>) -> MutexGuard<'_, Watch> {
        let mut watch = self.watch();
        let hit = |range: &Range<u64>| range.start < changed.end && changed.start < range.end;
        if matches!(&watch.fence, Some((_, ranges)) if ranges.iter().any(hit)) {
            watch.fence = None;
        }
        watch
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    fn carries(&self, mark: &Arc<()>) -> bool {
        matches!(&self.fence, Some((carried, _)) if Arc::ptr_eq(carried, mark))
    }
}

impl Storage for Fenced {
    fn capacity(&self) -> u64 {
        self.storage.capacity()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.storage.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let stop = offset.saturating_add(data.len() as u64);
        let mut watch = self.before_change(offset..stop);
        self.storage.write_at(offset, data)?;
        if !data.is_empty() {
            watch.end = watch.end.max(stop);
        }
        Ok(())
    }

    fn erase(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut watch = self.before_change(offset..offset.saturating_add(length));
        // Also if it fails: perhaps a part of it was done.
        watch.end = watch.end.min(offset);
        self.storage.erase(offset, length)
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        self.storage.reserve(offset, length)
    }

    fn sync(&self) -> io::Result<()> {
        // Not watched while it takes its time: blocks go on arriving.
        self.storage.sync().inspect_err(|_| self.tear_down())
    }

    fn evict(&self) -> io::Result<()> {
        self.storage.evict()
    }

    fn evict_range(&self, offset: u64, length: u64) -> io::Result<()> {
        self.storage.evict_range(offset, length)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::Piece;
    use super::*;
    use crate::ports::storage::FileStorage;

    const G: u64 = GRID_BYTES;

    /// Two regions, and a file that lies in them: first half of the first, all of the second, second half of the first.
    struct Bed {
        _directory: tempfile::TempDir,
        regions: [Arc<Fenced>; 2],
        layout: Layout,
    }

    impl Bed {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let region = |name: &str| {
                let storage = FileStorage::open(&directory.path().join(name), 4 * G, false);
                let region = Fenced::new(Arc::new(storage.unwrap()));
                region.write_at(0, &vec![7; 4 * G as usize]).unwrap();
                region
            };
            let regions = [region("a"), region("b")];
            let piece = |region: usize, offset, length| Piece {
                name: Arc::from("slot"),
                storage: Arc::clone(&regions[region]),
                offset,
                length,
            };
            let layout = Layout(vec![
                piece(0, 0, 2 * G),
                piece(1, 0, 4 * G),
                piece(0, 2 * G, 2 * G),
            ]);
            Self {
                _directory: directory,
                regions,
                layout,
            }
        }
    }

    type Change = fn(&[Arc<Fenced>; 2]) -> io::Result<()>;

    #[test]
    fn a_fence_stands_until_something_behind_it_may_have_changed() {
        let rows: [(&str, bool, Change); 12] = [
            ("nothing", true, |_| Ok(())),
            ("a write before it", true, |r| r[1].write_at(G, b"x")),
            ("an erase before it", true, |r| r[0].erase(2 * G, 2 * G)),
            ("a write of nothing", true, |r| r[0].write_at(0, b"")),
            ("reads and syncs", true, |r| {
                r[0].read_at(0, &mut [0; 9])?;
                r[0].evict_range(0, G)?;
                r[0].evict()?;
                r[0].sync()
            }),
            ("its first byte", false, |r| r[0].write_at(0, b"x")),
            ("its last byte", false, |r| r[1].write_at(G - 1, b"x")),
            ("a write across it", false, |r| r[1].write_at(G - 1, b"xyz")),
            ("a refused write", false, |r| {
                r[0].write_at(0, &vec![0; 5 * G as usize]).unwrap_err();
                Ok(())
            }),
            ("one erased byte", false, |r| r[0].erase(2 * G - 1, 1)),
            ("an erase of all", false, |r| r[1].erase(0, 4 * G)),
            ("another instance", false, |r| {
                r[1].tear_down();
                Ok(())
            }),
        ];
        for (what, stands, change) in rows {
            let bed = Bed::new();
            let mut fence = Fence::default();
            assert!(fence.raise(&bed.layout, G));
            assert!(fence.raise(&bed.layout, 3 * G));
            change(&bed.regions).unwrap();
            assert_eq!(fence.stands(&bed.layout, 3 * G), stands, "{what}");
            assert!(!fence.stands(&bed.layout, 4 * G), "it is not that far");
            // Raising it further does not mend it.
            assert_eq!(fence.raise(&bed.layout, 4 * G), stands, "{what}");
            assert_eq!(fence.stands(&bed.layout, 4 * G), stands, "{what}");
        }
    }

    #[test]
    fn another_fence_takes_the_place_of_the_one_before() {
        let bed = Bed::new();
        let (mut old, mut new) = (Fence::default(), Fence::default());
        assert!(old.raise(&bed.layout, 2 * G));
        assert!(new.raise(&bed.layout, G));
        assert!(new.stands(&bed.layout, G));
        assert!(!old.stands(&bed.layout, G));
        assert!(!old.raise(&bed.layout, 3 * G));
        // The same bytes in other storage are not the ones that were fenced in.
        assert!(!new.stands(&Bed::new().layout, G));
    }

    #[test]
    fn only_whole_pages_that_were_written_can_be_fenced_in() {
        let bed = Bed::new();
        let odd = |offset, length| {
            let storage = Arc::clone(&bed.regions[0]);
            Layout(vec![Piece {
                name: Arc::from("slot"),
                storage,
                offset,
                length,
            }])
        };
        for (layout, upto, expected) in [
            (odd(0, G), G, true),
            (odd(0, G), G - 1, false),
            (odd(1, G), G, false),
            (odd(3 * G, G), G, true),
        ] {
            assert_eq!(Fence::default().raise(&layout, upto), expected);
        }
        bed.regions[0].erase(2 * G, 2 * G).unwrap();
        assert!(!Fence::default().raise(&odd(0, 3 * G), 3 * G));
        assert!(Fence::default().raise(&odd(0, 2 * G), 2 * G));
        // A write of nothing writes nothing.
        bed.regions[0].write_at(3 * G, b"").unwrap();
        assert!(!Fence::default().raise(&odd(0, 3 * G), 3 * G));
    }
}
