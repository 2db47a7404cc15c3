//! Devices and a cloud that somebody else's broker knows by user name and password: plain, and with TLS in which only
//! the broker shows a certificate. The password comes from a file or the environment and is shown nowhere.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Cloud, Gateway, Update, image};
use host_cloud::{BrokerConfig, Login};
use rcgen::{CertificateParams, KeyPair};
use support::mosquitto::{Mosquitto, Setup, TlsFiles};
use tempfile::TempDir;

const THING: &str = "password-pump";

const PASSWORD: &str = "a pump's s3cret";

const CLOUD_PASSWORD: &str = "the cloud's own";

/// A broker that lets nobody in without a password.
struct Guarded {
    broker: Mosquitto,
    dir: TempDir,
    /// What its certificate leads to, with TLS.
    ca: Option<PathBuf>,
}

/// None = mosquitto is not installed.
fn guarded(with_tls: bool) -> Option<Guarded> {
    let program = support::interop::program("mosquitto_passwd")?;
    let dir = support::temp_dir("guarded").unwrap();
    let at = |name: &str| dir.path().join(name);
    let users = at("users");
    fs::write(&users, "").unwrap();
    for (user, password) in [(THING, PASSWORD), ("otad-cloud", CLOUD_PASSWORD)] {
        let status = Command::new(&program)
            .arg("-b")
            .arg(&users)
            .args([user, password])
            .status()
            .unwrap();
        assert!(status.success());
    }
    let mut lines = format!("allow_anonymous false\npassword_file {}\n", users.display());
    let mut setup = Setup::default();
    let mut ca = None;
    if with_tls {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let own = CertificateParams::new(names).unwrap();
        let own = own.self_signed(&key).unwrap();
        fs::write(at("broker.pem"), own.pem()).unwrap();
        fs::write(at("broker.key"), key.serialize_pem()).unwrap();
        setup.tls = Some(TlsFiles {
            ca: at("broker.pem"),
            cert: at("broker.pem"),
            key: at("broker.key"),
        });
        lines += "require_certificate false\nuse_identity_as_username false\n";
        ca = Some(at("broker.pem"));
    }
    setup.lines = lines;
    let broker = Mosquitto::start_with(&setup).unwrap()?;
    Some(Guarded { broker, dir, ca })
}

impl Guarded {
    fn cloud(&self) -> Cloud {
        let scheme = if self.ca.is_some() { "mqtts" } else { "mqtt" };
        let url = format!("{scheme}://localhost:{}", self.broker.addr().port());
        let broker = BrokerConfig {
            ca: self.ca.clone(),
            login: Some(Login {
                user: "otad-cloud".to_owned(),
                password: CLOUD_PASSWORD.to_owned(),
            }),
            ..BrokerConfig::new(url.parse().unwrap())
        };
        let cloud = Cloud::start_with(|config| {
            config.dir = self.dir.path().join("cloud");
            config.tls = None;
            config.broker = Some(broker);
        });
        cloud.wait_broker();
        cloud
    }

    /// A gateway that has no certificate, and these lines about its password.
    fn gateway(&self, cloud: &Cloud, password: &str) -> Gateway {
        let tls = if self.ca.is_some() {
            ""
        } else {
            "tls = false\n"
        };
        let gateway = Gateway::with(cloud, &[THING], |lines| {
            lines.device().mqtt = format!(
                "user_name = \"{THING}\"\n{password}\n{tls}reconnect_min_ms = 10\nreconnect_max_ms = 100\n"
            );
        });
        if let Some(ca) = &self.ca {
            fs::copy(ca, gateway.credential(THING, "root.pem")).unwrap();
        }
        forget_certificate(&gateway.config());
        private_file(&gateway.path("password"), PASSWORD);
        gateway
    }
}

/// Takes the device's certificate out of a configuration.
fn forget_certificate(config: &Path) {
    let text = fs::read_to_string(config).unwrap();
    let kept: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("certificate =") && !line.starts_with("private_key ="))
        .collect();
    fs::write(config, kept.join("\n")).unwrap();
}

fn private_file(path: &Path, text: &str) {
    fs::write(path, format!("{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A whole update by password; neither log nor status tells it.
fn check_update(with_tls: bool) {
    let Some(guarded) = guarded(with_tls) else {
        return;
    };
    let cloud = guarded.cloud();
    let gateway = guarded.gateway(&cloud, "password_file = \"password\"");
    gateway.init(&image::program("1.0.0", "", 6000));
    let checked = gateway.expect_verb(&["config", "check"]);
    let mut daemon = gateway.run_with(|command| {
        command.args(["--log", "info,host_mqtt=trace,rumqttc=trace"]);
    });
    let job = cloud.update(THING, Update::of(image::program("1.1.0", "", 6000)));
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.1.0"));
    daemon.wait_line("has ended");
    let said = [
        checked,
        daemon.log(),
        gateway.expect_verb(&["status", "--json"]),
        guarded.broker.log().join("\n"),
    ];
    for text in said {
        assert!(!text.contains(PASSWORD), "{text}");
    }
}

#[test]
fn a_device_is_updated_at_a_broker_that_asks_for_a_password() {
    check_update(false);
}

#[test]
fn a_device_without_a_certificate_is_updated_over_tls_by_its_password() {
    check_update(true);
}

#[test]
fn a_wrong_password_is_told_and_the_right_one_is_taken_from_the_environment() {
    let Some(guarded) = guarded(true) else {
        return;
    };
    let cloud = guarded.cloud();
    let gateway = guarded.gateway(&cloud, "password_env = \"PUMP_PASSWORD\"");
    gateway.init(&image::program("1.0.0", "", 6000));
    let mut daemon = gateway.run_with(|command| {
        command.env("PUMP_PASSWORD", "a wr0ng one");
    });
    // MQTT 3.1.1 has two codes for it; mosquitto takes the second.
    let told = daemon.wait_line("the broker refused the connection");
    assert!(told.contains("not authorized"), "{told}");
    assert!(!daemon.log().contains("wr0ng"));
    daemon.stop();
    let _daemon = gateway.run_with(|command| {
        command.env("PUMP_PASSWORD", PASSWORD);
    });
    let job = cloud.update(THING, Update::of(image::program("1.1.0", "", 6000)));
    assert_eq!(
        cloud.wait_end(&job).as_pair(),
        ("SUCCEEDED", "accepted  v1.1.0")
    );
}

#[test]
fn a_password_that_is_not_there_stops_the_start_and_says_where_it_was_looked_for() {
    let Some(guarded) = guarded(false) else {
        return;
    };
    let cloud = guarded.cloud();
    for (line, words) in [
        ("password_env = \"NOBODY_SET_THIS\"", "NOBODY_SET_THIS"),
        ("password_file = \"nowhere\"", "nowhere cannot be read"),
    ] {
        let gateway = guarded.gateway(&cloud, line);
        gateway.init(&image::program("1.0.0", "", 6000));
        let output = gateway.verb(&["run"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(words), "{said}");
    }
}
