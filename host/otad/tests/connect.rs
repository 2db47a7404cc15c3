//! Devices that an application has otad connect, or puts on connections of its own: what a connection is shared by, that a device
//! which comes back gets one that lives, and that it has one agent at a time.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up does")]

use std::path::Path;

use host_mqtt::ConnectionState;
use otad::application::rumqttc::AsyncClient;
use otad::application::{ConnectedDevice, Gateway, GatewayError, SharedConnection, chain};
use otad::config::{self, Config};

/// Two devices on the connection of the first, to a port where nobody listens.
fn configuration(dir: &Path) -> Config {
    // Kept from run to run: what a debug build compiles for half a minute.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut toml = format!(
        "[daemon]\nstate_dir = \"state\"\ncache_dir = \"{}\"\n\
         [development]\nallow_unsigned_images = true\nallow_plaintext = true\n",
        target.join("otad-code-cache").display()
    );
    for (device, connection) in [
        ("pump-1", "endpoint = \"localhost\"\nport = 1\ntls = false"),
        ("pump-2", "connection_of = \"pump-1\""),
    ] {
        toml.push_str(&format!(
            r#"
[[device]]
name = "{device}"
[device.mqtt]
{connection}
[[device.target]]
name = "main"
file_id = 0
plugin = "flash-file"
directory = "targets/{device}"
restart = {{ command = ["./restart.sh"] }}
"#
        ));
    }
    config::parse(&dir.join("otad.toml"), &toml, []).unwrap()
}

fn state(device: &ConnectedDevice) -> ConnectionState {
    device.connection.status().state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_comes_back_gets_no_connection_that_was_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::open(configuration(dir.path())).unwrap();
    let [owner, guest] = ["pump-1", "pump-2"].map(|name| gateway.connect(name).unwrap());
    owner.handle.stop().await;
    guest.handle.stop().await;
    owner.connection.stop().await;
    assert_eq!(state(&guest), ConnectionState::Stopped);
    let again = gateway.connect("pump-2").unwrap();
    assert_ne!(state(&again), ConnectionState::Stopped);
    gateway.disconnect().await;
    assert_eq!(state(&again), ConnectionState::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_has_room_for_what_all_its_devices_ask_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::open(configuration(dir.path())).unwrap();
    let alone = host_mqtt::Limits::default().queue_max;
    for device in ["pump-1", "pump-2"] {
        // The other one's subscriptions: 7 of its agent, 8 of its notices.
        let config = gateway.connection_config(device).unwrap();
        assert!(config.limits.queue_max >= alone + 15, "{device}");
    }
}

/// A connection of the application's, which nobody polls: to share it is enough.
fn own_connection(gateway: &Gateway) -> SharedConnection {
    let own = gateway.connection_config("pump-1").unwrap();
    let (client, _) = AsyncClient::builder(own.mqtt_options().unwrap()).build();
    SharedConnection::new(client).unwrap()
}

#[track_caller]
fn check_refused<T>(second: Result<T, GatewayError>) {
    let why = chain(&second.err().unwrap());
    assert!(why.contains("\"pump-1\" has an agent"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_runs_gets_no_second_agent_on_any_connection() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::open(configuration(dir.path())).unwrap();
    let [one, other] = [(); 2].map(|()| own_connection(&gateway));
    let agent = gateway.share("pump-1", &one).unwrap();
    for connection in [&one, &other] {
        check_refused(gateway.share("pump-1", connection));
    }
    check_refused(gateway.connect("pump-1"));
    check_refused(gateway.prepare("pump-1"));
    assert!(agent.pulse().is_some(), "the first one goes on");
    let neighbour = gateway.share("pump-2", &other).unwrap();

    // A kept handle is no agent.
    agent.stop().await;
    let prepared = gateway.prepare("pump-1").unwrap();
    check_refused(gateway.share("pump-1", &one));
    drop(prepared);
    let again = gateway.share("pump-1", &one).unwrap();
    check_refused(gateway.connect("pump-1"));
    again.stop().await;
    let connected = gateway.connect("pump-1").unwrap();
    check_refused(gateway.share("pump-1", &other));
    connected.handle.stop().await;
    neighbour.stop().await;
    gateway.disconnect().await;
}
