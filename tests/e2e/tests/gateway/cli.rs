//! The command line as scripts use it: exit codes, words, JSON, and one daemon for each state directory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Output;

use e2e::gateway::Daemon;
use e2e::{Cloud, Gateway, Update, image};
use host_cloud::http::HttpConfig;
use serde_json::Value;
use support::binary::otad_command;
use support::deadline::PATIENCE;
use support::net;
use support::process::Process;
use support::proxy::Proxy;

const THING: &str = "cli";
const SIZE: usize = 6000;

fn gateway(cloud: &Cloud) -> Gateway {
    let gateway = Gateway::new(cloud, THING);
    gateway.init(&image::program("1.0.0", "", SIZE));
    gateway
}

/// `otad …` in a folder.
fn otad(folder: &Path, arguments: &[&str]) -> Output {
    otad_command()
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// A call that ends with this code, and says all of this on standard error.
fn check(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "\"{word}\" is not in:\n{said}");
    }
    if code != 64 && code != 0 {
        assert!(
            said.lines().any(|line| line.starts_with("otad: ")),
            "{said}"
        );
    }
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `otad update create --cloud … --thing cli ARGUMENTS` in a folder.
fn create(cloud: &Cloud, folder: &Path, arguments: &[&str]) -> Output {
    let dir = cloud.dir();
    let fixed = ["update", "create", "--thing", THING, "--cloud"];
    let all = [&fixed[..], &[dir.to_str().unwrap()], arguments].concat();
    otad(folder, &all)
}

#[test]
fn a_wrong_command_line_is_64_and_help_is_0() {
    let dir = support::temp_dir("usage").unwrap();
    check(&otad(dir.path(), &["--help"]), 0, &[]);
    check(&otad(dir.path(), &["--version"]), 0, &[]);
    check(&otad(dir.path(), &[]), 64, &["Usage"]);
    check(&otad(dir.path(), &["frobnicate"]), 64, &["frobnicate"]);
    // Each option that must be there is named, before anything is looked at.
    let rows = [
        (
            &["update", "create"][..],
            &["--cloud", "--thing", "--file"][..],
        ),
        (
            &["update", "create", "--thing", "x", "--file", "x"],
            &["--cloud"],
        ),
        (&["thing", "create", "x", "--cloud", "x"], &["--out"]),
        (&["image", "pack", "x"], &["--version"]),
        (&["cloud"], &["--dir"]),
    ];
    for (arguments, named) in rows {
        check(&otad(dir.path(), arguments), 64, named);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_wrong_configuration_is_78_and_names_file_line_and_cure() {
    let cloud = Cloud::start();
    let mut gateway = gateway(&cloud);
    check(&gateway.verb(&["config", "check"]), 0, &[]);
    let missing = otad(&gateway.path(""), &["run", "--config", "nowhere.toml"]);
    check(&missing, 78, &["nowhere.toml"]);
    gateway.reconfigure(|lines| lines.daemon = "state_dri = \"x\"".to_owned());
    for verb in [&["config", "check"][..], &["run"], &["status"]] {
        check(
            &gateway.verb(verb),
            78,
            &["otad.toml:3", "state_dri", "state_dir"],
        );
    }
    gateway.reconfigure(|lines| lines.daemon.clear());
    fs::remove_file(gateway.credential(THING, "certificate.pem")).unwrap();
    for verb in [&["config", "check"][..], &["run"]] {
        check(&gateway.verb(verb), 78, &["certificate.pem", "otad.toml:"]);
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let set = |value: &str| {
        let mut command = gateway.command(&["config", "check"]);
        command.env("OTAD_DEVICE__0__MQTT__KEEP_ALIVE_S", value);
        command.output().unwrap()
    };
    check(&set("30"), 0, &[]);
    check(&set("1"), 78, &["OTAD_DEVICE__0__MQTT__KEEP_ALIVE_S"]);
}

#[test]
fn an_unusable_key_ends_the_daemon_and_a_refused_connection_does_not() {
    let cloud = Cloud::start();
    let mut gateway = gateway(&cloud);
    let key = gateway.credential(THING, "private-key.pem");
    let good = fs::read(&key).unwrap();
    fs::write(&key, "no key at all").unwrap();
    check(&gateway.verb(&["run"]), 78, &["private-key.pem"]);
    let other = cloud.thing("other");
    fs::write(&key, other.private_key_pem).unwrap();
    check(&gateway.verb(&["run"]), 78, &["private-key.pem"]);
    fs::write(&key, good).unwrap();
    // A certificate that the cloud does not know any longer.
    let name = "cli".parse().unwrap();
    let known = cloud.thing(THING).fingerprint;
    let detached = cloud.operator().detach_certificate(&name, &known);
    cloud.block_on(detached).unwrap();
    let mut daemon = gateway.run();
    let line = daemon.wait_line("retrying in ");
    assert!(line.contains("certificate"), "{line}");
    daemon.stop();
    gateway.reconfigure(|lines| lines.device().port = 9);
    let mut daemon = gateway.run();
    daemon.wait_line("Connection refused");
    daemon.stop();
}

#[test]
fn a_second_instance_on_one_state_directory_names_the_first() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let daemon = gateway.run();
    let first = format!("process {}", daemon.process.id());
    check(&gateway.verb(&["run"]), 3, &["state directory", &first]);
    let image = gateway.path("first.img");
    let init = ["target", "init", "main", image.to_str().unwrap(), "--force"];
    check(&gateway.verb(&init), 3, &[&first]);
    // The first one goes on.
    assert_eq!(gateway.status()["devices"][0]["device"], THING);
    daemon.stop();
    let _next = gateway.run();
}

#[test]
fn a_stopped_daemon_is_said_so_by_every_verb() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    gateway.run().stop();
    let verbs = [
        &["status"][..],
        &["suspend"],
        &["resume"],
        &["abort"],
        &["poll"],
        &["activate"],
        &["commit"],
        &["rollback"],
        &["events"],
    ];
    for verb in verbs {
        check(&gateway.verb(verb), 3, &["no daemon", "otad run"]);
    }
}

#[test]
fn the_control_socket_is_the_owners_alone() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let daemon = gateway.run();
    let socket = gateway.path("state/control.sock");
    let metadata = fs::symlink_metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let state = fs::metadata(gateway.path("state")).unwrap();
    assert_eq!(state.permissions().mode() & 0o777, 0o700);
    let operator = fs::symlink_metadata(cloud.dir().join("operator.sock")).unwrap();
    assert_eq!(operator.permissions().mode() & 0o777, 0o600);
    daemon.stop();
    assert!(!socket.exists());
}

#[test]
fn json_is_json_and_idle_verbs_have_their_codes() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let mut daemon = gateway.run();
    daemon.wait_line("new state [WaitingForJob]");
    let device = &gateway.status()["devices"][0];
    assert_eq!(device["state_name"], "WaitingForJob");
    for counter in ["received", "queued", "processed", "dropped"] {
        assert_eq!(device["counters"][counter], 0, "{counter}");
    }
    assert_eq!(device["targets"][0]["image_state"], "valid");
    assert_eq!(device["connection"]["state"], "connected");
    let facts = json(&gateway.verb(&["status", "--json", "--device", THING]));
    assert_eq!(facts["devices"].as_array().map(Vec::len), Some(1));
    let image = gateway.path("first.img");
    let shown = otad(
        &gateway.path(""),
        &["image", "show", "--json", image.to_str().unwrap()],
    );
    assert_eq!(json(&shown)["version"], "1.0.0");
    let _null: Value = json(&gateway.verb(&["suspend", "--json"]));
    let _null: Value = json(&gateway.verb(&["resume", "--json"]));
    // Nothing to do, nothing of that name.
    check(&gateway.verb(&["abort"]), 2, &[]);
    check(&gateway.verb(&["activate"]), 2, &[]);
    check(&gateway.verb(&["commit"]), 2, &[]);
    check(
        &gateway.verb(&["status", "--device", "x"]),
        2,
        &["\"x\"", THING],
    );
    check(
        &gateway.verb(&["commit", "--target", "x"]),
        2,
        &["\"x\"", "main"],
    );
    check(&gateway.verb(&["launch", "x"]), 2, &["\"x\"", "main"]);
}

#[test]
fn an_update_is_told_in_json_and_by_exit_codes() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let folder = gateway.path("");
    for version in ["1.0.0", "1.1.0"] {
        let bytes = image::program(version, "", SIZE);
        fs::write(folder.join(format!("{version}.img")), bytes).unwrap();
    }
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    fs::write(folder.join("foreign.key"), key).unwrap();
    let _daemon = gateway.run();
    let same = create(&cloud, &folder, &["--file", "1.0.0.img", "--wait"]);
    assert_eq!(same.status.code(), Some(5), "{same:?}");
    let foreign = ["--file", "1.1.0.img", "--key", "foreign.key", "--wait"];
    let foreign = create(&cloud, &folder, &foreign);
    assert_eq!(foreign.status.code(), Some(6), "{foreign:?}");
    let good = create(
        &cloud,
        &folder,
        &["--file", "1.1.0.img", "--wait", "--json"],
    );
    check(&good, 0, &[]);
    let lines: Vec<Value> = String::from_utf8(good.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let job = &lines.last().unwrap()["job"];
    assert_eq!(job["executions"][0]["status"], "SUCCEEDED");
    let dir = cloud.dir();
    let cloud_arguments = ["--cloud", dir.to_str().unwrap(), "--json"];
    let list = json(&otad(
        &folder,
        &[&["update", "list"], &cloud_arguments[..]].concat(),
    ));
    assert_eq!(list.as_array().map(Vec::len), Some(3));
    let id = job["job_id"].as_str().unwrap();
    let show = otad(
        &folder,
        &[&["update", "show", id], &cloud_arguments[..]].concat(),
    );
    assert_eq!(json(&show)["job_id"], id);
    let events = gateway.expect_verb(&["events", "--json"]);
    let names: Vec<String> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["name"].to_string())
        .collect();
    assert!(names.contains(&"\"job-ended\"".to_owned()), "{names:?}");
}

#[test]
fn events_can_be_followed_as_they_come() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let daemon = gateway.run();
    let follow = gateway.command(&["events", "--follow", "--json"]);
    let mut events = Process::start("otad events", follow).unwrap();
    let job = cloud.update(THING, Update::of(image::program("1.1.0", "", SIZE)));
    for name in ["received-job", "activate", "job-ended"] {
        let line = events.wait_line(&format!("\"{name}\""), PATIENCE).unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["job_id"], job.as_str(), "{line}");
    }
    daemon.stop();
    let ended = events.wait_exit(PATIENCE).unwrap();
    assert_eq!(
        ended.code(),
        Some(3),
        "whoever follows is told to come again"
    );
}

#[test]
fn an_update_that_cannot_be_made_leaves_nothing_behind() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let folder = gateway.path("");
    fs::write(folder.join("no.key"), "no key").unwrap();
    let rows = [
        (&["--file", "nowhere.img"][..], 1, "nowhere.img"),
        (
            &["--file", "first.img", "--key", "nowhere.key"],
            1,
            "nowhere.key",
        ),
        (&["--file", "first.img", "--key", "no.key"], 64, "no.key"),
        (&["--file", "first.img", "--file-id", "256"], 64, "256"),
    ];
    for (arguments, code, word) in rows {
        check(&create(&cloud, &folder, arguments), code, &[word]);
    }
    let unknown = [
        "update",
        "create",
        "--thing",
        "nobody",
        "--file",
        "first.img",
        "--cloud",
    ];
    let dir = cloud.dir();
    let unknown = otad(&folder, &[&unknown[..], &[dir.to_str().unwrap()]].concat());
    check(&unknown, 1, &["nobody"]);
    assert!(cloud.operator().list().is_empty());
}

#[test]
fn an_update_needs_nothing_but_the_binary_and_goes_to_the_chosen_cloud() {
    let chosen = Cloud::start();
    let other = Cloud::start();
    for cloud in [&chosen, &other] {
        let _credentials = cloud.thing(THING);
    }
    let dir = support::temp_dir("images").unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(
        dir.path().join("new.img"),
        image::program("1.1.0", "", SIZE),
    )
    .unwrap();
    let output = otad_command()
        .args([
            "update",
            "create",
            "--json",
            "--thing",
            THING,
            "--file",
            "../new.img",
        ])
        .arg("--cloud")
        .arg(chosen.dir())
        .env_clear()
        .env("PATH", "")
        .current_dir(dir.path().join("sub"))
        .output()
        .unwrap();
    let id = json(&output)["job_id"].as_str().unwrap().parse().unwrap();
    assert!(other.operator().list().is_empty());
    let document = chosen.operator().show(&id).unwrap().document;
    let file = &document["afr_ota"]["files"][0];
    // Without an option it is for the gateway itself, and signed.
    assert_eq!(file["fileid"], 0);
    assert!(file["sig-sha256-ecdsa"].is_string(), "{document}");
    assert_eq!(
        document["afr_ota"]["protocols"],
        serde_json::json!(["MQTT"])
    );
}

/// Names its endpoint by a proxy's address, so that whoever goes round it is seen.
#[test]
fn only_the_configured_endpoint_is_contacted() {
    let cloud = Cloud::start();
    let proxy = Proxy::start(([127, 0, 0, 1], cloud.port()).into()).unwrap();
    let gateway = Gateway::with(&cloud, &[THING], |lines| {
        let device = lines.device();
        device.port = proxy.addr().port();
        device.agent = "status_frequency = 8\n".to_owned();
    });
    gateway.init(&image::program("1.0.0", "", SIZE));
    let mut daemon = gateway.run();
    let only = |daemon: &Daemon| {
        let peers = net::peers(daemon.process.id()).unwrap();
        assert_eq!(peers, BTreeSet::from([proxy.addr()]));
    };
    daemon.wait_line("new state [WaitingForJob]");
    only(&daemon);
    proxy.set_rate(Some(256 * 1024));
    let job = cloud.update(THING, Update::of(image::program("1.1.0", "", 1 << 20)));
    cloud.wait_received(&job, 32);
    proxy.stall();
    only(&daemon);
    proxy.set_rate(None);
    proxy.resume();
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
    only(&daemon);
    assert_eq!(cloud.stats().connections, 1);
}

#[test]
fn protocol_and_file_id_of_update_create_stand_in_the_job_document() {
    let cloud = Cloud::start_with(|config| config.http = Some(HttpConfig::new(net::ANY_PORT)));
    let _credentials = cloud.thing(THING);
    let dir = support::temp_dir("images").unwrap();
    fs::write(
        dir.path().join("new.img"),
        image::program("1.1.0", "", SIZE),
    )
    .unwrap();
    for (options, protocols, file_id) in [
        (&[][..], &["MQTT"][..], 0),
        (&["--protocols", "http"], &["HTTP"], 0),
        (
            &["--protocols", "mqtt,http", "--file-id", "1"],
            &["MQTT", "HTTP"],
            1,
        ),
    ] {
        let arguments = [&["--file", "new.img", "--json"], options].concat();
        let output = create(&cloud, dir.path(), &arguments);
        let id = json(&output)["job_id"].as_str().unwrap().parse().unwrap();
        let document = cloud.operator().show(&id).unwrap().document;
        let ota = &document["afr_ota"];
        assert_eq!(
            ota["protocols"],
            serde_json::json!(protocols),
            "{options:?}"
        );
        assert_eq!(ota["files"][0]["fileid"], file_id, "{options:?}");
    }
}

#[test]
fn an_update_may_be_created_before_the_device_is_there() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let folder = gateway.path("");
    fs::write(folder.join("new.img"), image::program("1.1.0", "", SIZE)).unwrap();
    let output = create(&cloud, &folder, &["--file", "new.img", "--json"]);
    let job = json(&output)["job_id"].as_str().unwrap().parse().unwrap();
    // The terminal is closed, the image gone.
    fs::remove_file(folder.join("new.img")).unwrap();
    let _daemon = gateway.run();
    assert_eq!(
        cloud.wait_end(&job).as_pair(),
        ("SUCCEEDED", "accepted  v1.1.0")
    );
}

#[test]
fn the_printed_endpoint_is_the_one_that_a_thing_gets() {
    let dir = support::temp_dir("cloud").unwrap();
    let mut command = otad_command();
    command
        .args(["cloud", "--dir", "cloud", "--port", "0"])
        .current_dir(dir.path());
    let mut cloud = Process::start("otad cloud", command).unwrap();
    let endpoint = cloud.wait_line("endpoint", PATIENCE).unwrap();
    cloud.wait_line("next ", PATIENCE).unwrap();
    let port = endpoint.rsplit(':').next().unwrap();
    let thing = [
        "thing", "create", "pump-1", "--cloud", "cloud", "--out", "pump-1",
    ];
    check(&otad(dir.path(), &thing), 0, &[]);
    let config = fs::read_to_string(dir.path().join("pump-1/otad.toml")).unwrap();
    assert!(config.contains(&format!("port = {port}\n")), "{config}");
    let key = fs::metadata(dir.path().join("pump-1/private-key.pem")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    let written = ["config", "check", "--config", "pump-1/otad.toml"];
    check(&otad(dir.path(), &written), 0, &[]);
    // Written again only when asked to, and it says what it replaced.
    check(&otad(dir.path(), &thing), 5, &["otad.toml", "--force"]);
    let again = otad(dir.path(), &[&thing[..], &["--force"]].concat());
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(said.contains("replaced pump-1/otad.toml"), "{said}");
    // Its own signer serves, wherever the operator is.
    let place = dir.path().join("cloud");
    let elsewhere = dir.path().join("pump-1");
    fs::write(elsewhere.join("new.img"), image::program("1.1.0", "", SIZE)).unwrap();
    let update = [
        "update", "create", "--thing", "pump-1", "--file", "new.img", "--cloud",
    ];
    let update = [&update[..], &[place.to_str().unwrap()]].concat();
    check(&otad(&elsewhere, &update), 0, &[]);
    // A quick start on a machine of its own needs nobody else's.
    let peers = net::peers(cloud.id()).unwrap();
    assert!(
        peers.iter().all(|peer| peer.ip().is_loopback()),
        "{peers:?}"
    );
    assert_eq!(cloud.terminate(PATIENCE).unwrap().code(), Some(0));
}
