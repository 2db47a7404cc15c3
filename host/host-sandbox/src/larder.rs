//! The allocator of a program that makes runs: what a run has freed is kept for the next one.
//!
//! A run asks for some thousand small pieces, and all of them are over when it is: the system's allocator, which must expect
//! anything, takes a ninth of it to look for neighbours of pieces that will be wanted again at once. While a thread has its
//! larder [open], a small piece that it frees goes on the shelf of its layout, and the next one of that very layout is taken
//! from there. What the system is asked for is never changed: a thread that makes no runs, and so every thread of a daemon,
//! asks one variable of its own and has what it would have without this.
//!
//! ```text
//!   alloc ◀── shelf of this layout ◀── dealloc, while open
//!     ▲  empty, or none                   │ full, or closed
//!     └────────────── system ◀────────────┘
//! ```
//!
//! A piece belongs to no thread: it may be freed by another one, or once the larder is closed. Not here: what is large. The
//! file needs nothing of its crate, so that Miri can be given it alone.

#![expect(unsafe_code, reason = "an allocator is about raw memory")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::{null, null_mut};

/// The smallest piece that is kept, in bytes: it begins with the address of the next one on its shelf.
const PIECE_MIN_BYTES: usize = size_of::<*mut u8>();

/// The largest, in bytes. What a run has of larger ones is some hundred. (Miri looks at all shelves at each step.)
const PIECE_MAX_BYTES: usize = if cfg!(miri) { 48 } else { 512 };

/// Shelves of one alignment: one for each size.
const SIZES: usize = PIECE_MAX_BYTES - PIECE_MIN_BYTES + 1;

/// Alignments: 1, 2, 4 and 8.
const ALIGNMENTS: usize = 4;

/// Most pieces on a shelf: with as many, updates were fastest. With any number what a run asks for comes to lie far apart, as
/// nothing is ever put together again. A thread could keep 34 MB so, were there that many of each layout at once; an update has
/// never a tenth of it.
const PIECES_MAX: u32 = 64;

thread_local! {
    /// The shelves of this thread, while its larder is open. Without a destructor and made by the compiler, so that it can be
    /// asked at any time.
    static HERE: Cell<*const Shelves> = const { Cell::new(null()) };
}

/// See the module: `#[global_allocator] static LARDER: Larder = Larder;`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Larder;

/// Have this thread keep what it frees until `work` is done, and give it back then. Where [`Larder`] is not the program's
/// allocator nothing comes of it.
pub fn open<R>(work: impl FnOnce() -> R) -> R {
    if is_open() {
        return work();
    }
    let shelves = Shelves([const { [const { Shelf::empty() }; SIZES] }; ALIGNMENTS]);
    HERE.set(&raw const shelves);
    work()
    // Here, or when `work` panics, they are dropped, and `HERE` knows of them no more.
}

fn is_open() -> bool {
    !here().is_null()
}

#[inline(always)]
fn here() -> *const Shelves {
    // It is always there.
    HERE.try_with(Cell::get).unwrap_or(null())
}

/// The pieces of one layout that a thread keeps.
struct Shelf {
    first: Cell<*mut u8>,
    count: Cell<u32>,
}

impl Shelf {
    const fn empty() -> Self {
        Self {
            first: Cell::new(null_mut()),
            count: Cell::new(0),
        }
    }
}

/// The shelves of a thread, by alignment and size.
struct Shelves([[Shelf; SIZES]; ALIGNMENTS]);

impl Shelves {
    /// What is told of the shelves of this thread, if they are there.
    #[inline(always)]
    fn here<R>(tell: impl FnOnce(&Self) -> R) -> Option<R> {
        // SAFETY: `HERE` is null or the address of shelves in a frame of `open` on this thread, which clear it when they are
        // dropped; nothing but `Cell`s is changed in them before.
        unsafe { here().as_ref() }.map(tell)
    }

    /// The shelf for this layout, if there is one.
    #[inline(always)]
    fn shelf(&self, layout: Layout) -> Option<&Shelf> {
        let of_alignment = self.0.get(layout.align().trailing_zeros() as usize)?;
        of_alignment.get(layout.size().checked_sub(PIECE_MIN_BYTES)?)
    }

    /// A piece of this layout, or null.
    #[inline(always)]
    fn take(&self, layout: Layout) -> *mut u8 {
        let Some(shelf) = self.shelf(layout) else {
            return null_mut();
        };
        let piece = shelf.first.get();
        if !piece.is_null() {
            // SAFETY: `put` has left there the address of the next one, and nobody else has had the piece since.
            shelf
                .first
                .set(unsafe { piece.cast::<*mut u8>().read_unaligned() });
            shelf.count.set(shelf.count.get() - 1);
        }
        piece
    }

    /// Whether a piece was put on its shelf.
    ///
    /// # Safety
    /// It is the system's, of this layout, and nobody's any more.
    #[inline(always)]
    unsafe fn put(&self, piece: *mut u8, layout: Layout) -> bool {
        let Some(shelf) = self.shelf(layout) else {
            return false;
        };
        let count = shelf.count.get();
        if count >= PIECES_MAX {
            return false;
        }
        // SAFETY: what has a shelf is large enough for an address, though it may be aligned for less.
        unsafe { piece.cast::<*mut u8>().write_unaligned(shelf.first.get()) };
        shelf.first.set(piece);
        shelf.count.set(count + 1);
        true
    }
}

impl Drop for Shelves {
    fn drop(&mut self) {
        HERE.set(null());
        for (alignment, sizes) in self.0.iter().enumerate() {
            for (number, shelf) in sizes.iter().enumerate() {
                let mut piece = shelf.first.get();
                while !piece.is_null() {
                    // SAFETY: as in `take`, and each of them came from the system with this layout.
                    unsafe {
                        let next = piece.cast::<*mut u8>().read_unaligned();
                        let size = PIECE_MIN_BYTES + number;
                        System.dealloc(
                            piece,
                            Layout::from_size_align_unchecked(size, 1 << alignment),
                        );
                        piece = next;
                    }
                }
            }
        }
    }
}

// SAFETY: what is given out is a piece that the system gave for the same layout; it lies on a shelf or is somebody's, never
// both. Nothing here panics.
unsafe impl GlobalAlloc for Larder {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Shelves::here(|shelves| shelves.take(layout)) {
            Some(piece) if !piece.is_null() => piece,
            // SAFETY: the caller's.
            _ => unsafe { System.alloc(layout) },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // SAFETY: the caller has it from here, and so from the system, with this layout.
        let kept = Shelves::here(|shelves| unsafe { shelves.put(piece, layout) });
        if kept != Some(true) {
            // SAFETY: as before.
            unsafe { System.dealloc(piece, layout) };
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match Shelves::here(|shelves| shelves.take(layout)) {
            Some(piece) if !piece.is_null() => {
                // SAFETY: it is of this layout.
                unsafe { piece.write_bytes(0, layout.size()) };
                piece
            }
            // SAFETY: the caller's.
            _ => unsafe { System.alloc_zeroed(layout) },
        }
    }

    #[inline]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's: a size that a layout of this alignment may have.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let has_shelf =
            |shelves: &Shelves| shelves.shelf(layout).is_some() || shelves.shelf(wanted).is_some();
        if Shelves::here(has_shelf) != Some(true) {
            // SAFETY: the caller has it from here, and so from the system, with this layout.
            return unsafe { System.realloc(piece, layout, size) };
        }
        // What leaves one shelf for another would be missing there in the next run.
        // SAFETY: as the caller's; both have at least so many bytes, and are two.
        unsafe {
            let other = self.alloc(wanted);
            if !other.is_null() {
                other.copy_from_nonoverlapping(piece, layout.size().min(size));
                self.dealloc(piece, layout);
            }
            other
        }
    }
}

#[cfg(test)]
#[path = "larder/tests.rs"]
mod tests;
