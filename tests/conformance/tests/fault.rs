//! Faults that were measured in the C agent, one test each: what its users met does not happen here. The cases show how
//! it goes instead.
//!
//! Not here is what no agent can do or prevent: the connection's own faults (a reconnect without back-off, a SUBACK that
//! nobody reads, pings) are `host-mqtt`'s and tested there, keys and paths chosen by a job document `host-crypto`'s and
//! `host-runtime`'s.

use std::collections::BTreeSet;

use host_sandbox::check::agent::world::{self, Manner, Transcript};
use host_sandbox::check::script::Case;
use host_sandbox::native_agent;

fn cases() -> Vec<Case> {
    conformance::files()
        .into_iter()
        .flat_map(|file| file.cases)
        .collect()
}

fn play(case: &Case) -> Transcript {
    world::play(&native_agent(), case, Manner::default())
        .unwrap_or_else(|error| panic!("{}: {error}", case.name))
}

/// What the agent did in a case, line by line.
struct Story(Vec<String>);

fn story(name: &str) -> Story {
    let all = cases();
    let case = all.iter().find(|case| case.name == name);
    Story(play(case.unwrap_or_else(|| panic!("no case {name}"))).concat())
}

impl Story {
    fn has(&self, part: &str) -> bool {
        self.0.iter().any(|line| line.contains(part))
    }

    fn after(&self, part: &str) -> Self {
        let at = self.0.iter().position(|line| line.contains(part));
        Self(self.0[at.unwrap_or_else(|| panic!("no {part}"))..].to_vec())
    }

    fn starting(&self, word: &str) -> Vec<&String> {
        self.0
            .iter()
            .filter(|line| line.starts_with(word))
            .collect()
    }

    fn writes_nothing_twice(&self) {
        let writes = self.starting("write ");
        let distinct: BTreeSet<&&String> = writes.iter().collect();
        assert!(!writes.is_empty());
        assert_eq!(writes.len(), distinct.len(), "{writes:?}");
    }
}

#[test]
fn no_map_is_overrun_by_a_file_of_more_than_1024_blocks() {
    let story_of_1025 = story("a-map-of-more-than-1024-blocks-is-no-overflow");
    assert!(story_of_1025.has("write 0 262144+256"));
    assert!(story_of_1025.has("received=2 processed=1 dropped=1"));
    assert!(story("a-file-past-the-block-map-is-refused").has("FAILED"));
}

#[test]
fn no_long_name_and_no_large_document_keeps_a_block_out() {
    assert!(
        story("long-names-and-a-large-document-leave-room-for-the-block").has("write 0 0+1000")
    );
}

#[test]
fn no_large_block_is_taken_for_a_failed_write() {
    let story = story("a-block-of-128-kib-is-written-whole");
    assert!(story.has("write 0 0+131072") && story.has("write 0 131072+5"));
    assert!(!story.has("FAILED"));
}

#[test]
fn no_wide_window_loses_what_it_asked_for() {
    assert!(story("a-window-of-31-blocks-loses-none").has("received=31 processed=31 dropped=0"));
}

#[test]
fn no_lost_block_costs_a_fixed_time_of_ten_seconds() {
    let all = cases();
    let name = "one-lost-block-costs-a-second-not-ten";
    let case = all.iter().find(|case| case.name == name).expect("the case");
    let steps = case.steps.iter().zip(play(case));
    let asked: Vec<usize> = steps
        .filter(|(step, _)| step.input.starts_with("wait "))
        .map(|(_, lines)| lines.len())
        .collect();
    assert_eq!(asked, [0, 1], "after 999 ms and after 1000");
}

#[test]
fn no_silent_cloud_stops_the_agent_or_hides_the_reason() {
    let story = story("a-silent-service-fails-the-job-and-the-agent-lives");
    assert!(story.has("aborted: 0x0000000e") && !story.has("now Stopped"));
    assert!(story.after("FAILED").has("jobs/$next/get"));
}

#[test]
fn no_cut_and_no_restart_costs_blocks_that_were_written() {
    story("a-cut-download-goes-on-where-it-was").writes_nothing_twice();
    story("a-restart-in-a-download-loses-no-block-that-was-written").writes_nothing_twice();
}

#[test]
fn no_refused_subscription_passes_for_one_that_is_there() {
    let story = story("a-subscription-that-fails-is-repeated");
    assert!(story.starting("subscribe").len() > 2);
    let asked = story.0.iter().position(|line| line.contains("$next/get"));
    let last = story
        .0
        .iter()
        .rposition(|line| line.starts_with("subscribe"));
    assert!(
        asked > last,
        "nothing is asked before the subscription is there"
    );
}

#[test]
fn no_message_that_matters_goes_out_with_a_lesser_quality() {
    for case in cases() {
        for line in play(&case).concat() {
            let mere = ["/get/cbor", "\"receive\":", "\"install\":"];
            let mere = mere.iter().any(|part| line.contains(part));
            let wrong = line.starts_with(if mere { "publish 1" } else { "publish 0" });
            assert!(!wrong, "{}: {line}", case.name);
        }
    }
}

#[test]
fn no_subscription_waits_for_anything_once_there_is_a_connection() {
    let all = cases();
    let name = "an-update-goes-from-notification-to-commit";
    let case = all.iter().find(|case| case.name == name).expect("the case");
    let at = case.steps.iter().position(|step| step.input == "connected");
    let lines = &play(case)[at.expect("the step")];
    assert!(lines[0].starts_with("subscribe 1 "), "{lines:?}");
}

#[test]
fn no_version_is_judged_only_after_the_restart_and_by_what_the_cloud_echoes() {
    let names = [
        "a-downgrade-is-refused-before-activation",
        "the-same-version-is-refused-before-activation",
    ];
    for name in names {
        let story = story(name);
        assert!(story.has("rejected: 0x0000000f") || story.has("rejected: 0x00000010"));
        assert!(story.starting("activate").is_empty(), "{name}");
    }
}

#[test]
fn no_bad_signature_leaves_anything_but_an_aborted_file() {
    let story = story("a-bad-signature-fails-the-job");
    assert!(story.has("abort 0") && story.has("FAILED"));
    assert!(!story.has("activate 0") && !story.has("install 0"));
}

#[test]
fn no_missing_signature_costs_a_whole_download() {
    let story = story("a-signature-that-is-missing-is-noticed-before-a-block-is-asked-for");
    assert!(story.has("FAILED") && !story.has("/get/cbor"));
}

#[test]
fn no_malformed_block_and_no_stray_message_kills_the_job() {
    let story_of_rubbish = story("a-message-that-is-no-block-is-ignored");
    assert!(!story_of_rubbish.has("FAILED") && story_of_rubbish.has("now Installing"));
    assert!(!story("a-message-of-a-strange-topic-is-ignored").has("FAILED"));
    // What the service refuses is no block either: it ends the job with its own number.
    assert!(story("a-refused-stream-request-fails-the-job").has("0x00000044: 0x"));
}

#[test]
fn no_late_duplicate_rejects_a_verified_image() {
    let story = story("a-late-duplicate-of-the-last-block-harms-nothing");
    assert!(!story.has("reject 0") && !story.has("FAILED"));
    story.writes_nothing_twice();
}

#[test]
fn no_block_of_another_file_and_no_false_length_is_believed() {
    let other = story("a-block-of-another-file-is-ignored");
    assert!(other.starting("write").is_empty() && !other.has("FAILED"));
    let wrong = story("a-block-of-a-wrong-length-is-ignored");
    wrong.writes_nothing_twice();
    assert!(!wrong.has("FAILED"));
}

#[test]
fn no_failed_job_touches_the_image_that_runs() {
    let mut seen = 0;
    for case in cases() {
        // Unless it runs an uncommitted one since before the case.
        let in_test = |input: &str| input.starts_with("target ") && !input.ends_with("old");
        if case.steps.iter().any(|step| in_test(&step.input)) {
            continue;
        }
        let mut activated = BTreeSet::new();
        for line in play(&case).concat() {
            if let Some(file) = line.strip_prefix("activate ") {
                activated.insert(file.to_owned());
            } else if let Some(file) = line.strip_prefix("reject ") {
                seen += 1;
                assert!(activated.contains(file), "{}: {line}", case.name);
            }
        }
    }
    assert!(seen > 10, "only {seen} images went back");
}

#[test]
fn no_self_test_passes_without_an_image_in_test() {
    let story = story("a-job-in-self-test-without-an-image-in-test-is-rejected");
    assert!(story.has("FAILED") && !story.has("SUCCEEDED") && !story.has("commit 0"));
}

#[test]
fn no_self_test_ends_without_a_report_and_no_cancel_in_it_is_missed() {
    let late = story("an-external-test-without-a-verdict-ends-at-its-deadline");
    assert!(late.has("reject 0") && late.has("rejected: 0x00000041"));
    assert!(story("a-job-cancelled-in-its-test-goes-back").has("reject 0"));
}

#[test]
fn no_image_is_activated_while_the_cloud_refuses_its_status() {
    for name in [
        "nothing-is-activated-before-the-service-took-ready",
        "ready-that-the-service-shows-otherwise-is-repeated-a-few-times",
        "a-status-refused-as-an-invalid-request-fails-the-job",
        "ready-that-nobody-answers-ends-the-job-in-the-end",
    ] {
        let story = story(name);
        let before = story.starting("activate").len();
        assert!(
            before == 0 || story.has("\"self_test\":\"ready\""),
            "{name}"
        );
        assert!(!story.has("FAILED") || before == 0, "{name}");
    }
}

#[test]
fn no_defective_document_leaves_its_job_queued() {
    for name in [
        "a-file-of-0-bytes-is-refused",
        "a-missing-file-size-is-refused",
        "a-number-that-is-none-or-too-large-is-refused",
        "a-signature-that-is-no-base64-is-refused",
        "a-protocol-that-nobody-speaks-is-refused",
        "a-stream-name-past-its-limit-is-refused",
        "a-file-past-the-block-map-is-refused",
        "a-job-without-a-document-is-refused",
        "an-unknown-file-id-fails-with-its-own-code",
    ] {
        assert!(story(name).has("\"status\":\"FAILED\""), "{name}");
    }
}

#[test]
fn no_foreign_job_is_failed_where_others_run_it() {
    let story = story("a-foreign-job-is-left-to-others");
    assert!(!story.has("FAILED") && !story.has("reboot-1"));
    assert!(story.has("create 0 AFR_OTA-1"), "and the next one is run");
}

#[test]
fn no_notification_starts_a_download_over_and_no_second_file_is_forgotten() {
    story("the-same-job-again-is-no-news").writes_nothing_twice();
    let group = story("files-go-in-order-and-file-0-last");
    assert!(group.has("commit 0") && group.has("commit 1"));
}

#[test]
fn no_zero_vanishes_from_a_version_and_no_two_tokens_are_the_same() {
    let zeros = story("a-zero-in-a-version-is-written-as-a-digit");
    assert!(zeros.has("accepted  v0.10.0") && zeros.has("  v0.9.2"));
    for case in cases() {
        let mut tokens = BTreeSet::new();
        for line in play(&case).concat() {
            let token = line.split_once("\"clientToken\":\"");
            if line.starts_with("publish ")
                && let Some((_, rest)) = token
            {
                let token = rest.split('"').next().unwrap_or_default().to_owned();
                assert!(!token.starts_with(':'), "{}: {line}", case.name);
                assert!(tokens.insert(token), "{}: {line}", case.name);
            }
        }
    }
}

#[test]
fn no_nameless_stream_or_job_is_ever_in_a_topic_and_no_success_is_called_an_error() {
    for case in cases() {
        for line in play(&case).concat() {
            let nameless = line.contains("streams//") || line.contains("jobs//");
            assert!(!nameless, "{}: {line}", case.name);
        }
    }
    let ended = story("a-shutdown-after-a-job-lets-go-of-no-nameless-stream");
    assert_eq!(
        ended.starting("unsubscribe").len(),
        1,
        "notify-next, and no more"
    );
    assert!(
        story("the-story-on-the-console")
            .starting("log error")
            .is_empty()
    );
}
