//! What time guests live in: the machine's, or that of a simulation; and what is done without fuel where there is haste.

use std::cell::Cell;

/// What time guests live in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Time {
    /// The machine's.
    #[default]
    Real,
    /// That of a simulation, thousands of short lives of one component. Fuel alone ends a call that does not end: a clock
    /// would end it elsewhere on each machine. An instance takes over the memory of one before it, emptied, where the kernel
    /// lets so much be reserved. What a guest does, and the fuel it takes, is the same to the bit.
    Virtual,
    /// The same without fuel, whose account is a tenth of a simulated update. What seems to have no end is ended after some
    /// hundredths of a second, which is long before any fuel is used up, and elsewhere each time: who sees
    /// [`haste_faults`] go up makes the run again in [`Virtual`](Self::Virtual).
    Hasty,
}

impl Time {
    pub(super) fn is_simulated(self) -> bool {
        self != Self::Real
    }

    pub(super) fn has_fuel(self) -> bool {
        self != Self::Hasty
    }

    pub(super) fn has_ticks(self) -> bool {
        self != Self::Virtual
    }
}

/// Ticks that a call may see pass in [`Time::Hasty`]. It sees each one only while it runs, so that to be put off by a busy
/// machine three times in one call is what it takes for a good one to be ended; and in so much time no machine does what takes
/// [`Budget::AGENT`](super::Budget::AGENT)'s fuel.
pub(super) const HASTY_TICKS: u32 = 3;

thread_local! {
    static HASTE_FAULTS: Cell<u64> = const { Cell::new(0) };
}

/// Calls in [`Time::Hasty`], of this thread and so far, that ended in a fault.
#[must_use]
pub fn haste_faults() -> u64 {
    HASTE_FAULTS.get()
}

/// One more of them.
pub(super) fn note_haste_fault() {
    HASTE_FAULTS.set(HASTE_FAULTS.get() + 1);
}
