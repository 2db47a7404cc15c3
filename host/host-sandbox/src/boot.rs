//! The two records between a PAL and a launcher, byte for byte as `pal-flash-file`'s README says: the state record, which
//! the PAL writes, and the tries record, which the launcher writes. Encoding and decoding; what follows is decided by
//! their owners (`pal.rs`, `launcher.rs`) and judged by the checkers.

/// Where the second copy of a record begins.
pub(crate) const SECOND_AT: u64 = 4096;

/// Bytes of a region that holds a record.
pub(crate) const REGION_BYTES: u64 = 8192;

/// The image in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// 0 = a, 1 = b.
    pub slot: u8,
    /// Bytes.
    pub length: u64,
    /// SHA-256 of them.
    pub sha256: [u8; 32],
}

/// What is marked beside the confirmed image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    None,
    /// To be started, in test.
    Armed(Image),
    /// Never to be started.
    Rejected(Image),
}

/// The state record of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootRecord {
    /// Grows with every version.
    pub sequence: u32,
    /// What is started when nothing is in test.
    pub confirmed: Image,
    /// What else.
    pub next: Next,
    /// The transfer that was activated last, 0 = none.
    pub tag: u64,
}

/// What the launcher started last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tries {
    pub(crate) sequence: u32,
    /// Sequence of the state record then.
    pub(crate) record_sequence: u32,
    /// Starts in test under that record.
    pub(crate) used: u32,
    /// The slot.
    pub(crate) started: u8,
}

/// A record that is kept twice.
pub(crate) trait Doubled: Sized {
    const MAGIC: &'static [u8; 8];
    const BYTES: usize;

    fn sequence(&self) -> u32;
    /// What stands between sequence and CRC.
    fn put(&self, body: &mut [u8]);
    fn get(sequence: u32, body: &[u8]) -> Option<Self>;

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; Self::BYTES];
        bytes[..8].copy_from_slice(Self::MAGIC);
        bytes[8..12].copy_from_slice(&self.sequence().to_le_bytes());
        let end = Self::BYTES - 4;
        self.put(&mut bytes[12..end]);
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(copy: &[u8]) -> Option<Self> {
        let copy = copy.get(..Self::BYTES)?;
        let end = Self::BYTES - 4;
        let whole =
            copy.starts_with(Self::MAGIC) && crc32c::crc32c(&copy[..end]) == word(copy, end);
        whole.then(|| Self::get(word(copy, 8), &copy[12..end]))?
    }
}

/// What a region holds of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored<R> {
    /// Nothing was ever written.
    Blank,
    /// The version that counts, and which copy it is.
    Valid(R, usize),
    /// Something, and no copy of it is whole.
    Damaged,
}

/// The version that counts, of the beginnings of both copies.
pub(crate) fn newest<R: Doubled>(first: &[u8], second: &[u8]) -> Stored<R> {
    match (R::decode(first), R::decode(second)) {
        (Some(a), Some(b)) if is_newer(b.sequence(), a.sequence()) => Stored::Valid(b, 1),
        (Some(a), _) => Stored::Valid(a, 0),
        (None, Some(b)) => Stored::Valid(b, 1),
        (None, None) if is_blank(first) && is_blank(second) => Stored::Blank,
        (None, None) => Stored::Damaged,
    }
}

/// The version that counts, of a whole region, which may be shorter than its records.
pub(crate) fn read<R: Doubled>(region: &[u8]) -> Stored<R> {
    let at = |start: usize| region.get(start.min(region.len())..).unwrap_or_default();
    let copy = |start: usize| {
        let rest = at(start);
        &rest[..R::BYTES.min(rest.len())]
    };
    newest(copy(0), copy(SECOND_AT as usize))
}

fn is_newer(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0xff) || bytes.iter().all(|b| *b == 0)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |word| u32::from_le_bytes(*word))
}

const NO_SLOT: u8 = 0xff;

impl Doubled for BootRecord {
    const MAGIC: &'static [u8; 8] = b"OTADREC1";
    const BYTES: usize = 128;

    fn sequence(&self) -> u32 {
        self.sequence
    }

    fn put(&self, body: &mut [u8]) {
        let (state, next) = match self.next {
            Next::None => (0, None),
            Next::Armed(image) => (1, Some(image)),
            Next::Rejected(image) => (2, Some(image)),
        };
        body[0] = self.confirmed.slot;
        body[1] = next.map_or(NO_SLOT, |image| image.slot);
        body[2] = state;
        put_image(&mut body[4..44], &self.confirmed);
        if let Some(image) = next {
            put_image(&mut body[44..84], &image);
        }
        body[84..92].copy_from_slice(&self.tag.to_le_bytes());
    }

    fn get(sequence: u32, body: &[u8]) -> Option<Self> {
        let confirmed = get_image(body[0], &body[4..44])?;
        let next = match (body[2], body[1]) {
            (0, NO_SLOT) => Next::None,
            (state @ (1 | 2), slot) if slot != confirmed.slot => {
                let image = get_image(slot, &body[44..84])?;
                if state == 1 {
                    Next::Armed(image)
                } else {
                    Next::Rejected(image)
                }
            }
            _ => return None,
        };
        let tag = u64::from_le_bytes(*body[84..].first_chunk()?);
        Some(Self {
            sequence,
            confirmed,
            next,
            tag,
        })
    }
}

fn put_image(place: &mut [u8], image: &Image) {
    place[..8].copy_from_slice(&image.length.to_le_bytes());
    place[8..].copy_from_slice(&image.sha256);
}

fn get_image(slot: u8, place: &[u8]) -> Option<Image> {
    (slot < 2).then_some(Image {
        slot,
        length: u64::from_le_bytes(*place.first_chunk()?),
        sha256: *place[8..].first_chunk()?,
    })
}

impl Doubled for Tries {
    const MAGIC: &'static [u8; 8] = b"OTADTRY1";
    const BYTES: usize = 64;

    fn sequence(&self) -> u32 {
        self.sequence
    }

    fn put(&self, body: &mut [u8]) {
        body[..4].copy_from_slice(&self.record_sequence.to_le_bytes());
        body[4..8].copy_from_slice(&self.used.to_le_bytes());
        body[8] = self.started;
    }

    fn get(sequence: u32, body: &[u8]) -> Option<Self> {
        (body[8] < 2).then(|| Self {
            sequence,
            record_sequence: word(body, 0),
            used: word(body, 4),
            started: body[8],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u32, next: Next) -> BootRecord {
        BootRecord {
            sequence,
            confirmed: image(0),
            next,
            tag: 7,
        }
    }

    fn image(slot: u8) -> Image {
        Image {
            slot,
            length: 1000,
            sha256: [slot + 1; 32],
        }
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        for next in [Next::None, Next::Armed(image(1)), Next::Rejected(image(1))] {
            let record = record(3, next);
            assert_eq!(BootRecord::decode(&record.encode()), Some(record));
        }
        let tries = Tries {
            sequence: 5,
            record_sequence: 3,
            used: 2,
            started: 1,
        };
        assert_eq!(Tries::decode(&tries.encode()), Some(tries));
    }

    #[test]
    fn the_newer_whole_copy_counts_and_a_torn_one_never() {
        let (old, new) = (record(3, Next::None), record(4, Next::Armed(image(1))));
        let mut region = old.encode();
        region.resize(SECOND_AT as usize, 0xff);
        region.extend(new.encode());
        assert_eq!(read(&region), Stored::Valid(new, 1));
        for length in 0..128 {
            let torn = &region[..SECOND_AT as usize + length];
            assert_eq!(read(torn), Stored::Valid(old, 0), "{length} bytes");
        }
        assert_eq!(read::<BootRecord>(&[]), Stored::Blank);
        assert_eq!(read::<BootRecord>(&[1, 2, 3]), Stored::Damaged);
    }

    #[test]
    fn a_record_whose_slots_are_one_is_no_record() {
        let wrong = record(3, Next::Armed(image(0)));
        assert_eq!(BootRecord::decode(&wrong.encode()), None);
    }
}
