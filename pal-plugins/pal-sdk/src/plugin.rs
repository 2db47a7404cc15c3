//! What a plugin author writes.

use crate::{Answer, Blob, Description, Duty, Extent, Failure, Setting, Transfer};

/// A PAL plugin: one instance serves one target. The host calls its duties one at a time and in the order of this list;
/// a duty begins with its function and goes on with [`step`](Self::step) until it is finished or fails. Each call does
/// bounded work and never waits. Every duty is idempotent: after a failure, a swap or a power cut it is begun again.
///
/// The same code runs in every carrier; nothing here knows which one. `wit/pal/image.wit` is the authority on each
/// duty. The defaults are those of a target that has nothing to do there, or cannot do it (0xda).
pub trait Plugin: Sized + 'static {
    /// What it is lent, in practice a type parameter with the traits of [`lent`](crate::lent) that it uses as bounds.
    type Lent;

    /// Who this is. Asked before `open`.
    fn describe() -> Description;

    /// Begin life. `saved` comes from `suspend` of another instance, perhaps another build, perhaps before a power
    /// cut. Use nothing lent but the log.
    ///
    /// # Errors
    /// A setting that cannot be, or 0xdf for saved state that this build does not read; the old instance stays.
    fn open(lent: Self::Lent, settings: Vec<Setting>, saved: Option<Blob>)
    -> Result<Self, Failure>;

    /// Get ready to receive and choose the inactive slot. Direct: write nothing.
    ///
    /// # Errors
    /// 0xe4, 0xe5 too large, 0xe8 wrong state, 0xd4 unreachable.
    fn create(&mut self, transfer: Transfer) -> Result<Duty, Failure>;

    /// Go on with a transfer that was created before; erases nothing.
    ///
    /// # Errors
    /// As `create`.
    fn reopen(&mut self, transfer: Transfer) -> Result<Duty, Failure>;

    /// Direct targets. Put bytes at their place, in any order: one block, several side by side, or a part of one, and never
    /// more than [`Description::largest_write`](crate::Description::largest_write).
    ///
    /// # Errors
    /// 0xed, or what the storage says; none of the bytes count as held.
    fn write_block(&mut self, _offset: u64, _data: Vec<u8>) -> Result<Duty, Failure> {
        Err(Failure::unsupported("a staged target takes no blocks"))
    }

    /// Direct targets. Where the bytes of the file lie, in the order of the file.
    ///
    /// # Errors
    /// 0xd0: no transfer.
    fn extents(&mut self) -> Result<Vec<Extent>, Failure> {
        Err(Failure::unsupported("a staged target has no extents"))
    }

    /// Read version and product from the image's bytes.
    ///
    /// # Errors
    /// 0xda: this plugin cannot read images.
    fn examine(&mut self) -> Result<Duty, Failure> {
        Err(Failure::unsupported("this plugin reads no image headers"))
    }

    /// Staged: bring the file into the inactive slot, mark nothing. Direct: nothing to do.
    ///
    /// # Errors
    /// 0xed and others; it may be begun again.
    fn install(&mut self) -> Result<Duty, Failure> {
        Duty::done()
    }

    /// Mark the new image as next and in test, in one atomic step of the target.
    ///
    /// # Errors
    /// 0xec, 0xe6, 0xe8; nothing is marked, or it is marked whole.
    fn activate(&mut self, sha256: [u8; 32]) -> Result<Duty, Failure>;

    /// Restart the target and see it come back, or let the host do it (the default).
    ///
    /// # Errors
    /// 0xd4: it did not come back.
    fn reset(&mut self) -> Result<Duty, Failure> {
        Duty::answer(Answer::HostResets)
    }

    /// The target's own test of the running new image. Finished = passed.
    ///
    /// # Errors
    /// It did not pass; 0xda: there is none.
    fn self_test(&mut self) -> Result<Duty, Failure> {
        Err(Failure::unsupported("this target has no test of its own"))
    }

    /// Make the running new image permanent and read that back.
    ///
    /// # Errors
    /// 0xeb; 0xe8: the new image does not run.
    fn commit(&mut self) -> Result<Duty, Failure>;

    /// Mark the new image bad and go back to the old one; [`Answer::HostResets`] where it runs and only the host can
    /// restart the target. It is asked again after that restart, and until it answers otherwise: finished where the old
    /// image runs.
    ///
    /// # Errors
    /// 0xea.
    fn reject(&mut self) -> Result<Duty, Failure>;

    /// Ask the target. A silent one is state 0 after a bounded number of tries.
    ///
    /// # Errors
    /// It could not be asked.
    fn state(&mut self) -> Result<Duty, Failure>;

    /// Stop the duty under way and throw the transfer away. Nothing there = finished.
    ///
    /// # Errors
    /// 0xe9.
    fn abort(&mut self) -> Result<Duty, Failure>;

    /// Go on with the duty, with at most so many bytes read, written, sent or erased in this call.
    ///
    /// # Errors
    /// Those of the duty; 0xd0 without one (the default, for plugins whose duties are over in one call).
    fn step(&mut self, _budget_bytes: u32) -> Result<Duty, Failure> {
        Err(Failure::bad_argument("no duty is under way"))
    }

    /// Everything that a successor needs to be opened with. Changes nothing.
    ///
    /// # Errors
    /// It cannot be told now; the instance stays.
    fn suspend(&mut self) -> Result<Blob, Failure> {
        Ok(Blob {
            schema: 1,
            bytes: Vec::new(),
        })
    }
}
