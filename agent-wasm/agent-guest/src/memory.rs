//! The allocator: one list of free pieces in the order of their addresses, the first that is large enough is used, and
//! neighbours become one piece again.
//!
//! An agent has some hundred values and few free pieces, so a list is no slower than bins, and a third of their code
//! (README.md). `tests/versioning` includes this file and tries it on the build machine.

#![expect(unsafe_code, reason = "an allocator is about raw memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;

/// What a free piece begins with.
struct Piece {
    size: usize,
    next: *mut Self,
}

/// Sizes and addresses are multiples of it: a piece of any size can say that it is free.
const GRAIN: usize = size_of::<Piece>();

/// Asks for at least so many bytes more; where they are and how many, or `None`. Both are multiples of 16.
pub(crate) type Grow = fn(usize) -> Option<(*mut u8, usize)>;

/// All free memory.
pub(crate) struct Memory {
    /// Before the first piece; without a size, so nothing becomes one with it.
    head: UnsafeCell<Piece>,
    grow: Grow,
}

// SAFETY: an instance has one thread, and so has the test.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) const fn new(grow: Grow) -> Self {
        let next = null_mut();
        Self {
            head: UnsafeCell::new(Piece { size: 0, next }),
            grow,
        }
    }

    /// Takes so many bytes from the first piece that has them.
    fn take(&self, size: usize) -> *mut u8 {
        let mut before = self.head.get();
        // SAFETY: the list begins at `head`, and each `next` is a free piece or null.
        unsafe {
            loop {
                let piece = (*before).next;
                if piece.is_null() {
                    return null_mut();
                }
                if (*piece).size >= size {
                    // From its end: what is left of it stays where it is in the list.
                    (*piece).size -= size;
                    let rest = (*piece).size;
                    if rest == 0 {
                        (*before).next = (*piece).next;
                    }
                    return piece.cast::<u8>().add(rest);
                }
                before = piece;
            }
        }
    }

    /// # Safety
    /// The bytes are nobody's, and address and size multiples of [`GRAIN`].
    unsafe fn give(&self, at: *mut u8, mut size: usize) {
        let piece = at.cast::<Piece>();
        let mut before = self.head.get();
        // SAFETY: the list as in `take`; there is room for a piece at `at`, and it is aligned.
        unsafe {
            let mut next = (*before).next;
            while !next.is_null() && next < piece {
                before = next;
                next = (*next).next;
            }
            if at.wrapping_add(size) == next.cast() {
                size += (*next).size;
                next = (*next).next;
            }
            if before.cast::<u8>().wrapping_add((*before).size) == at {
                (*before).size += size;
                (*before).next = next;
            } else {
                piece.write(Piece { size, next });
                (*before).next = piece;
            }
        }
    }

    /// What a value really takes. A size is at most half of all addresses, so nothing overflows.
    const fn size(layout: Layout) -> usize {
        (layout.size() + GRAIN - 1) & !(GRAIN - 1)
    }
}

// SAFETY: what is given out is not in the list, is large enough, and lies at a multiple of `GRAIN`, which is no less than
// what any value here asks for.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > GRAIN {
            return null_mut();
        }
        let size = Self::size(layout);
        let at = self.take(size);
        if !at.is_null() {
            return at;
        }
        let Some((more, count)) = (self.grow)(size) else {
            return null_mut();
        };
        // SAFETY: it is new.
        unsafe { self.give(more, count) };
        self.take(size)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller has it from `alloc` with this layout.
        unsafe { self.give(at, Self::size(layout)) };
    }
}
