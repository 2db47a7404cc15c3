//! Blocks on their way to storage: what lies side by side and comes in one turn is written with one call.
//!
//! A file system takes 64 KiB in little more time than 4 KiB, and blocks come side by side. Nobody sees a difference: what is
//! read, synced or erased finds everything written before it. What cannot be written is told by the call that meets it, kept,
//! and tried again by the next one; the target asks ([`Storage::write_out`]) before it enters blocks in its map.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ports::storage::Storage;

/// Most bytes that are gathered: what the connection reads at a time.
const GATHERED_MAX_BYTES: usize = 64 * 1024;

/// A storage that gathers what is written to it.
pub(super) struct Gathered {
    storage: Arc<dyn Storage>,
    run: Mutex<Run>,
}

/// What is not written yet.
#[derive(Default)]
struct Run {
    offset: u64,
    bytes: Vec<u8>,
}

impl Run {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    fn write(&mut self, storage: &dyn Storage) -> io::Result<()> {
        if !self.bytes.is_empty() {
            storage.write_at(self.offset, &self.bytes)?;
            // The room goes, too: a target has some for as long as a turn takes.
            self.bytes = Vec::new();
        }
        Ok(())
    }
}

impl Gathered {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        Self {
            storage,
            run: Mutex::default(),
        }
    }

    /// Forget what was gathered: nobody wants it any more.
    pub(super) fn discard(&self) {
        *self.run() = Run::default();
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for Gathered {
    fn capacity(&self) -> u64 {
        self.storage.capacity()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.write_out()?;
        self.storage.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut run = self.run();
        let end = offset.checked_add(data.len() as u64);
        // What does not fit into the storage is the storage's to refuse.
        let may = end.is_some_and(|end| end <= self.capacity()) && data.len() <= GATHERED_MAX_BYTES;
        let follows = run.end() == offset && run.bytes.len() + data.len() <= GATHERED_MAX_BYTES;
        if !may || !follows {
            run.write(&*self.storage)?;
        }
        if !may {
            return self.storage.write_at(offset, data);
        }
        if run.bytes.is_empty() {
            run.offset = offset;
            run.bytes.reserve_exact(GATHERED_MAX_BYTES);
        }
        run.bytes.extend_from_slice(data);
        Ok(())
    }

    fn write_out(&self) -> io::Result<()> {
        self.run().write(&*self.storage)
    }

    fn erase(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut run = self.run();
        if offset <= run.offset && run.end() <= offset.saturating_add(length) {
            *run = Run::default();
        }
        run.write(&*self.storage)?;
        drop(run);
        self.storage.erase(offset, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.write_out()?;
        self.storage.sync()
    }

    fn evict(&self) -> io::Result<()> {
        self.storage.evict()
    }

    fn evict_range(&self, offset: u64, length: u64) -> io::Result<()> {
        self.storage.evict_range(offset, length)
    }
}

#[cfg(test)]
mod tests;
