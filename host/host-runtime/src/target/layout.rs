//! Where the bytes of one file lie: pieces of lent storage, or the staging file. What reads a file back reads here,
//! past the plugin.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::fence::Fenced;
use crate::ports::storage::Storage as _;

/// A piece of the file.
#[derive(Clone)]
pub(super) struct Piece {
    /// For error messages: a region's name, `staging`.
    pub(super) name: Arc<str>,
    /// The storage.
    pub(super) storage: Arc<Fenced>,
    /// Where it begins there.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) length: u64,
}

/// All pieces, in the order of the file.
#[derive(Clone, Default)]
pub(super) struct Layout(pub(super) Vec<Piece>);

/// What the medium says, and where.
pub(super) struct At {
    /// The region, or `staging`.
    pub(super) place: Arc<str>,
    /// What it says.
    pub(super) error: io::Error,
}

impl Layout {
    /// Fill `buffer` from `offset` of the file.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), At> {
        self.each(offset, buffer.len(), |piece, at, from, to| {
            piece.storage.read_at(at, &mut buffer[from..to])
        })
    }

    /// Write `data` at `offset` of the file.
    pub(super) fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), At> {
        self.each(offset, data.len(), |piece, at, from, to| {
            piece.storage.write_at(at, &data[from..to])
        })
    }

    /// Make the file durable.
    pub(super) fn sync(&self) -> Result<(), At> {
        self.each_storage(|storage| storage.sync())
    }

    /// Let the file be read from the medium. It was synced.
    pub(super) fn evict(&self) -> Result<(), At> {
        self.each_storage(|storage| storage.evict())
    }

    /// The same for the bytes from `offset` to `to` of it.
    pub(super) fn evict_range(&self, offset: u64, to: u64) -> Result<(), At> {
        let length = usize::try_from(to.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.each(offset, length, |piece, at, from, to| {
            piece.storage.evict_range(at, (to - from) as u64)
        })
    }

    /// Where the first `upto` bytes of the file lie in each storage.
    pub(super) fn below(&self, upto: u64) -> Vec<(&Fenced, Vec<Range<u64>>)> {
        let mut storages: Vec<(&Fenced, Vec<Range<u64>>)> = Vec::new();
        let mut left = upto;
        for piece in &self.0 {
            let length = piece.length.min(left);
            left -= length;
            let range = piece.offset..piece.offset + length;
            let storage: &Fenced = &piece.storage;
            match storages.iter_mut().find(|(s, _)| std::ptr::eq(*s, storage)) {
                Some((_, ranges)) => ranges.push(range),
                None => storages.push((storage, vec![range])),
            }
        }
        storages
    }

    /// Erase all storage that the file touches, as a whole: a slot holds one image and nothing behind it.
    pub(super) fn erase(&self) -> Result<(), At> {
        self.each_storage(|storage| storage.erase(0, storage.capacity()))
    }

    /// Find room for the file.
    pub(super) fn reserve(&self) -> Result<(), At> {
        self.0.iter().try_for_each(|piece| {
            let end = piece.storage.reserve(piece.offset, piece.length);
            end.map_err(|error| At {
                place: Arc::clone(&piece.name),
                error,
            })
        })
    }

    /// Call `action` with each piece of `offset..offset + length`, its place in the storage and its range in the buffer.
    fn each(
        &self,
        offset: u64,
        length: usize,
        mut action: impl FnMut(&Piece, u64, usize, usize) -> io::Result<()>,
    ) -> Result<(), At> {
        let (mut start, mut done) = (0, 0);
        for piece in &self.0 {
            let end = start + piece.length;
            let at = offset + done as u64;
            if done < length && at < end && at >= start {
                let room = usize::try_from(end - at).unwrap_or(usize::MAX);
                let n = room.min(length - done);
                action(piece, piece.offset + (at - start), done, done + n).map_err(|error| At {
                    place: Arc::clone(&piece.name),
                    error,
                })?;
                done += n;
            }
            start = end;
        }
        if done < length {
            return Err(At {
                place: Arc::from("file"),
                error: io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the file"),
            });
        }
        Ok(())
    }

    /// Each storage once.
    fn each_storage(&self, action: impl Fn(&Fenced) -> io::Result<()>) -> Result<(), At> {
        let mut seen: Vec<&Arc<Fenced>> = Vec::new();
        for piece in &self.0 {
            if seen.iter().any(|s| Arc::ptr_eq(s, &piece.storage)) {
                continue;
            }
            seen.push(&piece.storage);
            action(&piece.storage).map_err(|error| At {
                place: Arc::clone(&piece.name),
                error,
            })?;
        }
        Ok(())
    }
}
