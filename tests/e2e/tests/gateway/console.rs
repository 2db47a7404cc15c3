//! The story on the console of `otad run`: what an operator who only watches it learns, and in which order.

use e2e::gateway::target;
use e2e::{Cloud, Daemon, Ended, Gateway, Update, image};
use support::deadline::PATIENCE;
use support::net;

const THING: &str = "story";
const SIZE: usize = 10_446;

fn gateway(cloud: &Cloud) -> Gateway {
    let gateway = Gateway::with(cloud, &[THING], |lines| {
        // Without one every start warns that nobody looks.
        lines.target().lines = "health = { command = [\"/bin/true\"] }\n".to_owned();
    });
    gateway.init(&image::program("1.0.0", "", SIZE));
    gateway
}

fn update(cloud: &Cloud) -> Ended {
    let job = cloud.update(
        THING,
        Update {
            filepath: "app.bin".to_owned(),
            update_id: Some("story".to_owned()),
            stream_id: Some("AFR_OTA-stream".to_owned()),
            ..Update::of(image::program("1.1.0", "", SIZE))
        },
    );
    cloud.wait_end(&job)
}

/// All of these, in this order.
fn check_order(daemon: &mut Daemon, story: &[&str]) {
    for line in story {
        daemon.wait_line(line);
    }
}

#[test]
fn at_info_level_an_update_is_told_in_order() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let mut daemon = gateway.run();
    assert_eq!(update(&cloud).status, "SUCCEEDED");
    daemon.wait_line("info story: target main (file 0) runs version 1.1.0");
    let log = daemon.log();
    // From the first line again.
    let mut rest = log.as_str();
    let mut tell = |line: &str| {
        let at = rest.find(line);
        assert!(at.is_some(), "\"{line}\" does not follow in:\n{log}");
        rest = at.map_or("", |at| &rest[at + line.len()..]);
    };
    tell("info otad version 0.0.0");
    tell("info story: creating MQTT client `story` (5 bytes) for localhost:");
    tell("info story: connecting to localhost:");
    tell("info story: connected to localhost:");
    tell("info story: agent ready");
    tell("info story: state [Ready] event [Start] new state [RequestingJob]");
    tell("state [RequestingJob] event [RequestJobDocument] new state [WaitingForJob]");
    tell("job parameter [jobId: AFR_OTA-story]");
    tell("job parameter [protocols: MQTT]");
    tell("job parameter [streamname: AFR_OTA-stream]");
    tell("job parameter [filepath: app.bin]");
    tell("job parameter [filesize: 10446]");
    tell("job parameter [fileid: 0]");
    tell("job parameter [certfile: ]");
    tell("job parameter [sig-sha256-ecdsa: ME");
    tell("...]\n");
    tell("job accepted");
    tell("state [WaitingForJob] event [ReceivedJobDocument] new state [CreatingFile]");
    tell("asking for the image state of file 0");
    tell("creating file 0");
    tell("info story: application event received-job, number ");
    tell("state [CreatingFile] event [CreateFile] new state [RequestingFileBlock]");
    tell("blocks requested: $aws/things/story/streams/AFR_OTA-stream/get/cbor");
    tell("state [RequestingFileBlock] event [RequestFileBlock] new state [WaitingForFileBlock]");
    tell("received the final block of file 0");
    tell("state [WaitingForFileBlock] event [CloseFile] new state [ClosingFile]");
    tell("file 0 is complete and its signature valid");
    tell("status {\"status\":\"IN_PROGRESS\",\"statusDetails\":{\"self_test\":\"ready\",");
    tell("info story: application event activate, number ");
    tell("activating file 0");
    tell("restarting the target of file 0");
    tell("has restarted");
    tell("status {\"status\":\"IN_PROGRESS\",\"statusDetails\":{\"self_test\":\"active\",");
    tell("committing file 0");
    tell("status {\"status\":\"SUCCEEDED\",\"statusDetails\":{\"reason\":\"accepted  v1.1.0\",");
    tell("info story: target main (file 0) runs version 1.1.0, image valid");
    assert!(!log.contains("received file block 1"), "{log}");
    for level in [" warn ", "error "] {
        assert!(!log.contains(level), "{level} in a good update:\n{log}");
    }
}

#[test]
fn at_debug_level_each_block_is_told_with_index_and_size() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let mut daemon = gateway.run_with(|command| {
        command.args(["--log", "debug"]);
    });
    assert_eq!(update(&cloud).status, "SUCCEEDED");
    let story = [
        "received file block 0, size 4096",
        "debug story: received file block 1, size 4096",
        "received file block 2, size 2254",
        "received the final block of file 0",
    ];
    check_order(&mut daemon, &story);
}

#[test]
fn the_version_that_runs_is_told_at_every_start() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let mut daemon = gateway.run();
    assert_eq!(update(&cloud).status, "SUCCEEDED");
    daemon.wait_line("target main (file 0) runs version 1.1.0, image valid");
    daemon.stop();
    let mut daemon = gateway.run();
    daemon.wait_line("agent ready");
    daemon.wait_said("info otad version 0.0.0");
    daemon.wait_said("target main (file 0) runs version 1.1.0, image valid");
}

#[test]
fn a_cut_and_a_refused_connection_are_told_with_the_time_of_the_next_attempt() {
    let cloud = Cloud::start();
    let mut gateway = gateway(&cloud);
    let mut daemon = gateway.run();
    daemon.wait_line("connected to localhost:");
    cloud.running().cut();
    let line = daemon.wait_line("retrying in ");
    assert!(
        line.contains("warn story: ") && line.contains(" s"),
        "{line}"
    );
    daemon.wait_line("connected to localhost:");
    daemon.stop();
    // Nobody listens there.
    let port = net::free_port().unwrap();
    gateway.reconfigure(|lines| lines.device().port = port);
    let mut daemon = gateway.run();
    daemon.wait_line("connecting to localhost:");
    let line = daemon.wait_line("retrying in ");
    assert!(line.contains("cannot connect to "), "{line}");
    assert!(line.contains("Connection refused"), "{line}");
    daemon.wait_line("connecting to localhost:");
}

#[test]
fn a_secondary_target_changes_nothing_of_the_main_ones_story() {
    // Lines of the agent, without times and tokens.
    let story = |more: bool| {
        let cloud = Cloud::start();
        let gateway = Gateway::with(&cloud, &[THING], |lines| {
            if more {
                lines.device().targets.push(target(THING, "mcu", 1));
            }
        });
        gateway.init(&image::program("1.0.0", "", SIZE));
        let mut daemon = gateway.run();
        // A job that is there at the first question has another story than one that comes later.
        gateway.wait_idle();
        assert_eq!(update(&cloud).status, "SUCCEEDED");
        daemon
            .process
            .wait_line(
                "event [StatusAcknowledged] new state [RequestingJob]",
                PATIENCE,
            )
            .unwrap();
        let log = daemon.log();
        let states: Vec<String> = log
            .lines()
            .filter_map(|line| Some(line.split_once("state [")?.1.to_owned()))
            .collect();
        assert!(!log.contains("mcu: "), "{log}");
        let upto = "Reporting] event [StatusAcknowledged] new state [RequestingJob]";
        let end = states.iter().position(|s| s == upto).unwrap();
        states[..end].to_vec()
    };
    assert_eq!(story(false), story(true));
}
