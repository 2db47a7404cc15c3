//! The two records of a flash-file target, as bytes: `record`, which only the plugin writes, and `tries`, which only the
//! launcher writes.
//!
//! Each is kept twice, in its first and its second 4 KiB; the valid copy with the newer sequence counts, writes go to
//! the other one. The layout is documented with the plugin (`pal-plugins/pal-flash-file/README.md`); launcher and plugin
//! share the bytes and no code, and a test in `tests/` compares them. Not here: files, decisions.

/// Where the second copy begins: one erase block of common flash, so that a torn write cannot touch both.
pub const COPY_BYTES: usize = 4096;

/// Bytes of a region that holds a doubled record.
pub const REGION_BYTES: u64 = 2 * COPY_BYTES as u64;

const NO_SLOT: u8 = 0xff;

/// One of the two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `slot-a`.
    A,
    /// `slot-b`.
    B,
}

impl Slot {
    /// Its region.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "slot-a",
            Self::B => "slot-b",
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn byte(slot: Option<Self>) -> u8 {
        match slot {
            Some(Self::A) => 0,
            Some(Self::B) => 1,
            None => NO_SLOT,
        }
    }

    /// `None` = not a slot's number, `Some(None)` = the number of no slot.
    fn parse(byte: u8) -> Option<Option<Self>> {
        match byte {
            0 => Some(Some(Self::A)),
            1 => Some(Some(Self::B)),
            NO_SLOT => Some(None),
            _ => None,
        }
    }
}

/// What lies in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where.
    pub slot: Slot,
    /// Bytes.
    pub length: u64,
    /// Their digest.
    pub sha256: [u8; 32],
}

/// Where an update stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The confirmed image counts.
    Settled,
    /// The next image is marked, in test.
    Armed,
    /// The next image was refused.
    Rejected,
}

/// The record that the plugin writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts writes.
    pub sequence: u32,
    /// The image to fall back to.
    pub confirmed: Option<Image>,
    /// The new image.
    pub next: Option<Image>,
    /// What is true of it.
    pub state: State,
}

/// The record that the launcher writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// Counts writes.
    pub sequence: u32,
    /// The record that was in force.
    pub record_sequence: u32,
    /// Starts of its next image.
    pub used: u32,
    /// What was started last.
    pub started: Option<Slot>,
}

/// A record that is kept twice.
pub trait Doubled: Copy {
    /// How a copy begins.
    const MAGIC: &'static [u8; 8];
    /// Bytes of a copy.
    const BYTES: usize;

    /// One copy, if these are its bytes and this build knows what they mean.
    fn decode(copy: &[u8]) -> Option<Self>;
    /// The bytes of one copy.
    fn encode(&self) -> Vec<u8>;

    /// The copy that counts, of a whole region, whatever it means: the older one never stands in for a newer one that
    /// only a later build understands.
    fn newest_copy(region: &[u8]) -> Option<(usize, &[u8])> {
        let copy = |at: usize| {
            let bytes = framed(region.get(at..)?, Self::MAGIC, Self::BYTES)?;
            Some((at, bytes, word(bytes, 8)?))
        };
        let (at, bytes, _) = match (copy(0), copy(COPY_BYTES)) {
            (Some(a), Some(b)) if is_newer(b.2, a.2) => b,
            (Some(a), _) => a,
            (None, b) => b?,
        };
        Some((at, bytes))
    }

    /// What the copy that counts says; `None` also if it is of a kind that this build does not know.
    fn newest(region: &[u8]) -> Option<(usize, Self)> {
        let (at, copy) = Self::newest_copy(region)?;
        Some((at, Self::decode(copy)?))
    }

    /// Where the next write of a region goes.
    fn next_offset(region: &[u8]) -> usize {
        match Self::newest_copy(region) {
            Some((0, _)) => COPY_BYTES,
            _ => 0,
        }
    }
}

/// Whether nothing was ever written: all 0xff, or all 0 as a hole in a file reads.
#[must_use]
pub fn is_blank(region: &[u8]) -> bool {
    region.iter().all(|b| *b == 0xff) || region.iter().all(|b| *b == 0)
}

/// Whether `a` comes after `b`; sequences wrap.
fn is_newer(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

fn word(copy: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(copy.get(at..at + 4)?.try_into().ok()?))
}

fn long(copy: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(copy.get(at..at + 8)?.try_into().ok()?))
}

/// Magic and checksum of one copy.
fn framed<'a>(copy: &'a [u8], magic: &[u8; 8], length: usize) -> Option<&'a [u8]> {
    let copy = copy.get(..length)?;
    let sum = word(copy, length - 4)?;
    (copy.starts_with(magic) && crc32c::crc32c(&copy[..length - 4]) == sum).then_some(copy)
}

fn seal(mut copy: Vec<u8>, length: usize) -> Vec<u8> {
    copy.resize(length - 4, 0);
    let sum = crc32c::crc32c(&copy);
    copy.extend(sum.to_le_bytes());
    copy
}

fn image(copy: &[u8], slot_at: usize, at: usize) -> Option<Option<Image>> {
    let Some(slot) = Slot::parse(*copy.get(slot_at)?)? else {
        return Some(None);
    };
    Some(Some(Image {
        slot,
        length: long(copy, at)?,
        sha256: copy.get(at + 8..at + 40)?.try_into().ok()?,
    }))
}

fn push_image(copy: &mut Vec<u8>, image: Option<Image>) {
    copy.extend(image.map_or(0, |i| i.length).to_le_bytes());
    copy.extend(image.map_or([0; 32], |i| i.sha256));
}

impl Doubled for Record {
    const MAGIC: &'static [u8; 8] = b"OTADREC1";
    const BYTES: usize = 128;

    fn decode(copy: &[u8]) -> Option<Self> {
        let copy = framed(copy, Self::MAGIC, Self::BYTES)?;
        let record = Self {
            sequence: word(copy, 8)?,
            confirmed: image(copy, 12, 16)?,
            next: image(copy, 13, 56)?,
            state: match copy[14] {
                0 => State::Settled,
                1 => State::Armed,
                2 => State::Rejected,
                _ => return None,
            },
        };
        // A record that says otherwise was not written by any plugin of ours.
        let same =
            matches!((record.confirmed, record.next), (Some(a), Some(b)) if a.slot == b.slot);
        (!same).then_some(record)
    }

    fn encode(&self) -> Vec<u8> {
        let mut copy = Self::MAGIC.to_vec();
        copy.extend(self.sequence.to_le_bytes());
        copy.push(Slot::byte(self.confirmed.map(|i| i.slot)));
        copy.push(Slot::byte(self.next.map(|i| i.slot)));
        copy.push(match self.state {
            State::Settled => 0,
            State::Armed => 1,
            State::Rejected => 2,
        });
        copy.push(0);
        push_image(&mut copy, self.confirmed);
        push_image(&mut copy, self.next);
        seal(copy, Self::BYTES)
    }
}

impl Doubled for Tries {
    const MAGIC: &'static [u8; 8] = b"OTADTRY1";
    const BYTES: usize = 64;

    fn decode(copy: &[u8]) -> Option<Self> {
        let copy = framed(copy, Self::MAGIC, Self::BYTES)?;
        Some(Self {
            sequence: word(copy, 8)?,
            record_sequence: word(copy, 12)?,
            used: word(copy, 16)?,
            // No slot of this build's: then its count is what counts.
            started: Slot::parse(copy[20]).flatten(),
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut copy = Self::MAGIC.to_vec();
        copy.extend(self.sequence.to_le_bytes());
        copy.extend(self.record_sequence.to_le_bytes());
        copy.extend(self.used.to_le_bytes());
        copy.push(Slot::byte(self.started));
        seal(copy, Self::BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u32) -> Record {
        Record {
            sequence,
            confirmed: Some(Image {
                slot: Slot::A,
                length: 7,
                sha256: [1; 32],
            }),
            next: Some(Image {
                slot: Slot::B,
                length: 9,
                sha256: [2; 32],
            }),
            state: State::Armed,
        }
    }

    fn region(copies: [Option<Vec<u8>>; 2]) -> Vec<u8> {
        let mut region = vec![0xff; 2 * COPY_BYTES];
        for (i, copy) in copies.into_iter().enumerate() {
            if let Some(copy) = copy {
                region[i * COPY_BYTES..][..copy.len()].copy_from_slice(&copy);
            }
        }
        region
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let bytes = record(3).encode();
        assert_eq!(bytes.len(), Record::BYTES);
        assert_eq!(Record::decode(&bytes), Some(record(3)));
        let tries = Tries {
            sequence: 5,
            record_sequence: 3,
            used: 2,
            started: Some(Slot::B),
        };
        let bytes = tries.encode();
        assert_eq!(bytes.len(), Tries::BYTES);
        assert_eq!(Tries::decode(&bytes), Some(tries));
    }

    #[test]
    fn the_newer_valid_copy_counts_and_the_other_is_written_next() {
        let (old, new) = (record(u32::MAX).encode(), record(0).encode());
        let rows = [
            ([Some(old.clone()), Some(new.clone())], Some(0), 0),
            ([Some(new.clone()), Some(old.clone())], Some(0), COPY_BYTES),
            ([Some(old), None], Some(u32::MAX), COPY_BYTES),
            ([None, Some(new)], Some(0), 0),
            ([None, None], None, 0),
        ];
        for (copies, sequence, offset) in rows {
            let region = region(copies);
            assert_eq!(Record::newest(&region).map(|r| r.1.sequence), sequence);
            assert_eq!(Record::next_offset(&region), offset);
        }
    }

    /// A copy of a later build: a state that this one does not know, well framed.
    fn later_kind(sequence: u32) -> Vec<u8> {
        let mut copy = record(sequence).encode();
        copy[14] = 3;
        copy.truncate(Record::BYTES - 4);
        seal(copy, Record::BYTES)
    }

    #[test]
    fn a_newer_copy_of_a_later_kind_is_not_replaced_by_the_older_one() {
        let old = record(7).encode();
        for (copies, at) in [
            ([Some(old.clone()), Some(later_kind(8))], COPY_BYTES),
            ([Some(later_kind(8)), Some(old.clone())], 0),
        ] {
            let region = region(copies);
            assert_eq!(Record::newest_copy(&region).map(|c| c.0), Some(at));
            assert_eq!(Record::newest(&region), None);
        }
        // The other way round it is past.
        let region = region([Some(old), Some(later_kind(6))]);
        assert_eq!(Record::newest(&region), Some((0, record(7))));
    }

    #[test]
    fn tries_that_name_no_known_slot_still_count() {
        let mut copy = Tries {
            sequence: 5,
            record_sequence: 3,
            used: 2,
            started: None,
        }
        .encode();
        copy[20] = 9;
        copy.truncate(Tries::BYTES - 4);
        let tries = Tries::decode(&seal(copy, Tries::BYTES)).unwrap();
        assert_eq!((tries.used, tries.started), (2, None));
    }

    #[test]
    fn a_changed_byte_makes_a_copy_invalid() {
        let bytes = record(1).encode();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(Record::decode(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn a_record_with_both_images_in_one_slot_is_invalid() {
        let mut bad = record(1);
        bad.next = bad.confirmed;
        assert_eq!(Record::decode(&bad.encode()), None);
    }
}
