//! The doubled record under power cuts at every call and every byte.

use super::{Doubled, Latest, Stored, crc32c};
use crate::fake::{Cut, Fake, Survivors};
use crate::lent::{BlockDevice, Region};

const RECORD: Doubled = Doubled {
    region: 0,
    magic: *b"TESTREC1",
    size: 48,
    second_at: 4096,
};

const BODY_BYTES: usize = 48 - super::OVERHEAD_BYTES;

fn world(erase_size: u32, write_size: u32) -> Fake {
    Fake::new(vec![Region {
        name: "record".to_owned(),
        kind: Region::RECORD,
        size: 8192,
        erase_size,
        write_size,
        read_only: false,
    }])
}

fn valid(stored: Stored) -> Latest {
    match stored {
        Stored::Valid(copy) => copy,
        other => panic!("{other:?}"),
    }
}

/// Writes `count` versions, the n-th with a body of n, and returns the last.
fn write_versions(fake: &Fake, count: u8) -> Stored {
    let mut stored = RECORD.load(fake).unwrap();
    for n in 1..=count {
        stored = Stored::Valid(RECORD.store(fake, &stored, &[n; BODY_BYTES]).unwrap());
    }
    stored
}

#[test]
fn the_checksum_is_castagnoli() {
    // RFC 3720 B.4: 32 bytes of zeros, and the check value of the catalogue.
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn versions_alternate_between_the_copies_and_the_last_one_counts() {
    let fake = world(1, 1);
    assert_eq!(RECORD.load(&fake).unwrap(), Stored::Blank);
    for n in 1..=5 {
        let copy = valid(write_versions(&fake, 1));
        assert_eq!(
            (copy.sequence, copy.index),
            (n, u8::try_from(n + 1).unwrap() % 2)
        );
        assert_eq!(RECORD.load(&fake).unwrap(), Stored::Valid(copy));
    }
}

#[test]
fn a_sequence_that_wraps_is_still_newer() {
    let fake = world(1, 1);
    let last = Stored::Valid(Latest {
        sequence: u32::MAX - 1,
        body: Vec::new(),
        index: 1,
    });
    let a = Stored::Valid(RECORD.store(&fake, &last, &[1; BODY_BYTES]).unwrap());
    let b = RECORD.store(&fake, &a, &[2; BODY_BYTES]).unwrap();
    assert_eq!(b.sequence, 0);
    assert_eq!(valid(RECORD.load(&fake).unwrap()), b);
}

#[test]
fn a_medium_with_erase_and_write_units_works_alike() {
    for (erase, write) in [(1, 4), (256, 16), (4096, 256), (4096, 4096)] {
        let fake = world(erase, write);
        let stored = write_versions(&fake, 3);
        assert_eq!(RECORD.load(&fake).unwrap(), stored, "{erase}/{write}");
    }
}

#[test]
fn a_region_that_does_not_fit_is_refused_before_anything_is_written() {
    let rows = [(8192, 1, 1, 31), (8192, 1, 1, 33), (4100, 1, 1, 32)];
    for (size, erase, write, body) in rows {
        let fake = world(erase, write);
        fake.world().regions[0].region.size = size;
        let failure = RECORD
            .store(&fake, &Stored::Blank, &vec![0; body])
            .unwrap_err();
        assert_eq!(failure.main, 0xd0, "{size}/{body}");
        assert_eq!(fake.world().calls, []);
    }
    let large_units = world(8192, 1);
    let failure = RECORD
        .store(&large_units, &Stored::Blank, &[0; BODY_BYTES])
        .unwrap_err();
    assert_eq!(failure.main, 0xd0);
}

#[test]
fn one_damaged_byte_in_a_copy_makes_the_other_one_count() {
    for at in 0..48 {
        let fake = world(1, 1);
        let newest = valid(write_versions(&fake, 2));
        assert_eq!(newest.index, 1);
        fake.world().regions[0].bytes[4096 + at] ^= 0x40;
        assert_eq!(valid(RECORD.load(&fake).unwrap()).body, [1; BODY_BYTES]);
        fake.world().regions[0].bytes[at] ^= 0x40;
        assert_eq!(RECORD.load(&fake).unwrap(), Stored::Damaged);
    }
}

#[test]
fn one_damaged_byte_in_the_older_copy_is_no_matter_even_if_that_makes_it_look_newer() {
    for at in 0..48 {
        for bit in 0..8 {
            let fake = world(1, 1);
            write_versions(&fake, 2);
            fake.world().regions[0].bytes[at] ^= 1 << bit;
            assert_eq!(valid(RECORD.load(&fake).unwrap()).body, [2; BODY_BYTES]);
        }
    }
}

#[test]
fn a_damaged_record_is_not_followed() {
    let fake = world(1, 1);
    let failure = RECORD
        .store(&fake, &Stored::Damaged, &[0; BODY_BYTES])
        .unwrap_err();
    assert_eq!((failure.main, failure.sub), (0xd6, 74));
}

#[test]
fn a_medium_that_loses_what_it_took_is_noticed() {
    let fake = world(1, 1);
    let stored = write_versions(&fake, 1);
    /// Takes writes to the second copy and forgets them.
    struct Forgetful(Fake);
    impl BlockDevice for Forgetful {
        fn regions(&self) -> Vec<Region> {
            self.0.regions()
        }
        fn read_at(&self, r: u32, at: u64, n: u32) -> Result<Vec<u8>, crate::Failure> {
            self.0.read_at(r, at, n)
        }
        fn write_at(&self, _: u32, _: u64, _: &[u8]) -> Result<(), crate::Failure> {
            Ok(())
        }
        fn erase(&self, _: u32, _: u64, _: u64) -> Result<(), crate::Failure> {
            Ok(())
        }
        fn sync(&self, _: u32) -> Result<(), crate::Failure> {
            Ok(())
        }
    }
    let failure = RECORD
        .store(&Forgetful(fake.clone()), &stored, &[2; BODY_BYTES])
        .unwrap_err();
    assert_eq!((failure.main, failure.sub), (0xd6, 5));
    assert_eq!(RECORD.load(&fake).unwrap(), stored);
}

#[test]
fn a_power_cut_at_any_call_and_byte_leaves_the_old_version_or_the_new_one() {
    for (erase, write) in [(1, 1), (4096, 16)] {
        for before in 1..=2_u8 {
            for at_call in 0..8 {
                for survivors in all_survivors() {
                    let fake = world(erase, write);
                    let old = write_versions(&fake, before);
                    let base = fake.world().calls.len();
                    fake.world().cut = Some(Cut {
                        at_call: base + at_call,
                        survivors,
                    });
                    let result = RECORD.store(&fake, &old, &[9; BODY_BYTES]);
                    let was_cut = fake.world().is_dark();
                    fake.world().power_on();
                    let now = valid(RECORD.load(&fake).unwrap());
                    let story = format!("{erase}/{write}, {before}, {at_call}, {survivors:?}");
                    if now.body == [9; BODY_BYTES] {
                        assert!(result.is_ok() || was_cut, "{story}");
                    } else {
                        assert_eq!(Stored::Valid(now), old, "{story}");
                        assert!(result.is_err(), "{story}: said stored, was not");
                    }
                    // Whichever it is, the next version can be written.
                    let stored = RECORD.load(&fake).unwrap();
                    let next = RECORD.store(&fake, &stored, &[7; BODY_BYTES]).unwrap();
                    assert_eq!(RECORD.load(&fake).unwrap(), Stored::Valid(next), "{story}");
                }
            }
        }
    }
}

fn all_survivors() -> Vec<Survivors> {
    let mut all = vec![Survivors::Nothing, Survivors::All];
    for bytes in 0..=48 {
        all.push(Survivors::Head(bytes));
        all.push(Survivors::Tail(bytes));
    }
    all
}
