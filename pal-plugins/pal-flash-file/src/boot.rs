//! What lies in the regions `record` and `tries`, byte for byte as README.md of this crate says: it is read by the
//! launcher too. Encoding and decoding only; what follows from it is decided in `lib.rs`.

use pal_sdk::lent::BlockDevice;
use pal_sdk::record::{Doubled, OVERHEAD_BYTES, Stored};
use pal_sdk::{Failure, code};

/// Where the second copy of both records begins: a flash page of its own on most devices.
const SECOND_AT: u64 = 4096;

/// EBADMSG, the `sub` of a record that no reader can make sense of.
pub(crate) const DAMAGED: u32 = 74;

/// One of the two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    A,
    B,
}

impl Slot {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub(crate) const fn region_name(self) -> &'static str {
        match self {
            Self::A => "slot-a",
            Self::B => "slot-b",
        }
    }

    /// The outer `None` is no slot's number; the inner one is 0xff, "none".
    const fn from_byte(byte: u8) -> Option<Option<Self>> {
        match byte {
            0 => Some(Some(Self::A)),
            1 => Some(Some(Self::B)),
            0xff => Some(None),
            _ => None,
        }
    }

    const fn to_byte(slot: Option<Self>) -> u8 {
        match slot {
            Some(Self::A) => 0,
            Some(Self::B) => 1,
            None => 0xff,
        }
    }
}

/// An image in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) slot: Slot,
    pub(crate) length: u64,
    pub(crate) sha256: [u8; 32],
}

/// What is marked beside the confirmed image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    None,
    /// To be booted, in test.
    Armed(Image),
    /// Never to be booted.
    Rejected(Image),
}

/// The state record. Only this plugin writes it, except for the first one of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Goes up with every write.
    pub(crate) sequence: u32,
    /// The image that boots when nothing is in test.
    pub(crate) confirmed: Image,
    pub(crate) next: Next,
    /// Tag of the transfer that was activated last, 0 = none.
    pub(crate) tag: u64,
}

/// A record as it was read, with what is needed to write the one after it.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) record: Record,
    stored: Stored,
}

const RECORD_BYTES: usize = 128;
const RECORD_BODY_BYTES: usize = RECORD_BYTES - OVERHEAD_BYTES;

const fn record_format(region: u32) -> Doubled {
    Doubled {
        region,
        magic: *b"OTADREC1",
        size: RECORD_BYTES as u32,
        second_at: SECOND_AT,
    }
}

impl Record {
    /// Read it; `None` where no image was ever confirmed.
    pub(crate) fn load(device: &impl BlockDevice, region: u32) -> Result<Option<Read>, Failure> {
        let stored = record_format(region).load(device)?;
        match &stored {
            Stored::Blank => Ok(None),
            Stored::Valid(latest) => match Self::decode(latest.sequence, &latest.body) {
                Some(record) => Ok(Some(Read { record, stored })),
                None => Err(damaged(
                    "the state record is of a kind that this build does not know",
                )),
            },
            Stored::Damaged => Err(damaged(
                "both copies of the state record are damaged; lay an image down anew with `otad target init`",
            )),
        }
    }

    /// Put another one in its place, atomically and durably.
    pub(crate) fn replace(
        device: &impl BlockDevice,
        region: u32,
        old: &Read,
        confirmed: Image,
        next: Next,
        tag: u64,
    ) -> Result<(), Failure> {
        let new = Self {
            sequence: 0, // the helper counts
            confirmed,
            next,
            tag,
        };
        record_format(region)
            .store(device, &old.stored, &new.encode())
            .map(drop)
    }

    fn encode(&self) -> [u8; RECORD_BODY_BYTES] {
        let (state, next) = match self.next {
            Next::None => (0, None),
            Next::Armed(image) => (1, Some(image)),
            Next::Rejected(image) => (2, Some(image)),
        };
        let mut body = [0; RECORD_BODY_BYTES];
        body[0] = Slot::to_byte(Some(self.confirmed.slot));
        body[1] = Slot::to_byte(next.map(|image| image.slot));
        body[2] = state;
        // body[3] is reserved.
        put_image(&mut body, 4, Some(&self.confirmed));
        put_image(&mut body, 44, next.as_ref());
        body[84..92].copy_from_slice(&self.tag.to_le_bytes());
        body
    }

    fn decode(sequence: u32, body: &[u8]) -> Option<Self> {
        let confirmed = take_image(body, 0, 4)??;
        let next = match (body.get(2)?, take_image(body, 1, 44)?) {
            (0, None) => Next::None,
            (1, Some(image)) if image.slot != confirmed.slot => Next::Armed(image),
            (2, Some(image)) if image.slot != confirmed.slot => Next::Rejected(image),
            _ => return None,
        };
        Some(Self {
            sequence,
            confirmed,
            next,
            tag: u64::from_le_bytes(*body.get(84..)?.first_chunk()?),
        })
    }
}

fn put_image(body: &mut [u8; RECORD_BODY_BYTES], at: usize, image: Option<&Image>) {
    if let Some(image) = image {
        body[at..at + 8].copy_from_slice(&image.length.to_le_bytes());
        body[at + 8..at + 40].copy_from_slice(&image.sha256);
    }
}

fn take_image(body: &[u8], slot_at: usize, at: usize) -> Option<Option<Image>> {
    let Some(slot) = Slot::from_byte(*body.get(slot_at)?)? else {
        return Some(None);
    };
    Some(Some(Image {
        slot,
        length: u64::from_le_bytes(*body.get(at..)?.first_chunk()?),
        sha256: *body.get(at + 8..)?.first_chunk()?,
    }))
}

/// The tries record. Only the launcher writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tries {
    /// Goes up with every start that it notes.
    pub(crate) sequence: u32,
    /// `sequence` of the state record that was in force when the launcher started a slot last.
    pub(crate) record_sequence: u32,
    /// Which one it started.
    pub(crate) started: Slot,
}

const TRIES_BYTES: u32 = 64;

/// What the launcher says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Launched {
    /// It has never started anything.
    Nothing,
    /// It has, and this is the last time.
    Last(Tries),
    /// Nobody can tell.
    Unknown,
}

impl Launched {
    pub(crate) fn load(device: &impl BlockDevice, region: u32) -> Result<Self, Failure> {
        let format = Doubled {
            region,
            magic: *b"OTADTRY1",
            size: TRIES_BYTES,
            second_at: SECOND_AT,
        };
        Ok(match format.load(device)? {
            Stored::Blank => Self::Nothing,
            Stored::Damaged => Self::Unknown,
            Stored::Valid(latest) => {
                Tries::decode(latest.sequence, &latest.body).map_or(Self::Unknown, Self::Last)
            }
        })
    }
}

impl Tries {
    fn decode(sequence: u32, body: &[u8]) -> Option<Self> {
        // The count in between is between the launcher and itself.
        Some(Self {
            sequence,
            record_sequence: u32::from_le_bytes(*body.first_chunk()?),
            started: Slot::from_byte(*body.get(8)?)??,
        })
    }
}

fn damaged(detail: &str) -> Failure {
    Failure::new(code::STORAGE, DAMAGED, detail)
}
