//! Updates that end well, in the order and with the bytes that the seeds show.

use alloc::string::String;
use alloc::vec::Vec;

use super::world::{World, version};
use crate::code::State;
use crate::types::Level;

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
