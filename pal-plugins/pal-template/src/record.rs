//! What lies in the region `record`: which data count and which are in test. Encoding only; what follows from it is
//! decided in `lib.rs`.
//!
//! ```text
//! body = counts | next | stage u8 (0 none, 1 marked, 2 in use)      data = slot u8 (0, 1; 0xff none) | length u64 | tag u64
//! ```
//!
//! All numbers are little-endian. The body is kept twice, with a sequence and a checksum (`pal_sdk::record::Doubled`).

use pal_sdk::lent::{BlockDevice, Region};
use pal_sdk::record::{Doubled, OVERHEAD_BYTES, Stored, is_blank};
use pal_sdk::{Failure, code};

const MAGIC: [u8; 8] = *b"TWOSLOT1";

/// Bytes of a file's entry: slot, length, tag.
const DATA_BYTES: usize = 1 + 8 + 8;

/// Two of them and the stage.
const BODY_BYTES: usize = 2 * DATA_BYTES + 1;

/// EBADMSG: no copy of the record is valid.
const EBADMSG: u32 = 74;

/// A file in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Data {
    /// 0 or 1.
    pub(crate) slot: u8,
    pub(crate) length: u64,
    /// The transfer that brought it.
    pub(crate) tag: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Marked,
    InUse,
}

/// New data, in test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) data: Data,
    pub(crate) stage: Stage,
}

/// Everything there is to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) counts: Option<Data>,
    pub(crate) next: Option<Next>,
}

impl Record {
    /// The slot whose data do not count.
    pub(crate) fn free_slot(&self) -> u8 {
        self.counts.map_or(0, |data| data.slot ^ 1)
    }

    /// What is there; a region that was never written says that nothing counts yet.
    pub(crate) fn load(
        device: &impl BlockDevice,
        number: u32,
        region: &Region,
    ) -> Result<Self, Failure> {
        match stored(device, &place(number, region))? {
            Stored::Blank => Ok(Self::default()),
            Stored::Valid(latest) => Self::decode(&latest.body).ok_or_else(damaged),
            Stored::Damaged => Err(damaged()),
        }
    }

    pub(crate) fn store(
        &self,
        device: &impl BlockDevice,
        number: u32,
        region: &Region,
    ) -> Result<(), Failure> {
        let place = place(number, region);
        let before = stored(device, &place)?;
        let first = before == Stored::Blank;
        let latest = place.store(device, &before, &self.encode())?;
        if first {
            // Both copies at once: from now on a lone copy that is damaged is no first one.
            place.store(device, &Stored::Valid(latest), &self.encode())?;
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let stage = match self.next.map(|next| next.stage) {
            None => 0,
            Some(Stage::Marked) => 1,
            Some(Stage::InUse) => 2,
        };
        let mut body = Vec::with_capacity(BODY_BYTES);
        for data in [self.counts, self.next.map(|next| next.data)] {
            let (slot, length, tag) = data.map_or((0xff, 0, 0), |d| (d.slot, d.length, d.tag));
            body.push(slot);
            body.extend(length.to_le_bytes());
            body.extend(tag.to_le_bytes());
        }
        body.push(stage);
        body
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let (counts, rest) = body.split_at_checked(DATA_BYTES)?;
        let (next, stage) = rest.split_at_checked(DATA_BYTES)?;
        let stage = match stage {
            [0] => None,
            [1] => Some(Stage::Marked),
            [2] => Some(Stage::InUse),
            _ => return None,
        };
        let next = match (decode_data(next)?, stage) {
            (Some(data), Some(stage)) => Some(Next { data, stage }),
            (None, None) => None,
            _ => return None,
        };
        Some(Self {
            counts: decode_data(counts)?,
            next,
        })
    }
}

/// What is there. Power may have failed in the very first write: that tore one copy, and the other one is blank.
fn stored(device: &impl BlockDevice, place: &Doubled) -> Result<Stored, Failure> {
    let stored = place.load(device)?;
    if stored == Stored::Damaged {
        let second = device.read_at(place.region, place.second_at, place.size)?;
        if is_blank(&second) {
            return Ok(Stored::Blank);
        }
    }
    Ok(stored)
}

/// The outer `None` is nonsense; the inner one is no data.
fn decode_data(bytes: &[u8]) -> Option<Option<Data>> {
    let (slot, numbers) = bytes.split_first()?;
    let (length, tag) = numbers.split_at_checked(8)?;
    let data = Data {
        slot: *slot,
        length: u64::from_le_bytes(length.try_into().ok()?),
        tag: u64::from_le_bytes(tag.try_into().ok()?),
    };
    match slot {
        0 | 1 => Some(Some(data)),
        0xff => Some(None),
        _ => None,
    }
}

/// One copy at the start of the region, one in its middle.
fn place(number: u32, region: &Region) -> Doubled {
    Doubled {
        region: number,
        magic: MAGIC,
        size: (OVERHEAD_BYTES + BODY_BYTES) as u32,
        second_at: region.size / 2,
    }
}

fn damaged() -> Failure {
    Failure::new(
        code::STORAGE,
        EBADMSG,
        "the record is damaged: what counts is not known",
    )
}
