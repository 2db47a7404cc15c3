//! A launcher written from README.md: it shares no code with the plugin but the checksum.

use pal_sdk::fake::Fake;
use pal_sdk::record::crc32c;

/// Tries that an image in test gets.
pub(super) const TRIES: u32 = 3;

/// Lay down the first image: slot a is confirmed. Both copies, so that there are two from the start.
pub(super) fn init(fake: &Fake, image: &[u8], digest: [u8; 32]) {
    for (at, sequence) in [(0, 1_u32), (4096, 2)] {
        let mut copy = vec![0; 128];
        copy[..8].copy_from_slice(b"OTADREC1");
        copy[8..12].copy_from_slice(&sequence.to_le_bytes());
        copy[12] = 0; // confirmed: slot a
        copy[13] = 0xff; // next: none
        copy[14] = 0; // settled
        copy[16..24].copy_from_slice(&(image.len() as u64).to_le_bytes());
        copy[24..56].copy_from_slice(&digest);
        seal(&mut copy);
        fake.world().region("record").place(at, &copy);
    }
}

fn seal(copy: &mut [u8]) {
    let end = copy.len() - 4;
    let crc = crc32c(&copy[..end]).to_le_bytes();
    copy[end..].copy_from_slice(&crc);
}

fn newest(fake: &Fake, region: &str, magic: &[u8; 8], size: usize) -> Option<(usize, Vec<u8>)> {
    let mut world = fake.world();
    let bytes = &world.region(region).bytes;
    let valid = |at: usize| {
        let copy = bytes[at..at + size].to_vec();
        let crc = crc32c(&copy[..size - 4]).to_le_bytes();
        (copy[..8] == *magic && copy[size - 4..] == crc).then_some((at, copy))
    };
    match (valid(0), valid(4096)) {
        (Some(a), Some(b)) if (u32_at(&b.1, 8).wrapping_sub(u32_at(&a.1, 8)) as i32) > 0 => Some(b),
        (Some(copy), _) | (None, Some(copy)) => Some(copy),
        (None, None) => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// What the state record says now: sequence, confirmed, next, state.
pub(super) fn record(fake: &Fake) -> (u32, u8, u8, u8) {
    let (_, copy) = newest(fake, "record", b"OTADREC1", 128).expect("a valid state record");
    (u32_at(&copy, 8), copy[12], copy[13], copy[14])
}

/// Start a slot, as at power-on or when the service restarts, and say which.
pub(super) fn launch(fake: &Fake) -> u8 {
    let (_, record) = newest(fake, "record", b"OTADREC1", 128).expect("a valid state record");
    let sequence = u32_at(&record, 8);
    let (confirmed, next, state) = (record[12], record[13], record[14]);
    let tries = newest(fake, "tries", b"OTADTRY1", 64);
    let (used, went_back) = match &tries {
        Some((_, t)) if u32_at(t, 12) == sequence => (u32_at(t, 16), t[20] == confirmed),
        _ => (0, false),
    };
    let wanted: [u8; 32] = record[96 - 32..96].try_into().unwrap();
    let fit =
        state == 1 && used < TRIES && !went_back && slot_digest(fake, next, &record) == wanted;
    let (slot, used) = if fit {
        (next, used + 1)
    } else {
        (confirmed, used)
    };
    let (at, last) = match &tries {
        Some((at, t)) => (4096 - at, u32_at(t, 8)),
        None => (0, 0),
    };
    let mut copy = vec![0; 64];
    copy[..8].copy_from_slice(b"OTADTRY1");
    copy[8..12].copy_from_slice(&(last.wrapping_add(1)).to_le_bytes());
    copy[12..16].copy_from_slice(&sequence.to_le_bytes());
    copy[16..20].copy_from_slice(&used.to_le_bytes());
    copy[20] = slot;
    seal(&mut copy);
    fake.world().region("tries").place(at, &copy);
    slot
}

fn slot_digest(fake: &Fake, slot: u8, record: &[u8]) -> [u8; 32] {
    let length = u64::from_le_bytes(record[56..64].try_into().unwrap());
    let name = ["slot-a", "slot-b"][usize::from(slot)];
    let mut world = fake.world();
    super::digest(&world.region(name).bytes[..usize::try_from(length).unwrap()])
}
