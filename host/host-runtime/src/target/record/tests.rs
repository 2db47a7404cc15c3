//! The record of a target: what is written of it, and when.

use super::*;
use crate::testing::FakeState;
use crate::types::Version;

const NAME: &str = "targets/gateway/app/record.json";

fn image() -> VerifiedImage {
    VerifiedImage {
        sha256: [7; 32],
        size: 1000,
        version: Some(Version::default()),
        signer: "signer".into(),
    }
}

/// A transfer and what becomes of it, as the machine writes it down.
fn story() -> Vec<TargetRecord> {
    let mut record = TargetRecord {
        format: FORMAT,
        ..TargetRecord::default()
    };
    let mut story = vec![record.clone()];
    let mut tell = |change: &dyn Fn(&mut TargetRecord, &mut TransferRecord)| {
        let transfer = record.transfer.take().map(Arc::unwrap_or_clone);
        let mut transfer = transfer.unwrap_or_else(|| TransferRecord {
            number: 3,
            spec: crate::types::FileSpec {
                job_id: "job-1".into(),
                file_id: 0,
                size: 1000,
                block_size: 256,
                file_type: 0,
                attributes: 0,
                path: "app.img".into(),
                certificate: "signer".into(),
                signature_kind: "sig-sha256-ecdsa".into(),
                signature: (0..71).collect(),
            },
            extents: Vec::new(),
            phase: Phase::Creating,
            image: None,
            blob: None,
        });
        change(&mut record, &mut transfer);
        record.transfer = Some(Arc::new(transfer));
        story.push(record.clone());
    };
    tell(&|record, _| record.transfers = 3);
    tell(&|_, transfer| {
        transfer.extents = vec![StoredExtent {
            region: "slot-b".into(),
            offset: 0,
            length: 1000,
        }];
        transfer.phase = Phase::Receiving;
        transfer.blob = Some(StoredBlob {
            schema: 1,
            bytes: vec![1, 2],
        });
    });
    tell(&|_, transfer| transfer.phase = Phase::Closed);
    tell(&|_, transfer| {
        transfer.phase = Phase::Verified;
        transfer.image = Some(StoredImage {
            image: image(),
            product: None,
        });
    });
    for phase in [Phase::Installed, Phase::Activating, Phase::Activated] {
        tell(&|_, transfer| transfer.phase = phase);
    }
    tell(&|record, transfer| {
        transfer.phase = Phase::Committed;
        transfer.blob = None;
        record.committed = Some(Arc::new(Committed {
            regions: vec!["slot-b".into()],
            image: image(),
            product: Some("demo".into()),
        }));
    });
    record.transfer = None;
    story.push(record);
    story
}

fn stored(state: &FakeState, record: &TargetRecord) {
    store(state, "gateway", "app", record, &mut Memo::default()).unwrap();
}

fn loaded(state: &FakeState) -> TargetRecord {
    load(state, "gateway", "app").unwrap()
}

fn bytes(state: &FakeState) -> Vec<u8> {
    state.load(NAME).unwrap().unwrap_or_default()
}

#[test]
fn whatever_changes_is_read_again_as_it_was_written() {
    let state = FakeState::default();
    for record in story().iter().chain(story().iter().rev()) {
        stored(&state, record);
        assert_eq!(loaded(&state), *record);
    }
}

#[test]
fn who_writes_again_and_again_writes_the_same_and_notices_what_others_have_written() {
    let (one, other) = (FakeState::default(), FakeState::default());
    let mut memo = Memo::default();
    for (number, record) in story().iter().enumerate() {
        if number == 3 {
            for state in [&one, &other] {
                stored(state, &TargetRecord::default());
            }
        }
        stored(&one, record);
        store(&other, "gateway", "app", record, &mut memo).unwrap();
        assert_eq!(bytes(&other), bytes(&one));
    }
}

#[test]
fn who_has_read_it_writes_the_same_and_does_not_mistake_what_another_build_has_written() {
    let more = [r#"{"more":1}"#, r#"{"transfer":{"more":1}}"#];
    for record in story() {
        let known = more.into_iter().filter(|change| {
            // A transfer that has nothing else is none.
            record.transfer.is_some() || !change.contains("transfer")
        });
        let whole = known.map(|change| format!("{change}\n"));
        let torn = [String::new(), r#"{"torn"#.to_owned()];
        for also in whole.chain(torn) {
            let (one, other) = (FakeState::default(), FakeState::default());
            for state in [&one, &other] {
                stored(state, &record);
                let there = [bytes(state), also.as_bytes().to_vec()].concat();
                state.store(NAME, &there).unwrap();
            }
            let (read, mut memo) = load_to_write(&other, "gateway", "app").unwrap();
            for mut next in story() {
                next.transfers = read.transfers + 1;
                stored(&one, &next);
                store(&other, "gateway", "app", &next, &mut memo).unwrap();
                assert_eq!(bytes(&other), bytes(&one), "{also}");
            }
        }
    }
}

#[test]
fn a_change_is_written_as_the_difference_of_what_is_written_of_both() {
    let all = story();
    for old in &all {
        for new in &all {
            let wanted = difference(&value(old).unwrap(), &value(new).unwrap());
            let patch = patch(old, new).unwrap();
            let text = |of: &Option<Value>| of.as_ref().map(Value::to_string);
            assert_eq!(text(&patch), text(&wanted), "{old:?} {new:?}");
        }
    }
}

#[test]
fn a_change_costs_its_own_bytes_and_a_transfer_less_than_two_whole_records() {
    let state = FakeState::default();
    let (mut written, mut longest) = (0, 0);
    for record in story() {
        let before = bytes(&state);
        stored(&state, &record);
        let after = bytes(&state);
        let appended = after.strip_prefix(&before[..]);
        written += appended.map_or(after.len(), <[u8]>::len);
        longest = longest.max(serde_json::to_vec(&record).unwrap().len());
    }
    assert!(written < 2 * longest, "{written} bytes, {longest}");
}

#[test]
fn the_file_stays_below_its_limit_however_often_it_changes() {
    let state = FakeState::default();
    for _ in 0..100 {
        for record in story() {
            stored(&state, &record);
            assert!(bytes(&state).len() <= FILE_MAX_BYTES);
        }
    }
}

#[test]
fn a_torn_last_line_is_a_change_that_never_was_and_nothing_is_written_behind_it() {
    let all = story();
    for cut in 2..all.len() {
        let state = FakeState::default();
        for record in &all[..cut] {
            stored(&state, record);
        }
        let before = bytes(&state);
        stored(&state, &all[cut]);
        let after = bytes(&state);
        let Some(line) = after.strip_prefix(&before[..]) else {
            continue;
        };
        for torn in 0..line.len() {
            // What did not reach the medium is missing, or zero.
            for rest in [0, line.len() - torn] {
                let mut there = after[..before.len() + torn].to_vec();
                there.resize(there.len() + rest, 0);
                state.store(NAME, &there).unwrap();
                assert_eq!(loaded(&state), all[cut - 1], "{cut} torn at {torn}");
                stored(&state, &all[cut]);
                assert_eq!(loaded(&state), all[cut], "{cut} torn at {torn}");
            }
        }
    }
}

#[test]
fn a_record_that_is_stored_again_is_written_again() {
    let state = FakeState::default();
    let record = story().pop().unwrap();
    stored(&state, &record);
    let writes = state.writes();
    stored(&state, &record);
    assert_eq!(state.writes(), writes + 1);
}

#[test]
fn damage_before_the_last_line_is_no_torn_line() {
    let state = FakeState::default();
    for record in &story()[..6] {
        stored(&state, record);
    }
    let whole = bytes(&state);
    let lines = whole.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines > 2, "{}", String::from_utf8_lossy(&whole));
    let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut damaged = whole;
    damaged[second] = b'?';
    state.store(NAME, &damaged).unwrap();
    assert!(load(&state, "gateway", "app").is_err());
}

#[test]
fn what_an_earlier_build_wrote_is_read_and_changed() {
    let state = FakeState::default();
    let written = r#"{
  "format": 1,
  "transfers": 2,
  "committed": null,
  "transfer": {
    "number": 1,
    "spec": {
      "job_id": "job-1", "file_id": 0, "size": 1000, "block_size": 256, "file_type": 0, "attributes": 0,
      "path": "", "certificate": "", "signature_kind": "sig-sha256-ecdsa", "signature": [48, 69, 2]
    },
    "extents": [],
    "phase": "closed",
    "image": null,
    "blob": null
  }
}"#;
    state.store(NAME, written.as_bytes()).unwrap();
    let mut record = loaded(&state);
    let transfer = record.transfer_mut().unwrap();
    assert_eq!(transfer.spec.signature, [48, 69, 2]);
    transfer.phase = Phase::Rejected;
    stored(&state, &record);
    record.format = FORMAT;
    assert_eq!(loaded(&state), record);
}
