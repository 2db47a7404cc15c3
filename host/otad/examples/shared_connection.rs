//! An application that owns its MQTT connection and lets the OTA agent share it.
//!
//! It connects and reconnects as it likes, suspends the agent while there is no connection, prints the agent's state and
//! counters once a second, and decides in a callback of its own when a verified image is activated and whether a new one
//! is good. Its configuration has `activation = "deferred"` and `self_test = "external"`. Run it with
//!
//! ```text
//! cargo run --example shared_connection -- pump-1/otad.toml
//! ```

#![expect(clippy::print_stdout, reason = "its console is what it shows")]

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use host_mqtt::SharedConnection;
use host_runtime::agent::Command;
use host_runtime::status::event_name;
use host_runtime::supervisor::DeviceHandle;
use otad::gateway::Gateway;
use rumqttc::{AsyncClient, Event, EventLoop, Packet};

/// Numbers of `application-event.kind` that this application acts on.
const ACTIVATE: u32 = 0;
const START_TEST: u32 = 2;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    println!("application version {}", env!("CARGO_PKG_VERSION"));
    let file = std::env::args()
        .nth(1)
        .ok_or("usage: shared_connection CONFIG")?;
    let gateway = Gateway::open(otad::config::load(Path::new(&file))?)?;
    let thing = gateway.config().devices[0].name.value.clone();

    println!("creating MQTT client");
    let options = gateway.connection_config(&thing)?.mqtt_options()?;
    let (client, events) = AsyncClient::builder(options).capacity(64).build();
    let shared = SharedConnection::new(client)?;
    let pending = gateway.prepare(&thing)?;
    let transport = shared.attach(
        &thing,
        pending.mailbox(),
        gateway.reply_subscriptions(&thing)?,
    )?;
    let device = pending.start(Box::new(transport))?;
    tokio::spawn(connection(events, shared, device.clone()));
    tokio::spawn(callback(device.clone()));
    loop {
        let status = device.status().await;
        let c = status.counters;
        println!(
            "State: {}  Received: {}  Queued: {}  Processed: {}  Dropped: {}",
            status.state_name, c.received, c.queued, c.processed, c.dropped
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The application's own connection; the agent never touches it.
async fn connection(mut events: EventLoop, shared: SharedConnection, device: DeviceHandle) {
    loop {
        match events.poll().await {
            Ok(event) => {
                shared.incoming(&event);
                if matches!(event, Event::Incoming(Packet::ConnAck(_))) {
                    println!("connected to broker");
                    report("resume", device.command(Command::Resume).await);
                }
            }
            Err(error) => {
                println!("disconnected: {error}");
                report("suspend", device.command(Command::Suspend).await);
                shared.lost(&error);
                println!("retrying network connection in 1 s");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// What the application does about the agent's events.
async fn callback(device: DeviceHandle) {
    while let Some(stored) = device.next_event().await {
        let event = stored.event;
        println!(
            "received {} callback from the OTA agent",
            event_name(event.kind)
        );
        let file = event.file.unwrap_or(0);
        match event.kind {
            // Here the application finishes what must not be interrupted.
            ACTIVATE => report("activate", device.command(Command::Activate(file)).await),
            // Here it would look whether everything works; then it says so.
            START_TEST => {
                let passed = Command::TestResult {
                    file,
                    failure: None,
                };
                report("accept the image", device.command(passed).await);
            }
            // A failed update needs nothing: the old image runs on, the agent waits for the next job.
            _ => {}
        }
    }
}

fn report(what: &str, result: Result<(), host_runtime::types::Failure>) {
    match result {
        Ok(()) => println!("{what}: done"),
        Err(failure) => println!("{what}: {failure}"),
    }
}
