//! Job messages and documents as the service sends them, every defect, and the limits.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;

use crate::code::Base64Status;
use crate::jobs::{ClientToken, ExecutionStatus, ReplyToken, SelfTest, VersionWord};

use crate::stream::BlockGrid;

use super::*;

const SIGNATURE: &str = "MEQCIF2QDvww1G/kpRGZ8FYvQrok1bSZvXjXefRk7sqNcyPTAiB4dvGt8fozIY5NC0vUDJ2MY42ZERYEcrbwA4n6q7vrBg==";
const URL: &str = "https://bucket.s3.us-east-1.amazonaws.com/SignedImages/x?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=1800&X-Amz-Signature=00";

/// A job document with everything, for both protocols.
fn whole_document() -> String {
    format!(
        r#"{{"afr_ota":{{"protocols":["MQTT","HTTP"],"streamname":"AFR_OTA-2c14e009-4aab-4ff3-ae18-826917c58453",
 "files":[{{"filepath":"/fw.bin","filesize":2500,"fileid":0,"certfile":"/cert.pem","fileType":0,
  "update_data_url":"{URL}",
  "auth_scheme":"aws.s3.presigned",
  "sig-sha256-ecdsa":"{SIGNATURE}"}}]}}}}"#
    )
}

/// A document of these files for MQTT.
fn document_of(files: &[String]) -> String {
    let files = files.join(",");
    format!(r#"{{"afr_ota":{{"protocols":["MQTT"],"streamname":"s","files":[{files}]}}}}"#)
}

/// The least file there can be, with more members.
fn file_with(more: &str) -> String {
    format!(r#"{{"filesize":1,"fileid":0{more}}}"#)
}

fn numbered(defect: Defect, field: Field, number: usize) -> ParseError {
    ParseError {
        number: number as u32,
        ..defect.of(field)
    }
}

fn one_file(more: &str) -> Result<FileEntry, ParseError> {
    parse_job(&document_of(&[file_with(more)])).map(|mut job| job.files.remove(0))
}

#[test]
fn a_job_with_everything_is_read_whole() {
    let job = parse_job(&whole_document()).unwrap();
    assert_eq!(
        job.protocols,
        Protocols {
            mqtt: true,
            http: true
        }
    );
    let stream = job.stream.as_ref().map(|stream| stream.as_str());
    assert_eq!(stream, Some("AFR_OTA-2c14e009-4aab-4ff3-ae18-826917c58453"));
    let [file] = &job.files[..] else {
        panic!("{} files", job.files.len())
    };
    assert_eq!(
        (file.file_id, file.size, file.file_type, file.attributes),
        (0, 2500, 0, 0)
    );
    assert_eq!((&*file.path, &*file.certificate), ("/fw.bin", "/cert.pem"));
    assert_eq!(file.url, URL);
    assert_eq!(file.auth_scheme, "aws.s3.presigned");
    let signature = file.signature.as_ref().unwrap();
    assert_eq!(signature.kind, SignatureKind::Sha256Ecdsa);
    assert_eq!(signature.bytes.len(), 70);
    assert_eq!(&signature.bytes[..4], [0x30, 0x44, 0x02, 0x20]);
    assert_eq!(job.check_protocol(Protocol::Mqtt), Ok(()));
    assert_eq!(job.check_protocol(Protocol::Http), Ok(()));
}

#[test]
fn nothing_of_an_absent_member_is_left_over_from_elsewhere() {
    let file = one_file("").unwrap();
    let expected = FileEntry {
        file_id: 0,
        size: 1,
        path: String::new(),
        certificate: String::new(),
        signature: None,
        url: String::new(),
        auth_scheme: String::new(),
        attributes: 0,
        file_type: 0,
    };
    assert_eq!(file, expected);
    // A member at the root of the message is not the file's, nor is one of another object.
    let stray = r#"{"filesize":9,"afr_ota":{"filesize":8,"protocols":[],"files":[{"fileid":0,"x":{"filesize":7}}]}}"#;
    assert_eq!(parse_job(stray), Err(Defect::Missing.of(Field::FileSize)));
}

#[test]
fn members_may_come_in_any_order_with_escapes_and_strangers_between() {
    let document = r#" { "x":[{}], "\u0061fr_ota" : { "files" : [ { "more":{"fileid":9},
        "filepath":"\/a\/b \u00e9", "fileid":"0x0D", "attr":"5", "fileType":255, "filesize":"1024" } ],
        "streamname":"s\u002d1", "protocols":[ "XYZ", "MQTT" ], "extra":null } } "#;
    let job = parse_job(document).unwrap();
    assert_eq!(
        job.protocols,
        Protocols {
            mqtt: true,
            http: false
        }
    );
    assert_eq!(
        job.stream.as_ref().map(|stream| stream.as_str()),
        Some("s-1")
    );
    let file = &job.files[0];
    assert_eq!(
        (file.file_id, file.size, file.attributes, file.file_type),
        (13, 1024, 5, 255)
    );
    assert_eq!(file.path, "/a/b é");
}

#[test]
fn a_document_is_ours_by_its_one_member() {
    let rows = [
        (whole_document(), true),
        (r#"{"a":1,"\u0061fr_ota":null}"#.to_string(), true),
        (r#"{"x":{"afr_ota":{}}}"#.to_string(), false),
        (r#""afr_ota""#.to_string(), false),
        (r#"{"afr_ota":{}"#.to_string(), false),
        (
            format!("{}{}", whole_document(), " ".repeat(DOCUMENT_MAX_BYTES)),
            false,
        ),
    ];
    for (document, ours) in rows {
        assert_eq!(is_ota(&document), ours, "{document:.80}");
    }
}

#[test]
fn several_files_keep_their_order() {
    let files: Vec<String> = (0..16)
        .map(|id| format!(r#"{{"fileid":{},"filesize":{}}}"#, 99 - id, id + 1))
        .collect();
    let job = parse_job(&document_of(&files)).unwrap();
    let found: Vec<(u32, u64)> = job
        .files
        .iter()
        .map(|file| (file.file_id, file.size))
        .collect();
    let expected: Vec<(u32, u64)> = (0..16).map(|id| (99 - id, u64::from(id) + 1)).collect();
    assert_eq!(found, expected);
}

#[test]
fn protocols_are_whole_words() {
    let rows = [
        (r#"["MQTT"]"#, true, false),
        (r#"["HTTP"]"#, false, true),
        (r#"["MQTT","HTTP"]"#, true, true),
        (r#"["HTTP","MQTT"]"#, true, true),
        (
            r#"["junkMQTT","HTTPjunk","mqtt","invalid_protocol"]"#,
            false,
            false,
        ),
        ("[]", false, false),
    ];
    for (list, mqtt, http) in rows {
        let document = format!(
            r#"{{"afr_ota":{{"protocols":{list},"files":[{}]}}}}"#,
            file_with("")
        );
        let job = parse_job(&document).unwrap();
        assert_eq!(job.protocols, Protocols { mqtt, http }, "{list}");
    }
}

#[test]
fn each_protocol_needs_its_own_member() {
    let document = |more: &str, url: &str| {
        let file = file_with(url);
        let text =
            format!(r#"{{"afr_ota":{{"protocols":["MQTT","HTTP"]{more},"files":[{file}]}}}}"#);
        parse_job(&text).unwrap()
    };
    let missing = |field| Err(Defect::MissingForProtocol.of(field));
    let bare = document(r#","streamname":"""#, r#","update_data_url":"""#);
    assert_eq!(
        bare.check_protocol(Protocol::Mqtt),
        missing(Field::StreamName)
    );
    assert_eq!(
        bare.check_protocol(Protocol::Http),
        missing(Field::UpdateDataUrl)
    );
    let both = document(
        r#","streamname":"s""#,
        r#","update_data_url":"https://h/x""#,
    );
    assert_eq!(both.check_protocol(Protocol::Mqtt), Ok(()));
    assert_eq!(both.check_protocol(Protocol::Http), Ok(()));
}

#[test]
fn a_file_of_too_many_blocks_is_refused_with_the_c_agents_number() {
    let job = |size: u64| {
        let second = format!(r#"{{"fileid":1,"filesize":{size}}}"#);
        parse_job(&document_of(&[file_with(""), second])).unwrap()
    };
    let most = 1_048_576 * 4096;
    let counts: Vec<u32> = job(most)
        .grids(4096)
        .unwrap()
        .iter()
        .map(BlockGrid::count)
        .collect();
    assert_eq!(counts, [1, 1_048_576]);
    let error = job(most + 1).grids(4096).unwrap_err();
    assert_eq!(
        (error, error.code()),
        (
            numbered(Defect::TooManyBlocks, Field::FileSize, 1_048_577),
            5
        )
    );
}

#[test]
fn every_signature_key_is_known() {
    let rows = [
        ("sig-sha256-ecdsa", SignatureKind::Sha256Ecdsa),
        ("sig-sha256-rsa", SignatureKind::Sha256Rsa),
        ("sig-sha1-rsa", SignatureKind::Sha1Rsa),
        ("sig-sha1-ecdsa", SignatureKind::Sha1Ecdsa),
    ];
    for (key, kind) in rows {
        assert_eq!(kind.key(), key);
        let signature = one_file(&format!(r#","{key}":"Zm9v""#)).unwrap().signature;
        assert_eq!(
            signature,
            Some(Signature {
                kind,
                bytes: b"foo".to_vec()
            })
        );
    }
    assert_eq!(
        one_file(r#","sig-sha512-rsa":"Zm9v""#).unwrap().signature,
        None
    );
}

#[test]
fn numbers_are_decimal_or_hexadecimal_quoted_or_not() {
    let field = Field::FileSize;
    let bad: Result<u64, ParseError> = Err(Defect::BadNumber.of(field));
    let large = Err(Defect::NumberTooLarge.of(field));
    let rows = [
        ("2500", Ok(2500)),
        (r#""2500""#, Ok(2500)),
        (r#""0x10000""#, Ok(65_536)),
        (r#""0XfF""#, Ok(255)),
        ("4294967295", Ok(4_294_967_295)),
        ("4294963220", Ok(4_294_963_220)),
        ("18446744073709551615", Ok(u64::MAX)),
        (r#""0xffffffffffffffff""#, Ok(u64::MAX)),
        ("18446744073709551616", large),
        (r#""0x10000000000000000""#, large),
        ("99999999999999999999999999999999", large),
        ("-1", bad),
        ("1.0", bad),
        ("1e3", bad),
        (r#""""#, bad),
        (r#""0x""#, bad),
        (r#""NaN""#, bad),
        (r#"" 5""#, bad),
        (r#""+5""#, bad),
        (r#""-5""#, bad),
        (r#""010""#, bad),
        (r#""0x1g""#, bad),
        (r#""12a""#, bad),
        (r#""１""#, bad),
        ("null", Err(Defect::WrongType.of(field))),
        ("true", Err(Defect::WrongType.of(field))),
        ("[1]", Err(Defect::WrongType.of(field))),
        ("{}", Err(Defect::WrongType.of(field))),
    ];
    for (text, expected) in rows {
        let document = document_of(&[format!(r#"{{"fileid":0,"filesize":{text}}}"#)]);
        let size = parse_job(&document).map(|job| job.files[0].size);
        assert_eq!(size, expected, "{text}");
    }
}

#[test]
fn every_defect_of_a_document_has_its_error() {
    let missing = |field| Defect::Missing.of(field);
    let wrong = |field| Defect::WrongType.of(field);
    let ota = |inside: &str| format!(r#"{{"afr_ota":{inside}}}"#);
    let file = |more: &str| document_of(&[file_with(more)]);
    let bad_signature = |status: Base64Status| {
        numbered(Defect::BadSignature, Field::Signature, status.code().into())
    };
    let rows = [
        ("[]".to_string(), ParseError::NOT_OTA),
        ("\"afr_ota\"".to_string(), ParseError::NOT_OTA),
        (r#"{"operation":"reboot"}"#.to_string(), ParseError::NOT_OTA),
        (r#"{"x":{"afr_ota":{}}}"#.to_string(), ParseError::NOT_OTA),
        (
            "{".to_string(),
            numbered(Defect::BadJson, Field::Message, 1),
        ),
        (
            whole_document() + "x",
            numbered(Defect::BadJson, Field::Message, whole_document().len()),
        ),
        (ota("1"), wrong(Field::AfrOta)),
        (
            ota(r#"{},"afr_ota":{}"#),
            Defect::Duplicate.of(Field::AfrOta),
        ),
        (ota("{}"), missing(Field::Protocols)),
        (ota(r#"{"protocols":["MQTT"]}"#), missing(Field::Files)),
        (
            ota(r#"{"protocols":"MQTT","files":[]}"#),
            wrong(Field::Protocols),
        ),
        (
            ota(r#"{"protocols":[1],"files":[]}"#),
            wrong(Field::Protocols),
        ),
        (
            ota(r#"{"protocols":[],"protocols":[]}"#),
            Defect::Duplicate.of(Field::Protocols),
        ),
        (ota(r#"{"protocols":[],"files":{}}"#), wrong(Field::Files)),
        (ota(r#"{"protocols":[],"files":[1]}"#), wrong(Field::Files)),
        (
            ota(r#"{"protocols":[],"files":[]}"#),
            Defect::NoFiles.of(Field::Files),
        ),
        (
            ota(r#"{"protocols":[],"files":[],"streamname":1}"#),
            wrong(Field::StreamName),
        ),
        (
            ota(r#"{"protocols":[],"files":[],"streamname":"a/b"}"#),
            Defect::BadText.of(Field::StreamName),
        ),
        (
            ota(r#"{"protocols":[],"files":[],"streamname":"+"}"#),
            Defect::BadText.of(Field::StreamName),
        ),
        (
            ota(&format!(
                r#"{{"protocols":[],"files":[],"streamname":"{}"}}"#,
                "s".repeat(129)
            )),
            numbered(Defect::TooLong, Field::StreamName, 129),
        ),
        (
            document_of(&[r#"{"fileid":0}"#.to_string()]),
            missing(Field::FileSize),
        ),
        (
            document_of(&[r#"{"filesize":1}"#.to_string()]),
            missing(Field::FileId),
        ),
        (
            document_of(&[file_with(""), r#"{"filesize":0,"fileid":1}"#.to_string()]),
            numbered(Defect::ZeroFileSize, Field::FileSize, 1),
        ),
        (
            document_of(&[file_with(""), file_with("")]),
            Defect::Duplicate.of(Field::FileId),
        ),
        (
            document_of(&[file_with("")]).replace("\"fileid\":0", "\"fileid\":4294967296"),
            Defect::NumberTooLarge.of(Field::FileId),
        ),
        (file(r#","fileid":0"#), Defect::Duplicate.of(Field::FileId)),
        (
            file(r#","filesize":1"#),
            Defect::Duplicate.of(Field::FileSize),
        ),
        (
            file(r#","filepath":"","filepath":"""#),
            Defect::Duplicate.of(Field::FilePath),
        ),
        (file(r#","filepath":1"#), wrong(Field::FilePath)),
        (
            file(r#","filepath":"a\u0000b""#),
            Defect::BadText.of(Field::FilePath),
        ),
        (file(r#","certfile":null"#), wrong(Field::CertFile)),
        (
            file(r#","certfile":"\n""#),
            Defect::BadText.of(Field::CertFile),
        ),
        (
            file(r#","update_data_url":[]"#),
            wrong(Field::UpdateDataUrl),
        ),
        (file(r#","auth_scheme":{}"#), wrong(Field::AuthScheme)),
        (
            file(r#","attr":"x""#),
            Defect::BadNumber.of(Field::Attributes),
        ),
        (
            file(r#","fileType":4294967296"#),
            Defect::NumberTooLarge.of(Field::FileType),
        ),
        (file(r#","sig-sha256-ecdsa":1"#), wrong(Field::Signature)),
        (
            file(r#","sig-sha256-ecdsa":"Zg===""#),
            bad_signature(Base64Status::InvalidPaddingSymbol),
        ),
        (
            file(r#","sig-sha256-ecdsa":"""#),
            bad_signature(Base64Status::InvalidInputSize),
        ),
        (
            file(r#","sig-sha256-ecdsa":"\n\n""#),
            bad_signature(Base64Status::InvalidInputSize),
        ),
        (
            file(r#","sig-sha256-ecdsa":"-----BEGIN""#),
            bad_signature(Base64Status::InvalidSymbol),
        ),
        (
            file(r#","sig-sha256-ecdsa":"Zm9v","sig-sha256-rsa":"Zm9v""#),
            numbered(Defect::TwoSignatures, Field::Signature, 0),
        ),
        (
            file(r#","sig-sha256-ecdsa":"Zm9v","sig-sha256-ecdsa":"Zm9v""#),
            Defect::Duplicate.of(Field::Signature),
        ),
    ];
    for (document, error) in rows {
        assert_eq!(parse_job(&document), Err(error), "{document}");
    }
}

#[test]
fn limits_hold_at_the_limit_and_refuse_one_past_it() {
    let rows = [
        ("filepath", Field::FilePath, PATH_MAX_BYTES),
        ("certfile", Field::CertFile, CERTIFICATE_MAX_BYTES),
        ("update_data_url", Field::UpdateDataUrl, URL_MAX_BYTES),
        ("auth_scheme", Field::AuthScheme, AUTH_SCHEME_MAX_BYTES),
    ];
    for (key, field, most) in rows {
        let member = |bytes: usize| format!(r#","{key}":"{}""#, "x".repeat(bytes));
        assert!(one_file(&member(most)).is_ok(), "{key}");
        let error = numbered(Defect::TooLong, field, most + 1);
        assert_eq!(one_file(&member(most + 1)), Err(error));
    }
    // 684 symbols less one padding are 512 bytes, 684 whole are 513.
    let signature = |tail: &str| format!(r#","sig-sha256-rsa":"{}{tail}""#, "AAAA".repeat(170));
    assert_eq!(
        one_file(&signature("AAA="))
            .unwrap()
            .signature
            .unwrap()
            .bytes
            .len(),
        512
    );
    let status = Base64Status::InvalidBufferSize;
    assert_eq!(
        one_file(&signature("AAAA")),
        Err(numbered(
            Defect::BadSignature,
            Field::Signature,
            status.code().into()
        ))
    );

    let files = |count: u32| -> Vec<String> {
        (0..count)
            .map(|id| format!(r#"{{"fileid":{id},"filesize":1}}"#))
            .collect()
    };
    assert_eq!(parse_job(&document_of(&files(16))).unwrap().files.len(), 16);
    assert_eq!(
        parse_job(&document_of(&files(17))),
        Err(Defect::TooManyFiles.of(Field::Files))
    );

    let document = whole_document();
    let padded = |bytes: usize| format!("{document}{}", " ".repeat(bytes - document.len()));
    assert!(parse_job(&padded(DOCUMENT_MAX_BYTES)).is_ok());
    let error = numbered(Defect::TooLarge, Field::Message, DOCUMENT_MAX_BYTES + 1);
    assert_eq!(parse_job(&padded(DOCUMENT_MAX_BYTES + 1)), Err(error));
    assert_eq!(
        parse_reply(padded(DOCUMENT_MAX_BYTES + 1).as_bytes()),
        Err(error.into())
    );
}

#[test]
fn a_document_that_nests_deep_hides_no_job() {
    let nest = |levels: usize| format!(r#"{{"x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert_eq!(parse_job(&nest(60_000)), Err(ParseError::NOT_OTA));
    let deep = nest(60_000);
    let reply =
        format!(r#"{{"execution":{{"jobId":"j","status":"QUEUED","jobDocument":{deep}}}}}"#);
    let read = parse_reply(reply.as_bytes()).unwrap();
    assert!(format!("{read:?}").contains("\"j\""), "{read:?}");
}

#[test]
fn a_member_is_found_by_its_key_however_it_is_escaped_and_twice_is_noticed() {
    let found = |text: &str| {
        let mut check = member::Check::default();
        let object = check.parse(text);
        let code = check.members(object).find(Field::Code);
        (code.map(|value| value.raw().to_string()), check.is_good())
    };
    let one = |value: &str, good| (Some(value.to_string()), good);
    assert_eq!(found(r#"{"cod":1,"code": 2 ,"codes":3}"#), one("2", true));
    assert_eq!(
        found(r#"{"\u0063ode":[1,{"code":0}]}"#),
        one(r#"[1,{"code":0}]"#, true)
    );
    assert_eq!(found(r#"{"code":1,"c\u006fde":2}"#), one("2", false));
    assert_eq!(found(r#"{"cod":1}"#), (None, true));
    assert_eq!(found(r#"["code",1]"#), (None, true));
    // A stranger may stand twice.
    assert_eq!(
        found(r#"{"x":1,"status":2,"x":3,"status":4}"#),
        (None, true)
    );
}

fn execution(more: &str) -> String {
    format!(
        r#"{{"clientToken":"u0-000000ab","timestamp":1700000000,"execution":{{"jobId":"AFR_OTA-job1",
 "queuedAt":1700000000,"lastUpdatedAt":1700000000,"executionNumber":1{more},"jobDocument":{} }}}}"#,
        whole_document()
    )
}

fn job_of(payload: &str) -> JobExecution<'_> {
    match parse_reply(payload.as_bytes()) {
        Ok(Reply::Job(job)) => job,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_job_is_read_with_its_document_as_it_stands() {
    let payload = execution(r#","status":"QUEUED","versionNumber":1"#);
    let job = job_of(&payload);
    let token = ReplyToken::Ours(ClientToken {
        number: 0,
        seed: 0xab,
    });
    assert_eq!((job.token, job.job_id.as_str()), (token, "AFR_OTA-job1"));
    assert_eq!(
        (job.state.status, job.state.version_number),
        (ExecutionStatus::Queued, Some(1))
    );
    assert_eq!(
        (job.state.details.self_test, job.state.details.updated_by),
        (None, None)
    );
    assert_eq!(job.document, whole_document());
    assert!(parse_job(job.document).is_ok());
}

#[test]
fn a_self_test_is_seen_by_the_presence_of_its_detail() {
    let rows = [
        (
            r#"{"self_test":"ready","updatedBy":"0x01020002"}"#,
            Some(SelfTest::Ready),
            Some(0x0102_0002),
        ),
        (
            r#"{"self_test":"active","updatedBy":"0x90002"}"#,
            Some(SelfTest::Active),
            Some(0x9_0002),
        ),
        (
            r#"{"self_test":"active","updatedBy":16908290}"#,
            Some(SelfTest::Active),
            Some(0x0102_0002),
        ),
        (
            r#"{"self_test":"ready","updatedBy":"16908290"}"#,
            Some(SelfTest::Ready),
            Some(0x0102_0002),
        ),
        (r#"{"self_test":true}"#, Some(SelfTest::Other), None),
        (
            r#"{"self_test":"other","updatedBy":"  v1.2.2"}"#,
            Some(SelfTest::Other),
            None,
        ),
        (r#"{"updatedBy":"0x100000000"}"#, None, None),
        (r#"{"receive":"1/3"}"#, None, None),
        ("{}", None, None),
        ("null", None, None),
    ];
    for (details, self_test, updated_by) in rows {
        let payload = execution(&format!(
            r#","status":"IN_PROGRESS","statusDetails":{details}"#
        ));
        let job = job_of(&payload);
        assert_eq!(job.state.status, ExecutionStatus::InProgress);
        assert_eq!(job.state.details.self_test, self_test, "{details}");
        assert_eq!(
            job.state.details.updated_by,
            updated_by.map(VersionWord),
            "{details}"
        );
    }
}

#[test]
fn messages_without_a_job_say_so() {
    let ours = ReplyToken::Ours(ClientToken {
        number: 0,
        seed: 0xab,
    });
    let rows = [
        (
            r#"{"clientToken":"u0-000000ab","timestamp":1700000000}"#,
            ours,
        ),
        (r#"{"timestamp":1700000000}"#, ReplyToken::Absent),
        (
            r#"{"timestamp":1700000000,"execution":{}}"#,
            ReplyToken::Absent,
        ),
        (
            r#"{"clientToken":"0:mything","execution":{ }}"#,
            ReplyToken::Foreign,
        ),
        (r#"{"execution":null}"#, ReplyToken::Absent),
        ("{}", ReplyToken::Absent),
    ];
    for (payload, token) in rows {
        assert_eq!(
            parse_reply(payload.as_bytes()),
            Ok(Reply::NoJob(token)),
            "{payload}"
        );
    }
}

#[test]
fn a_custom_job_is_read_with_its_document() {
    let payload = r#"{"timestamp":1700000000,"execution":{"jobId":"custom1","jobDocument":{"operation":"reboot"}}}"#;
    let job = job_of(payload);
    assert_eq!(
        (job.job_id.as_str(), job.state.status),
        ("custom1", ExecutionStatus::Unknown)
    );
    assert_eq!(job.document, r#"{"operation":"reboot"}"#);
    assert_eq!(parse_job(job.document), Err(ParseError::NOT_OTA));
    // Whatever its author took for a document.
    let odd = r#"{"execution":{"jobId":"c","jobDocument":"a\"b"}}"#;
    assert_eq!(job_of(odd).document, r#""a\"b""#);
}

#[test]
fn a_defective_message_names_its_job_where_it_can() {
    let id = |job: &str| format!(r#"{{"execution":{{"jobId":"{job}","jobDocument":{{}}}}}}"#);
    let inside = |members: &str| format!(r#"{{"execution":{{{members}}}}}"#);
    let rows = [
        (
            String::new(),
            numbered(Defect::BadJson, Field::Message, 0),
            None,
        ),
        (
            "not json".to_string(),
            numbered(Defect::BadJson, Field::Message, 0),
            None,
        ),
        ("[]".to_string(), Defect::WrongType.of(Field::Message), None),
        (
            execution("") + ",",
            numbered(Defect::BadJson, Field::Message, execution("").len()),
            None,
        ),
        (
            r#"{"execution":1}"#.to_string(),
            Defect::WrongType.of(Field::Execution),
            None,
        ),
        (
            r#"{"execution":{},"execution":{}}"#.to_string(),
            Defect::Duplicate.of(Field::Execution),
            None,
        ),
        (
            inside(r#""jobDocument":{}"#),
            Defect::Missing.of(Field::JobId),
            None,
        ),
        (
            inside(r#""jobId":5"#),
            Defect::WrongType.of(Field::JobId),
            None,
        ),
        (
            inside(r#""jobId":"a","jobId":"b""#),
            Defect::Duplicate.of(Field::JobId),
            None,
        ),
        (id(""), Defect::BadText.of(Field::JobId), None),
        (id("a/b"), Defect::BadText.of(Field::JobId), None),
        (
            id(&"j".repeat(73)),
            numbered(Defect::TooLong, Field::JobId, 73),
            None,
        ),
        (
            inside(r#""jobId":"j1""#),
            Defect::Missing.of(Field::JobDocument),
            Some("j1"),
        ),
        (
            inside(r#""status":7,"jobDocument":{},"jobId":"j1""#),
            Defect::WrongType.of(Field::Status),
            Some("j1"),
        ),
        (
            inside(r#""jobDocument":1,"jobDocument":2,"jobId":"j1""#),
            Defect::Duplicate.of(Field::JobDocument),
            Some("j1"),
        ),
        (
            inside(r#""jobId":"j1","statusDetails":[],"jobDocument":{}"#),
            Defect::WrongType.of(Field::StatusDetails),
            Some("j1"),
        ),
        (
            inside(r#""jobId":"j1","versionNumber":-1,"jobDocument":{}"#),
            Defect::BadNumber.of(Field::VersionNumber),
            Some("j1"),
        ),
    ];
    for (payload, error, job_id) in rows {
        let found = parse_reply(payload.as_bytes()).unwrap_err();
        let id = found.job_id.as_ref().map(|id| id.as_str());
        assert_eq!((found.error, id), (error, job_id), "{payload}");
    }
    let longest = id(&"j".repeat(64));
    assert_eq!(job_of(&longest).job_id.as_str().len(), 64);
}

#[test]
fn codes_that_go_to_the_cloud_never_change() {
    let field = Field::FileSize;
    // Do not change a row: a cloud somewhere has seen its number. Append.
    let rows = [
        (
            numbered(Defect::ZeroFileSize, Field::FileSize, 3),
            0x0003,
            "file 3 has 0 bytes",
        ),
        (ParseError::NOT_OTA, 0x0004, "not an afr_ota job document"),
        (
            numbered(Defect::TooManyBlocks, Field::FileSize, 1_048_577),
            0x0005,
            "a file of 1048577 blocks, at most 1048576 are allowed",
        ),
        (
            numbered(Defect::TooLong, field, 2),
            0x0c22,
            "filesize is too long with 2 bytes",
        ),
        (
            Defect::WrongType.of(field),
            0x0c23,
            "filesize has the wrong type",
        ),
        (
            numbered(
                Defect::BadSignature,
                Field::Signature,
                Base64Status::NonZeroPadding.code().into(),
            ),
            0x1124,
            "the signature is not usable: Base64NonZeroPadding",
        ),
        (
            Defect::BadNumber.of(field),
            0x0c25,
            "filesize is not a number",
        ),
        (Defect::Duplicate.of(field), 0x0c26, "filesize stands twice"),
        (Defect::Missing.of(field), 0x0c27, "filesize is missing"),
        (
            numbered(Defect::BadJson, Field::Message, 9),
            0x0028,
            "not JSON at byte 9",
        ),
        (
            numbered(Defect::TooLarge, Field::Message, 131_073),
            0x0040,
            "the message has 131073 bytes, at most 131072 are allowed",
        ),
        (
            numbered(Defect::NotUtf8, Field::Message, 9),
            0x0042,
            "not UTF-8 at byte 9",
        ),
        (
            Defect::NumberTooLarge.of(field),
            0x0c43,
            "filesize is too large",
        ),
        (Defect::NoFiles.of(Field::Files), 0x0a44, "files is empty"),
        (
            Defect::TooManyFiles.of(Field::Files),
            0x0a45,
            "more than 16 files",
        ),
        (
            Defect::BadText.of(field),
            0x0c46,
            "filesize has a byte not allowed",
        ),
        (
            numbered(Defect::TwoSignatures, Field::Signature, 2),
            0x1147,
            "file 2 has more than one signature",
        ),
        (
            Defect::MissingForProtocol.of(Field::StreamName),
            0x0948,
            "the protocol needs streamname, which is missing",
        ),
    ];
    for (error, code, text) in rows {
        assert_eq!((error.code(), error.to_string()), (code, text.to_string()));
    }
    let fields = [
        Field::Message,
        Field::Execution,
        Field::JobId,
        Field::Status,
        Field::StatusDetails,
        Field::VersionNumber,
        Field::JobDocument,
        Field::AfrOta,
        Field::Protocols,
        Field::StreamName,
        Field::Files,
        Field::FilePath,
        Field::FileSize,
        Field::FileId,
        Field::CertFile,
        Field::UpdateDataUrl,
        Field::AuthScheme,
        Field::Signature,
        Field::Attributes,
        Field::FileType,
        Field::ClientToken,
        Field::Code,
        Field::Text,
        Field::ExecutionState,
    ];
    for (code, field) in (0u32..).zip(fields) {
        assert_eq!(field.code(), code, "{}", field.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
        if let Ok(text) = core::str::from_utf8(&bytes) {
            prop_assert!(parse_job(text).is_err());
        }
        prop_assert!(!matches!(parse_reply(&bytes), Ok(Reply::Job(_))));
    }

    #[test]
    fn a_message_with_some_bytes_changed_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut payload = execution(r#","status":"QUEUED","versionNumber":1"#).into_bytes();
        for (index, byte) in changes {
            *index.get_mut(&mut payload) = byte;
        }
        if let Ok(Reply::Job(job)) = parse_reply(&payload)
            && let Ok(job) = parse_job(job.document)
        {
            prop_assert!((1..=FILES_MAX_COUNT).contains(&job.files.len()));
            prop_assert!(job.files.iter().all(|file| file.size > 0));
        }
    }

    #[test]
    fn a_message_cut_short_is_refused(cut in any::<prop::sample::Index>()) {
        let payload = execution("").into_bytes();
        prop_assert!(parse_reply(&payload[..cut.index(payload.len())]).is_err());
    }

    #[test]
    fn what_a_document_says_is_what_is_read(
        ids in prop::collection::btree_set(any::<u32>(), 1..16),
        size in 1..u64::MAX,
        path in "\\PC{0,40}",
        hexadecimal in any::<bool>(),
    ) {
        let files: Vec<String> = ids
            .iter()
            .map(|id| {
                let size = if hexadecimal { format!("\"{size:#x}\"") } else { size.to_string() };
                let path = serde_json::to_string(&path).unwrap();
                format!(r#"{{"filepath":{path},"fileid":"{id}","filesize":{size}}}"#)
            })
            .collect();
        let job = parse_job(&document_of(&files)).unwrap();
        prop_assert_eq!(job.files.len(), ids.len());
        for (file, id) in job.files.iter().zip(ids) {
            prop_assert_eq!((file.file_id, file.size, &file.path), (id, size, &path));
        }
    }
}
