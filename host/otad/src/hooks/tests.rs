//! Exit codes and output as rows, what a hook is given, and which jobs wait.

use std::path::{Path, PathBuf};

use host_runtime::agent::{ApplicationEvent, Command, CustomAnswer, JobResult, OfferAnswer};
use host_runtime::events::StoredEvent;
use host_runtime::ports::commands::{CleanEnd, CommandEnd, Way};
use host_runtime::status::{DeviceStatus, WaitReport};
use host_runtime::types::{Failure, Version, code};
use serde_json::Value;

use super::answer::{Answer, Deed, LATER, NO, NOT_MINE, YES, deed};
use super::*;
use crate::exit::{Exit, TABLE};

/// What stands in for `activation_reminder_ms`.
const LATER_MS: u64 = 7000;

fn end(way: Way, code: Option<i32>, stdout: &str) -> CleanEnd {
    CleanEnd {
        end: CommandEnd {
            code,
            stdout: stdout.as_bytes().to_vec(),
            detail: String::new(),
        },
        stderr: Vec::new(),
        way,
    }
}

fn follows(kind: Kind, end: &CleanEnd) -> Deed {
    deed(kind, "j", Some(7), Answer::of(end), LATER_MS)
}

/// What follows from a program that exits by itself.
fn exits(kind: Kind, code: i32, stdout: &str) -> Deed {
    follows(kind, &end(Way::Itself, Some(code), stdout))
}

fn offer(answer: OfferAnswer) -> Deed {
    let job_id = "j".to_owned();
    Deed::Order(Command::AnswerOffer { job_id, answer })
}

fn custom(answer: CustomAnswer) -> Deed {
    let job_id = "j".to_owned();
    Deed::Order(Command::AnswerCustomJob { job_id, answer })
}

fn verdict(failure: Option<(u8, u32, &str)>) -> Deed {
    let failure = failure.map(|(main, sub, detail)| Failure::new(main, sub, detail));
    Deed::Order(Command::TestResult { file: 7, failure })
}

fn finished(status: u8, details: &[(&str, &str)]) -> Deed {
    let details = details
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    custom(CustomAnswer::Finished(JobResult { status, details }))
}

#[test]
fn the_exit_codes_of_a_hook_are_those_of_otad() {
    let number = |exit: Exit| {
        TABLE
            .iter()
            .find(|row| row.0 == exit)
            .map(|row| row.1.into())
    };
    assert_eq!(number(Exit::Done), Some(YES));
    assert_eq!(number(Exit::Nothing), Some(NOT_MINE));
    assert_eq!(number(Exit::Retry), Some(LATER));
    assert_eq!(number(Exit::Refused), Some(NO));
}

#[test]
fn every_exit_code_of_every_hook_has_its_outcome() {
    let reject = |reason: &str| offer(OfferAnswer::Reject(reason.to_owned()));
    let rows = [
        (Kind::Job, YES, "", offer(OfferAnswer::Accept)),
        (Kind::Job, NOT_MINE, "", Deed::Nothing),
        (Kind::Job, LATER, "", offer(OfferAnswer::Defer(LATER_MS))),
        (
            Kind::Job,
            LATER,
            r#"{"after_s":9}"#,
            offer(OfferAnswer::Defer(9000)),
        ),
        (
            Kind::Job,
            NO,
            "not on a Friday\nmore",
            reject("not on a Friday"),
        ),
        (Kind::Job, NO, r#"{"reason":"full"}"#, reject("full")),
        (Kind::Job, NO, "", reject("declined by a hook")),
        (Kind::Job, 1, "", offer(OfferAnswer::Defer(LATER_MS))),
        (Kind::Activate, YES, "", Deed::Order(Command::Activate(7))),
        (Kind::Activate, NOT_MINE, "", Deed::Nothing),
        (Kind::Activate, LATER, r#"{"after_s":1}"#, Deed::Again(1000)),
        (Kind::Activate, NO, "", Deed::Order(Command::UserAbort)),
        (Kind::Activate, 127, "", Deed::Again(LATER_MS)),
        (Kind::StartTest, YES, "", verdict(None)),
        (Kind::StartTest, LATER, "", Deed::Nothing),
        (
            Kind::StartTest,
            NO,
            "no water",
            verdict(Some((code::EXTRA_CHECK, 5, "no water"))),
        ),
        (
            Kind::StartTest,
            NOT_MINE,
            "",
            verdict(Some((
                code::EXTRA_CHECK,
                2,
                "the start_test hook: exit code 2",
            ))),
        ),
        (
            Kind::StartTest,
            42,
            "",
            verdict(Some((
                code::EXTRA_CHECK,
                42,
                "the start_test hook: exit code 42",
            ))),
        ),
        (Kind::CustomJob, YES, "", custom(CustomAnswer::Taken)),
        (Kind::CustomJob, NOT_MINE, "", custom(CustomAnswer::Nobody)),
        (Kind::CustomJob, LATER, "", custom(CustomAnswer::Nobody)),
        (
            Kind::CustomJob,
            NO,
            "never",
            finished(3, &[("reason", "never")]),
        ),
        (Kind::CustomJob, 1, "", custom(CustomAnswer::Nobody)),
        (
            Kind::CustomJob,
            YES,
            r#"{"status":"succeeded","reason":"done","details":{"a":"1","reason":"x"}}"#,
            finished(2, &[("reason", "done"), ("a", "1")]),
        ),
        (
            Kind::CustomJob,
            YES,
            r#"{"status":"failed"}"#,
            finished(1, &[]),
        ),
        (
            Kind::CustomJob,
            YES,
            r#"{"document":{"afr_ota":{}}}"#,
            custom(CustomAnswer::Document(br#"{"afr_ota":{}}"#.to_vec())),
        ),
        (Kind::Fail, YES, "", Deed::Nothing),
        (Kind::Fail, 1, "", Deed::Nothing),
    ];
    for (kind, code, stdout, wanted) in rows {
        assert_eq!(
            exits(kind, code, stdout),
            wanted,
            "{kind:?} {code} {stdout:?}"
        );
    }
}

#[test]
fn a_hook_that_hangs_or_is_missing_or_is_killed_never_says_yes() {
    let late = end(Way::Killed, None, "{}");
    let missing = end(Way::NotStarted, None, "");
    let signal = end(Way::Itself, None, "");
    for fault in [&late, &missing, &signal] {
        assert_eq!(
            follows(Kind::Job, fault),
            offer(OfferAnswer::Defer(LATER_MS))
        );
        assert_eq!(follows(Kind::Activate, fault), Deed::Again(LATER_MS));
        assert_eq!(
            follows(Kind::CustomJob, fault),
            custom(CustomAnswer::Nobody)
        );
        assert_eq!(follows(Kind::Fail, fault), Deed::Nothing);
    }
    let bad = |main: u8, why: &str| verdict(Some((main, 0, why)));
    let test = |fault| follows(Kind::StartTest, fault);
    let words = "the start_test hook: not done at its deadline, killed";
    assert_eq!(test(&late), bad(code::TIMED_OUT, words));
    let words = "the start_test hook: cannot be started";
    assert_eq!(test(&missing), bad(code::EXTRA_CHECK, words));
    let words = "the start_test hook: killed by a signal";
    assert_eq!(test(&signal), bad(code::EXTRA_CHECK, words));
}

#[test]
fn output_that_is_no_answer_is_a_failure_and_a_reason_is_one_printable_line() {
    for output in [
        r#"{"status":"great"}"#,
        "{",
        r#"{"why":"x"}"#,
        r#"{"after_s":-1}"#,
    ] {
        let answer = Answer::of(&end(Way::Itself, Some(YES), output));
        assert!(matches!(answer, Answer::Broken(_)), "{output}: {answer:?}");
    }
    let long = format!("{{\"reason\":\"a\\u0007{}\"}}", "é".repeat(2000));
    let Answer::No { reason } = Answer::of(&end(Way::Itself, Some(NO), &long)) else {
        panic!("a no is a no");
    };
    assert!(
        reason.len() <= 1024 && reason.starts_with("a\u{fffd}é"),
        "{reason}"
    );
    let Answer::Later { after_ms } = Answer::of(&end(
        Way::Itself,
        Some(LATER),
        r#"{"after_s":99999999999999}"#,
    )) else {
        panic!("later is later");
    };
    assert_eq!(after_ms, Some(365 * 24 * 3_600_000));
}

fn stored(sequence: u64, kind: u32, job: Option<&str>, document: &[u8]) -> StoredEvent {
    StoredEvent {
        at_s: Some(1_700_000_000),
        event: ApplicationEvent {
            sequence,
            kind,
            job_id: job.map(str::to_owned),
            file: Some(7),
            failure: Some(Failure::new(1, 2, "why")),
            version: Some(Version {
                major: 1,
                minor: 2,
                revision: 3,
                build: 0,
            }),
            document: document.to_vec(),
        },
    }
}

fn plan() -> Plan {
    let text = format!(
        "[daemon]\nstate_dir = \"/s\"\n[trust]\ndirectory = \"/t\"\n\
         [hooks]\njob = {{ command = [\"/bin/true\"] }}\nfail = {{ command = [\"/bin/false\"] }}\n\
         [[device]]\nname = \"pump-1\"\n[device.mqtt]\nendpoint = \"localhost\"\ntls = false\n\
         [device.hooks.job]\ncommand = [\"/bin/own\", \"x\"]\ndeadline_ms = 1000\n{}{}",
        "[[device.target]]\nname = \"mcu\"\nfile_id = 7\nplugin = \"flash-file\"\ndirectory = \"/d\"\n",
        "[[device.target]]\nname = \"main\"\nfile_id = 0\nplugin = \"flash-file\"\ndirectory = \"/e\"\n",
    );
    let config = crate::config::parse(Path::new("/etc/otad.toml"), &text, []).unwrap();
    let places = Arc::new(Semaphore::new(1));
    Plan::new(&config, &config.devices[0], &places).unwrap()
}

#[test]
fn a_device_s_own_hook_goes_before_the_common_one_and_only_asked_questions_have_one() {
    let plan = plan();
    let program = |kind, file| {
        plan.hooks(kind, file)
            .first()
            .map(|h| h.program.argv.join(" "))
    };
    assert_eq!(program(Kind::Job, None).as_deref(), Some("/bin/own x"));
    assert_eq!(program(Kind::Fail, None).as_deref(), Some("/bin/false"));
    assert_eq!(program(Kind::Activate, Some(7)), None);
    assert_eq!(program(Kind::CustomJob, None), None);
}

#[test]
fn a_hook_is_given_the_event_with_the_document_byte_for_byte() {
    let document = br#"{ "b" : 1.50, "a":[ ] }"#;
    let input = input::input(
        &plan(),
        Kind::Job,
        &stored(4, 6, Some("j-1"), document),
        1000,
    );
    let text = String::from_utf8(input).unwrap();
    let suffix = ",\"document\":{ \"b\" : 1.50, \"a\":[ ] }}\n";
    assert!(text.ends_with(suffix), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    let wanted = [
        ("otad", "1"),
        ("hook", "\"job\""),
        ("device", "\"pump-1\""),
        ("sequence", "4"),
        ("at_s", "1700000000"),
        ("job_id", "\"j-1\""),
        ("file", "7"),
        ("target", "\"mcu\""),
        ("version", "\"1.2.3\""),
        ("deadline_ms", "1000"),
    ];
    for (key, json) in wanted {
        assert_eq!(value[key].to_string(), json, "{key}");
    }
    let failure = &value["failure"];
    let members = [&failure["main"], &failure["sub"], &failure["detail"]];
    assert_eq!(members.map(Value::to_string), ["1", "2", "\"why\""]);
    for (document, wanted) in [(&b""[..], "null"), (b"\xffno json", "\"\u{fffd}no json\"")] {
        let input = input::input(&plan(), Kind::Fail, &stored(4, 1, None, document), 1);
        let value: Value = serde_json::from_slice(&input).unwrap();
        assert_eq!(value["document"].to_string(), wanted);
    }
}

#[test]
fn a_hook_s_environment_is_what_it_needs_and_nothing_of_the_daemon_s() {
    let environment = input::environment(&plan(), Kind::Job, &stored(4, 6, Some("j-1"), b""));
    let names: Vec<&str> = environment.iter().map(|(key, _)| key.as_str()).collect();
    let wanted = [
        "PATH",
        "LANG",
        "OTAD_HOOK",
        "OTAD_DEVICE",
        "OTAD_JOB",
        "OTAD_FILE",
        "OTAD_TARGET",
        "OTAD_VERSION",
        "OTAD_CONFIG",
        "OTAD_SOCKET",
    ];
    assert_eq!(names, wanted);
    let value = |name| {
        environment
            .iter()
            .find(|(key, _)| key == name)
            .unwrap()
            .1
            .clone()
    };
    assert_eq!(
        PathBuf::from(value("OTAD_SOCKET")),
        Path::new("/s/control.sock")
    );
    // Such a name would be refused by the system, and with it the whole hook.
    let odd = input::environment(&plan(), Kind::Job, &stored(4, 6, Some("a\0b"), b""));
    assert!(odd.iter().all(|(key, _)| key != "OTAD_JOB"), "{odd:?}");
}

fn status(state: u8, job: Option<&str>, wait: Option<(u32, &str)>) -> DeviceStatus {
    DeviceStatus {
        device: "pump-1".to_owned(),
        state,
        job_id: job.map(str::to_owned),
        wait: wait.map(|(reason, detail)| WaitReport {
            reason,
            detail: detail.to_owned(),
            ..WaitReport::default()
        }),
        ..DeviceStatus::default()
    }
}

#[test]
fn a_job_is_listed_as_long_as_it_waits_for_somebody() {
    let offered = [stored(1, 6, Some("a"), b"{}")];
    let asked = [stored(1, 5, Some("a"), b"{}")];
    let over = [stored(1, 6, Some("a"), b"{}"), stored(2, 8, None, b"")];
    let waits = Some((1, "answer to job a"));
    let rows: [(&[StoredEvent], DeviceStatus, Option<Waiting>); 8] = [
        (&offered, status(3, None, waits), Some(Waiting::Offer)),
        // While the service is asked whether it still stands.
        (
            &offered,
            status(3, None, Some((2, "answer to the job request"))),
            Some(Waiting::Offer),
        ),
        (&asked, status(3, None, waits), Some(Waiting::Taker)),
        (
            &asked,
            status(3, Some("a"), Some((1, "end of job a"))),
            Some(Waiting::Finish),
        ),
        (
            &offered,
            status(6, Some("a"), Some((3, "block 1"))),
            Some(Waiting::Nothing),
        ),
        (&over, status(3, None, Some((1, "a job"))), None),
        (&offered, status(3, None, Some((1, "a job"))), None),
        (&[], status(3, None, None), None),
    ];
    for (events, status, wanted) in rows {
        let jobs = jobs(&status, events);
        assert_eq!(jobs.first().map(|job| job.waits_for), wanted, "{status:?}");
        assert!(jobs.iter().all(|job| job.job_id == "a"));
    }
}
