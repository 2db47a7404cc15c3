//! An application that owns its MQTT connection and lets the OTA agent share it.
//!
//! It connects and reconnects as it likes, suspends the agent while there is no connection, prints the agent's state and
//! counters once a second, and decides in a callback of its own when a verified image is activated and whether a new one
//! is good. Its configuration has `activation = "deferred"` and `self_test = "external"`. Run it with
//!
//! ```text
//! cargo run --example shared_connection -- pump-1/otad.toml
//! ```

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its console is what it shows"
)]

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use otad::application::rumqttc::{AsyncClient, Event, EventLoop, Packet};
use otad::application::{
    ApplicationEvent, Command, DeviceHandle, Gateway, SharedConnection, chain, event, event_name,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() {
    if let Err(error) = application().await {
        eprintln!("{}", chain(&*error));
        std::process::exit(1);
    }
}

async fn application() -> Result<(), Box<dyn Error>> {
    println!("application version {}", env!("CARGO_PKG_VERSION"));
    let file = std::env::args_os().nth(1);
    let file = file.ok_or("usage: shared_connection CONFIG")?;
    let gateway = Gateway::open(otad::config::load(Path::new(&file))?)?;
    let thing = gateway.config().devices[0].name.value.clone();

    println!("creating MQTT client");
    let options = gateway.connection_config(&thing)?.mqtt_options()?;
    let (client, events) = AsyncClient::builder(options).capacity(64).build();
    let shared = SharedConnection::new(client)?;
    let agent = gateway.share(&thing, &shared)?;
    tokio::spawn(connection(events, shared, agent.clone()));

    let mut second = interval(SECOND);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = second.tick() => print_statistics(&agent).await,
            _ = interrupt.recv() => order(&agent, Command::Shutdown { unsubscribe: true }).await,
            next = agent.next_event() => match next {
                Some(next) => callback(&agent, next.event).await,
                None => break,
            },
        }
    }
    gateway.ended();
    println!("the agent has stopped");
    Ok(())
}

/// The application's own connection; the agent never touches it.
async fn connection(mut events: EventLoop, shared: SharedConnection, agent: DeviceHandle) {
    loop {
        match events.poll().await {
            Ok(event) => {
                shared.incoming(&event);
                if matches!(event, Event::Incoming(Packet::ConnAck(_))) {
                    println!("connected to broker");
                    order(&agent, Command::Resume).await;
                }
            }
            Err(error) => {
                println!("disconnected: {error}");
                order(&agent, Command::Suspend).await;
                shared.lost(&error);
                println!("retrying network connection in 1 s");
                sleep(SECOND).await;
            }
        }
    }
}

async fn print_statistics(agent: &DeviceHandle) {
    let status = agent.status().await;
    let c = status.counters;
    println!(
        "State: {}  Received: {}  Queued: {}  Processed: {}  Dropped: {}",
        status.state_name, c.received, c.queued, c.processed, c.dropped
    );
}

/// What the application does about the agent's events.
async fn callback(agent: &DeviceHandle, news: ApplicationEvent) {
    println!("received {} callback", event_name(news.kind));
    let file = news.file.unwrap_or(0);
    match news.kind {
        // A verified image waits. What must not be interrupted is finished first; then it may restart.
        event::ACTIVATE => {
            sleep(SECOND).await;
            order(agent, Command::Activate(file)).await;
        }
        // The new image runs. Here the application looks whether everything works, and gives its verdict.
        event::START_TEST => {
            let failure = None;
            order(agent, Command::TestResult { file, failure }).await;
        }
        // The update failed; the old image runs on, and the agent waits for the next job.
        event::FAIL => println!("update failed: {:?}", news.failure),
        _ => {}
    }
}

async fn order(agent: &DeviceHandle, command: Command) {
    let what = format!("{command:?}");
    match agent.command(command).await {
        Ok(()) => println!("{what}: done"),
        Err(failure) => println!("{what}: {failure}"),
    }
}
