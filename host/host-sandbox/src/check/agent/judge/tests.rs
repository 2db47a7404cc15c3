//! What is asked for and what is not.

use super::*;
use crate::check::script;
use crate::native_agent;

const HEAD: &str = "let file = {\"filepath\":\"fw.bin\",\"filesize\":1000,\"fileid\":0,\"certfile\":\"cert.pem\",\"sig-sha256-ecdsa\":\"TWFu\"}\n\
    let doc = {\"afr_ota\":{\"protocols\":[\"MQTT\"],\"streamname\":\"AFR_OTA-s1\",\"files\":[${file}]}}\n\
    let job = {\"jobId\":\"AFR_OTA-1\",\"status\":\"QUEUED\",\"versionNumber\":1,\"executionNumber\":1,\"jobDocument\":${doc}}\n\
    case c\nset block_size 1024\ntarget 0 1.0.0\nimage 0 1.1.0\n> start\n> connected\n";

fn verdict(rest: &str) -> Verdict {
    let file = script::parse("f", &format!("{HEAD}{rest}")).unwrap();
    judge(&native_agent(), &file.cases[0], false)
}

fn what(rest: &str) -> String {
    match verdict(rest) {
        Verdict::Failed(finding) => finding.what,
        other => panic!("{other:?}"),
    }
}

const CREATE: &str = "< create 0 AFR_OTA-1 size=1000 block=7 type=0 attr=0 path=fw.bin cert=cert.pem sig-sha256-ecdsa=4d616e\n\
     < emit 1 received-job AFR_OTA-1\n";

#[test]
fn what_the_contract_leaves_open_is_not_asked_for() {
    let rest = format!("> next ${{job}}\n{CREATE}");
    assert_eq!(verdict(&rest), Verdict::Passed);
}

#[test]
fn what_is_not_done_and_what_must_not_be_done_is_found() {
    let next = format!("> next ${{job}}\n{CREATE}");
    assert!(what(&format!("{next}< commit 0\n")).starts_with("it never comes: commit 0"));
    assert_eq!(
        what("> next ${job}\n< emit 1 received-job AFR_OTA-1\n")
            .split(" came")
            .count(),
        1,
        "a transfer that the case does not have"
    );
    assert!(what(&format!("{next}> blocks\n< write 0 0+900\n")).contains("close 0"));
}

#[test]
fn what_comes_later_at_the_agents_own_deadline_counts() {
    // The request for a job is repeated when nobody answers it, and not within a millisecond.
    let rest = "> wait 1ms\n< publish 1 ~/jobs/$next/get {\"clientToken\":\"x\"}\n";
    assert_eq!(verdict(rest), Verdict::Passed);
    let never = "> wait 1ms\n< publish 1 ~/jobs/AFR_OTA-9/get {}\n";
    assert_eq!(what(never), "it never comes: a request for job AFR_OTA-9");
}
