//! Updates at AWS: which calls are made in which order, and what is said when one of them fails.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::fake_aws::{FakeAws, SIGNER, certificate};
use crate::{done, error, golden, out, refused};

/// The calls as text, the folder and the image's path replaced.
fn story(fake: &FakeAws) -> String {
    let folder = fs::canonicalize(fake.path("")).unwrap();
    let mut text = String::new();
    for call in fake.calls() {
        let line = call.join(" ").replace(folder.to_str().unwrap(), "FOLDER");
        text.push_str(&format!("aws {line}\n"));
    }
    text
}

#[test]
fn the_seeds_update_is_this_sequence_of_calls() {
    let fake = FakeAws::new();
    let said = done(&fake.create(&[]));
    golden("aws-sequence.txt", &story(&fake));
    let folder = fs::canonicalize(fake.path("")).unwrap();
    golden(
        "aws-said.txt",
        &said.replace(folder.to_str().unwrap(), "FOLDER"),
    );
}

#[test]
fn a_signing_profile_that_is_there_is_used_as_it_is() {
    let fake = FakeAws::new();
    let profile = json!({ "status": "Active", "signingMaterial": { "certificateArn": SIGNER } });
    fake.answer("signer-get-signing-profile", &profile);
    let said = done(&fake.create(&[]));
    assert!(said.contains("profile      pumps found"), "{said}");
    assert!(said.contains(&format!("certificate  {SIGNER}")), "{said}");
    assert!(!story(&fake).contains("put-signing-profile"));
    // Another certificate than the one it signs with is no trifle.
    let other = [
        "update",
        "create",
        "--aws",
        "--thing",
        "pump-1",
        "--role",
        "ota",
        "--bucket",
        "images",
        "--signing-profile",
        "pumps",
        "--certificate-id",
        "ffff",
        "--file",
        "update.bin",
        "--region",
        "eu-west-1",
    ];
    refused(
        &fake.otad(&other),
        1,
        &["--certificate-id", SIGNER, "another profile"],
    );
}

#[test]
fn signing_and_creation_are_waited_for() {
    let fake = FakeAws::new();
    fake.write(
        "answers/signer-describe-signing-job.1",
        r#"{"status":"InProgress"}"#,
    );
    fake.write(
        "answers/iot-get-ota-update.1",
        r#"{"otaUpdateInfo":{"otaUpdateStatus":"CREATE_IN_PROGRESS"}}"#,
    );
    let said = done(&fake.create(&[]));
    assert!(said.contains("signing      job sign-1, waiting"), "{said}");
    assert!(said.contains("status       CREATE_COMPLETE"), "{said}");
    let asked = |call: &str| story(&fake).matches(call).count();
    assert_eq!(asked("describe-signing-job"), 2);
    assert_eq!(asked("get-ota-update"), 2);
    // No job is announced before its signature exists.
    let story = story(&fake);
    let at = |call: &str| story.rfind(call).unwrap();
    assert!(at("describe-signing-job") < at("create-stream"));
}

/// What fails, how, the exit code, words of the error, whether anything was made by then.
type Row = (&'static str, Fail, i32, &'static [&'static str], bool);

enum Fail {
    Refused(&'static str),
    Cut,
    Answer(&'static str),
}

use Fail::{Answer, Cut, Refused};

const IMAGE: &str =
    "image s3://images/device-8673/update.bin: aws s3api delete-object --bucket images";
const PROFILE: &str = "signing profile pumps";
const STREAM: &str = "stream device-8673: aws iot delete-stream --stream-id device-8673";
const UPDATE: &str =
    "OTA update device-8673: aws iot delete-ota-update --ota-update-id device-8673";

const BROKEN: &[Row] = &[
    (
        "sts-get-caller-identity",
        Refused("ExpiredToken"),
        1,
        &["ExpiredToken", "--profile"],
        false,
    ),
    (
        "sts-get-caller-identity",
        Answer("{}"),
        1,
        &["has no Account"],
        false,
    ),
    (
        "iot-describe-thing",
        Refused("ResourceNotFoundException"),
        1,
        &["--thing pump-1: no such thing"],
        false,
    ),
    (
        "iam-get-role",
        Refused("NoSuchEntity"),
        1,
        &["--role ota: no such role"],
        false,
    ),
    (
        "iam-get-role",
        Refused("AccessDenied"),
        1,
        &["--role ota", "the role's ARN"],
        false,
    ),
    (
        "iam-get-role",
        Answer("{}"),
        1,
        &["--role ota", "has no Role.Arn"],
        false,
    ),
    (
        "s3api-get-bucket-versioning",
        Refused("NoSuchBucket"),
        1,
        &["--bucket images: no such bucket"],
        false,
    ),
    (
        "s3api-get-bucket-versioning",
        Answer("{}"),
        1,
        &["versioning is off", "put-bucket-versioning"],
        false,
    ),
    (
        "signer-get-signing-profile",
        Refused("AccessDeniedException"),
        1,
        &["--signing-profile pumps", "AccessDenied"],
        false,
    ),
    (
        "acm-describe-certificate",
        Refused("ResourceNotFoundException"),
        1,
        &[SIGNER, "no such certificate"],
        false,
    ),
    (
        "s3api-put-object",
        Refused("AccessDenied"),
        1,
        &["put-object", "nothing was created"],
        true,
    ),
    (
        "s3api-put-object",
        Cut,
        3,
        &["Could not connect", "perhaps image s3://"],
        true,
    ),
    (
        "s3api-put-object",
        Answer("{}"),
        3,
        &["has no VersionId", IMAGE],
        true,
    ),
    (
        "signer-put-signing-profile",
        Refused("ValidationException"),
        1,
        &[IMAGE],
        true,
    ),
    (
        "signer-start-signing-job",
        Refused("ThrottlingException"),
        1,
        &[IMAGE, PROFILE],
        true,
    ),
    (
        "signer-describe-signing-job",
        Answer(r#"{"status":"Failed","statusReason":"bad image"}"#),
        1,
        &[
            "signing job sign-1 failed: bad image",
            IMAGE,
            PROFILE,
            "signing job of file 1",
        ],
        true,
    ),
    (
        "s3api-head-object",
        Refused("404"),
        1,
        &["head-object", IMAGE, PROFILE],
        true,
    ),
    (
        "iot-create-stream",
        Refused("LimitExceededException"),
        1,
        &["LimitExceeded", IMAGE, PROFILE],
        true,
    ),
    (
        "iot-create-stream",
        Cut,
        3,
        &[IMAGE, "perhaps stream device-8673"],
        true,
    ),
    (
        "iot-create-ota-update",
        Refused("InvalidRequestException"),
        1,
        &["InvalidRequest", STREAM],
        true,
    ),
    (
        "iot-create-ota-update",
        Cut,
        3,
        &[STREAM, "perhaps OTA update device-8673"],
        true,
    ),
    (
        "iot-get-ota-update",
        Answer(
            r#"{"otaUpdateInfo":{"otaUpdateStatus":"CREATE_FAILED","errorInfo":{"code":"12","message":"role may not"}}}"#,
        ),
        1,
        &["CREATE_FAILED: role may not (code 12)", STREAM, UPDATE],
        true,
    ),
];

#[test]
fn a_call_that_fails_is_told_with_everything_that_is_left_behind() {
    for (call, fail, code, words, anything_made) in BROKEN {
        let fake = FakeAws::new();
        match fail {
            Refused(code) => fake.refuse(call, code),
            Cut => fake.cut(call),
            Answer(answer) => fake.write(&format!("answers/{call}"), answer),
        }
        let output = fake.create(&[]);
        refused(&output, *code, words);
        let story = story(&fake);
        let made = ["put-object", "put-signing", "start-signing", "create-"]
            .iter()
            .any(|verb| story.contains(verb));
        assert_eq!(made, *anything_made, "{call}: {story}");
        // The call that failed is the last one that made anything.
        let after = story
            .rsplit_once(call.split_once('-').unwrap().1)
            .unwrap()
            .1;
        if *anything_made && !matches!(fail, Answer(_)) {
            assert_eq!(after.matches("aws ").count(), 0, "{call}: {after}");
        }
    }
}

#[test]
fn a_wrong_signing_certificate_is_refused_before_anything_is_created() {
    let rows = [
        (
            certificate("EXPIRED", "EC_prime256v1", "CODE_SIGNING"),
            "is EXPIRED",
        ),
        (
            certificate("ISSUED", "EC_secp384r1", "CODE_SIGNING"),
            "EC_secp384r1",
        ),
        (
            certificate("ISSUED", "RSA-1024", "CODE_SIGNING"),
            "RSA_1024",
        ),
        (
            certificate("ISSUED", "RSA-2048", "TLS_WEB_SERVER_AUTHENTICATION"),
            "not for code signing",
        ),
    ];
    for (answer, words) in rows {
        let fake = FakeAws::new();
        fake.answer("acm-describe-certificate", &answer);
        refused(&fake.create(&[]), 1, &[SIGNER, words]);
        assert!(!story(&fake).contains("put-"), "{}", story(&fake));
    }
}

#[test]
fn everything_that_aws_does_not_know_is_named_in_one_go() {
    let fake = FakeAws::new();
    for call in ["iot-describe-thing", "iot-describe-thing-group"] {
        fake.refuse(call, "ResourceNotFoundException");
    }
    fake.refuse("iam-get-role", "NoSuchEntity");
    fake.refuse("s3api-get-bucket-versioning", "NoSuchBucket");
    fake.refuse("acm-describe-certificate", "ResourceNotFoundException");
    let output = fake.create(&["--group", "pumps", "--account", "999999999999"]);
    refused(
        &output,
        1,
        &[
            "6 things are missing or wrong; nothing was created",
            "--account 999999999999: these credentials are of account 123456789012",
            "no such thing",
            "no such thing group",
            "no such role",
            "no such bucket",
            "no such certificate",
        ],
    );
}

/// An update without --region.
const NOWHERE: [&str; 17] = [
    "update",
    "create",
    "--aws",
    "--thing",
    "pump-1",
    "--role",
    "ota",
    "--bucket",
    "images",
    "--signing-profile",
    "pumps",
    "--certificate-id",
    "0b7d2c52",
    "--certfile",
    "signer",
    "--file",
    "update.bin",
];

#[test]
fn the_region_may_come_from_the_programs_own_configuration() {
    let fake = FakeAws::new();
    let nothing = ["--region is missing", "AWS_REGION", "AWS_DEFAULT_REGION"];
    refused(&fake.otad(&NOWHERE), 1, &nothing);
    fake.write("region", "us-east-1\n");
    let said = done(&fake.otad(&NOWHERE));
    assert!(
        said.contains("account      123456789012 in us-east-1"),
        "{said}"
    );
}

#[test]
fn the_region_of_the_environment_comes_before_that_of_the_configuration() {
    const BOTH: &[(&str, &str)] = &[
        ("AWS_REGION", "eu-west-1"),
        ("AWS_DEFAULT_REGION", "ap-southeast-2"),
    ];
    const EMPTY: &[(&str, &str)] = &[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "ap-southeast-2")];
    let rows = [
        (&BOTH[..1], "us-east-1", "eu-west-1"),
        (&BOTH[..1], "", "eu-west-1"),
        (&BOTH[1..], "", "ap-southeast-2"),
        (BOTH, "us-east-1", "eu-west-1"),
        (EMPTY, "us-east-1", "ap-southeast-2"),
        (&EMPTY[..1], "us-east-1", "us-east-1"),
    ];
    for (variables, configured, region) in rows {
        let fake = FakeAws::new();
        fake.write("region", configured);
        let said = done(&fake.otad_in(variables, &NOWHERE));
        let line = format!("account      123456789012 in {region} ");
        assert!(said.contains(&line), "{variables:?}: {said}");
        let stream = story(&fake);
        let stream = stream.lines().find(|line| line.contains("create-stream"));
        let option = format!("--region {region} ");
        assert!(stream.unwrap().contains(&option), "{stream:?}");
    }
    // An option beats them all.
    let fake = FakeAws::new();
    let told = [&NOWHERE[..], &["--region", "eu-north-1"]].concat();
    let said = done(&fake.otad_in(BOTH, &told));
    assert!(said.contains(" in eu-north-1 "), "{said}");
}

#[test]
fn the_role_of_an_update_is_the_one_that_aws_found_with_its_path() {
    let fake = FakeAws::new();
    let arn = "arn:aws:iam::123456789012:role/service-role/ota";
    fake.answer("iam-get-role", &json!({ "Role": { "Arn": arn } }));
    done(&fake.create(&[]));
    let documents = fake.documents();
    for operation in ["create-stream", "create-ota-update"] {
        let sent = documents.iter().find(|d| d.1 == operation).unwrap();
        assert_eq!(sent.2["roleArn"], arn, "{operation}");
    }
}

#[test]
fn a_stored_image_is_not_uploaded_again() {
    let fake = FakeAws::new();
    let arguments = [
        "update",
        "create",
        "--aws",
        "--thing",
        "pump-1",
        "--role",
        "ota",
        "--bucket",
        "images",
        "--signing-profile",
        "pumps",
        "--certificate-id",
        "0b7d2c52",
        "--certfile",
        "signer",
        "--file",
        "1=s3://images/old/update.bin",
        "--region",
        "eu-west-1",
        "--job-id",
        "device-8673",
    ];
    done(&fake.otad(&arguments));
    let documents = fake.documents();
    let job = &documents
        .iter()
        .find(|d| d.1 == "start-signing-job")
        .unwrap()
        .2;
    assert_eq!(job["source"]["s3"]["key"], "old/update.bin");
    assert_eq!(job["source"]["s3"]["version"], "v-signed");
    // But for where the image lies the job is the one of a local file.
    let update = |fake: &FakeAws| {
        let found = fake
            .documents()
            .into_iter()
            .find(|d| d.1 == "create-ota-update");
        found.unwrap().2
    };
    let stored = update(&fake);
    assert!(!story(&fake).contains("put-object"));
    let local = FakeAws::new();
    done(&local.create(&[]));
    assert_eq!(stored, update(&local));
}

/// What `list-job-executions-for-job` answers: thing and status of each.
fn executions(of: &[(&str, &str)]) -> serde_json::Value {
    let summary = |(thing, status): &(&str, &str)| {
        json!({
            "thingArn": format!("arn:aws:iot:eu-west-1:123456789012:thing/{thing}"),
            "jobExecutionSummary": { "status": status },
        })
    };
    let summaries: Vec<_> = of.iter().map(summary).collect();
    json!({ "executionSummaries": summaries })
}

/// What `describe-job` answers.
fn job_is(status: &str) -> serde_json::Value {
    json!({ "job": { "jobId": "AFR_OTA-device-8673", "status": status } })
}

#[test]
fn the_exit_code_of_wait_is_the_outcome_at_aws() {
    let rows = [
        ("SUCCEEDED", "accepted  v1.1.0", 0),
        ("FAILED", "rejected: 0x00000010", 5),
        ("FAILED", "0x000000e3: 0x00000005", 6),
        ("CANCELED", "", 2),
        ("TIMED_OUT", "", 3),
    ];
    for (status, reason, code) in rows {
        let fake = FakeAws::new();
        fake.answer("iot-describe-job", &job_is("COMPLETED"));
        let list = executions(&[("pump-1", status), ("pump-2", "SUCCEEDED")]);
        fake.answer("iot-list-job-executions-for-job", &list);
        let details =
            json!({ "execution": { "statusDetails": { "detailsMap": { "reason": reason } } } });
        fake.answer("iot-describe-job-execution", &details);
        let output = fake.create(&["--wait"]);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{status} {}",
            error(&output)
        );
        let line = format!("AFR_OTA-device-8673 on pump-1: {status} {reason}");
        assert!(out(&output).contains(line.trim_end()), "{}", out(&output));
    }
}

#[test]
fn wait_goes_on_where_all_listed_executions_have_ended_but_the_job_has_not() {
    let fake = FakeAws::new();
    let first = executions(&[("pump-1", "SUCCEEDED")]);
    fake.answer("iot-describe-job.1", &job_is("IN_PROGRESS"));
    fake.answer("iot-list-job-executions-for-job.1", &first);
    let whole = executions(&[("pump-1", "SUCCEEDED"), ("pump-2", "FAILED")]);
    fake.answer("iot-describe-job", &job_is("COMPLETED"));
    fake.answer("iot-list-job-executions-for-job", &whole);
    let details = json!({ "execution": { "statusDetails": { "detailsMap": {} } } });
    fake.answer("iot-describe-job-execution", &details);
    let output = fake.create(&["--wait"]);
    assert_eq!(output.status.code(), Some(1), "{}", error(&output));
    let said = out(&output);
    assert!(said.contains("on pump-2: FAILED"), "{said}");
    assert!(said.contains("1 SUCCEEDED, 1 FAILED"), "{said}");
}

/// Status of the job, ends of its things, exit code.
type JobRow<'a> = (&'a str, &'a [(&'a str, &'a str)], i32);

#[test]
fn wait_ends_with_the_job_also_where_no_thing_has_it() {
    let rows: [JobRow<'_>; 4] = [
        ("COMPLETED", &[], 2),
        ("CANCELED", &[], 2),
        ("CANCELED", &[("pump-1", "CANCELED")], 2),
        ("DELETION_IN_PROGRESS", &[("pump-1", "IN_PROGRESS")], 1),
    ];
    for (status, list, code) in rows {
        let fake = FakeAws::new();
        fake.answer("iot-describe-job", &job_is(status));
        fake.answer("iot-list-job-executions-for-job", &executions(list));
        let output = fake.create(&["--wait"]);
        assert_eq!(output.status.code(), Some(code), "{status} {list:?}");
    }
}

#[test]
fn wait_goes_on_while_a_thing_is_at_work_on_a_cancelled_job() {
    let fake = FakeAws::new();
    fake.answer("iot-describe-job", &job_is("CANCELED"));
    let at_work = executions(&[("pump-1", "IN_PROGRESS")]);
    fake.answer("iot-list-job-executions-for-job.1", &at_work);
    let ended = executions(&[("pump-1", "SUCCEEDED")]);
    fake.answer("iot-list-job-executions-for-job", &ended);
    let aws = otad::aws::program::Program {
        path: fake.path("aws").into(),
        profile: None,
        region: None,
    };
    let ended = otad::aws::watch::follow(&aws, "x", Duration::ZERO, &mut |_| {}).unwrap();
    assert_eq!(ended[0].status.as_str(), "SUCCEEDED");
}

#[test]
fn json_is_one_object_with_id_address_and_status() {
    let fake = FakeAws::new();
    let said = done(&fake.create(&["--json"]));
    let facts: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(facts["update_id"], "device-8673");
    assert_eq!(facts["job_id"], "AFR_OTA-device-8673");
    assert_eq!(facts["status"], "CREATE_COMPLETE");
    assert!(
        facts["address"]
            .as_str()
            .unwrap()
            .starts_with("arn:aws:iot:")
    );
}

const PLACE: [&str; 5] = ["--aws", "--profile", "ops", "--region", "eu-west-1"];

fn update(fake: &FakeAws, words: &[&str]) -> std::process::Output {
    fake.otad(&[&["update"], words, &PLACE[..]].concat())
}

#[test]
fn an_update_at_aws_is_shown_with_its_things_and_their_details() {
    let fake = FakeAws::new();
    let said = done(&update(&fake, &["show", "AFR_OTA-device-8673"]));
    assert_eq!(
        said,
        "job       AFR_OTA-device-8673\nstatus    IN_PROGRESS  (continuous)\nfor       pumps\n\
         thing     pump-1  FAILED reason=0x000000e3: 0x00000000\nthing     pump-2  QUEUED\nsum       1 QUEUED, 1 FAILED\n"
    );
    let json = done(&update(&fake, &["show", "AFR_OTA-device-8673", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["executions"][0]["thing"], "pump-1");
    assert_eq!(
        json["executions"][0]["status_details"]["reason"],
        "0x000000e3: 0x00000000"
    );
    assert_eq!(json["continuous"], true);
}

#[test]
fn updates_at_aws_are_listed_all_or_those_of_a_thing_or_group() {
    let fake = FakeAws::new();
    let all = done(&update(&fake, &["list"]));
    assert_eq!(
        all,
        "AFR_OTA-device-8673  IN_PROGRESS  (continuous)\nold  COMPLETED\n"
    );
    assert_eq!(done(&update(&fake, &["list", "--group", "pumps"])), all);
    let of_thing = done(&update(&fake, &["list", "--thing", "pump-1"]));
    assert_eq!(of_thing, "AFR_OTA-device-8673  FAILED\n");
    let sent: Vec<_> = fake
        .documents()
        .into_iter()
        .map(|(_, o, d)| (o, d))
        .collect();
    assert_eq!(sent[1].1, json!({ "thingGroupName": "pumps" }));
    assert_eq!(sent[2].1, json!({ "thingName": "pump-1" }));
    fake.answer("iot-list-jobs", &json!({ "jobs": [] }));
    assert_eq!(update(&fake, &["list"]).status.code(), Some(2));
    let both = ["list", "--thing", "a", "--group", "b"];
    refused(&update(&fake, &both), 64, &["not of both"]);
}

#[test]
fn an_update_at_aws_is_cancelled_and_shown() {
    let fake = FakeAws::new();
    let job = "AFR_OTA-device-8673";
    done(&update(
        &fake,
        &["cancel", job, "--force", "--reason", "wrong image"],
    ));
    let (_, operation, document) = fake.documents().remove(0);
    assert_eq!(operation, "cancel-job");
    assert_eq!(
        document,
        json!({ "jobId": job, "force": true, "comment": "wrong image" })
    );
}

#[test]
fn an_update_at_aws_is_forgotten_with_its_stream_and_any_other_job_alone() {
    let fake = FakeAws::new();
    let said = done(&update(&fake, &["delete", "AFR_OTA-device-8673"]));
    assert_eq!(said, "deleted   AFR_OTA-device-8673\n");
    done(&update(&fake, &["delete", "old", "--force"]));
    let sent: Vec<_> = fake
        .documents()
        .into_iter()
        .map(|(_, o, d)| (o, d))
        .collect();
    let whole =
        json!({ "otaUpdateId": "device-8673", "deleteStream": true, "forceDeleteAWSJob": false });
    assert_eq!(sent[0], ("delete-ota-update".to_owned(), whole));
    let alone = json!({ "jobId": "old", "force": true });
    assert_eq!(sent[1], ("delete-job".to_owned(), alone));
    let story = story(&fake);
    let streams: Vec<_> = story.match_indices("iot delete-stream").collect();
    assert_eq!(streams.len(), 1, "{story}");
    assert!(story.contains("iot delete-stream --stream-id device-8673\n"));
    assert!(story.find("delete-ota-update").unwrap() < streams[0].0);
}

#[test]
fn an_update_is_deleted_where_its_stream_is_not_there_and_else_its_stream_is_named() {
    let fake = FakeAws::new();
    let job = "AFR_OTA-device-8673";
    fake.refuse("iot-delete-stream", "ResourceNotFoundException");
    let said = done(&update(&fake, &["delete", job]));
    assert_eq!(said, format!("deleted   {job}\n"));
    for code in ["DeleteConflictException", "InvalidRequestException"] {
        fake.refuse("iot-delete-stream", code);
        let remove = "aws iot delete-stream --stream-id device-8673";
        let words = [code, "is deleted, but its stream is left", remove];
        refused(&update(&fake, &["delete", job]), 1, &words);
    }
    // An update that stays keeps its stream.
    let fake = FakeAws::new();
    fake.refuse("iot-delete-ota-update", "InvalidRequestException");
    refused(&update(&fake, &["delete", job]), 1, &["--force"]);
    assert!(!story(&fake).contains("delete-stream"));
}

#[test]
fn what_aws_refuses_of_an_update_has_the_exit_code_of_its_kind() {
    for (verb, call, fail, code, words) in [
        (
            "show",
            "iot-describe-job",
            Refused("ResourceNotFoundException"),
            2,
            "--region",
        ),
        (
            "cancel",
            "iot-cancel-job",
            Refused("ResourceNotFoundException"),
            2,
            "update list",
        ),
        (
            "cancel",
            "iot-cancel-job",
            Refused("InvalidStateTransitionException"),
            2,
            "has ended",
        ),
        (
            "delete",
            "iot-delete-job",
            Refused("InvalidStateTransitionException"),
            1,
            "--force",
        ),
        (
            "delete",
            "iot-delete-job",
            Refused("ResourceNotFoundException"),
            2,
            "update list",
        ),
        (
            "show",
            "iot-describe-job",
            Refused("ThrottlingException"),
            3,
            "Throttling",
        ),
        (
            "show",
            "iot-describe-job",
            Refused("AccessDeniedException"),
            1,
            "AccessDenied",
        ),
        ("show", "iot-describe-job", Cut, 3, "Could not connect"),
        ("show", "iot-describe-job", Answer("{}"), 3, "has no jobId"),
    ] {
        let fake = FakeAws::new();
        match fail {
            Refused(code) => fake.refuse(call, code),
            Cut => fake.cut(call),
            Answer(answer) => fake.write(&format!("answers/{call}"), answer),
        }
        refused(&update(&fake, &[verb, "x"]), code, &[words]);
    }
    let output = crate::otad(std::path::Path::new("/"), &["update", "show", "x"]);
    refused(&output, 64, &["--cloud is missing", "--aws"]);
}
