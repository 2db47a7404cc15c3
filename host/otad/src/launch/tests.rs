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
fn without_a_record_the_launcher_says_how_to_lay_one_down() {
    let bench = Bench::new(b"#!a", b"#!b");
    fs::remove_file(&bench.files.record).unwrap();
    let failed = bench.launch().unwrap_err();
    assert_eq!(failed.exit, Exit::Nothing);
    assert!(failed.text.contains("otad target init"), "{}", failed.text);
    fs::write(&bench.files.record, b"OTADREC1 and then something else").unwrap();
    let failed = bench.launch().unwrap_err();
    assert_eq!(failed.exit, Exit::Unverified);
    assert!(failed.text.contains("damaged"), "{}", failed.text);
    assert!(bench.dir.path().exists());
}
