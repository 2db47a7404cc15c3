//! Answers of the Jobs service, as its documentation and the field show them.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use proptest::prelude::*;

use crate::document::Defect;

use super::*;

const OURS: ReplyToken = ReplyToken::Ours(ClientToken {
    number: 3,
    seed: 0xab,
});

#[test]
fn an_accepted_status_names_its_request() {
    let rows = [
        (
            r#"{"timestamp":1700000000,"clientToken":"u3-000000ab"}"#,
            OURS,
        ),
        (r#"{"clientToken":"u3-000000ab"}"#, OURS),
        (r#"{"timestamp":1700000000}"#, ReplyToken::Absent),
        ("{}", ReplyToken::Absent),
        (r#"{"clientToken":"0:mything"}"#, ReplyToken::Foreign),
        (r#"{"clientToken":5}"#, ReplyToken::Foreign),
        (
            r#"{"clientToken":null,"executionState":{},"jobDocument":{"a":1}}"#,
            ReplyToken::Foreign,
        ),
    ];
    for (payload, token) in rows {
        let answer = parse_answer(payload.as_bytes()).unwrap();
        assert_eq!((answer.token, answer.execution), (token, None), "{payload}");
    }
}

#[test]
fn the_state_of_the_execution_is_read_where_it_is_told() {
    let payload = r#"{"clientToken":"u3-000000ab","executionState":{"status":"IN_PROGRESS",
        "statusDetails":{"self_test":"active","updatedBy":"0x01020003","other":"x"},"versionNumber":4}}"#;
    let execution = ExecutionState {
        status: ExecutionStatus::InProgress,
        details: StatusDetails {
            self_test: Some(SelfTest::Active),
            updated_by: Some(VersionWord(0x0102_0003)),
        },
        version_number: Some(4),
    };
    let answer = parse_answer(payload.as_bytes()).unwrap();
    assert_eq!((answer.token, answer.execution), (OURS, Some(execution)));
}

#[test]
fn a_cancelled_job_is_seen_in_the_refusal_of_its_next_status() {
    let payload = r#"{"code":"InvalidStateTransition","message":"no\nway","timestamp":1700000000,
        "executionState":{"status":"CANCELED","versionNumber":4}}"#;
    let rejected = parse_answer(payload.as_bytes()).unwrap();
    assert_eq!(rejected.code, JobsErr::InvalidStateTransition);
    assert_eq!(rejected.message, "noway");
    assert_eq!(rejected.token, ReplyToken::Absent);
    let execution = rejected.execution.unwrap();
    assert_eq!(execution.status, ExecutionStatus::Canceled);
    assert!(execution.status.is_terminal());
    assert_eq!(execution.version_number, Some(4));
}

#[test]
fn every_code_of_the_service_is_known_and_others_are_kept() {
    for code in JobsErr::ALL {
        let payload = format!(
            r#"{{"code":"{}","clientToken":"u3-000000ab"}}"#,
            code.name()
        );
        let rejected = parse_answer(payload.as_bytes()).unwrap();
        assert_eq!((rejected.code, rejected.token), (*code, OURS));
    }
    let rejected = parse_answer(br#"{"code":"SomethingNew","message":"m"}"#).unwrap();
    assert_eq!(
        (rejected.code, &*rejected.code_text),
        (JobsErr::Unknown, "SomethingNew")
    );
    let empty = parse_answer(b"{}").unwrap();
    assert_eq!(
        (empty.code, &*empty.code_text, &*empty.message),
        (JobsErr::Unknown, "", "")
    );
}

#[test]
fn every_status_word_is_known() {
    let rows = [
        ("QUEUED", ExecutionStatus::Queued, false),
        ("IN_PROGRESS", ExecutionStatus::InProgress, false),
        ("FAILED", ExecutionStatus::Failed, true),
        ("SUCCEEDED", ExecutionStatus::Succeeded, true),
        ("CANCELED", ExecutionStatus::Canceled, true),
        ("TIMED_OUT", ExecutionStatus::TimedOut, true),
        ("REJECTED", ExecutionStatus::Rejected, true),
        ("REMOVED", ExecutionStatus::Removed, true),
        ("queued", ExecutionStatus::Unknown, false),
    ];
    for (word, status, terminal) in rows {
        assert_eq!(ExecutionStatus::from_word(word), status);
        assert_eq!(status.is_terminal(), terminal);
    }
}

#[test]
fn bad_answers_are_refused_with_the_member_that_is_bad() {
    let wrong = |field| Defect::WrongType.of(field);
    let numbered = |defect: Defect, number| ParseError {
        number,
        ..defect.of(Field::Message)
    };
    let rows: [(&[u8], ParseError); 11] = [
        (b"", numbered(Defect::BadJson, 0)),
        (b"[]", wrong(Field::Message)),
        (b"{}x", numbered(Defect::BadJson, 2)),
        (b"{\"a\":\"\xff\"}", numbered(Defect::NotUtf8, 6)),
        (br#"{"code":1}"#, wrong(Field::Code)),
        (br#"{"message":[]}"#, wrong(Field::Text)),
        (br#"{"executionState":1}"#, wrong(Field::ExecutionState)),
        (br#"{"executionState":{"status":1}}"#, wrong(Field::Status)),
        (
            br#"{"executionState":{"statusDetails":""}}"#,
            wrong(Field::StatusDetails),
        ),
        (
            br#"{"executionState":{"versionNumber":"x"}}"#,
            Defect::BadNumber.of(Field::VersionNumber),
        ),
        (
            br#"{"clientToken":"a","clientToken":"a"}"#,
            Defect::Duplicate.of(Field::ClientToken),
        ),
    ];
    for (payload, error) in rows {
        assert_eq!(parse_answer(payload), Err(error));
    }
}

#[test]
fn texts_for_people_are_cut_at_a_character() {
    let long = "é".repeat(200);
    let payload = format!(r#"{{"code":"{long}","message":"x{long}"}}"#);
    let rejected = parse_answer(payload.as_bytes()).unwrap();
    assert_eq!(rejected.code_text, "é".repeat(128));
    assert_eq!(rejected.message, "x".to_string() + &"é".repeat(127));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
        if let Ok(answer) = parse_answer(&bytes) {
            prop_assert!(answer.code_text.len() <= TEXT_MAX_BYTES);
        }
    }
}
