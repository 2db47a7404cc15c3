//! Every status byte for byte, and the limits of what others may put into one.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;

use super::*;

const TOKEN: ClientToken = ClientToken {
    number: 7,
    seed: 0x00c0_ffee,
};

fn check(status: &Status, word_and_details: &str) {
    let expected = format!("{{{word_and_details},\"clientToken\":\"u7-00c0ffee\"}}");
    assert_eq!(status.payload(TOKEN), expected);
    let parsed: serde_json::Value = serde_json::from_str(&expected).unwrap();
    assert_eq!(parsed["status"], status.word());
}

/// Of a job of one file.
fn received(done: u64, total: u64) -> Status {
    progress(&[(None, false, done, total)])
}

fn progress(files: &[(Option<u32>, bool, u64, u64)]) -> Status {
    let mut progress = Progress::default();
    for (file, installs, done, total) in files {
        progress.push(*file, *installs, (*done, *total));
    }
    Status::Progress(progress)
}

#[test]
fn every_status_has_exactly_these_bytes() {
    let rows = [
        (
            received(1, 3),
            r#""status":"IN_PROGRESS","statusDetails":{"receive":"1/3"}"#,
        ),
        (
            received(0, 2),
            r#""status":"IN_PROGRESS","statusDetails":{"receive":"0/2"}"#,
        ),
        (
            received(1_048_575, 1_048_576),
            r#""status":"IN_PROGRESS","statusDetails":{"receive":"1048575/1048576"}"#,
        ),
        // Of one file that its target is fed with, and of three: each of them is told.
        (
            progress(&[(None, true, 4096, 65_536)]),
            r#""status":"IN_PROGRESS","statusDetails":{"install":"4096/65536"}"#,
        ),
        (
            progress(&[
                (None, false, 64, 128),
                (Some(0), false, 9, 9),
                (Some(1), true, 1, 2),
                (Some(2), false, 64, 128),
            ]),
            r#""status":"IN_PROGRESS","statusDetails":{"receive":"64/128","file-0":"receive 9/9","file-1":"install 1/2","file-2":"receive 64/128"}"#,
        ),
        (
            Status::SelfTestReady(VersionWord::new(1, 2, 2)),
            r#""status":"IN_PROGRESS","statusDetails":{"self_test":"ready","updatedBy":"0x01020002"}"#,
        ),
        (
            Status::SelfTestActive(VersionWord::new(1, 2, 3)),
            r#""status":"IN_PROGRESS","statusDetails":{"self_test":"active","updatedBy":"0x01020003"}"#,
        ),
        (
            Status::Accepted {
                running: VersionWord::new(1, 2, 3),
                updated_by: VersionWord::new(1, 2, 2),
            },
            r#""status":"SUCCEEDED","statusDetails":{"reason":"accepted  v1.2.3","updatedBy":"  v1.2.2"}"#,
        ),
        // A version component of 0 is a digit, and the largest one is whole.
        (
            Status::Accepted {
                running: VersionWord::new(0, 9, 0),
                updated_by: VersionWord::new(255, 255, 65_535),
            },
            r#""status":"SUCCEEDED","statusDetails":{"reason":"accepted  v0.9.0","updatedBy":"  v255.255.65535"}"#,
        ),
        (
            Status::AcceptedFile { file_type: 2 },
            r#""status":"SUCCEEDED","statusDetails":{"reason":"accepted  v0.0.2","updatedBy":"  v0.0.0"}"#,
        ),
        (
            Status::Rejected { code: 0 },
            r#""status":"FAILED","statusDetails":{"reason":"rejected: 0x00000000"}"#,
        ),
        (
            Status::Rejected { code: 0x10 },
            r#""status":"FAILED","statusDetails":{"reason":"rejected: 0x00000010"}"#,
        ),
        (
            Status::Rejected { code: 0xe800_0000 },
            r#""status":"FAILED","statusDetails":{"reason":"rejected: 0xe8000000"}"#,
        ),
        (
            Status::Aborted { code: 0x13 },
            r#""status":"FAILED","statusDetails":{"reason":"aborted: 0x00000013"}"#,
        ),
        (
            Status::Aborted { code: 0xe400_0005 },
            r#""status":"FAILED","statusDetails":{"reason":"aborted: 0xe4000005"}"#,
        ),
        (
            Status::Failed { main: 0xe3, sub: 7 },
            r#""status":"FAILED","statusDetails":{"reason":"0x000000e3: 0x00000007"}"#,
        ),
        (
            Status::Failed { main: 0x0c, sub: 4 },
            r#""status":"FAILED","statusDetails":{"reason":"0x0000000c: 0x00000004"}"#,
        ),
        (
            Status::Declined(Reason::new("not during \"working\" hours").unwrap()),
            r#""status":"REJECTED","statusDetails":{"reason":"not during \"working\" hours"}"#,
        ),
        (
            Status::Custom(CustomResult::new(0, vec![]).unwrap()),
            r#""status":"IN_PROGRESS","statusDetails":{}"#,
        ),
        (
            Status::Custom(
                CustomResult::new(
                    2,
                    vec![
                        ("step".to_string(), "2\\2".to_string()),
                        ("a:b_c-d".to_string(), "é".to_string()),
                    ],
                )
                .unwrap(),
            ),
            r#""status":"SUCCEEDED","statusDetails":{"step":"2\\2","a:b_c-d":"é"}"#,
        ),
    ];
    for (status, expected) in rows {
        check(&status, expected);
    }
}

#[test]
fn only_progress_is_sent_without_acknowledgement_and_only_ends_are_terminal() {
    let version = VersionWord(0);
    let custom = |status| Status::Custom(CustomResult::new(status, vec![]).unwrap());
    // status, progress, terminal
    let rows = [
        (received(1, 2), true, false),
        (Status::SelfTestReady(version), false, false),
        (Status::SelfTestActive(version), false, false),
        (
            Status::Accepted {
                running: version,
                updated_by: version,
            },
            false,
            true,
        ),
        (Status::AcceptedFile { file_type: 1 }, false, true),
        (Status::Rejected { code: 0 }, false, true),
        (Status::Aborted { code: 0 }, false, true),
        (Status::Failed { main: 0, sub: 0 }, false, true),
        (Status::Declined(Reason::new("no").unwrap()), false, true),
        (custom(0), false, false),
        (custom(1), false, true),
        (custom(2), false, true),
        (custom(3), false, true),
    ];
    for (status, progress, terminal) in rows {
        assert_eq!(status.is_progress(), progress, "{status:?}");
        assert_eq!(status.is_terminal(), terminal, "{status:?}");
    }
}

#[test]
fn versions_are_words_in_the_c_agents_order() {
    let word = VersionWord::new(1, 2, 0x0304);
    assert_eq!(word, VersionWord(0x0102_0304));
    assert_eq!(
        (word.major(), word.minor(), word.revision()),
        (1, 2, 0x0304)
    );
    assert!(VersionWord::new(1, 0, 0) > VersionWord::new(0, 255, 65_535));
}

#[test]
fn details_are_taken_at_their_limits_and_refused_one_past_them() {
    let pair = |key: &str, value: &str| (key.to_string(), value.to_string());
    let pairs = |count: usize| (0..count).map(|at| pair(&format!("k{at}"), "v")).collect();
    let one = |key: &str, value: &str| vec![pair(key, value)];
    let rows = [
        (0, pairs(10), None),
        (0, pairs(11), Some(DetailsError::TooMany(11))),
        (3, vec![], None),
        (4, vec![], Some(DetailsError::BadStatus(4))),
        (0, one(&"k".repeat(128), "v"), None),
        (0, one(&"k".repeat(129), "v"), Some(DetailsError::BadKey(0))),
        (0, one("", "v"), Some(DetailsError::BadKey(0))),
        (0, one("a b", "v"), Some(DetailsError::BadKey(0))),
        (0, one("k", &"v".repeat(1024)), None),
        (
            0,
            one("k", &"v".repeat(1025)),
            Some(DetailsError::ValueLength(0)),
        ),
        (0, one("k", ""), Some(DetailsError::ValueLength(0))),
        (
            0,
            one("k", "a\nb"),
            Some(DetailsError::ValueNotPrintable(0)),
        ),
        (
            0,
            one("k", "\u{85}"),
            Some(DetailsError::ValueNotPrintable(0)),
        ),
        (
            0,
            vec![pair("k", "1"), pair("k", "2")],
            Some(DetailsError::DuplicateKey(1)),
        ),
    ];
    for (status, details, error) in rows {
        assert_eq!(
            CustomResult::new(status, details.clone()).err(),
            error,
            "{details:?}"
        );
    }
    assert_eq!(Reason::new("").err(), Some(DetailsError::ValueLength(0)));
    assert!(Reason::new(&"r".repeat(1024)).is_ok());
    assert!(Reason::new(&"r".repeat(1025)).is_err());
}

#[test]
fn the_c_agents_payloads_stay_within_its_buffer_before_the_token() {
    let longest = Status::Accepted {
        running: VersionWord(u32::MAX),
        updated_by: VersionWord(u32::MAX),
    };
    let payload: String = longest.payload(TOKEN);
    let (theirs, _) = payload.split_once(",\"clientToken\"").unwrap();
    assert!(theirs.len() < 128, "{}", theirs.len());
}
