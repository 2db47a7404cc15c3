//! Files that are appended to: a magic number, then records of length, CRC-32C and body.
//!
//! What a power cut leaves of the last record is no damage: nobody was told of it. Damage is passed over, and what stands
//! behind it is found again; how much it was the reader says.

/// Length and checksum of a record.
const HEAD_BYTES: usize = 8;

/// What a file holds.
pub(crate) struct Found<T> {
    /// Oldest first.
    pub(crate) items: Vec<T>,
    /// There is nothing else: it can be appended to.
    pub(crate) is_whole: bool,
    /// More is missing than what was being written.
    pub(crate) is_damaged: bool,
    /// Bytes that were passed over.
    pub(crate) lost_bytes: usize,
}

/// One record more.
pub(crate) fn put(body: &[u8], bytes: &mut Vec<u8>) {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    bytes.extend_from_slice(body);
}

/// Everything that can be read; bodies have at most `body_max` bytes, and `open` says what they are.
pub(crate) fn read<T>(
    bytes: &[u8],
    magic: &[u8],
    body_max: usize,
    open: impl Fn(&[u8]) -> Option<T>,
) -> Found<T> {
    let one = |bytes: &[u8]| {
        let (body, end) = body(bytes, body_max)?;
        Some((open(body)?, end))
    };
    let mut found = Found {
        items: Vec::new(),
        is_whole: true,
        is_damaged: !bytes.starts_with(magic),
        lost_bytes: 0,
    };
    let mut at = match found.is_damaged {
        true => 0,
        false => magic.len(),
    };
    while at < bytes.len() {
        if let Some((item, length)) = one(&bytes[at..]) {
            found.items.push(item);
            at += length;
            continue;
        }
        found.is_whole = false;
        let next = (at + 1..bytes.len()).find(|next| one(&bytes[*next..]).is_some());
        if next.is_none() && !found.is_damaged && is_torn(&bytes[at..], body_max) {
            break;
        }
        let end = next.unwrap_or(bytes.len());
        found.is_damaged = true;
        found.lost_bytes += end - at;
        at = end;
    }
    found.is_whole &= !found.is_damaged;
    found
}

/// The body of the record that begins here, and the length of the record.
fn body(bytes: &[u8], body_max: usize) -> Option<(&[u8], usize)> {
    let (length, rest) = word(bytes)?;
    let (crc, rest) = word(rest)?;
    let length = usize::try_from(length).ok()?;
    if !(1..=body_max).contains(&length) {
        return None;
    }
    let body = rest.get(..length)?;
    (crc32c::crc32c(body) == crc).then_some((body, HEAD_BYTES + length))
}

/// Whether it is the begin of one record, or room that was not filled to its end.
fn is_torn(bytes: &[u8], body_max: usize) -> bool {
    let Some((length, _)) = word(bytes).filter(|_| bytes.len() >= HEAD_BYTES) else {
        return true;
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let ends = (1..=body_max).contains(&length) && bytes.len() < HEAD_BYTES + length;
    ends || bytes.last() == Some(&0)
}

/// The number at the begin.
pub(crate) fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*word), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &[u8; 8] = b"OTADTEST";

    fn file() -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for body in [b"one".as_slice(), b"three", b"eleven"] {
            put(body, &mut bytes);
        }
        bytes
    }

    fn found(bytes: &[u8]) -> Found<Vec<u8>> {
        read(bytes, MAGIC, 100, |body| Some(body.to_vec()))
    }

    #[test]
    fn a_cut_at_the_end_is_no_damage_and_costs_one_record() {
        let whole = file();
        let first = MAGIC.len() + HEAD_BYTES + 3;
        let second = first + HEAD_BYTES + 5;
        for cut in first..whole.len() {
            // What did not reach the medium is missing, or zero.
            for zeros in [0, 1, 30] {
                let mut bytes = whole[..cut].to_vec();
                bytes.resize(cut + zeros, 0);
                let found = found(&bytes);
                assert!(!found.is_damaged, "{cut} {zeros}");
                assert_eq!(
                    found.items.len(),
                    1 + usize::from(cut >= second),
                    "{cut} {zeros}"
                );
                let at_border = [first, second].contains(&cut) && zeros == 0;
                assert_eq!(found.is_whole, at_border, "{cut} {zeros}");
            }
        }
        let found = found(&whole);
        assert!(found.is_whole && found.items.len() == 3);
    }

    #[test]
    fn what_stands_behind_a_damaged_byte_is_found_again() {
        let whole = file();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            let found = found(&bytes);
            let left = if at < MAGIC.len() { 3 } else { 2 };
            assert_eq!(found.items.len(), left, "byte {at}");
            assert!(!found.is_whole, "byte {at}");
        }
        assert!(found(b"").is_damaged);
    }
}
