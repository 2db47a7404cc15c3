//! `otad explain`: what a code means, by number, name or the whole reason of a job.

use std::path::Path;

use crate::{done, otad, refused};

#[test]
fn a_code_is_explained_by_number_name_and_whole_reason() {
    let rows: &[(&[&str], &[&str])] = &[
        (
            &["0xe3"],
            &[
                "0xe3 227 OtaPalSignatureCheckFailed (pal)",
                "do: sign the image",
            ],
        ),
        (&["227"], &["OtaPalSignatureCheckFailed"]),
        (
            &["0x000000e3: 0x00000005"],
            &["OtaPalSignatureCheckFailed", "Mismatch (signature)"],
        ),
        (
            &["0x0000000c:", "0x00000003"],
            &["OtaErrJobParserError", "OtaJobParseErrZeroFileSize"],
        ),
        (
            &["rejected: 0x00000010"],
            &["OtaErrSameFirmwareVersion", "allow_downgrade"],
        ),
        (&["OtaOsTimerStopFailed"], &["0x87 135", "(os)"]),
        (&["3"], &["OtaErrInvalidArg", "OtaJobParseErrZeroFileSize"]),
        (
            &["3", "--class", "job-parse"],
            &["OtaJobParseErrZeroFileSize"],
        ),
        (&["-1"], &["OtaJobParseErrUnknown"]),
    ];
    for (arguments, words) in rows {
        let said = done(&otad(Path::new("/"), &[&["explain"], *arguments].concat()));
        for word in *words {
            assert!(said.contains(word), "{arguments:?}: no {word} in {said}");
        }
    }
    let one = done(&otad(
        Path::new("/"),
        &["explain", "3", "--class", "job-parse"],
    ));
    assert!(!one.contains("InvalidArg"), "{one}");
}

#[test]
fn a_code_that_nobody_knows_is_told_as_the_c_agent_tells_it() {
    let unknown = otad(Path::new("/"), &["explain", "0xff"]);
    refused(&unknown, 2, &["0xff: InvalidErrorCode", "otad explain"]);
    let class = otad(Path::new("/"), &["explain", "--class", "palm"]);
    refused(&class, 64, &["--class \"palm\"", "job-parse"]);
}

#[test]
fn without_a_code_all_are_listed_with_the_functions_of_the_c_agent() {
    let list = done(&otad(Path::new("/"), &["explain"]));
    for function in ["Err", "JobParse", "PalStatus", "OsStatus"] {
        assert!(
            list.contains(&format!("(OTA_{function}_strerror)")),
            "{list}"
        );
    }
    assert!(list.contains("0x0e  14  OtaErrMomentumAbort"), "{list}");
    let json = done(&otad(Path::new("/"), &["explain", "--json"]));
    let codes: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        codes.as_array().unwrap().len(),
        otad::explain::all().count()
    );
    assert!(codes[0]["cure"].is_string());
}
