//! Memory of simulations: what a run gives back is kept by its thread for the next thing of that size.
//!
//! A run asks for some ten thousand small pieces and has none of them for long; to ask the system's allocator for each is a
//! tenth of its time. A program that simulates makes [`Heap`] its global allocator. It is the system's, for each byte of it,
//! but within [`reuse`]: there a small piece that is freed lies on a shelf until its size is asked for again. Outside of
//! it nothing is kept, so that a daemon in the same program has not a byte more.

#![expect(unsafe_code, reason = "an allocator is about raw memory")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

/// Sizes that the system gives out: 24 bytes, and each 16 more. Whatever is small is asked for in one of them, shelves or not,
/// so that a piece can lie on the shelf of its size wherever it comes from.
const FIRST_BYTES: usize = 24;
const STEP_BYTES: usize = 16;

/// Shelves, up to pieces of 1032 bytes: 19 of 20 that a run asks for.
const SHELVES: usize = 64;

/// Alignment that the system gives to everything.
const ALIGN_MAX: usize = 16;

/// Pieces of one size that are kept: more than a run of many files has at once.
const KEPT_MAX: u32 = 16 * 1024;

/// See the module.
pub struct Heap;

/// Pieces of one size; each holds the address of the next one.
struct Shelf {
    first: Cell<*mut u8>,
    count: Cell<u32>,
}

thread_local! {
    static IS_REUSED: Cell<bool> = const { Cell::new(false) };
    static SHELF: [Shelf; SHELVES] = const {
        [const {
            Shelf {
                first: Cell::new(ptr::null_mut()),
                count: Cell::new(0),
            }
        }; SHELVES]
    };
}

/// Run something with what it frees kept for what it asks for. The thread keeps nothing of that afterwards.
pub fn reuse<R>(run: impl FnOnce() -> R) -> R {
    struct Scope(bool);
    impl Drop for Scope {
        fn drop(&mut self) {
            if !self.0 {
                IS_REUSED.set(false);
                clear();
            }
        }
    }
    let _scope = Scope(IS_REUSED.replace(true));
    run()
}

/// Give everything back that this thread keeps.
fn clear() {
    SHELF.with(|shelves| {
        for (number, shelf) in shelves.iter().enumerate() {
            while let Some(piece) = shelf.take() {
                // SAFETY: a piece on a shelf is nobody's, and was asked for with the size of the shelf.
                unsafe { System.dealloc(piece, layout(number)) };
            }
        }
    });
}

impl Shelf {
    fn take(&self) -> Option<*mut u8> {
        let piece = self.first.get();
        if piece.is_null() {
            return None;
        }
        // SAFETY: it was put here by `put`, and nobody else has it.
        self.first.set(unsafe { piece.cast::<*mut u8>().read() });
        self.count.set(self.count.get() - 1);
        Some(piece)
    }

    /// False if there are enough already.
    ///
    /// # Safety
    /// It is a piece of this shelf's size, and nobody's any more.
    unsafe fn put(&self, piece: *mut u8) -> bool {
        if self.count.get() == KEPT_MAX {
            return false;
        }
        // SAFETY: it is large enough for an address, and aligned for it.
        unsafe { piece.cast::<*mut u8>().write(self.first.get()) };
        self.first.set(piece);
        self.count.set(self.count.get() + 1);
        true
    }
}

/// The shelf of what is small.
fn shelf_of(layout: Layout) -> Option<usize> {
    let number = layout
        .size()
        .saturating_sub(FIRST_BYTES)
        .div_ceil(STEP_BYTES);
    (number < SHELVES && layout.align() <= ALIGN_MAX).then_some(number)
}

/// What the system is asked for, for a piece of a shelf.
fn layout(shelf: usize) -> Layout {
    // SAFETY: a power of two, and far below the largest size.
    unsafe { Layout::from_size_align_unchecked(FIRST_BYTES + STEP_BYTES * shelf, ALIGN_MAX) }
}

// SAFETY: each piece is one of the system's, of the size of its shelf, and on a shelf only while it is nobody's.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, asked: Layout) -> *mut u8 {
        let Some(shelf) = shelf_of(asked) else {
            // SAFETY: handed on as it came.
            return unsafe { System.alloc(asked) };
        };
        if IS_REUSED.get()
            && let Some(piece) = SHELF.with(|shelves| shelves[shelf].take())
        {
            return piece;
        }
        // SAFETY: it has a size.
        unsafe { System.alloc(layout(shelf)) }
    }

    unsafe fn alloc_zeroed(&self, asked: Layout) -> *mut u8 {
        if shelf_of(asked).is_none() {
            // SAFETY: handed on as it came. What is large may be zero already.
            return unsafe { System.alloc_zeroed(asked) };
        }
        // SAFETY: as large as it was asked for.
        unsafe {
            let piece = self.alloc(asked);
            if !piece.is_null() {
                piece.write_bytes(0, asked.size());
            }
            piece
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, asked: Layout) {
        let Some(shelf) = shelf_of(asked) else {
            // SAFETY: handed on as it came.
            return unsafe { System.dealloc(piece, asked) };
        };
        // SAFETY: whoever frees it does not use it any more, and it came from this shelf's size.
        if IS_REUSED.get() && SHELF.with(|shelves| unsafe { shelves[shelf].put(piece) }) {
            return;
        }
        // SAFETY: as it was asked for.
        unsafe { System.dealloc(piece, layout(shelf)) }
    }

    unsafe fn realloc(&self, piece: *mut u8, asked: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller has checked the size.
        let wanted = unsafe { Layout::from_size_align_unchecked(bytes, asked.align()) };
        match (shelf_of(asked), shelf_of(wanted)) {
            (Some(before), Some(after)) if before == after => piece,
            // SAFETY: handed on as it came.
            (None, None) => unsafe { System.realloc(piece, asked, bytes) },
            // SAFETY: both pieces are as large as what is copied, and not the same.
            _ => unsafe {
                let moved = self.alloc(wanted);
                if !moved.is_null() {
                    ptr::copy_nonoverlapping(piece, moved, asked.size().min(bytes));
                    self.dealloc(piece, asked);
                }
                moved
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn of(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 8).unwrap()
    }

    fn kept() -> u32 {
        SHELF.with(|shelves| shelves.iter().map(|shelf| shelf.count.get()).sum())
    }

    #[test]
    fn what_is_freed_is_given_out_again_within_reuse_and_nothing_is_kept_outside_of_it() {
        let again = || {
            // SAFETY: freed as it was asked for.
            unsafe {
                let first = Heap.alloc(of(90));
                Heap.dealloc(first, of(90));
                let kept = kept();
                // Of the same shelf.
                let second = Heap.alloc(of(100));
                Heap.dealloc(second, of(100));
                (kept, first == second)
            }
        };
        assert_eq!(again().0, 0);
        reuse(|| {
            assert_eq!(again(), (1, true));
            // One within the other is the same.
            assert_eq!(reuse(again), (1, true));
            assert_eq!(kept(), 1);
        });
        assert_eq!((kept(), again().0), (0, 0));
    }

    #[test]
    fn no_more_is_kept_than_a_shelf_holds() {
        // SAFETY: freed as they were asked for.
        let pieces: Vec<_> = (0..KEPT_MAX + 2)
            .map(|_| unsafe { Heap.alloc(of(8)) })
            .collect();
        reuse(|| {
            for piece in pieces {
                // SAFETY: as above.
                unsafe { Heap.dealloc(piece, of(8)) };
            }
            assert_eq!(kept(), KEPT_MAX);
        });
        assert_eq!(kept(), 0);
    }

    /// Pieces that are made, changed in size and freed at random, each full of a number of its own.
    struct Pieces {
        random: Random,
        held: Vec<(*mut u8, usize, u8)>,
    }

    impl Pieces {
        fn size(&mut self) -> usize {
            // Mostly small ones, and some on both sides of what a shelf takes.
            let most = [40, 300, 1200, 20_000][self.random.below_len(4)];
            1 + self.random.below_len(most)
        }

        fn step(&mut self, number: u8) {
            let size = self.size();
            // SAFETY: pieces are used within the size that they were asked for with, and freed with it.
            unsafe {
                if self.held.len() < 50 || self.random.below(2) == 0 {
                    let zeroed = self.random.below(4) == 0;
                    let piece = match zeroed {
                        true => Heap.alloc_zeroed(of(size)),
                        false => Heap.alloc(of(size)),
                    };
                    if zeroed {
                        assert!((0..size).all(|at| piece.add(at).read() == 0));
                    }
                    piece.write_bytes(number, size);
                    self.held.push((piece, size, number));
                    return;
                }
                let at = self.random.below_len(self.held.len());
                let (piece, old, mark) = self.held.swap_remove(at);
                assert_eq!(piece.align_offset(ALIGN_MAX), 0);
                assert!((0..old).all(|at| piece.add(at).read() == mark));
                if self.random.below(3) > 0 {
                    return Heap.dealloc(piece, of(old));
                }
                let piece = Heap.realloc(piece, of(old), size);
                assert!((0..old.min(size)).all(|at| piece.add(at).read() == mark));
                piece.write_bytes(number, size);
                self.held.push((piece, size, number));
            }
        }
    }

    #[test]
    fn pieces_keep_their_bytes_wherever_they_were_made_and_are_freed() {
        let mut pieces = Pieces {
            random: Random::new(1),
            held: Vec::new(),
        };
        for round in 0..40_u8 {
            let steps = |pieces: &mut Pieces| (0..200).for_each(|_| pieces.step(round));
            match round % 2 {
                0 => steps(&mut pieces),
                _ => reuse(|| steps(&mut pieces)),
            }
        }
        for (piece, size, _) in pieces.held {
            // SAFETY: as it was asked for.
            unsafe { Heap.dealloc(piece, of(size)) };
        }
    }
}
