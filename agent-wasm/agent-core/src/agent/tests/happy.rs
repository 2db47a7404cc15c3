//! Updates that end well, in the order and with the bytes that the seeds show.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::world::{World, config, document, version};
use crate::code::State;
use crate::jobs::DETAILS_MAX_COUNT;
use crate::types::{Event, Level, Outcome};

#[test]
fn one_file_goes_from_notification_to_success() {
    let mut world = World::single();
    world.usual_job();
    world.connect();
    world.run_to_end();
    assert_eq!(
        world.verdict(),
        (
            "SUCCEEDED",
            r#"{"reason":"accepted  v1.1.0","updatedBy":"  v1.0.0"}"#
        )
    );
    assert_eq!(
        world.calls,
        [
            "state 0",
            "state 0",
            "create 0",
            "write 0 0",
            "write 0 1",
            "write 0 2",
            "close 0",
            "install 0",
            "activate 0",
            "reset 0",
            "state 0",
            "self-test 0",
            "commit 0",
        ]
    );
    assert_eq!(
        world.statuses(),
        [
            r#"{"status":"IN_PROGRESS","statusDetails":{"receive":"1/3"}}"#,
            r#"{"status":"IN_PROGRESS","statusDetails":{"self_test":"ready","updatedBy":"0x01000000"}}"#,
            r#"{"status":"IN_PROGRESS","statusDetails":{"self_test":"active","updatedBy":"0x01010000"}}"#,
            r#"{"status":"SUCCEEDED","statusDetails":{"reason":"accepted  v1.1.0","updatedBy":"  v1.0.0"}}"#,
        ]
    );
    // Received job, activate, job ended; then nothing to do.
    assert_eq!(world.kinds(), [6, 0, 16, 8]);
    assert_eq!(world.targets[&0].running, version(1, 1, 0));
    assert!(world.stores <= 12, "{} stores", world.stores);
}

#[test]
fn a_stream_in_json_brings_the_same_update() {
    let mut cbor = World::single();
    let mut json = World::with_config(config(&[("stream_encoding", "json")], &[(0, &[])]));
    for world in [&mut cbor, &mut json] {
        world.lose_blocks.push(1);
        world.usual_job();
        world.connect();
        world.run_to_end();
    }
    assert_eq!(json.verdict(), cbor.verdict());
    assert_eq!(json.calls, cbor.calls);
    assert_eq!(json.statuses(), cbor.statuses());
    let in_json = |topics: &[String]| -> Vec<String> {
        let topics = topics.iter();
        topics
            .map(|topic| topic.replace("/cbor", "/json"))
            .collect()
    };
    assert_eq!(json.subscribed, in_json(&cbor.subscribed));
    assert_eq!(json.unsubscribed, in_json(&cbor.unsubscribed));
    assert_ne!(json.subscribed, cbor.subscribed);
}

#[test]
fn a_refusal_in_json_ends_the_job_as_one_in_cbor() {
    let refused = |encoding: &str, refusal: &[u8]| {
        let mut world = World::with_config(config(&[("stream_encoding", encoding)], &[(0, &[])]));
        world.lose.push(("/get/", 1));
        world.usual_job();
        world.connect();
        world.run_to(State::WaitingForFileBlock);
        world.give(Event::Message {
            topic: format!("$aws/things/dev1/streams/stream1/rejected/{encoding}"),
            payload: refusal.to_vec(),
        });
        world.run_to_end();
        (world.verdict().0.to_owned(), world.verdict().1.to_owned())
    };
    let cbor = refused("cbor", b"\xa1\x61o\x70ResourceNotFound");
    assert_eq!(cbor.0, "FAILED");
    assert_eq!(refused("json", br#"{"o":"ResourceNotFound"}"#), cbor);
    // In the other encoding it is nobody's.
    assert_eq!(
        refused("json", b"\xa1\x61o\x70ResourceNotFound").0,
        "SUCCEEDED"
    );
}

#[test]
fn lines_below_the_level_that_somebody_reads_are_not_made() {
    let update = |level: &str| {
        let mut world = World::with_config(config(&[("log_level", level)], &[(0, &[])]));
        world.usual_job();
        world.connect();
        world.run_to_end();
        world
    };
    let all = update("0");
    assert!(all.logs.iter().any(|(level, _)| *level < Level::Info));
    for (setting, least) in [("2", Some(Level::Info)), ("5", None)] {
        let some = update(setting);
        let is_read = |(level, _): &&(Level, String)| least.is_some_and(|least| *level >= least);
        let wanted: Vec<_> = all.logs.iter().filter(is_read).collect();
        assert_eq!(some.logs.iter().collect::<Vec<_>>(), wanted, "{setting}");
        // It does the same.
        assert_eq!(some.calls, all.calls, "{setting}");
        assert_eq!(some.verdict(), all.verdict(), "{setting}");
    }
}

#[test]
fn every_state_change_is_told_beginning_with_ready() {
    let mut world = World::single();
    world.usual_job();
    world.connect();
    world.run_to_end();
    let info: Vec<&String> = world
        .logs
        .iter()
        .filter(|(level, text)| *level == Level::Info && text.starts_with("state ["))
        .map(|(_, text)| text)
        .collect();
    assert_eq!(
        info,
        [
            "state [Ready] event [Start] new state [RequestingJob]",
            "state [RequestingJob] event [RequestJobDocument] new state [WaitingForJob]",
            "state [WaitingForJob] event [ReceivedJobDocument] new state [CreatingFile]",
            "state [CreatingFile] event [CreateFile] new state [RequestingFileBlock]",
            "state [RequestingFileBlock] event [RequestFileBlock] new state [WaitingForFileBlock]",
            "state [WaitingForFileBlock] event [CloseFile] new state [ClosingFile]",
            "state [ClosingFile] event [FileVerified] new state [Installing]",
            "state [Installing] event [StatusAcknowledged] new state [WaitingForRestart]",
            "state [WaitingForRestart] event [TargetsRestarted] new state [Testing]",
            "state [Testing] event [TestsPassed] new state [Committing]",
            "state [Committing] event [AllCommitted] new state [Reporting]",
            "state [Reporting] event [StatusAcknowledged] new state [RequestingJob]",
            "state [RequestingJob] event [RequestJobDocument] new state [WaitingForJob]",
        ]
    );
    assert_eq!(world.state(), State::WaitingForJob);
}

/// Lets the installation of a file go on, as its host tells it, and returns what the service was told of that.
fn told_of_install(world: &mut World, file: u32, steps: &[(u64, u64)]) -> Vec<String> {
    let name = format!("install {file}");
    world.run_until(&name, |world| world.count(&name) == 1);
    let before = world.statuses().len();
    let (token, _) = world.open.iter().find(|(_, open)| *open == name).unwrap();
    for &(done, total) in steps {
        let token = *token;
        world
            .inbox
            .push_back(Event::Progress { token, done, total });
    }
    world.settle();
    let told = world.statuses().split_off(before);
    world.finish(&name, Outcome::Nothing);
    told.iter()
        .map(|status| {
            let details = status.strip_prefix(r#"{"status":"IN_PROGRESS","statusDetails":"#);
            details.unwrap().trim_end_matches('}').to_owned() + "}"
        })
        .collect()
}

#[test]
fn a_target_that_is_fed_is_told_of_by_sixteenths_and_never_its_end() {
    let mut world = World::single();
    world.usual_job();
    world.hang.push("install 0");
    world.connect();
    let steps = [
        (0, 1600),
        (60, 1600),
        (100, 1600),
        (150, 1600),
        (1000, 1600),
        (1600, 1600),
    ];
    assert_eq!(
        told_of_install(&mut world, 0, &steps),
        [
            r#"{"install":"0/1600"}"#,
            r#"{"install":"150/1600"}"#,
            r#"{"install":"1000/1600"}"#,
        ]
    );
    world.run_to_end();
    assert_eq!(world.verdict().0, "SUCCEEDED");
}

#[test]
fn in_a_job_of_several_files_the_progress_of_each_is_told() {
    let mut world = World::double();
    world.create_job("job1", &document(&[(0, 2500, 0), (1, 1500, 0)]));
    world.hang.push("install 1");
    world.connect();
    // Nothing moves where a target is done at once: only the second one has something to tell.
    let told = told_of_install(&mut world, 1, &[(0, 1500), (700, 1500)]);
    assert_eq!(
        told,
        [
            r#"{"file-0":"receive 3/3","install":"0/1500","file-1":"install 0/1500"}"#,
            r#"{"file-0":"receive 3/3","install":"700/1500","file-1":"install 700/1500"}"#,
        ]
    );
    world.run_to_end();
    assert_eq!(world.verdict().0, "SUCCEEDED");
    let received: Vec<_> = world
        .statuses()
        .into_iter()
        .filter(|s| s.contains(r#""receive":"#))
        .collect();
    assert_eq!(
        received,
        [
            r#"{"status":"IN_PROGRESS","statusDetails":{"receive":"1/3","file-0":"receive 1/3"}}"#,
            r#"{"status":"IN_PROGRESS","statusDetails":{"file-0":"receive 3/3","receive":"1/2","file-1":"receive 1/2"}}"#,
        ]
    );
}

#[test]
fn the_progress_of_many_files_has_no_more_details_than_the_service_takes() {
    let ids: Vec<u32> = (0..14).collect();
    let targets: Vec<_> = ids.iter().map(|id| (*id, &[][..])).collect();
    let files: Vec<_> = ids.iter().map(|id| (*id, 2500, 0)).collect();
    let mut world = World::with_config(config(&[], &targets));
    world.create_job("job1", &document(&files));
    world.connect();
    world.run_to_end();
    assert_eq!(world.verdict().0, "SUCCEEDED");
    let statuses = world.statuses();
    let told = statuses
        .iter()
        .filter(|status| status.contains("\"receive\":"));
    let most = told.map(|status| status.matches("receive").count()).max();
    // The key and the value of the file at hand, or of the fourteen those that fit.
    assert_eq!(most, Some(DETAILS_MAX_COUNT));
}

#[test]
fn nothing_is_told_of_an_installation_while_there_is_no_connection() {
    let mut world = World::single();
    world.usual_job();
    world.hang.push("install 0");
    world.connect();
    world.run_until("install", |world| world.count("install 0") == 1);
    world.disconnect();
    world.settle();
    assert_eq!(told_of_install(&mut world, 0, &[(0, 16), (8, 16)]), [""; 0]);
}
