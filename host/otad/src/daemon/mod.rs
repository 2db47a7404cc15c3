//! `otad run`: the life of the daemon process.
//!
//! ```text
//! configuration, checks ─▶ lock ─▶ gateway ─▶ devices, control socket ─▶ SIGTERM, SIGINT ─▶ stop, DISCONNECT, exit 0
//!                                                      └─▶ file 0 is otad itself ─▶ the same, exit 4
//! ```
//!
//! A stopped daemon ends its devices without telling their agents: what they do goes on from the journal at the next
//! start. Not here: what a device is made of (`gateway`).

mod backend;
mod story;

use std::sync::Arc;
use std::time::Duration;

use host_runtime::types::FileId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::config::{self, Config, ConfigError};
use crate::control::group;
use crate::control::server::{Access, Server};
use crate::exit::{Exit, Failed, Verb};
use crate::gateway::{ConnectedDevice, Gateway};
use backend::Devices;

/// How long an orderly end may take; service managers wait 90 s before they kill.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Why the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Signal(&'static str),
    Restart(FileId),
}

/// Run until a signal, or until a target that is otad itself is to be restarted.
///
/// # Errors
/// [`Exit::Config`] for what the operator must mend, [`Exit::Retry`] if another instance runs, [`Exit::Failed`]
/// otherwise.
pub async fn run(config: Config) -> Verb {
    tracing::info!("otad version {}", env!("CARGO_PKG_VERSION"));
    check(&config)?;
    let access = access(&config)?;
    let mut signals = Signals::new()?;
    let gateway = Gateway::open(config)?;
    tracing::info!("agent {}", gateway.agent());
    let config = gateway.config();
    let mut devices = Vec::with_capacity(config.devices.len());
    for device in &config.devices {
        let name = &device.name.value;
        let mqtt = &device.mqtt;
        tracing::info!(
            "{name}: creating MQTT client `{}` ({} bytes) for {}:{}",
            mqtt.client_id.value,
            mqtt.client_id.value.len(),
            mqtt.endpoint.value,
            mqtt.port
        );
        devices.push(gateway.connect(name)?);
    }
    let socket = &config.daemon.control_socket.value;
    let server = Server::bind(socket, access).map_err(|e| {
        Failed::new(
            Exit::Failed,
            format!("control socket {}: {e}", socket.display()),
        )
    })?;
    let mut tasks = JoinSet::new();
    for device in &devices {
        tasks.spawn(story::tell(device.handle.clone()));
    }
    let backend = Arc::new(Devices(devices.clone()));
    tasks.spawn(server.serve(backend));
    tracing::info!("ready; control socket {}", socket.display());

    let ending = tokio::select! {
        name = signals.next() => Ending::Signal(name),
        file = restart_requested(&devices) => Ending::Restart(file),
    };
    match ending {
        Ending::Signal(name) => tracing::info!("{name}: stopping"),
        Ending::Restart(file) => {
            tracing::info!("file {file} is this program: stopping, to be started again");
        }
    }
    if tokio::time::timeout(STOP_MAX, stop(devices)).await.is_err() {
        tracing::warn!("not everything ended within {} s", STOP_MAX.as_secs());
    }
    tasks.shutdown().await;
    Ok(match ending {
        Ending::Signal(_) => Exit::Done,
        Ending::Restart(_) => Exit::RestartPending,
    })
}

/// First the devices, so that nothing new is sent; then the connections, in order.
async fn stop(devices: Vec<ConnectedDevice>) {
    let mut ends = JoinSet::new();
    for device in devices {
        ends.spawn(async move {
            device.handle.stop().await;
            device.connection.stop().await;
        });
    }
    while ends.join_next().await.is_some() {}
}

async fn restart_requested(devices: &[ConnectedDevice]) -> FileId {
    let mut waiting = JoinSet::new();
    for device in devices {
        let handle = device.handle.clone();
        waiting.spawn(async move { handle.restart_requested().await });
    }
    loop {
        match waiting.join_next().await {
            Some(Ok(file)) => return file,
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }
}

/// Log what the machine says about the configuration; refuse on an error.
fn check(config: &Config) -> Result<(), Failed> {
    for warning in config.development.warnings() {
        tracing::warn!("{warning}");
    }
    let (errors, warnings): (Vec<_>, Vec<_>) =
        config::check(config).into_iter().partition(|f| f.is_error);
    for finding in warnings {
        if finding.diagnostic.origin != config::Origin::File {
            tracing::warn!("{}", finding.diagnostic.message);
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    let text = std::fs::read_to_string(&config.file).unwrap_or_default();
    let diagnostics = errors.into_iter().map(|f| f.diagnostic).collect();
    let error = ConfigError::new(&config.file, &text, diagnostics);
    Err(Failed::new(Exit::Config, error.to_string()))
}

fn access(config: &Config) -> Result<Access, Failed> {
    let group = match &config.daemon.control_group {
        None => None,
        Some(name) => Some(group::id(&name.value).ok_or_else(|| {
            Failed::new(
                Exit::Config,
                format!("no group \"{}\" on this machine", name.value),
            )
        })?),
    };
    Ok(Access {
        owner: rustix::process::geteuid().as_raw(),
        group,
    })
}

/// The signals that end the daemon.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failed> {
        let listen = |kind| {
            signal(kind).map_err(|e| Failed::chain(Exit::Failed, "listening for signals", &e))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
