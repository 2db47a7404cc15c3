//! Somebody else's broker between cloud and gateway: `otad cloud --broker` at mosquitto, plain and with TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::gateway::{Lines, read};
use e2e::{Cloud, Gateway, Update, image};
use host_cloud::{BrokerConfig, CloudConfig, Pki};
use rcgen::{CertificateParams, KeyPair};
use support::binary::{otad_command, warm_code_cache};
use support::deadline::PATIENCE;
use support::markdown;
use support::mosquitto::{Mosquitto, Setup, TlsFiles};
use support::process::{Process, Stream};
use support::proxy::Proxy;
use tempfile::TempDir;

const THING: &str = "far-pump";

/// 256 blocks of 4 KiB.
const LONG: usize = 1 << 20;

/// Blocks of one request, as `blocks_per_request` has it by default.
const WINDOW: u64 = 31;

/// A cold cache compiles the agent.
const DEADLINE: Duration = Duration::from_secs(300);

const README: &str = include_str!("../../../../host/host-cloud/README.md");

fn access() -> String {
    markdown::fenced_block(README, "mosquitto-access").unwrap() + "\n"
}

fn limits() -> String {
    markdown::fenced_block(README, "mosquitto-limits").unwrap() + "\n"
}

/// A broker with certificates of an owner of its own, and what a cloud and its things need there.
struct Secured {
    broker: Mosquitto,
    /// The directory that the cloud is to use; it has its root already.
    dir: TempDir,
    ca: PathBuf,
}

/// A broker with TLS, client certificates and the access list of the README. None = not installed.
fn secured() -> Option<Secured> {
    let dir = support::temp_dir("broker").unwrap();
    let at = |name: &str| dir.path().join(name);
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let own = CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    fs::write(at("broker.pem"), own.pem()).unwrap();
    fs::write(at("broker.key"), key.serialize_pem()).unwrap();
    let pki = Pki::open(&at("cloud/pki")).unwrap();
    pki.device(&"otad-cloud".parse().unwrap()).unwrap();
    let setup = Setup {
        tls: Some(TlsFiles {
            ca: pki.root_path(),
            cert: at("broker.pem"),
            key: at("broker.key"),
        }),
        access: Some(access()),
        lines: limits(),
        ..Setup::default()
    };
    let broker = Mosquitto::start_with(&setup).unwrap()?;
    let ca = at("broker.pem");
    Some(Secured { broker, dir, ca })
}

impl Secured {
    fn config(&self) -> BrokerConfig {
        let url = format!("mqtts://localhost:{}", self.broker.addr().port());
        let things = self.dir.path().join("cloud/pki/things");
        BrokerConfig {
            ca: Some(self.ca.clone()),
            certificate: Some((things.join("otad-cloud.pem"), things.join("otad-cloud.key"))),
            ..BrokerConfig::new(url.parse().unwrap())
        }
    }

    fn cloud(&self) -> Cloud {
        let cloud = Cloud::start_with(|config| {
            config.dir = self.dir.path().join("cloud");
            at_broker(config, self.config());
        });
        cloud.wait_broker();
        cloud
    }

    fn gateway(&self, cloud: &Cloud, change: impl FnOnce(&mut Lines)) -> Gateway {
        let gateway = Gateway::with(cloud, &[THING], change);
        // The broker has another root than the cloud.
        fs::copy(&self.ca, gateway.credential(THING, "root.pem")).unwrap();
        gateway
    }
}

fn at_broker(config: &mut CloudConfig, broker: BrokerConfig) {
    config.tls = None;
    config.broker = Some(broker);
}

fn plain_url(broker: &Mosquitto) -> String {
    format!("mqtt://{}", broker.addr())
}

fn plain_cloud(broker: &Mosquitto) -> Cloud {
    let url = plain_url(broker).parse().unwrap();
    let cloud = Cloud::start_with(|config| at_broker(config, BrokerConfig::new(url)));
    cloud.wait_broker();
    cloud
}

/// A gateway whose line to the broker can be slowed.
fn slowed(lines: &mut Lines, proxy: &Proxy, more: &str) {
    let device = lines.device();
    device.port = proxy.addr().port();
    device.mqtt = format!("reconnect_min_ms = 10\nreconnect_max_ms = 100\n{more}");
    device.agent = "status_frequency = 8\n".to_owned();
}

/// Kills the broker in the middle of a download and starts it again; the job goes on where it was.
fn check_restart(cloud: &Cloud, broker: &mut Mosquitto, gateway: &Gateway, proxy: &Proxy) {
    gateway.init(&image::program("1.0.0", "", 6000));
    let mut daemon = gateway.run();
    proxy.set_rate(Some(256 * 1024));
    let bytes = image::program("1.1.0", "", LONG);
    let job = cloud.update(THING, Update::of(bytes.clone()));
    cloud.wait_received(&job, 64);
    broker.kill().unwrap();
    daemon.wait_line("retrying in ");
    proxy.set_rate(None);
    assert_eq!(cloud.now(&job).status, "IN_PROGRESS");
    broker.start_again().unwrap();
    daemon.wait_line("connected to ");
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.1.0"));
    assert!(read(&gateway.target_file("main", "slot-b")) == bytes);
    let (sent, whole) = (cloud.stats().blocks, (LONG / 4096) as u64);
    assert!(
        sent <= whole + WINDOW,
        "{sent} blocks were sent, the image has {whole}"
    );
    assert_eq!(cloud.running().broker().unwrap().borrow().connections, 2);
}

#[test]
fn a_broker_restarted_in_mid_download_costs_at_most_a_window() {
    let Some(mut broker) = Mosquitto::start(None).unwrap() else {
        return;
    };
    let cloud = plain_cloud(&broker);
    let proxy = Proxy::start(broker.addr()).unwrap();
    let gateway = Gateway::with(&cloud, &[THING], |lines| {
        slowed(lines, &proxy, "tls = false\n");
    });
    check_restart(&cloud, &mut broker, &gateway, &proxy);
}

#[test]
fn a_broker_with_tls_restarted_in_mid_download_costs_at_most_a_window() {
    let Some(mut secured) = secured() else {
        return;
    };
    let cloud = secured.cloud();
    let proxy = Proxy::start(secured.broker.addr()).unwrap();
    let gateway = secured.gateway(&cloud, |lines| slowed(lines, &proxy, ""));
    check_restart(&cloud, &mut secured.broker, &gateway, &proxy);
}

#[test]
fn the_access_list_of_the_readme_keeps_things_apart_and_lets_each_be_updated() {
    let Some(mut secured) = secured() else {
        return;
    };
    let cloud = secured.cloud();
    let gateway = secured.gateway(&cloud, |_| {});
    gateway.init(&image::program("1.0.0", "", 6000));
    // A thing that claims to be another: its certificate has its own name.
    let liar = secured.gateway(&cloud, |_| {});
    let other = cloud.thing("other-pump");
    fs::write(
        liar.credential(THING, "certificate.pem"),
        other.certificate_pem,
    )
    .unwrap();
    fs::write(
        liar.credential(THING, "private-key.pem"),
        other.private_key_pem,
    )
    .unwrap();
    liar.init(&image::program("1.0.0", "", 6000));
    let job = cloud.update(THING, Update::of(image::program("1.1.0", "", 6000)));
    let lying = liar.run();
    let denied = format!("Denied PUBLISH from {THING}");
    secured.broker.wait_log(&denied).unwrap();
    assert_eq!(cloud.now(&job).status, "QUEUED");
    lying.stop();
    let _daemon = gateway.run();
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.1.0"));
}

fn otad(folder: &Path, arguments: &[&str]) -> String {
    let mut command = otad_command();
    command.args(arguments).current_dir(folder);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn cloud_command(folder: &Path, url: &str) -> Command {
    let mut command = otad_command();
    command.args(["cloud", "--dir", "cloud", "--broker", url]);
    command.current_dir(folder);
    command
}

#[test]
fn a_cloud_at_a_broker_works_from_the_command_line() {
    let Some(broker) = Mosquitto::start(None).unwrap() else {
        return;
    };
    let dir = support::temp_dir("broker-cli").unwrap();
    let folder = dir.path();
    let mut cloud =
        Process::start("otad cloud", cloud_command(folder, &plain_url(&broker))).unwrap();
    cloud
        .wait_line("answering at the broker", PATIENCE)
        .unwrap();
    fs::write(folder.join("1.0.0.img"), image::program("1.0.0", "", 6000)).unwrap();
    fs::write(folder.join("1.1.0.img"), image::program("1.1.0", "", 6000)).unwrap();
    otad(
        folder,
        &["thing", "create", THING, "--cloud", "cloud", "--out", "gw"],
    );
    // The test's program ends at once; that it stays up is the demo's subject.
    let restart = format!(
        "#!/bin/sh\n\"{}\" launch \"$1\" --config gw/otad.toml\nexit 0\n",
        support::binary::otad().display()
    );
    fs::write(folder.join("gw/restart.sh"), restart).unwrap();
    let config = ["--config", "gw/otad.toml"];
    otad(
        folder,
        &[&["target", "init", "main", "1.0.0.img"][..], &config].concat(),
    );
    let mut run = otad_command();
    run.arg("run").args(config).current_dir(folder);
    let warming = warm_code_cache().unwrap();
    let mut daemon = Process::start("otad run", run).unwrap();
    daemon.wait_line("ready; control socket", DEADLINE).unwrap();
    warming.done().unwrap();
    let create = [
        "update", "create", "--cloud", "cloud", "--wait", "--thing", THING,
    ];
    let said = otad(folder, &[&create[..], &["--file", "1.1.0.img"]].concat());
    assert!(said.contains("SUCCEEDED accepted  v1.1.0"), "{said}");
    assert_eq!(cloud.terminate(PATIENCE).unwrap().code(), Some(0));
}

#[test]
fn what_a_broker_needs_is_said_before_anything_is_made() {
    let dir = support::temp_dir("broker-cli").unwrap();
    let rows: [(&str, &[&str], i32, &str); 5] = [
        ("localhost:1883", &[], 64, "give mqtt://HOST:PORT"),
        ("mqtts://localhost", &[], 1, "needs the certificate"),
        ("mqtt://10.9.8.7", &[], 1, "without TLS"),
        (
            "mqtt://localhost",
            &["--broker-ca", "ca.pem"],
            1,
            "give mqtts://",
        ),
        ("mqtts://localhost", &["--broker-ca", "ca.pem"], 1, "ca.pem"),
    ];
    for (url, more, code, words) in rows {
        let output = cloud_command(dir.path(), url).args(more).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{url}: {said}");
        assert!(said.contains(words), "{url}: {said}");
    }
}

/// A scenario of the demo with mosquitto in the middle: its last line says how the job ended.
fn play(name: &str, broker: &Mosquitto, more: &[&str]) {
    let mut command = otad_command();
    command.args(["demo", "--scenario", name]).args(more);
    let warming = warm_code_cache().unwrap();
    let demo = Process::start("demo", command).unwrap();
    let status = demo.wait_exit(DEADLINE).unwrap();
    let (out, err) = (demo.text(Stream::Out), demo.text(Stream::Err));
    assert!(status.success(), "{name}: {out}\n{err}");
    warming.done().unwrap();
    let log = broker.log();
    let through = log
        .iter()
        .any(|line| line.contains("$aws/things/demo-gateway/jobs/"));
    assert!(through, "{name} went past the broker");
}

fn play_plain(name: &str) {
    if let Some(broker) = Mosquitto::start(None).unwrap() {
        play(name, &broker, &["--broker", &plain_url(&broker)]);
    }
}

/// The demo's device shows the cloud's certificate: it is one user to this broker.
fn play_with_tls(name: &str) {
    let Some(secured) = secured() else {
        return;
    };
    let config = secured.config();
    let (certificate, key) = config.certificate.unwrap();
    let url = config.url.to_string();
    let file = |path: &Path| path.display().to_string();
    let more = [
        ("--broker", url),
        ("--broker-ca", file(&secured.ca)),
        ("--broker-certificate", file(&certificate)),
        ("--broker-key", file(&key)),
    ];
    let more: Vec<&str> = more.iter().flat_map(|(o, v)| [*o, v.as_str()]).collect();
    play(name, &secured.broker, &more);
}

/// Two tests a scenario, so that they run side by side and say which one it was.
macro_rules! scenarios {
    ($($test:ident: $name:literal,)*) => {
        mod demo_over_plain_mqtt {
            $(
                #[test]
                fn $test() {
                    super::play_plain($name);
                }
            )*
        }
        mod demo_over_tls {
            $(
                #[test]
                fn $test() {
                    super::play_with_tls($name);
                }
            )*
        }
        const PLAYED: &[&str] = &[$($name),*];
    };
}

scenarios! {
    a_whole_update: "default",
    a_bad_signature: "bad-signature",
    a_downgrade: "downgrade",
    the_same_version: "same-version",
    an_incompatible_image: "incompatible",
    a_failing_self_test: "self-test-failure",
    a_version_that_never_starts: "never-starts",
    lost_and_doubled_blocks: "lossy",
    a_cut_connection: "broker-cut",
    an_image_over_https: "http",
    an_image_server_that_dies: "fallback",
    a_stream_in_json: "json",
    a_second_agent: "simple-orchestrator",
    a_cancelled_job: "cancelled",
    a_declined_job: "declined",
    a_deferred_activation: "deferred",
    a_foreign_job: "foreign-job",
    another_file_id: "file-id",
    an_agent_by_a_job: "agent",
    a_secondary_mcu: "secondary",
    a_secondary_mcu_that_goes_back: "secondary-rollback",
}

#[test]
fn every_scenario_of_the_demo_is_played_at_mosquitto() {
    let output = otad_command().args(["demo", "--list"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let listed: Vec<&str> = said
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert_eq!(listed, PLAYED);
}
