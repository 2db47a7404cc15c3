//! The launcher's decisions as rows, and its work on files of a temporary directory.

use super::*;

fn image(slot: Slot) -> Image {
    Image {
        slot,
        length: 4,
        sha256: [slot as u8; 32],
    }
}

fn armed() -> Record {
    Record {
        sequence: 9,
        confirmed: Some(image(Slot::A)),
        next: Some(image(Slot::B)),
        state: State::Armed,
    }
}

fn tries(record_sequence: u32, used: u32, started: Slot) -> Option<Tries> {
    Some(Tries {
        sequence: 4,
        record_sequence,
        used,
        started: Some(started),
    })
}

/// Record, tries, whether the next slot is fit -> slot, reason, tries noted (used, started).
type Row = (
    Record,
    Option<Tries>,
    bool,
    Slot,
    Reason,
    Option<(u32, Slot)>,
);

#[test]
fn the_slot_follows_from_record_and_tries() {
    use Reason::{Confirmed, NextUnfit, TriesUsedUp, Try};
    let settled = Record {
        next: None,
        state: State::Settled,
        ..armed()
    };
    let rejected = Record {
        state: State::Rejected,
        ..armed()
    };
    let attempt = |used| Try { used, max: 3 };
    let (a, b) = (Slot::A, Slot::B);
    let rows: [Row; 11] = [
        (settled, None, true, a, Confirmed, Some((0, a))),
        (settled, tries(9, 0, a), true, a, Confirmed, None),
        (settled, tries(8, 2, b), true, a, Confirmed, Some((0, a))),
        (rejected, tries(9, 1, b), true, a, Confirmed, Some((1, a))),
        (armed(), None, true, b, attempt(1), Some((1, b))),
        (armed(), tries(8, 3, b), true, b, attempt(1), Some((1, b))),
        (armed(), tries(9, 2, b), true, b, attempt(3), Some((3, b))),
        (armed(), tries(9, 3, b), true, a, TriesUsedUp, Some((3, a))),
        (armed(), tries(9, 3, a), true, a, TriesUsedUp, None),
        (armed(), tries(9, 1, a), true, a, TriesUsedUp, None),
        (armed(), None, false, a, NextUnfit, Some((0, a))),
    ];
    for (i, (record, tries, fit, slot, reason, noted)) in rows.into_iter().enumerate() {
        let choice = choose(&record, tries, 3, |_| fit).expect("a slot");
        assert_eq!(
            (choice.image.slot, choice.reason),
            (slot, reason),
            "row {i}"
        );
        let found = choice.note.map(|t| (t.used, t.started.unwrap()));
        assert_eq!(found, noted, "row {i}");
        if let Some(note) = choice.note {
            assert_eq!(note.record_sequence, 9, "row {i}");
            assert_eq!(
                note.sequence,
                if tries.is_some() { 5 } else { 0 },
                "row {i}"
            );
        }
    }
}

#[test]
fn without_a_confirmed_image_there_is_no_way_back() {
    let record = Record {
        confirmed: None,
        ..armed()
    };
    assert_eq!(choose(&record, tries(9, 3, Slot::B), 3, |_| true), None);
}

struct Bench {
    dir: tempfile::TempDir,
    files: Files,
    record: Record,
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    *hasher.finish().sha256()
}

impl Bench {
    fn new(a: &[u8], b: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let files = Files {
            slot_a: at("slot-a"),
            slot_b: at("slot-b"),
            record: at("record"),
            tries: at("tries"),
        };
        fs::write(&files.slot_a, a).unwrap();
        fs::write(&files.slot_b, b).unwrap();
        let lay = |slot, bytes: &[u8]| {
            Some(Image {
                slot,
                length: bytes.len() as u64,
                sha256: digest(bytes),
            })
        };
        let record = Record {
            sequence: 1,
            confirmed: lay(Slot::A, a),
            next: lay(Slot::B, b),
            state: State::Armed,
        };
        fs::write(&files.record, record.encode()).unwrap();
        Self { dir, files, record }
    }

    fn launch(&self) -> Result<(Slot, Reason), Failed> {
        let known = [self.record.confirmed, self.record.next];
        let is_verified = |d: &[u8; 32]| known.iter().flatten().any(|i| i.sha256 == *d);
        prepare(&self.files, 3, is_verified).map(|(c, _)| (c.image.slot, c.reason))
    }
}

#[test]
fn an_unconfirmed_slot_is_started_three_times_and_then_the_old_one_for_ever() {
    let bench = Bench::new(b"#!a", b"#!b");
    let slots: Vec<_> = (0..6).map(|_| bench.launch().unwrap().0).collect();
    let (a, b) = (Slot::A, Slot::B);
    assert_eq!(slots, [b, b, b, a, a, a]);
    let (_, tries) = Tries::newest(&fs::read(&bench.files.tries).unwrap()).unwrap();
    assert_eq!((tries.used, tries.started), (3, Some(a)));
}

#[test]
fn the_started_slot_is_executable() {
    let bench = Bench::new(b"#!/bin/sh\n", b"#!/bin/sh\nexit 0\n");
    bench.launch().unwrap();
    let mode = fs::metadata(&bench.files.slot_b)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o111, 0o111);
}

#[test]
fn bytes_that_were_not_verified_are_never_started() {
    for change in ["content", "length", "list"] {
        let bench = Bench::new(b"#!a", b"#!b");
        match change {
            "content" => fs::write(&bench.files.slot_b, b"#!c").unwrap(),
            "length" => fs::write(&bench.files.slot_b, b"#!b+").unwrap(),
            _ => {}
        }
        let old = bench.record.confirmed.unwrap().sha256;
        let is_verified = |d: &[u8; 32]| change != "list" || *d == old;
        let (choice, _) = prepare(&bench.files, 3, is_verified).unwrap();
        let expected = (Slot::A, Reason::NextUnfit);
        assert_eq!((choice.image.slot, choice.reason), expected, "{change}");
    }
}

#[test]
fn a_confirmed_slot_that_was_changed_is_not_started_either() {
    let bench = Bench::new(b"#!a", b"#!b");
    fs::write(&bench.files.slot_a, b"#!x").unwrap();
    fs::write(&bench.files.slot_b, b"#!x").unwrap();
    let failed = bench.launch().unwrap_err();
    assert_eq!(failed.exit, Exit::Unverified);
    assert!(failed.text.contains("not started"), "{}", failed.text);
}

#[test]
fn a_note_after_one_that_put_another_file_into_place_goes_to_that_one() {
    let bench = Bench::new(b"#!a", b"#!b");
    bench.launch().unwrap();
    let _sealed = seal_tries(&bench);
    let mut notes = Notes::open(&bench.files.tries);
    let first = bench.tries();
    for more in 1..=3 {
        let note = Tries {
            sequence: first.sequence + more,
            ..first
        };
        assert!(notes.write(Some(note)));
        assert_eq!(bench.tries(), note);
    }
}

#[test]
fn without_a_record_the_launcher_says_how_to_lay_one_down() {
    let bench = Bench::new(b"#!a", b"#!b");
    fs::remove_file(&bench.files.record).unwrap();
    let failed = bench.launch().unwrap_err();
    assert_eq!(failed.exit, Exit::Nothing);
    assert!(failed.text.contains("otad target init"), "{}", failed.text);
    let mut later = bench.record.encode();
    // Sequence 2, a state that this build does not know; the older copy says "armed".
    later[8] = 2;
    later[14] = 3;
    let mut region = bench.record.encode();
    region.resize(record::COPY_BYTES, 0xff);
    let sum = crc32c::crc32c(&later[..Record::BYTES - 4]);
    later[Record::BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
    region.extend(later);
    fs::write(&bench.files.record, region).unwrap();
    let failed = bench.launch().unwrap_err();
    assert_eq!(failed.exit, Exit::Unverified);
    assert!(failed.text.contains("a later otad"), "{}", failed.text);
    fs::write(&bench.files.record, b"OTADREC1 and then something else").unwrap();
    let failed = bench.launch().unwrap_err();
    assert_eq!(failed.exit, Exit::Unverified);
    assert!(failed.text.contains("damaged"), "{}", failed.text);
    assert!(bench.dir.path().exists());
}

impl Bench {
    /// Another record in place of the one that is there, as the plugin writes it.
    fn replace(&self, record: &Record) {
        fs::write(&self.files.record, record.encode()).unwrap();
    }

    /// A launch while whose first digest is taken the plugin writes another record.
    fn launch_while(&self, record: &Record) -> (Slot, Reason) {
        let known = [self.record.confirmed, self.record.next];
        let is_first = std::cell::Cell::new(true);
        let is_verified = |d: &[u8; 32]| {
            if is_first.take() {
                self.replace(record);
            }
            known.iter().flatten().any(|i| i.sha256 == *d)
        };
        let (choice, path) = prepare(&self.files, 3, is_verified).unwrap();
        assert_eq!(path, self.files.slot(choice.image.slot));
        (choice.image.slot, choice.reason)
    }

    fn tries(&self) -> Tries {
        Tries::newest(&fs::read(&self.files.tries).unwrap())
            .unwrap()
            .1
    }
}

#[test]
fn an_image_that_is_rejected_while_the_launcher_takes_its_digest_is_not_started() {
    let bench = Bench::new(b"#!a", b"#!b");
    let rejected = Record {
        sequence: 2,
        state: State::Rejected,
        ..bench.record
    };
    assert_eq!(bench.launch_while(&rejected), (Slot::A, Reason::Confirmed));
    let tries = bench.tries();
    assert_eq!((tries.record_sequence, tries.started), (2, Some(Slot::A)));
}

#[test]
fn an_image_that_is_committed_while_the_launcher_goes_back_is_started() {
    let bench = Bench::new(b"#!a", b"#!b");
    for _ in 0..3 {
        assert_eq!(bench.launch().unwrap().0, Slot::B);
    }
    let committed = Record {
        sequence: 2,
        confirmed: bench.record.next,
        next: None,
        state: State::Settled,
    };
    assert_eq!(bench.launch_while(&committed), (Slot::B, Reason::Confirmed));
    let tries = bench.tries();
    assert_eq!((tries.record_sequence, tries.started), (2, Some(Slot::B)));
}

#[test]
fn a_record_that_does_not_stop_changing_starts_nothing() {
    let bench = Bench::new(b"#!a", b"#!b");
    let sequence = std::cell::Cell::new(1);
    let is_verified = |_: &[u8; 32]| {
        sequence.set(sequence.get() + 1);
        bench.replace(&Record {
            sequence: sequence.get(),
            ..bench.record
        });
        true
    };
    let failed = prepare(&bench.files, 3, is_verified).unwrap_err();
    assert_eq!(failed.exit, Exit::Failed);
    assert!(failed.text.contains("has changed"), "{}", failed.text);
}

#[test]
fn starts_that_cannot_be_noted_keep_nothing_but_an_image_in_test_from_being_started() {
    let bench = Bench::new(b"#!a", b"#!b");
    // Neither opened nor replaced by another file.
    fs::create_dir(&bench.files.tries).unwrap();
    for _ in 0..2 {
        assert_eq!(bench.launch().unwrap(), (Slot::A, Reason::NextUnfit));
    }
    bench.replace(&Record {
        sequence: 2,
        next: None,
        state: State::Settled,
        ..bench.record
    });
    assert_eq!(bench.launch().unwrap(), (Slot::A, Reason::Confirmed));
}

/// Put a file into the place of `tries` that reads like it, can be opened, and takes no byte any more.
fn seal_tries(bench: &Bench) -> std::os::fd::OwnedFd {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    use std::os::fd::AsRawFd as _;
    let bytes = fs::read(&bench.files.tries).unwrap();
    let sealed = memfd_create("tries", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::io::pwrite(&sealed, &bytes, 0).unwrap();
    fcntl_add_seals(&sealed, SealFlags::WRITE | SealFlags::GROW).unwrap();
    fs::remove_file(&bench.files.tries).unwrap();
    let place = format!("/proc/self/fd/{}", sealed.as_raw_fd());
    std::os::unix::fs::symlink(place, &bench.files.tries).unwrap();
    sealed
}

#[test]
fn tries_that_alone_take_nothing_any_more_are_replaced_and_the_counting_goes_on() {
    for before in 1..=3 {
        let bench = Bench::new(b"#!a", b"#!b");
        let (a, b) = (Slot::A, Slot::B);
        let mut slots = Vec::new();
        for n in 0..6 {
            let _sealed = (n == before).then(|| seal_tries(&bench));
            slots.push(bench.launch().unwrap().0);
        }
        assert_eq!(slots, [b, b, b, a, a, a], "sealed after {before}");
        let tries = bench.tries();
        assert_eq!(
            (tries.used, tries.started),
            (3, Some(a)),
            "as the plugin sees it"
        );
    }
}

#[test]
fn a_fall_back_that_cannot_be_noted_at_all_starts_the_confirmed_image() {
    for (before, reason) in [(1, Reason::NextUnfit), (3, Reason::TriesUsedUp)] {
        let bench = Bench::new(b"#!a", b"#!b");
        for _ in 0..before {
            assert_eq!(bench.launch().unwrap().0, Slot::B);
        }
        let _sealed = seal_tries(&bench);
        fs::create_dir(draft_of(&bench.files.tries)).unwrap();
        for _ in 0..2 {
            assert_eq!(bench.launch().unwrap(), (Slot::A, reason));
        }
    }
}
