//! `otad run`: the life of the daemon process.
//!
//! ```text
//! configuration, checks ─▶ lock ─▶ gateway ─▶ control socket, devices ─▶ SIGTERM, SIGINT ─▶ stop, DISCONNECT, exit 0
//!                                                      └─▶ file 0 is otad itself ─▶ the same, exit 4
//! ```
//!
//! A stopped daemon ends its devices without telling their agents: what they do goes on from the journal at the next
//! start. The end is bounded: a second signal, or too long a wait, ends the process at once (`signals.rs`). Not here:
//! what a device is made of (`gateway`).

mod backend;
mod signals;
mod story;

use std::sync::Arc;
use std::time::Duration;

use host_runtime::types::FileId;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::{self, Config, ConfigError};
use crate::control::group;
use crate::control::server::{Access, Server};
use crate::exit::{Exit, Failed, Verb};
use crate::gateway::{ConnectedDevice, Gateway};
use crate::hooks;
use backend::{Devices, FailedDevice};
use signals::Signals;

/// How long an orderly end may take; service managers wait 90 s before they kill.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Why the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Signal(&'static str),
    Restart(FileId),
    /// Every device has ended by itself: the service manager starts the daemon again, and all of them with it.
    Alone,
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
    let mut signals = Signals::listen()?;
    let gateway = Gateway::open(config)?;
    tracing::info!("agent {}", gateway.agent());
    let socket = &gateway.config().daemon.control_socket.value;
    // Before anything is connected: whoever asks while the devices are set up waits for the answer.
    let server = Server::bind(socket, access).map_err(|e| {
        Failed::new(
            Exit::Failed,
            format!("control socket {}: {e}", socket.display()),
        )
    })?;
    let Devices { running, failed } = connect(&gateway)?;
    let mut tasks = JoinSet::new();
    for device in &running {
        tasks.spawn(story::tell(device.handle.clone()));
    }
    let places = Arc::new(Semaphore::new(hooks::HOOKS_MAX));
    for device in &running {
        let configured = gateway.config().device(Some(device.handle.name()));
        let plan = configured.and_then(|c| hooks::Plan::new(gateway.config(), c, &places));
        if let Some(plan) = plan {
            let (handle, former) = (device.handle.clone(), device.former_events);
            tasks.spawn(hooks::serve(handle, plan, former));
        }
    }
    let backend = Arc::new(Devices {
        running: running.clone(),
        failed,
    });
    tasks.spawn(server.serve(backend));
    tracing::info!("ready; control socket {}", socket.display());

    let ending = tokio::select! {
        name = signals.next() => Ending::Signal(name),
        file = restart_requested(&running) => Ending::Restart(file),
        () = all_ended(&running) => Ending::Alone,
    };
    signals.end();
    match ending {
        Ending::Signal(name) => tracing::info!("{name}: stopping"),
        Ending::Restart(file) => {
            tracing::info!("file {file} is this program: stopping, to be started again");
        }
        Ending::Alone => tracing::error!("no device is left: stopping"),
    }
    if tokio::time::timeout(STOP_MAX, stop(running)).await.is_err() {
        tracing::warn!("not everything ended within {} s", STOP_MAX.as_secs());
    }
    tasks.shutdown().await;
    Ok(match ending {
        Ending::Signal(_) => Exit::Done,
        Ending::Restart(_) => Exit::RestartPending,
        Ending::Alone => Exit::Failed,
    })
}

/// Set up every device. One that cannot be (a damaged record, a refused journal, a missing plugin) is logged and shown
/// in the status; the others go on.
///
/// # Errors
/// None can be: those of the first.
fn connect(gateway: &Gateway) -> Result<Devices, Failed> {
    let mut running = Vec::new();
    let mut failed = Vec::new();
    let mut first = None;
    for device in &gateway.config().devices {
        let name = &device.name.value;
        let mqtt = &device.mqtt;
        tracing::info!(
            "{name}: creating MQTT client `{}` ({} bytes) for {}:{}",
            mqtt.client_id.value,
            mqtt.client_id.value.len(),
            mqtt.endpoint.value,
            mqtt.port
        );
        match gateway.connect(name) {
            Ok(device) => running.push(device),
            Err(error) => {
                let error = Failed::from(error);
                tracing::error!(
                    "{name}: does not run until this is mended and otad started again: {}",
                    error.text
                );
                failed.push(FailedDevice {
                    name: name.clone(),
                    why: error.text.clone(),
                });
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if running.is_empty() => Err(error),
        Some(_) | None => Ok(Devices { running, failed }),
    }
}

/// Wait until no device is left, and say of each that ends that it has: nobody has stopped it.
async fn all_ended(devices: &[ConnectedDevice]) {
    let mut waiting = JoinSet::new();
    for device in devices {
        let handle = device.handle.clone();
        waiting.spawn(async move { handle.stopped().await });
    }
    while let Some(ended) = waiting.join_next().await {
        if let Ok(status) = ended {
            let why = status
                .last_error
                .as_deref()
                .unwrap_or("its agent was shut down");
            tracing::error!("{}: has ended: {why}", status.device);
        }
    }
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
