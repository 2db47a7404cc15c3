//! The guest's allocator, tried on the build machine: what is given out is aligned, overlaps nothing and keeps its
//! bytes, and what comes back becomes one piece again.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]
#![expect(unsafe_code, reason = "an allocator is called by unsafe functions")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[path = "../../../agent-wasm/agent-guest/src/memory.rs"]
mod memory;

use memory::Memory;

const AREA: usize = 1 << 20;

thread_local! {
    /// How often there was not enough.
    static GREW: Cell<u32> = const { Cell::new(0) };
}

/// A megabyte for whatever is asked for, and nothing for more.
fn grow(bytes: usize) -> Option<(*mut u8, usize)> {
    if bytes > AREA {
        return None;
    }
    GREW.set(GREW.get() + 1);
    // SAFETY: it has a size.
    Some((unsafe { System.alloc(area()) }, AREA))
}

fn area() -> Layout {
    Layout::from_size_align(AREA, 16).unwrap()
}

struct Given {
    at: *mut u8,
    layout: Layout,
    mark: u8,
}

impl Given {
    fn is_kept(&self) -> bool {
        // SAFETY: it was given out with this layout and written in full.
        let bytes = unsafe { std::slice::from_raw_parts(self.at, self.layout.size()) };
        bytes.iter().all(|byte| *byte == self.mark)
    }
}

/// Numbers that are the same each time.
fn draw(state: &mut u64) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    (*state >> 33) as usize
}

#[test]
fn what_is_given_out_is_kept_and_what_comes_back_is_one_piece_again() {
    let memory = Memory::new(grow);
    let mut state = 7;
    let mut given: Vec<Given> = Vec::new();
    for turn in 0..40_000 {
        let full = given.len() >= 300;
        if full || (draw(&mut state).is_multiple_of(2) && !given.is_empty()) {
            let old = given.swap_remove(draw(&mut state) % given.len());
            assert!(old.is_kept(), "turn {turn}");
            // SAFETY: it was given out with this layout.
            unsafe { memory.dealloc(old.at, old.layout) };
        } else {
            let size = 1 + draw(&mut state) % if turn % 50 == 0 { 20_000 } else { 200 };
            let align = 1 << (draw(&mut state) % 4);
            let layout = Layout::from_size_align(size, align).unwrap();
            let mark = turn as u8;
            // SAFETY: it has a size.
            let at = unsafe { memory.alloc(layout) };
            assert!(
                !at.is_null() && (at as usize).is_multiple_of(align),
                "turn {turn}"
            );
            // SAFETY: it was given out with this size.
            unsafe { at.write_bytes(mark, size) };
            given.push(Given { at, layout, mark });
        }
    }
    for old in given {
        assert!(old.is_kept());
        // SAFETY: it was given out with this layout.
        unsafe { memory.dealloc(old.at, old.layout) };
    }
    assert_eq!(GREW.get(), 1, "a megabyte is enough for all of them");
    // Only if all pieces became one is there room for this.
    let whole = Layout::from_size_align(AREA, 8).unwrap();
    // SAFETY: they have a size.
    let (first, second) = unsafe { (memory.alloc(whole), memory.alloc(whole)) };
    assert!(!first.is_null() && !second.is_null() && first != second);
    assert_eq!(GREW.get(), 2);
}

#[test]
fn what_cannot_be_had_is_null() {
    let memory = Memory::new(grow);
    let layout = |size, align| Layout::from_size_align(size, align).unwrap();
    // SAFETY: they have a size.
    let (large, strict) = unsafe {
        (
            memory.alloc(layout(AREA + 1, 8)),
            memory.alloc(layout(64, 4096)),
        )
    };
    assert!(large.is_null() && strict.is_null());
}
