//! Files that are appended to: a magic number, then records of length, CRC-32C and body.
//!
//! What a power cut leaves of the last record is no damage: nobody was told of it. Damage is passed over, and what stands
//! behind it is found again, within `SUMMED_MAX`; how much it was the reader says.

/// Length and checksum of a record.
const HEAD_BYTES: usize = 8;

/// Most bytes that are summed in search of what stands behind damage, in lengths of the file: at every place stands a
/// number, and each may be the length of a body.
const SUMMED_MAX: usize = 16;

/// What a file holds.
pub(crate) struct Found<T> {
    /// Oldest first.
    pub(crate) items: Vec<T>,
    /// There is nothing else: it can be appended to.
    pub(crate) is_whole: bool,
    /// Bytes that were passed over, where more is missing than what was being written.
    pub(crate) lost_bytes: Option<usize>,
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
    let one = |at: usize| {
        let (body, length) = body(&bytes[at..], body_max)?;
        Some((open(body)?, at + length))
    };
    let mut items = Vec::new();
    let has_magic = bytes.starts_with(magic);
    let mut is_whole = has_magic;
    let mut lost_bytes = (!has_magic).then_some(0);
    let mut summed_max = bytes.len().saturating_mul(SUMMED_MAX);
    let mut at = if has_magic { magic.len() } else { 0 };
    while at < bytes.len() {
        if let Some((item, end)) = one(at) {
            items.push(item);
            at = end;
            continue;
        }
        is_whole = false;
        let next = (at + 1..bytes.len()).find(|next| {
            let length = claimed(&bytes[*next..], body_max).unwrap_or(0);
            // One that is too long for what is left is no reason to pass over shorter ones behind it.
            let Some(left) = summed_max.checked_sub(length) else {
                return false;
            };
            summed_max = left;
            one(*next).is_some()
        });
        if next.is_none() && lost_bytes.is_none() && is_torn(&bytes[at..], body_max) {
            break;
        }
        let end = next.unwrap_or(bytes.len());
        *lost_bytes.get_or_insert(0) += end - at;
        at = end;
    }
    Found {
        items,
        is_whole,
        lost_bytes,
    }
}

/// Length of the body of the record that begins here, if all of it is there.
fn claimed(bytes: &[u8], body_max: usize) -> Option<usize> {
    let (length, _) = word(bytes)?;
    let length = usize::try_from(length).ok()?;
    let fits = (1..=body_max).contains(&length) && bytes.len() >= HEAD_BYTES + length;
    fits.then_some(length)
}

/// The body of the record that begins here, and the length of the record.
fn body(bytes: &[u8], body_max: usize) -> Option<(&[u8], usize)> {
    let end = HEAD_BYTES + claimed(bytes, body_max)?;
    let (crc, _) = word(&bytes[4..])?;
    let body = &bytes[HEAD_BYTES..end];
    (crc32c::crc32c(body) == crc).then_some((body, end))
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
                assert_eq!(found.lost_bytes, None, "{cut} {zeros}");
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
        assert_eq!(found(b"").lost_bytes, Some(0));
    }

    #[test]
    fn a_search_among_numbers_that_are_no_lengths_has_an_end() {
        // Every other place claims 64 KiB. What is left of the search is less than that, and enough for a record of usual size.
        for (body_bytes, is_found) in [(20, true), (70_000, false)] {
            let mut bytes = file();
            let whole = bytes.len();
            bytes.extend([0, 1].repeat(1 << 17));
            let junk = bytes.len() - whole;
            put(&vec![7; body_bytes], &mut bytes);
            let found = read(&bytes, MAGIC, 1 << 17, |body| Some(body.to_vec()));
            let rest = bytes.len() - whole;
            assert_eq!(found.items.len(), 3 + usize::from(is_found));
            assert_eq!(found.lost_bytes, Some(if is_found { junk } else { rest }));
        }
    }
}
