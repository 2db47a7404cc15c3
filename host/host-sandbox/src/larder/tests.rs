//! Asks the allocator itself, which is not that of this test program: each piece is written full and looked at again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

/// Steps of the long test; Miri, which watches each of them, takes some ten a second.
const STEPS: u64 = if cfg!(miri) { 300 } else { 60_000 };

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// Pieces on the shelves of this thread, if they are there.
fn kept() -> Option<u32> {
    let of = |shelf: &Shelf| shelf.count.get();
    Shelves::here(|shelves| shelves.0.as_flattened().iter().map(of).sum())
}

/// Draws below so many.
struct Lot(u64);

impl Lot {
    fn below(&mut self, many: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % many
    }
}

/// A piece that somebody has, full of one byte.
struct Had {
    at: *mut u8,
    layout: Layout,
    byte: u8,
}

// SAFETY: it is a piece of memory, and the only one who knows of it.
unsafe impl Send for Had {}

impl Had {
    fn new(size: usize, align: usize, byte: u8) -> Self {
        let layout = layout(size, align);
        // SAFETY: no size is zero.
        let at = unsafe { Larder.alloc(layout) };
        Self { at, layout, byte }.fill()
    }

    fn zeroed(size: usize, align: usize, byte: u8) -> Self {
        let layout = layout(size, align);
        // SAFETY: no size is zero.
        let at = unsafe { Larder.alloc_zeroed(layout) };
        let had = Self {
            at,
            layout,
            byte: 0,
        };
        had.check(size);
        Self { byte, ..had }.fill()
    }

    fn fill(self) -> Self {
        assert!(!self.at.is_null() && self.at.addr().is_multiple_of(self.layout.align()));
        // SAFETY: it is of this size.
        unsafe { self.at.write_bytes(self.byte, self.layout.size()) };
        self
    }

    fn check(&self, size: usize) {
        // SAFETY: it is of this size at least, and was written.
        let bytes = unsafe { std::slice::from_raw_parts(self.at, size) };
        assert!(bytes.iter().all(|byte| *byte == self.byte));
    }

    fn resize(self, size: usize) -> Self {
        // SAFETY: it is from there with this layout.
        let at = unsafe { Larder.realloc(self.at, self.layout, size) };
        let layout = layout(size, self.layout.align());
        let kept = size.min(self.layout.size());
        let now = Self { at, layout, ..self };
        now.check(kept);
        now.fill()
    }

    fn free(self) {
        self.check(self.layout.size());
        // SAFETY: it is from there with this layout.
        unsafe { Larder.dealloc(self.at, self.layout) };
    }
}

#[test]
fn what_was_freed_is_taken_again_while_it_is_open_and_for_its_own_layout_only() {
    open(|| {
        let first = Had::new(40, 8, 1);
        let at = first.at.addr();
        first.free();
        assert_eq!(kept(), Some(1));
        let others = [(39, 8), (41, 8), (40, 4), (40, 1), (48, 8)];
        let others = others.map(|(size, align)| Had::new(size, align, 2));
        assert!(others.iter().all(|other| other.at.addr() != at));
        let same = Had::zeroed(40, 8, 3);
        assert_eq!((same.at.addr(), kept()), (at, Some(0)));
        same.free();
        others.into_iter().for_each(Had::free);
    });
}

#[test]
fn what_is_too_small_too_large_or_of_a_rare_alignment_is_never_kept() {
    open(|| {
        for (size, align) in [
            (1, 1),
            (7, 1),
            (4, 4),
            (PIECE_MAX_BYTES + 1, 8),
            (5000, 1),
            (64, 16),
            (64, 4096),
        ] {
            Had::new(size, align, 1).free();
            assert_eq!(kept(), Some(0));
        }
        for (size, align) in [(8, 1), (8, 8), (PIECE_MAX_BYTES, 2)] {
            Had::new(size, align, 1).free();
        }
        assert_eq!(kept(), Some(3));
    });
}

#[test]
fn what_grows_leaves_its_shelf_as_it_found_it() {
    open(|| {
        for _ in 0..3 {
            Had::new(16, 8, 1).resize(40).resize(2000).resize(24).free();
            assert_eq!(kept(), Some(3));
        }
    });
}

#[test]
fn an_inner_opening_does_not_close_the_outer_one() {
    open(|| {
        open(|| Had::new(32, 8, 1).free());
        assert_eq!(kept(), Some(1));
    });
    assert_eq!(kept(), None);
}

#[test]
fn it_is_closed_when_the_work_is_done_or_panics() {
    let had = open(|| Had::new(32, 8, 1));
    assert!(!is_open());
    had.free();
    let panics = AssertUnwindSafe(|| {
        open(|| {
            Had::new(32, 8, 1).free();
            panic!("as it is meant to");
        });
    });
    assert!(catch_unwind(panics).is_err());
    assert!(!is_open());
}

#[test]
fn no_more_is_kept_of_a_layout_than_its_shelf_takes() {
    open(|| {
        for layouts in 1..=2 {
            let count = PIECES_MAX + 3;
            let all: Vec<_> = (0..count).map(|_| Had::new(40, 8 / layouts, 1)).collect();
            all.into_iter().for_each(Had::free);
            assert_eq!(kept(), Some(PIECES_MAX * layouts as u32));
        }
    });
}

#[test]
fn a_piece_may_be_freed_by_any_thread_open_or_closed() {
    let make = || (0..40).map(|n| Had::new(8 + 8 * (n % 4), 8, n as u8));
    let all: Vec<Had> = open(|| make().collect());
    let free = |all: Vec<Had>| all.into_iter().for_each(Had::free);
    std::thread::spawn(move || open(|| free(all)))
        .join()
        .unwrap();
    let all: Vec<Had> = make().collect();
    std::thread::spawn(move || free(all)).join().unwrap();
}

#[test]
fn pieces_never_overlap_whatever_is_taken_resized_and_freed_open_or_closed() {
    let mut lot = Lot(1);
    let mut all: BTreeMap<u64, Had> = BTreeMap::new();
    let mut step = 0;
    while step < STEPS {
        let until = step + lot.below(400) as u64;
        let mut go_on = || {
            while step < until {
                step += 1;
                one_step(step, &mut lot, &mut all);
            }
        };
        match until % 2 {
            0 => open(go_on),
            _ => go_on(),
        }
    }
    all.into_values().for_each(Had::free);
}

fn one_step(step: u64, lot: &mut Lot, all: &mut BTreeMap<u64, Had>) {
    // Mostly small ones, some beyond the shelves.
    let most = [40, 300, if cfg!(miri) { 40 } else { 3000 }][lot.below(3)];
    let size = 1 + lot.below(most);
    let from = lot.below(step as usize) as u64;
    let chosen = all.range(from..).next().map(|(key, _)| *key);
    let had = chosen.and_then(|chosen| all.remove(&chosen));
    let align = [1, 2, 8, 16][lot.below(4)];
    let byte = step as u8;
    let now = match (lot.below(5), had) {
        (0 | 1, Some(had)) => {
            had.free();
            return;
        }
        (2, Some(had)) => had.resize(size),
        (kind, had) => {
            if let Some((key, had)) = chosen.zip(had) {
                all.insert(key, had);
            }
            match kind {
                3 => Had::zeroed(size, align, byte),
                _ => Had::new(size, align, byte),
            }
        }
    };
    all.insert(step, now);
}
