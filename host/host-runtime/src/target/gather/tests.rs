//! What is gathered, when it is written, and what a medium that refuses does to it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const CAPACITY: usize = 3 * GATHERED_MAX_BYTES;

/// Bytes, what was written of them and with which call, and whether the medium refuses.
#[derive(Default)]
struct Medium {
    bytes: Mutex<Vec<u8>>,
    calls: Mutex<Vec<(u64, usize)>>,
    refuses: AtomicBool,
}

impl Medium {
    fn calls(&self) -> Vec<(u64, usize)> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

impl Storage for Medium {
    fn capacity(&self) -> u64 {
        CAPACITY as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock().unwrap();
        for (at, byte) in (offset as usize..).zip(buffer) {
            *byte = bytes.get(at).copied().unwrap_or(0xff);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (start, end) = (
            offset as usize,
            (offset as usize).saturating_add(data.len()),
        );
        if end > CAPACITY || self.refuses.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.calls.lock().unwrap().push((offset, data.len()));
        let mut bytes = self.bytes.lock().unwrap();
        let length = bytes.len().max(end);
        bytes.resize(length, 0xff);
        bytes[start..end].copy_from_slice(data);
        Ok(())
    }

    fn erase(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        for byte in bytes.iter_mut().skip(offset as usize).take(length as usize) {
            *byte = 0xff;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn evict(&self) -> io::Result<()> {
        Ok(())
    }
}

fn gathered() -> (Arc<Medium>, Gathered) {
    let medium = Arc::new(Medium::default());
    let gathered = Gathered::new(Arc::clone(&medium) as _);
    (medium, gathered)
}

#[test]
fn what_lies_side_by_side_is_one_write() {
    let (medium, gathered) = gathered();
    for block in 0..4 {
        gathered
            .write_at(block * 4096, &[block as u8; 4096])
            .unwrap();
    }
    assert_eq!(medium.calls(), []);
    gathered.write_out().unwrap();
    assert_eq!(medium.calls(), [(0, 4 * 4096)]);
    gathered.write_out().unwrap();
    assert_eq!(medium.calls(), []);
}

#[test]
fn another_place_and_too_much_end_what_was_gathered() {
    let (medium, gathered) = gathered();
    gathered.write_at(0, &[1; 10]).unwrap();
    gathered.write_at(20, &[2; 10]).unwrap();
    // Before what was gathered, not behind it.
    gathered.write_at(10, &[3; 10]).unwrap();
    assert_eq!(medium.calls(), [(0, 10), (20, 10)]);
    gathered.write_at(20, &vec![4; GATHERED_MAX_BYTES]).unwrap();
    assert_eq!(medium.calls(), [(10, 10)]);
    gathered
        .write_at(9, &vec![5; GATHERED_MAX_BYTES + 1])
        .unwrap();
    assert_eq!(
        medium.calls(),
        [(20, GATHERED_MAX_BYTES), (9, GATHERED_MAX_BYTES + 1)]
    );
}

#[test]
fn whoever_reads_or_syncs_finds_what_was_written() {
    let (medium, gathered) = gathered();
    gathered.write_at(5, b"abc").unwrap();
    let mut read = [0; 5];
    gathered.read_at(4, &mut read).unwrap();
    assert_eq!(&read, b"\xffabc\xff");
    gathered.write_at(8, b"d").unwrap();
    gathered.sync().unwrap();
    assert_eq!(medium.calls(), [(5, 3), (8, 1)]);
}

#[test]
fn what_is_erased_is_not_written_afterwards() {
    let (medium, gathered) = gathered();
    gathered.write_at(5, b"abc").unwrap();
    gathered.erase(0, 100).unwrap();
    assert_eq!(medium.calls(), []);
    // Only a part of it is erased.
    gathered.write_at(5, b"abc").unwrap();
    gathered.erase(6, 1).unwrap();
    let mut read = [0; 3];
    gathered.read_at(5, &mut read).unwrap();
    assert_eq!(&read, b"a\xffc");
    gathered.write_at(0, b"x").unwrap();
    gathered.discard();
    gathered.sync().unwrap();
    assert_eq!(medium.calls(), [(5, 3)]);
}

#[test]
fn a_refused_write_is_told_and_tried_again() {
    let (medium, gathered) = gathered();
    gathered.write_at(0, b"abc").unwrap();
    medium.refuses.store(true, Ordering::Relaxed);
    assert!(gathered.write_out().is_err());
    assert!(gathered.sync().is_err());
    assert!(gathered.read_at(0, &mut [0; 3]).is_err());
    // What comes next does not go without it.
    assert!(gathered.write_at(100, b"x").is_err());
    medium.refuses.store(false, Ordering::Relaxed);
    gathered.sync().unwrap();
    assert_eq!(medium.calls(), [(0, 3)]);
}

#[test]
fn what_does_not_fit_is_refused_at_once() {
    let (medium, gathered) = gathered();
    let last = CAPACITY as u64 - 2;
    gathered.write_at(last - 2, b"ab").unwrap();
    assert!(gathered.write_at(last, b"abc").is_err());
    assert!(gathered.write_at(u64::MAX, b"a").is_err());
    gathered.write_at(last, b"cd").unwrap();
    gathered.sync().unwrap();
    assert_eq!(medium.calls(), [(last - 2, 2), (last, 2)]);
}
