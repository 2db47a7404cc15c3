//! Small durable records in lent storage, kept twice.
//!
//! A record has two copies. A new version overwrites the older copy and is made durable before anything else happens,
//! so a power cut at any instant leaves the other copy whole. The reader takes the newer valid one:
//!
//! ```text
//! copy = magic [u8; 8] | sequence u32 | body | CRC-32C u32 of everything before it      (little-endian)
//! ```
//!
//! What the body means is its owner's business; this only decides which copy counts. It keeps no cache: who wants to
//! know reads.

use crate::failure::code;
use crate::lent::{BlockDevice, Region};
use crate::{Failure, TRANSFER_MAX_BYTES};

/// Bytes of a copy that are not its body: magic, sequence and checksum.
pub const OVERHEAD_BYTES: usize = 8 + 4 + 4;

/// EIO: what was written does not read back.
const EIO: u32 = 5;
/// EBADMSG: no copy is valid.
const EBADMSG: u32 = 74;

/// Where a doubled record lies and what it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubled {
    /// Number of the region.
    pub region: u32,
    /// First bytes of each copy: names the format and its version.
    pub magic: [u8; 8],
    /// Bytes of one copy, [`OVERHEAD_BYTES`] included.
    pub size: u32,
    /// Where the second copy begins; the first one is at 0. A multiple of the erase and write sizes.
    pub second_at: u64,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nothing was ever written: both copies are erased.
    Blank,
    /// The newer valid copy.
    Valid(Latest),
    /// Something was written, and no copy of it is valid.
    Damaged,
}

/// The valid copy that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// Goes up by one with each version.
    pub sequence: u32,
    /// What its owner wrote.
    pub body: Vec<u8>,
    /// 0 or 1: where it lies.
    pub index: u8,
}

impl Doubled {
    /// Read both copies and say which one counts.
    ///
    /// # Errors
    /// What the storage says.
    pub fn load(&self, device: &impl BlockDevice) -> Result<Stored, Failure> {
        let first = device.read_at(self.region, 0, self.size)?;
        let second = device.read_at(self.region, self.second_at, self.size)?;
        // The checksum of the one that counts is all that has to be computed, unless that one is torn.
        let copies = match sequence_of(&second).zip(sequence_of(&first)) {
            Some((b, a)) if is_newer(b, a) => [(&second, 1), (&first, 0)],
            _ => [(&first, 0), (&second, 1)],
        };
        let mut valid = copies
            .iter()
            .filter_map(|(of, index)| self.parse(of, *index));
        Ok(match valid.next() {
            Some(copy) => Stored::Valid(copy),
            None if is_blank(&first) && is_blank(&second) => Stored::Blank,
            None => Stored::Damaged,
        })
    }

    /// Write the next version over the copy that does not count, make it durable, and read it back.
    ///
    /// # Errors
    /// 0xd0: the region does not fit, or the body is not as long as configured. 0xd6: what the storage says; sub 5: it
    /// reads back differently, sub 74: there is no valid copy to follow (write the first version with `previous`
    /// [`Stored::Blank`]). Whatever the error, `previous` still counts or the new version does; load again to see.
    pub fn store(
        &self,
        device: &impl BlockDevice,
        previous: &Stored,
        body: &[u8],
    ) -> Result<Latest, Failure> {
        let region = device
            .regions()
            .into_iter()
            .nth(self.region as usize)
            .ok_or_else(|| Failure::bad_argument("the record's region is not granted"))?;
        self.check(&region, body)?;
        let (sequence, index) = match previous {
            Stored::Blank => (1, 0),
            Stored::Valid(copy) => (copy.sequence.wrapping_add(1), copy.index ^ 1),
            Stored::Damaged => {
                return Err(Failure::new(
                    code::STORAGE,
                    EBADMSG,
                    "no copy of the record is valid",
                ));
            }
        };
        let mut bytes = self.encode(sequence, body);
        // The medium may only take larger units; what lies between the copies is nobody's.
        let unit = region.write_size.max(1) as usize;
        bytes.resize(bytes.len().next_multiple_of(unit), 0xff);
        let at = if index == 0 { 0 } else { self.second_at };
        if region.erase_size > 1 {
            let erased = u64::from(self.size).next_multiple_of(u64::from(region.erase_size));
            device.erase(self.region, at, erased)?;
        }
        device.write_at(self.region, at, &bytes)?;
        device.sync(self.region)?;
        let read = device.read_at(self.region, at, self.size)?;
        match self.parse(&read, index) {
            Some(copy) if copy.sequence == sequence && copy.body == body => Ok(copy),
            _ => Err(Failure::new(
                code::STORAGE,
                EIO,
                "the record reads back differently",
            )),
        }
    }

    fn check(&self, region: &Region, body: &[u8]) -> Result<(), Failure> {
        let erase = u64::from(region.erase_size.max(1));
        let write = u64::from(region.write_size.max(1));
        let room = u64::from(self.size)
            .next_multiple_of(erase)
            .next_multiple_of(write);
        let fits = self.size <= TRANSFER_MAX_BYTES
            && room <= self.second_at
            && self.second_at.is_multiple_of(erase)
            && self.second_at.is_multiple_of(write)
            && self
                .second_at
                .checked_add(room)
                .is_some_and(|end| end <= region.size);
        if !fits {
            return Err(Failure::bad_argument(
                "the record's region is too small or its erase units are too large",
            ));
        }
        if body.len() + OVERHEAD_BYTES != self.size as usize {
            return Err(Failure::bad_argument("the record's body has a wrong size"));
        }
        Ok(())
    }

    fn encode(&self, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size as usize);
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&sequence.to_le_bytes());
        bytes.extend_from_slice(body);
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn parse(&self, bytes: &[u8], index: u8) -> Option<Latest> {
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        let (magic, rest) = content.split_first_chunk::<8>()?;
        let (sequence, body) = rest.split_first_chunk::<4>()?;
        let valid = bytes.len() == self.size as usize
            && *magic == self.magic
            && crc32c(content) == u32::from_le_bytes(*crc);
        valid.then(|| Latest {
            sequence: u32::from_le_bytes(*sequence),
            body: body.to_vec(),
            index,
        })
    }
}

/// What stands where a copy has its sequence.
fn sequence_of(bytes: &[u8]) -> Option<u32> {
    let number = bytes.get(8..)?.first_chunk()?;
    Some(u32::from_le_bytes(*number))
}

/// Sequences wrap: `a` is newer if it is less than half the range ahead.
const fn is_newer(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

/// Nothing was ever written there: erased flash, a file that ends before, or the hole between two copies in a file.
#[must_use]
pub fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0xff) || bytes.iter().all(|b| *b == 0)
}

/// What half a byte makes of a CRC-32C (Castagnoli, reflected).
const CRC_OF_NIBBLE: [u32; 16] = {
    let mut table = [0; 16];
    let mut nibble = 0;
    while nibble < 16 {
        let mut crc = nibble as u32;
        let mut bit = 0;
        while bit < 4 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
            bit += 1;
        }
        table[nibble] = crc;
        nibble += 1;
    }
    table
};

/// CRC-32C, half a byte at a time: records are small, and so should plugins be, so the table has 64 bytes. Bit by bit it would
/// be most of what a plugin does.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    let half = |crc: u32| (crc >> 4) ^ CRC_OF_NIBBLE[(crc & 15) as usize];
    let step = |crc: u32, byte: &u8| half(half(crc ^ u32::from(*byte)));
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests;
