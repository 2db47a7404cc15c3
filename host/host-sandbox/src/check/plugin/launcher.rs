//! What starts the images of a flash-file target in a case: the duties that `pal-flash-file`'s README asks of a launcher,
//! on the shelf's regions. Of other kinds of target nobody here knows the boot reader; their cases end before a start.

use super::bench::image;
use super::device::{Shelf, Store};
use crate::boot::{self, BootRecord, Doubled, Image, Next, REGION_BYTES, SECOND_AT, Stored, Tries};
use crate::scenario::digest;

/// Starts in test that an image has.
const TRIES_MAX: u32 = 3;

/// Bytes of the image that is confirmed at the beginning; the trailer says version 1.0.0.
const FIRST_BYTES: u64 = 5000;

/// Regions of a target with two slots of `slot` bytes.
pub(super) fn regions(slot: usize, flash_file: bool) -> Vec<Store> {
    let record = usize::try_from(REGION_BYTES).unwrap_or(0);
    let mut stores = vec![
        Store::new("slot-a", 0, slot),
        Store::new("slot-b", 0, slot),
        Store::new("record", 1, record),
        Store::new("tries", 1, record),
    ];
    stores[3].region.read_only = true;
    let first = image(0, FIRST_BYTES.min(slot as u64));
    stores[0].place(0, &first);
    if flash_file {
        let confirmed = Image {
            slot: 0,
            length: first.len() as u64,
            sha256: digest(&first),
        };
        for sequence in 1..=2 {
            let record = BootRecord {
                sequence,
                confirmed,
                next: Next::None,
                tag: 0,
            };
            let at = if sequence == 1 { 0 } else { SECOND_AT };
            let at = usize::try_from(at).unwrap_or(0);
            stores[2].place(at, &record.encode());
        }
    }
    stores
}

fn bytes<'a>(shelf: &'a Shelf, name: &str) -> &'a [u8] {
    let mut stores = shelf.stores.iter();
    let store = stores.find(|store| store.region.name == name);
    store.map_or(&[], |store| &store.bytes)
}

fn record(shelf: &Shelf) -> Option<BootRecord> {
    match boot::read(bytes(shelf, "record")) {
        Stored::Valid(record, _) => Some(record),
        Stored::Blank | Stored::Damaged => None,
    }
}

/// Index of the region whose image is confirmed.
pub(super) fn confirmed_slot(shelf: &Shelf) -> Option<u32> {
    record(shelf).map(|record| record.confirmed.slot.into())
}

/// Whether the slot holds the image.
fn holds(shelf: &Shelf, image: &Image) -> bool {
    let slot = bytes(shelf, if image.slot == 0 { "slot-a" } else { "slot-b" });
    let length = usize::try_from(image.length).unwrap_or(usize::MAX);
    slot.get(..length)
        .is_some_and(|bytes| digest(bytes) == image.sha256)
}

/// Why there would be nothing to start now.
pub(super) fn not_bootable(shelf: &Shelf) -> Option<String> {
    let Some(record) = record(shelf) else {
        return Some("no copy of the state record can be read".to_owned());
    };
    (!holds(shelf, &record.confirmed))
        .then(|| "the confirmed slot does not hold the confirmed image".to_owned())
}

/// Starts what counts; with `dies` the image in test does not stay up, and the confirmed one runs in the end.
pub(super) fn start(shelf: &mut Shelf, dies: bool) -> String {
    let Some(record) = record(shelf) else {
        return "nothing to start: the record cannot be read".to_owned();
    };
    let (tries, copy) = match boot::read::<Tries>(bytes(shelf, "tries")) {
        Stored::Valid(tries, copy) => (Some(tries), copy),
        Stored::Blank | Stored::Damaged => (None, 1),
    };
    let counts = tries.filter(|tries| tries.record_sequence == record.sequence);
    let used = counts.map_or(0, |tries| tries.used);
    let gone_back = counts.is_some_and(|tries| tries.started == record.confirmed.slot);
    let (slot, used) = match record.next {
        Next::Armed(next) if !gone_back && used < TRIES_MAX && holds(shelf, &next) => {
            if dies {
                (record.confirmed.slot, TRIES_MAX)
            } else {
                (next.slot, used + 1)
            }
        }
        Next::Armed(_) | Next::Rejected(_) | Next::None => (record.confirmed.slot, used),
    };
    let next = Tries {
        sequence: tries.map_or(1, |tries| tries.sequence + 1),
        record_sequence: record.sequence,
        used,
        started: slot,
    };
    let at = if copy == 0 { SECOND_AT } else { 0 };
    let at = usize::try_from(at).unwrap_or(0);
    if let Some(store) = shelf.store("tries") {
        store.place(at, &next.encode());
    }
    let started = if slot == record.confirmed.slot {
        "confirmed"
    } else {
        "new"
    };
    format!("starts {started}")
}
